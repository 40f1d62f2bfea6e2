"""Which sources of ADD are URLs and which are git repositories.

https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_SCP_LIKE = re.compile(r"(?:[a-zA-Z0-9._-]+@)[a-zA-Z0-9._\[\]:-]*?:(?!//).+")


@dataclass(frozen=True)
class GitSource:
    """A repository, what to take of it (empty for its HEAD) and the folder in it (empty for the whole)."""

    remote: str
    ref: str = ""
    subdirectory: str = ""


def is_url(source: str) -> bool:
    """Whether ADD downloads it as a file."""
    return source.startswith(("http://", "https://")) and not is_git(source)


def is_git(source: str) -> bool:
    return parse_git(source) is not None


def parse_git(source: str) -> GitSource | None:
    """`git@host:path`, `git://`, `ssh://`, `https://….git`, each with `#ref:folder`; None for all else."""
    remote, _, fragment = source.partition("#")
    if source.startswith(("http://", "https://")):
        if not urlsplit(remote).path.endswith(".git"):
            return None
    elif not source.startswith(("git://", "ssh://")) and not _SCP_LIKE.match(remote):
        return None
    ref, _, folder = fragment.partition(":")
    return GitSource(remote, ref, folder)
