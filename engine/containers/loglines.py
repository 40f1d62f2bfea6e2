"""Lines of Docker's json-file logs."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import IO

import msgspec

from engine.containers import times
from engine.containers.session import Stream
from engine.errors import InvalidInput
from engine.images.descriptor import MALFORMED

_CHUNK = 1 << 18
_LONGEST_LINE = 64 << 20


class _Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = times.ZERO


_decoder = msgspec.json.Decoder(_Line)
Entry = tuple[Stream, int, bytes]


def last(entries: Iterator[Entry], count: int) -> Iterator[Entry]:
    """The last `count` whole lines: pieces of one long line count once."""
    lines: deque[list[Entry]] = deque(maxlen=count)
    open_line: dict[str, list[Entry]] = {}
    for entry in entries:
        pending = open_line.get(entry[0])
        if pending is None:
            pending = []
            lines.append(pending)
            open_line[entry[0]] = pending
        pending.append(entry)
        if entry[2].endswith(b"\n"):
            del open_line[entry[0]]
    for line in lines:
        yield from line


def to_line_start(file: IO[bytes]) -> None:
    """Back to the beginning of a line that is only half written."""
    end = file.tell()
    size = min(end, _CHUNK)
    file.seek(end - size)
    data = file.read(size)
    cut = data.rfind(b"\n")
    file.seek(end - size + cut + 1)


def complete_lines(file: IO[bytes], limit: int | None = None) -> Iterator[Entry]:
    """Whole lines from where the file stands; it is left at the beginning of one that is not whole yet, or that begins
    at `limit` or later."""
    while True:
        start = file.tell()
        if limit is not None and start >= limit:
            return
        line = file.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        entry = parse(line)
        if entry is not None:
            yield entry


def parse(line: bytes) -> Entry | None:
    """One line of the file; None for one that a crash left broken.

    Bytes that are not UTF-8 are kept by the writer as lone surrogates, and come out as they went in.
    """
    try:
        decoded = _decoder.decode(line)
    except MALFORMED:
        # msgspec takes no lone surrogates, Python's own decoder does.
        try:
            decoded = msgspec.convert(json.loads(line), _Line)
        except (ValueError, RecursionError, msgspec.ValidationError):
            return None
    try:
        at = times.parse_rfc3339(decoded.time)
    except InvalidInput:
        at = 0
    stream: Stream = "stderr" if decoded.stream == "stderr" else "stdout"
    return stream, at, decoded.log.encode("utf-8", "surrogateescape")
