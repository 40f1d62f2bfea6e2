"""The checkout that a command stands in: its pipeline file, and its commit as an event."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cli.errors import UsageError
from pipeline.definition.load import load
from pipeline.definition.models import Definition
from pipeline.definition.tree import MAX_BYTES
from pipeline.triggers.event import Event

DEFAULT_FILE = Path("pipelines.yaml")


def read_definition(file: Path) -> Definition:
    """Raises UsageError where there is no such file, DefinitionErrors where it is wrong."""
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(MAX_BYTES + 1)  # one that is longer is refused by what reads it
    except OSError as error:
        raise UsageError(f"{file}: {(error.strerror or 'unreadable').lower()}: name the file, or make it") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: this is not UTF-8 text") from None
    return load(text, str(file))


def local_event(folder: Path) -> Event:
    """Somebody's wish, at this folder's commit (if it is a git checkout) with its uncommitted changes."""
    sha, branch = _git(folder, "rev-parse", "HEAD"), _git(folder, "symbolic-ref", "--short", "-q", "HEAD")
    return Event(
        kind="manual",
        repository=str(folder),
        url=str(folder),
        ref=f"refs/heads/{branch}" if branch else "",
        sha=sha or "0" * 39 + "1",
        message=_git(folder, "log", "-1", "--format=%s"),
        author=_git(folder, "log", "-1", "--format=%an"),
        local=str(folder),
    )


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
