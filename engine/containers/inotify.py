"""Waiting for a folder to change: one inotify descriptor, read by the loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

from engine.containers import times
from engine.errors import SystemFailure

_MODIFY, _CLOSE_WRITE, _MOVED_TO, _CREATE, _DELETE_SELF = 0x2, 0x8, 0x80, 0x100, 0x400
_LONGEST_WAIT = 0.5
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Tells of writes, new files and renames in one folder. Close it."""

    def __init__(self, folder: Path) -> None:
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fd = int(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        if self._fd >= 0:
            wanted = _MODIFY | _CLOSE_WRITE | _MOVED_TO | _CREATE | _DELETE_SELF
            if _libc.inotify_add_watch(self._fd, os.fsencode(folder), wanted) < 0:
                number = ctypes.get_errno()
                os.close(self._fd)
                raise SystemFailure(f"can't watch {folder}: {os.strerror(number)}", number)
            self._loop.add_reader(self._fd, self._drain)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 1 << 16):
                self._changed.set()

    async def changed(self, until: int = 0) -> None:
        """Returns after the next change, at `until` (unix nanoseconds, 0: never), or after half a second.

        The bound is for what no file tells: that the writer is gone. It also serves hosts that have run out
        of inotify instances.
        """
        wait = _LONGEST_WAIT
        if until:
            wait = max(0.0, min(wait, (until - times.now()) / 1e9))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), wait)
        self._changed.clear()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
