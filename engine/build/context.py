"""A build's context: a folder, or the tar that a client sends (`spool`). Its Dockerfile and its .dockerignore."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engine.build.filematch import clean
from engine.build.ignore import IgnoreRules, read_patterns
from engine.build.lexer import MAX_FILE
from engine.build.trees import FILE, FolderTree, Tree
from engine.errors import InvalidInput


class Context(Protocol):
    """Where a build's files come from."""

    def tree(self, rules: IgnoreRules | None = None) -> Tree:
        """The files, without those that `rules` ignore. The caller closes it."""

    def close(self) -> None:
        """Gives back disk space and descriptors."""


class FolderContext:
    """A folder of this machine, unchanged while the build goes on."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InvalidInput(f"build context {path}: no such folder")
        self._path = path

    def tree(self, rules: IgnoreRules | None = None) -> Tree:
        return FolderTree.at(self._path, own_root=True, rules=rules)

    def close(self) -> None:
        """A folder holds nothing."""


def read_ignore_rules(tree: Tree, dockerfile: str) -> IgnoreRules:
    """`NAME.dockerignore` beside the Dockerfile where it is, else the context's `.dockerignore`."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        path = tree.resolve(clean("/" + name).lstrip("/"))
        entry = tree.entry(path) if path else None
        if path and entry and entry.kind == FILE:
            return IgnoreRules(read_patterns(tree.read(path, MAX_FILE)))
    return IgnoreRules(())


def read_dockerfile_bytes(tree: Tree, name: str) -> bytes:
    """The Dockerfile in the context. Raises InvalidInput in Docker's words."""
    for candidate in (name,) if name else ("Dockerfile", "dockerfile"):
        path = tree.resolve(clean("/" + candidate).lstrip("/"))
        entry = tree.entry(path) if path else None
        if path and entry and entry.kind == FILE:
            if entry.size > MAX_FILE:
                raise InvalidInput(f"{candidate} has {entry.size} bytes, more than the {MAX_FILE} allowed")
            return tree.read(path, MAX_FILE)
        if entry:
            raise InvalidInput(f"the Dockerfile ({candidate}) is a {entry.kind}: it must be a file")
    raise InvalidInput(f"Cannot locate specified Dockerfile: {name or 'Dockerfile'}")
