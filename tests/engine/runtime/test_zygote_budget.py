"""What the zygote carries is carried by each child of its: copied at birth, torn down when it becomes a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {
    "asyncio",
    "dataclasses",
    "inspect",
    "logging",
    "msgspec",
    "platform",
    "pathlib",
    "shutil",
    "traceback",
    "typing",
}


def test_the_zygote_imports_little() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import engine.runtime.zygote.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())
