"""Opening what an untrusted file tree calls by a path, without ever stepping out of that tree.

The kernel resolves (`openat2`): a path checked first and opened afterwards loses to whoever swaps a folder
for a link in between.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import InvalidInput, NotFound, SystemFailure
from engine.kernel import paths

NO_SYMLINKS = paths.RESOLVE_NO_SYMLINKS
BENEATH = paths.RESOLVE_BENEATH
IN_ROOT = paths.RESOLVE_IN_ROOT


def openat2(dir_fd: int, path: str, flags: int, mode: int = 0, resolve: int = IN_ROOT) -> int:
    """A new descriptor, close-on-exec; the magic links of /proc are never followed. Raises OSError."""
    if "\0" in path:
        raise InvalidInput("a path can't contain a NUL byte")
    return paths.openat2(dir_fd, path or ".", flags, mode=mode, resolve=resolve | paths.RESOLVE_NO_MAGICLINKS)


@contextmanager
def opened(dir_fd: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> Iterator[int]:
    """`openat2` below a root, closed again at the end."""
    fd = openat2(dir_fd, path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def make_dirs(root_fd: int, path: str, mode: int = 0o755, owner: tuple[int, int] | None = None) -> int:
    """`mkdir -p` below a root; a descriptor (O_PATH) of the folder. Links inside the root are followed.

    `owner` is given to the folders that are made. Raises InvalidInput where something else is in the way.
    """
    current = os.dup(root_fd)
    walked = ""
    try:
        for name in path.split("/"):
            if name in ("", "."):
                continue
            if name == "..":
                raise InvalidInput(f"path {path!r} must not contain '..'")
            walked = f"{walked}/{name}"
            try:
                following = openat2(root_fd, walked, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=current)
                    if owner is not None:
                        os.chown(name, *owner, dir_fd=current, follow_symlinks=False)
                following = openat2(root_fd, walked, os.O_PATH | os.O_DIRECTORY)
            os.close(current)
            current = following
    except OSError as error:
        os.close(current)
        raise InvalidInput(f"can't make the folder {path!r}: {error.strerror} at {walked!r}") from None
    except BaseException:
        os.close(current)
        raise
    return current


def root(path: Path) -> int:
    """The descriptor to give as `dir_fd`."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(f"can't open {path}: {error.strerror}", error.errno) from None


def stat_of(root_fd: int, path: str, *, follow: bool = True) -> os.stat_result:
    """Raises NotFound."""
    try:
        with opened(root_fd, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW)) as fd:
            return os.fstat(fd)
    except NotADirectoryError:
        raise InvalidInput(f"{path}: not a directory") from None
    except OSError as error:
        raise NotFound(f"Could not find the file {path}: {error.strerror}") from None


def read_small(fd: int, limit: int) -> bytes:
    """A regular file's content behind an O_PATH descriptor, at most `limit` bytes; b"" for anything else.

    Opening through /proc/self/fd gives the very file that was checked: neither a swapped link nor a FIFO that
    would block us can come in between.
    """
    if not modes.S_ISREG(os.fstat(fd).st_mode):
        return b""
    real = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        pieces, size = [], 0
        while size < limit and (piece := os.read(real, min(1 << 16, limit - size))):
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)
    finally:
        os.close(real)
