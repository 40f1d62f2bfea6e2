from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


Shipway = Callable[..., Answer]


@pytest.fixture
def shipway(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shipway:
    """Runs the command in this process, in an empty folder, with no settings but its own."""
    for name in os.environ:
        if name.startswith("SHIPWAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SHIPWAY_DATA", str(tmp_path / "data"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")

    def run(*arguments: str) -> Answer:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert "Traceback" not in out + err
        return Answer(code, out, err)

    return run
