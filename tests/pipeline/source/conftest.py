"""Real repositories, made as their users make them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_WHO = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "Ada Ü", "EMAIL": "ada@example.com", "DATE": "2026-01-02T03:04:05Z"}.items()
}


@dataclass(frozen=True)
class Repository:
    folder: Path

    @property
    def url(self) -> str:
        return str(self.folder)

    def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **_WHO}
        done = subprocess.run(
            ["git", "-C", self.folder, *arguments], env=environment, input=stdin, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def write(self, path: str, content: str | bytes) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, message: str = "a change", **files: str | bytes) -> str:
        """Commits everything there is, and gives the commit."""
        for path, content in files.items():
            self.write(path, content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    made = Repository(folder)
    made.git("init", "--quiet", "--initial-branch=main")
    return made
