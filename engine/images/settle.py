"""Finishes an unpacked layer with the help of the layers below it.

Some tars lack entries for the folders that their files are in: those folders must look as they do below, or
overlayfs would show ours. Some hold hard links to files of lower layers: those come up, as overlayfs itself
would bring them.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from engine.errors import InvalidInput
from engine.images.unpack import Unpacked, is_opaque, is_whiteout
from engine.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_STRICT = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS


def settle(layer: Path, unpacked: Unpacked, below: Sequence[Path]) -> None:
    """Completes what `unpacked` says is incomplete in `layer`. `below` is topmost first.

    Raises InvalidInput for a hard link whose target is in no layer.
    """
    root = os.open(layer, _FOLDER | os.O_CLOEXEC)
    try:
        for path in unpacked.implied:
            found = _find(below, path)
            if found is not None and found.is_dir() and not found.is_symlink():
                _look_alike(root, path, found)
        for entry, path in unpacked.absent_links:
            _link(root, entry.linkname, path, below)
    finally:
        os.close(root)


def _link(root: int, target: bytes, path: bytes, below: Sequence[Path]) -> None:
    wanted = b"/".join(part for part in target.split(b"/") if part not in (b"", b"."))
    found = _find(below, wanted)
    if found is None or not stat.S_ISREG(found.lstat().st_mode):
        raise InvalidInput(f"layer has a hard link to a file that is nowhere: {_show(target)}")
    source = _bring_up(root, wanted, found, below)
    parent, _, name = path.rpartition(b"/")
    fd = openat2(root, parent or b".", os.O_PATH | os.O_DIRECTORY)
    try:
        try:
            os.link(source, name, src_dir_fd=root, dst_dir_fd=fd, follow_symlinks=False)
        except FileExistsError:
            os.unlink(name, dir_fd=fd)
            os.link(source, name, src_dir_fd=root, dst_dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(fd)


def _bring_up(root: int, path: bytes, found: Path, below: Sequence[Path]) -> bytes:
    """Copies the file `found` to the same place in this layer, and says where that is."""
    folder = b""
    *parents, name = path.split(b"/")
    at = os.dup(root)
    try:
        for part in parents:
            folder = folder + b"/" + part if folder else part
            made = True
            try:
                os.mkdir(part, 0o755, dir_fd=at)
            except FileExistsError:
                made = False
            inner = openat2(at, part, _FOLDER, resolve=_STRICT)
            os.close(at)
            at = inner
            if made and (lower := _find(below, folder)):
                _look_alike(root, folder, lower)
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=at)
        except FileExistsError:
            return path
        with open(found, "rb") as source, os.fdopen(fd, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            _copy_attributes(source.fileno(), copy.fileno())
    finally:
        os.close(at)
    return path


def _look_alike(root: int, path: bytes, model: Path) -> None:
    fd = openat2(root, path or b".", _FOLDER)
    try:
        source = os.open(model, _FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _copy_attributes(source, fd)
        finally:
            os.close(source)
    finally:
        os.close(fd)


def _copy_attributes(source: int, target: int) -> None:
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for key in os.listxattr(source):
        if not key.startswith(("trusted.", "user.overlay.")):
            os.setxattr(target, key, os.getxattr(source, key))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _find(below: Sequence[Path], path: bytes) -> Path | None:
    """What `path` is in the merged view of the layers `below`; links on the way are not followed."""
    parts = [part for part in path.split(b"/") if part]
    for layer in below:
        here = layer
        hidden = False
        for index, part in enumerate(parts):
            here = here / os.fsdecode(part)
            try:
                found = here.lstat()
            except (FileNotFoundError, NotADirectoryError):
                break
            if is_whiteout(found):
                return None
            if index == len(parts) - 1:
                return here
            if not stat.S_ISDIR(found.st_mode):
                return None
            hidden = hidden or is_opaque(here)
        else:
            return here
        if hidden:
            return None
    return None


def _show(name: bytes) -> str:
    return repr(name[:200].decode("utf-8", "backslashreplace"))
