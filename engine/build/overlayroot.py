"""An image's layers seen as one folder, with or without a layer to write to.

The overlay is mounted but attached nowhere: it is a descriptor, no other process sees it, and it is gone when
the descriptor is closed, however the engine ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.errors import SystemFailure

_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432  # the same on every architecture
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_NODEV, _NOSUID, _READ_ONLY = 0x4, 0x2, 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    converted = [
        ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_char_p(argument) for argument in arguments
    ]
    result = int(_libc.syscall(ctypes.c_long(number), *converted))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@contextlib.contextmanager
def merged(lower: Sequence[Path], upper: Path | None = None, work: Path | None = None) -> Iterator[int]:
    """The folder as a descriptor; `lower` topmost first. Writable where `upper` and `work` are given.

    `work` is an empty folder on the file system of `upper`. Raises SystemFailure.
    """
    if upper is None and len(lower) == 1:
        fd = os.open(lower[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    elif upper is not None and not lower:
        fd = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        try:
            fd = _mounted(lower, upper, work)
        except OSError as error:
            raise SystemFailure(f"overlayfs of {len(lower)} layers: {error.strerror}", error.errno) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _mounted(lower: Sequence[Path], upper: Path | None, work: Path | None) -> int:
    context = _call(_SYS_FSOPEN, b"overlay", _CLOEXEC)
    try:
        _set_lower(context, lower)
        if upper is not None and work is not None:
            _set(context, "upperdir", os.fsencode(upper))
            _set(context, "workdir", os.fsencode(work))
            # The layer is thrown away or hashed whole: a crash in between costs nothing.
            _call(_SYS_FSCONFIG, context, _SET_FLAG, b"volatile", None, 0)
        # What another kernel's defaults would write into a layer nobody else could read.
        for name, value in (("redirect_dir", b"off"), ("metacopy", b"off"), ("index", b"off")):
            with contextlib.suppress(OSError):
                _set(context, name, value)
        _call(_SYS_FSCONFIG, context, _CREATE, None, None, 0)
        attributes = _NODEV | _NOSUID | (_READ_ONLY if upper is None else 0)
        return _call(_SYS_FSMOUNT, context, _CLOEXEC, attributes)
    finally:
        os.close(context)


def _set(context: int, name: str, value: bytes) -> None:
    _call(_SYS_FSCONFIG, context, _SET_STRING, name.encode(), value, 0)


def _set_lower(context: int, lower: Sequence[Path]) -> None:
    try:
        for path in lower:
            _set(context, "lowerdir+", os.fsencode(path))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Kernels before 6.5 take all of them at once, escaped, in a page.
        escaped = [os.fsencode(path).replace(b"\\", b"\\\\").replace(b":", b"\\:") for path in lower]
        _set(context, "lowerdir", b":".join(escaped))
