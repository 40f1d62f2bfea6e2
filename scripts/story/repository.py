"""A bare git repository that tells Shipway of each push, and a working copy of the example beside it."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


class Repository:
    """`folder/NAME.git` and `folder/NAME`, which starts as `examples/NAME`; its hook's secret is made here."""

    def __init__(self, folder: Path, name: str = "web") -> None:
        self.name = name
        self.bare = folder / f"{name}.git"
        self.copy = folder / name
        self._secret_file = folder / f"{name}.secret"
        folder.mkdir(parents=True, exist_ok=True)
        self.secret = secrets.token_hex(32)
        self._secret_file.touch(mode=0o600)
        self._secret_file.write_text(self.secret)

    def create(self, hook_url: str, registry: str, publish: int) -> None:
        """Lays out both, with the example's registry and port set to where this system has them."""
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), cwd=self.bare.parent)
        hook = self.bare / "hooks" / "post-receive"
        shutil.copy(_ROOT / "examples" / "hooks" / "post-receive", hook)
        for name, value in [
            ("url", hook_url),
            ("repository", self.name),
            ("secret-file", str(self._secret_file)),
        ]:
            self._git("config", f"shipway.{name}", value, cwd=self.bare)
        shutil.copytree(_ROOT / "examples" / self.name, self.copy)
        definition = self.copy / "pipelines.yaml"
        text = definition.read_text().replace("localhost:7750", registry)
        definition.write_text(re.sub(r"publish: \d+", f"publish: {publish}", text))
        self._git("init", "--quiet", "--initial-branch=main", cwd=self.copy)
        self._git("remote", "add", "origin", str(self.bare), cwd=self.copy)

    def write(self, path: str, text: str) -> None:
        (self.copy / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.copy / path).read_text()

    def push(self, message: str) -> tuple[str, str]:
        """Commits everything and pushes; returns the commit's id and what the remote said."""
        self._git("add", "--all", cwd=self.copy)
        self._git("commit", "--quiet", "--message", message, cwd=self.copy)
        said = self._git("push", "--quiet", "origin", "main", cwd=self.copy)
        return self._git("rev-parse", "HEAD", cwd=self.copy).strip(), said

    def _git(self, *arguments: str, cwd: Path) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            env={**os.environ, **_AUTHOR},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"git {arguments[0]} failed: {done.stdout.strip()}")
        return done.stdout
