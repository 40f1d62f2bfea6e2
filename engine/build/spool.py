"""Tars that COPY and ADD take from: a build's context as a client sends it, or an archive.

None is ever unpacked: the files' bytes go to one spool file as they come, hashed on the way, and are taken from there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from engine.build.filematch import clean
from engine.build.ignore import IgnoreRules
from engine.build.trees import (
    BLOCK,
    CHAR,
    FIFO,
    FILE,
    FOLDER,
    LINK,
    Entry,
    Tree,
    copy_bytes,
    followed,
    with_parents,
)
from engine.errors import InvalidInput
from engine.images import tarstream
from engine.images.unpack import Limits

_LIMITS = Limits()  # what a layer may cost, an archive may
_KINDS = {
    tarstream.REGULAR: FILE, tarstream.SYMLINK: LINK, tarstream.CHAR: CHAR, tarstream.BLOCK_DEVICE: BLOCK,
    tarstream.DIRECTORY: FOLDER, tarstream.FIFO: FIFO,
}  # fmt: skip


class _Spooled(NamedTuple):
    entry: Entry
    offset: int
    digest: str
    xattrs: dict[str, bytes]


class SpooledContext:
    """A context that came as a tar. Its spool has no name, so nothing is left whatever happens."""

    def __init__(self, spool: int, files: dict[str, _Spooled], implied: frozenset[str] = frozenset()) -> None:
        self._spool = spool
        self._files = files
        self.implied = implied
        """The folders that are only there for what is in them: the tar has none by their names."""

    def tree(self, rules: IgnoreRules | None = None) -> Tree:
        files = self._files
        if rules:
            kept = {path for path in files if not rules.matches(path)}
            kept |= {parent for path in kept for parent in with_parents(path)}
            files = {path: file for path, file in files.items() if path in kept}
        return _SpooledTree(self._spool, files)

    def close(self) -> None:
        if self._spool >= 0:
            os.close(self._spool)
            self._spool = -1


class _SpooledTree(Tree):
    def __init__(self, spool: int, files: dict[str, _Spooled]) -> None:
        self._spool = spool
        self._files = files
        self._names: dict[str, list[str]] = {}
        for path in files:
            folder, _, name = path.rpartition("/")
            self._names.setdefault(folder, []).append(name)

    def entry(self, path: str) -> Entry | None:
        if not path:
            return Entry(FOLDER, 0o755, 0, 0, 0, 0)
        file = self._files.get(path)
        return file.entry if file else None

    def children(self, path: str) -> Iterator[tuple[str, Entry]]:
        prefix = f"{path}/" if path else ""
        for name in sorted(self._names.get(path, ())):
            yield name, self._files[prefix + name].entry

    def digest(self, path: str) -> str:
        return self._files[path].digest

    def copy_to(self, path: str, target: int) -> None:
        file = self._files[path]
        if file.entry.size < 65_536:  # one read and one write beat the kernel's own copying
            os.write(target, os.pread(self._spool, file.entry.size, file.offset))
        else:
            copy_bytes(self._spool, target, file.offset, file.entry.size)

    def read(self, path: str, limit: int) -> bytes:
        file = self._files[path]
        return os.pread(self._spool, min(limit, file.entry.size), file.offset)

    def xattrs(self, path: str) -> dict[str, bytes]:
        # The context's own folder is in no archive.
        return self._files[path].xattrs if path else {}


def spool(
    chunks: Iterable[bytes | memoryview], folder: Path, *, limit: int = _LIMITS.bytes, archive: bool = False
) -> SpooledContext:
    """Reads an uncompressed tar whole; `limit` bytes of content at most. Raises InvalidInput.

    A build context's files are all root's. In an `archive` they are whose they are, and its links lead on.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryFile(dir=folder, buffering=1 << 20) as file:
        files: dict[str, _Spooled] = {}
        at = 0
        reader = tarstream.TarReader(chunks)
        for member in reader:
            path = _path(os.fsdecode(member.name))
            if archive:
                path = _through_links(files, path)
            if not path:
                continue
            if len(files) >= _LIMITS.entries:
                raise InvalidInput(f"the archive has more than {_LIMITS.entries} files")
            if member.type == tarstream.LINK:
                target = clean("/" + os.fsdecode(member.linkname)).lstrip("/")
                _hard_link(files, path, _through_links(files, target) if archive else target)
                continue
            kind = _KINDS.get(member.type)
            if kind is None:
                continue
            digest, size = "", 0
            if kind == FILE:
                digest, size = _keep(reader, member.size, file, at, limit)
            entry = Entry(
                kind,
                member.mode & 0o7777,
                member.uid if archive else 0,
                member.gid if archive else 0,
                size,
                member.mtime_ns,
                os.fsdecode(member.linkname) if kind == LINK else "",
                os.makedev(member.devmajor, member.devminor) if kind in (CHAR, BLOCK) else 0,
            )
            _forget(files, path, kind)
            files[path] = _Spooled(entry, at, digest, member.xattrs)
            at += size
        implied = _complete(files)
        file.flush()
        return SpooledContext(os.dup(file.fileno()), files, implied)


