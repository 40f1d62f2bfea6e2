"""What a worker keeps of its stages' files, and what a sweep takes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from workers.keeping import Keeping, held, sweep
from workers.process import owner
from workers.workspace import Workspaces

NOW = 1_000_000.0


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Folders a, b, c: 3, 2 and 1 hours old, 100 bytes each."""
    for name, hours in (("a", 3), ("b", 2), ("c", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.tar").write_bytes(bytes(100))
        os.utime(tmp_path / name, (NOW - hours * 3600,) * 2)
    return tmp_path


def names(folder: Path) -> str:
    return "".join(sorted(each.name for each in folder.iterdir()))


@pytest.mark.parametrize(
    ("keeping", "left"),
    [
        (Keeping(), "abc"),
        (Keeping(seconds=2.5 * 3600), "bc"),
        (Keeping(attempts=1), "c"),
        (Keeping(size=250), "bc"),
        (Keeping(size=0), ""),
    ],
)
def test_the_oldest_go_when_one_bound_is_passed(three: Path, keeping: Keeping, left: str) -> None:
    assert sweep(three, keeping, now=NOW) == 3 - len(left)
    assert names(three) == left


def test_what_an_attempt_holds_stays_until_it_ends(three: Path) -> None:
    with held(three / "a"), held(three / "empty"):
        assert sweep(three, Keeping(attempts=1, seconds=0), now=NOW) == 2
        assert names(three) == "aempty"
    assert names(three) == "a"
    assert sweep(three, Keeping(seconds=0), now=NOW) == 1


def test_what_a_sweep_took_meanwhile_is_made_anew(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    taken = os.open(folder, os.O_RDONLY)
    fcntl.flock(taken, fcntl.LOCK_EX)
    waiter = f":{os.fstat(taken).st_ino} "

    def put() -> None:
        with held(folder):
            (folder / "x.tar").touch()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(put)
        try:
            eventually(lambda: [line for line in _locks() if "->" in line and waiter in line], "waiting for the lock")
            folder.rmdir()
        finally:
            os.close(taken)
        done.result()
    assert (folder / "x.tar").exists()


def _locks() -> list[str]:
    """Those of the machine; an arrow points at who waits."""
    return Path("/proc/locks").read_text().splitlines()


def test_a_worker_without_artifacts_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none", Keeping()) == 0


def test_workspaces_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    pid = dead.stdout.decode().strip()
    mine = f"{owner()}-1.0.1-abc"
    for name in (mine, f"{pid}:77-1.0.1-abc", f"{os.getpid()}:1-reused-number", f"{pid}-as-older-versions-wrote"):
        (tmp_path / name).mkdir()
    Workspaces(tmp_path).sweep()
    assert [each.name for each in tmp_path.iterdir()] == [mine]
