"""Reading what containers wrote: Docker's json-file lines, over rotated files, to the end or as they come."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from engine.containers import times
from engine.containers.inotify import Watch
from engine.containers.session import Stream

_CHUNK = 1 << 18
_YIELD_EVERY = 256
_LONGEST_LINE = 64 << 20


class _Line(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = times.ZERO


_decoder = msgspec.json.Decoder(_Line)
Entry = tuple[Stream, int, bytes]


@dataclass(frozen=True)
class Selection:
    """Which lines. Times in unix nanoseconds, 0 is no bound; `tail` None is all."""

    since: int = 0
    until: int = 0
    tail: int | None = None
    stdout: bool = True
    stderr: bool = True

    def takes(self, entry: Entry) -> bool:
        if entry[0] == "stdout" and not self.stdout:
            return False
        if entry[0] == "stderr" and not self.stderr:
            return False
        return entry[1] >= self.since


async def read(
    path: Path, selection: Selection, *, follow: bool = False, ended: Callable[[], bool] = lambda: True
) -> AsyncIterator[Entry]:
    """(stream, time, bytes) of the chosen lines, in order, rotated files first.

    With `follow` it goes on until `ended()` says that nothing more will be written and all has been read.
    """
    watch = Watch(path.parent) if follow else None
    file: IO[bytes] | None = None
    try:
        older, file = await asyncio.to_thread(_open_all, path)
        for count, entry in enumerate(_selected(older, file, selection), 1):
            if selection.until and entry[1] > selection.until:
                return
            yield entry
            if count % _YIELD_EVERY == 0:
                # A log may be large; others want the loop as well.
                await asyncio.sleep(0)
        if watch is None:
            return
        async for entry in _follow(path, file, watch, selection, ended):
            if selection.until and entry[1] > selection.until:
                return
            yield entry
    finally:
        if watch is not None:
            watch.close()
        if file is not None:
            file.close()


def _open_all(path: Path) -> tuple[list[Path], IO[bytes] | None]:
    """The rotated files, the oldest first, and the current one. A rotation in between is noticed."""
    while True:
        try:
            current: IO[bytes] | None = path.open("rb")
        except FileNotFoundError:
            current = None
        older = []
        number = 1
        while (rotated := path.with_name(f"{path.name}.{number}")).exists():
            older.append(rotated)
            number += 1
        if current is None or _same(current, path):
            return older[::-1], current
        current.close()


def _same(file: IO[bytes], path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(file.fileno())
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _selected(older: list[Path], current: IO[bytes] | None, selection: Selection) -> Iterator[Entry]:
    if selection.tail == 0:
        if current is not None:
            current.seek(0, os.SEEK_END)
            _to_line_start(current)
        return
    entries = _entries(older, current)
    chosen = (entry for entry in entries if selection.takes(entry))
    if selection.tail is None:
        yield from chosen
    else:
        if not selection.since:
            start = _tail_start(current, selection)
            if start is not None and current is not None:
                current.seek(start)
                older.clear()
        yield from _last(chosen, selection.tail)


def _last(entries: Iterator[Entry], count: int) -> Iterator[Entry]:
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


def _tail_start(file: IO[bytes] | None, selection: Selection) -> int | None:
    """Where to begin in the current file so that enough lines follow; None where it has too few.

    Only where both streams are wanted: otherwise the lines found might be of the wrong one.
    """
    if file is None or selection.tail is None or not (selection.stdout and selection.stderr):
        return None
    end = file.seek(0, os.SEEK_END)
    # Pieces of long lines count as lines of the file, so take what surely is enough for ordinary logs.
    wanted, position, found = selection.tail * 2 + 1, end, 0
    while position > 0:
        size = min(_CHUNK, position)
        position -= size
        file.seek(position)
        data = file.read(size)
        found += data.count(b'\\n","stream"')
        if found >= wanted:
            cut = data.find(b"\n")
            if cut >= 0:
                return position + cut + 1
    file.seek(0)
    return None


def _to_line_start(file: IO[bytes]) -> None:
    """Back to the beginning of a line that is only half written."""
    end = file.tell()
    size = min(end, _CHUNK)
    file.seek(end - size)
    data = file.read(size)
    cut = data.rfind(b"\n")
    file.seek(end - size + cut + 1)


def _entries(older: list[Path], current: IO[bytes] | None) -> Iterator[Entry]:
    for path in list(older):
        if path not in older:
            continue
        try:
            with path.open("rb") as file:
                yield from _complete_lines(file)
        except FileNotFoundError:
            continue
    if current is not None:
        yield from _complete_lines(current)


def _complete_lines(file: IO[bytes]) -> Iterator[Entry]:
    """Whole lines from where the file stands; it is left at the beginning of one that is not whole yet."""
    while True:
        start = file.tell()
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
    except msgspec.DecodeError:
        return None
    try:
        at = times.parse_rfc3339(decoded.time)
    except ValueError:
        at = 0
    stream: Stream = "stderr" if decoded.stream == "stderr" else "stdout"
    return stream, at, decoded.log.encode("utf-8", "surrogateescape")


async def _follow(
    path: Path, file: IO[bytes] | None, watch: Watch, selection: Selection, ended: Callable[[], bool]
) -> AsyncIterator[Entry]:
    while True:
        finished = ended()
        if file is not None:
            for entry in _complete_lines(file):
                if selection.takes(entry):
                    yield entry
        if file is None or not _same(file, path):
            # Rotated: whatever was still written to the old file has just been read.
            if file is not None:
                for entry in _complete_lines(file):
                    if selection.takes(entry):
                        yield entry
                file.close()
            try:
                file = path.open("rb")
            except FileNotFoundError:
                file = None
            else:
                continue
        if finished:
            return
        await watch.changed(until=selection.until)
        if selection.until and times.now() > selection.until:
            return
