"""A container's output → its log file (Docker's json-file format) and whoever is attached."""

from __future__ import annotations

import contextlib
import os
import time
from json.encoder import encode_basestring_ascii as _quoted

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

_PIECE = 16 * 1024
_CHUNK = 32 * 1024
_PLAIN = bytes({*range(0x20, 0x7F), 0x0A} - {0x22, 0x5C})
"""What stands in JSON as it is, and the end of a line."""


class LogFile:
    """Appends JSON lines; when the file is larger than `max_size` bytes, it becomes FILE.1, that FILE.2, ..."""

    def __init__(self, path: str, max_size: int | None, max_files: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, raw: bytes) -> None:
        """Whole lines. On a full disk all of them or none: a half one would spoil the next one too."""
        while raw:
            end = len(raw)
            if self._max_size and self._size + end > self._max_size:
                end = raw.rfind(b"\n", 0, max(0, self._max_size - self._size)) + 1
                if not end and self._size:
                    self._rotate()
                    continue
                # A line larger than a file has one for itself.
                end = end or raw.index(b"\n") + 1
            self._append(raw[:end])
            raw = raw[end:]

    def _append(self, raw: bytes) -> None:
        view = memoryview(raw)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(raw)

    def _rotate(self) -> None:
        os.close(self._fd)
        if self._max_files == 1:
            # A new file, not an emptied one: whoever follows it reads the old one to its end.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        else:
            for number in range(self._max_files - 1, 0, -1):
                older = self._path if number == 1 else f"{self._path}.{number - 1}"
                try:
                    os.rename(older, f"{self._path}.{number}")
                except FileNotFoundError:
                    continue
        self._open()

    def close(self) -> None:
        os.close(self._fd)


class Sink:
    """Somebody attached: a pipe or socket that never blocks the zygote."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.backlog = bytearray()
        self.gone = False

    def write(self, data: bytes) -> None:
        """Takes `data`. What the reader has no room for yet is its backlog; `gone` tells that there is no reader."""
        self.backlog += data
        self.flush()

    def flush(self) -> None:
        try:
            while self.backlog:
                del self.backlog[: os.write(self.fd, self.backlog)]
        except BlockingIOError:
            return
        except OSError:
            self.gone = True


class Stream:
    """One of stdout and stderr, or a terminal's master end."""

    def __init__(self, name: str, fd: int, log: LogFile | None) -> None:
        os.set_blocking(fd, False)
        self.name = name
        self.fd = fd
        self.sinks: list[Sink] = []
        self.ended = False
        """Nothing more can be read now: nobody has the other end open."""
        self.over = False
        """Nothing more will ever be: the container has ended."""
        self._log = log
        self._rest = b""

    @property
    def unfinished(self) -> bytes:
        """The beginning of a line whose end has not come yet: it is not in the log."""
        return self._rest

    def pump(self) -> None:
        """Reads what there is, at most one chunk, into the log and to the sinks."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            # A terminal's master fails with EIO once nobody holds the other end.
            data = b""
        if data:
            self._take(data)
        else:
            self._flush_rest()
            self.ended = True

    def drain(self) -> None:
        """Reads all that is left without waiting for more: the last time."""
        self.over = True
        with contextlib.suppress(OSError):
            while data := os.read(self.fd, _CHUNK):
                self._take(data)
        self._flush_rest()

    def _take(self, data: bytes) -> None:
        for sink in self.sinks:
            sink.write(data)
        if self._log is not None:
            self._record(data)

    def _record(self, data: bytes) -> None:
        whole, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._rest += rest
        else:
            lines, self._rest = self._rest + whole, rest
            self._write(self._entries(lines))
        stamp = _now()
        while len(self._rest) >= _PIECE:
            self._write(self._entry(self._rest[:_PIECE], stamp))
            self._rest = self._rest[_PIECE:]

    def _entries(self, lines: bytes) -> bytes:
        stamp = _now()
        if not lines.translate(None, _PLAIN):
            # Whoever writes ten thousand lines a millisecond must not keep the others waiting.
            tail = f'\\n","stream":"{self.name}","time":"{stamp}"}}\n'.encode()
            return b'{"log":"' + lines.replace(b"\n", tail + b'{"log":"') + tail
        return b"".join([self._entry(line + b"\n", stamp) for line in lines.split(b"\n")])

    def _flush_rest(self) -> None:
        if self._rest and self._log is not None:
            self._write(self._entry(self._rest, _now()))
        self._rest = b""

    def _write(self, raw: bytes) -> None:
        assert self._log is not None
        try:
            self._log.write(raw)
        except OSError:
            # A full disk must not stop the container; what was said meanwhile is lost.
            return

    def _entry(self, line: bytes, stamp: str) -> bytes:
        # surrogateescape keeps bytes that are not UTF-8; the reader turns them back.
        text = _quoted(line.decode("utf-8", "surrogateescape"))
        return f'{{"log":{text},"stream":"{self.name}","time":"{stamp}"}}\n'.encode()


def _now() -> str:
    nanoseconds = time.time_ns()
    whole = time.gmtime(nanoseconds // 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{nanoseconds % 10**9:09d}Z"


def log_file(config: dict[str, Any] | None) -> LogFile | None:
    if config is None:
        return None
    return LogFile(config["path"], config.get("max_size"), config.get("max_files") or 1)
