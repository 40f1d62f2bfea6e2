"""A record that changes often, on disk: written anew beside what it replaces, made durable a little later.

Replacing a file by a rename makes the file system write the new one out at once, which is most of what a change of
state would cost. So each change is a new file with the next number, and the one before goes; what is still there after
a while is synced and becomes the plain one. Whoever reads takes the newest that is whole: after a crash of the engine
the last change, after a power cut one of a moment ago.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_PLAIN = "config.json"
_PREFIX, _SUFFIX = "config.", ".json"


class Records:
    """One record a folder. `write` and `forget` are one thread's; `settle` may run beside them."""

    def __init__(self) -> None:
        self._numbers: dict[Path, int] = {}
        self._fresh: dict[Path, int] = {}
        """The number that is not durable yet, by folder."""
        self._known: set[Path] = set()
        """Those of them that were there at the last `settle`."""
        self._lock = threading.Lock()
        """For `_fresh`, between the two threads; nothing waits for a disk with it."""

    def write(self, folder: Path, raw: bytes) -> None:
        """Raises OSError, and then the record is what it was."""
        number = self._numbers.get(folder, 0) + 1
        path = _path(folder, number)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.write(fd, raw) != len(raw):
                raise OSError(28, os.strerror(28), path)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        self._numbers[folder] = number
        with self._lock:
            before = self._fresh.get(folder)
            self._fresh[folder] = number
        if before is not None:
            # Gone if it has become the plain one this very moment.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_path(folder, before))

    def read(self, folder: Path) -> Iterator[bytes]:
        """What there is, the newest first: the caller takes the first that makes sense to it."""
        numbers = sorted(_numbered(folder), reverse=True)
        self._numbers[folder] = max(numbers, default=0)
        if numbers:
            self._fresh[folder] = numbers[0]
        for path in [*(_path(folder, number) for number in numbers), f"{folder}/{_PLAIN}"]:
            with contextlib.suppress(OSError):
                yield Path(path).read_bytes()

    def forget(self, folder: Path) -> None:
        """The folder is no more."""
        with self._lock:
            self._numbers.pop(folder, None)
            self._fresh.pop(folder, None)

    @property
    def unsettled(self) -> bool:
        """Whether there is something that is not durable yet."""
        return bool(self._fresh)

    def settle(self, *, now: bool = False) -> None:
        """Makes durable what has changed before the last call, and with `now` everything. Blocking.

        What comes and goes between two calls costs no write to the disk at all.
        """
        fresh = dict(self._fresh)
        due = fresh if now else {folder: number for folder, number in fresh.items() if folder in self._known}
        self._known = fresh.keys() - due.keys()
        for folder, number in due.items():
            path = _path(folder, number)
            try:
                _sync(path)
                os.rename(path, f"{folder}/{_PLAIN}")
                _sync(str(folder))
            except FileNotFoundError:
                # A newer one is there, or the folder has gone.
                continue
            for older in _numbered(folder):
                if older < number:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(_path(folder, older))
            with self._lock:
                if self._fresh.get(folder) == number:
                    del self._fresh[folder]


def _path(folder: Path, number: int) -> str:
    return f"{folder}/{_PREFIX}{number}{_SUFFIX}"


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _numbered(folder: Path) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            number = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            if name == f"{_PREFIX}{number}{_SUFFIX}" and number.isdigit():
                yield int(number)
