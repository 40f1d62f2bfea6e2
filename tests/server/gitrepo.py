"""Small git repositories to push to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PIPELINES = """\
pipelines:
  web:
    on:
      push: {branches: [main]}
    stages:
      image: {build: {context: .}}
      unit: {needs: image, test: {image: "${stages.image.image}", run: [./test]}}
  docs:
    on:
      push: {branches: [main], paths: ["docs/**"]}
    stages:
      site: {build: {context: docs}}
"""
_ENV = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
    "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


class GitRepo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    @property
    def url(self) -> str:
        return str(self.folder)

    def commit(self, message: str, files: dict[str, str]) -> str:
        """The commit's id."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env={**os.environ, **_ENV}, capture_output=True, text=True, check=True
        )
        return done.stdout
