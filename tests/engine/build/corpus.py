"""Where the shared corpus of public cases lies, beside the project."""

from __future__ import annotations

from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus"


def corpus_file(name: str) -> Path:
    """The file, or a skip where the corpus is absent. For use at collection time."""
    path = CORPUS / name
    if not path.exists():
        pytest.skip(f"the corpus is not here: no {path}", allow_module_level=True)
    return path
