"""An image's layers seen as one folder, with or without a layer to write to.

The overlay is mounted but attached nowhere: it is a descriptor, no other process sees it, and it is gone when
the descriptor is closed, however the engine ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.errors import SystemFailure
from engine.kernel import libc
from engine.kernel.overlay import overlay


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
    attributes = libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOSUID
    layers = [str(path) for path in lower]
    if upper is None or work is None:
        return overlay(layers, attributes=attributes | libc.MOUNT_ATTR_RDONLY)
    # The layer is thrown away or hashed whole: a crash in between costs nothing.
    return overlay(layers, str(upper), str(work), options=["volatile"], attributes=attributes)