def _path(name: str) -> str:
    """A member's path below the context; empty for the context itself."""
    path = name.removeprefix("./").rstrip("/")
    if path.startswith((".", "/")) or "//" in path or "/." in path:
        return clean("/" + path).lstrip("/")
    return path


def _keep(reader: tarstream.TarReader, size: int, file: IO[bytes], at: int, limit: int) -> tuple[str, int]:
    """Appends a member's content to the spool: its digest and its size."""
    if at + size > limit:
        raise InvalidInput(f"the archive has more than {limit} bytes")
    hasher = hashlib.sha256()
    written = 0
    for offset, piece in reader.content():
        for hole in _zeros(offset - written):
            hasher.update(hole)
            file.write(hole)
        hasher.update(piece)
        file.write(piece)
        written = offset + len(piece)
    for hole in _zeros(size - written):
        hasher.update(hole)
        file.write(hole)
    return hasher.hexdigest(), size


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, 1 << 20))
        count -= 1 << 20


def _hard_link(files: dict[str, _Spooled], path: str, target: str) -> None:
    known = files.get(target)
    if known is None or known.entry.kind != FILE:
        raise InvalidInput(f"archive: {path} is a hard link to {target}, which is not there before it")
    if known.entry.same is None:
        known = files[target] = known._replace(entry=known.entry._replace(same=(id(files), target)))
    files[path] = known


def _forget(files: dict[str, _Spooled], path: str, kind: str) -> None:
    """A name that comes again replaces what it was; a folder that stops to be one takes all below along."""
    old = files.get(path)
    if old and old.entry.kind == FOLDER and kind != FOLDER:
        for below in [name for name in files if name.startswith(path + "/")]:
            del files[below]


def _through_links(files: dict[str, _Spooled], path: str) -> str:
    """Where `path` is when links among its parents are followed, inside of the archive, as it stands so far."""
    *parents, name = path.split("/")
    if not any(file.entry.kind == LINK for parent in with_parents("/".join(parents)) if (file := files.get(parent))):
        return path

    def entry_of(folder: str) -> Entry | None:
        known = files.get(folder)
        return known.entry if known else None

    folder = followed("/".join(parents), entry_of, missing_ok=True)
    if folder is None:
        raise InvalidInput(f"archive: {path} lies below links that lead nowhere")
    return f"{folder}/{name}".lstrip("/")


def _complete(files: dict[str, _Spooled]) -> frozenset[str]:
    """Adds the folders that the tar left out. A file among something's parents is no archive of anyone's."""
    implied: set[str] = set()
    for path in list(files):
        parent = path.rpartition("/")[0]
        while parent:
            known = files.get(parent)
            if known is not None:
                if known.entry.kind != FOLDER:
                    raise InvalidInput(f"archive: {path} lies below {parent}, which is no folder")
                break  # its own parents are looked after in its turn
            files[parent] = _Spooled(Entry(FOLDER, 0o755, 0, 0, 0, 0), 0, "", {})
            implied.add(parent)
            parent = parent.rpartition("/")[0]
    return frozenset(implied)
