"""Blobs that are still on their way: one thread brings the bytes, another reads them from their start."""

from __future__ import annotations

import os
import threading


class Withdrawn(Exception):
    """What was read so far does not count: the bytes were taken back, or nobody wants them any more."""


class Arrival:
    """A file that grows, as a stream. `read` waits for bytes that are not there yet.

    One reader only. The one who brings the bytes says `grew`, and at last `end` or `withdraw`.
    """

    def __init__(self, fd: int, size: int = 0, *, whole: bool = False) -> None:
        """Reads the file behind `fd`, of which `size` bytes are there."""
        self._fd = os.dup(fd)
        self._at = 0
        self._size = size
        self._whole = whole
        self._withdrawn = False
        self._changed = threading.Condition()

    def grew(self, size: int) -> None:
        """There are `size` bytes now."""
        with self._changed:
            self._size = size
            self._changed.notify()

    def end(self) -> None:
        """All bytes are there."""
        with self._changed:
            self._whole = True
            self._changed.notify()

    def withdraw(self) -> None:
        """Whoever reads gets Withdrawn, now or at the next read."""
        with self._changed:
            self._withdrawn = True
            self._changed.notify()

    @property
    def waits(self) -> bool:
        """Whether `read` would wait now."""
        with self._changed:
            return self._at >= self._size and not self._whole and not self._withdrawn

    def read(self, count: int = -1, /) -> bytes:
        """At most `count` bytes, at least one; none at the end. Raises Withdrawn."""
        if count < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        with self._changed:
            while self.waits:
                self._changed.wait()
            if self._withdrawn:
                raise Withdrawn
            count = min(count, self._size - self._at)
            if not count:
                return b""
            fd = self._fd
        data = os.pread(fd, count, self._at)
        if not data:
            raise Withdrawn  # cut off meanwhile
        self._at += len(data)
        return data

    def close(self) -> None:
        """Lets go of the file. The reader's to call, or whoever waited for its end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
