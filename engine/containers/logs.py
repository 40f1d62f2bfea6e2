"""Reading what containers wrote: Docker's json-file lines, over rotated files, to the end or as they come."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine.containers import loglines, rotation, times
from engine.containers.inotify import Watch
from engine.containers.loglines import Entry
from engine.threads import to_the_end

_LINES_AT_ONCE, _BYTES_AT_ONCE = 1024, 1 << 20
_CHUNK = 1 << 18


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


class Reading:
    """(stream, time, bytes) of the chosen lines, in order, rotated files first.

    With `follow` it goes on until `ended()` says that nothing more will be written and all has been read; without, it
    reads what there is at the beginning, however fast more is written. It begins with `async with`, or else when it is
    iterated; what the log was then is read even if the container is removed meanwhile.
    """

    def __init__(
        self, path: Path, selection: Selection, *, follow: bool = False, ended: Callable[[], bool] = lambda: True
    ) -> None:
        self._selection = selection
        self._ended = ended
        self._folder = path.parent if follow else None
        self._watch: Watch | None = None
        self._log = _Log(path, selection, follow=follow)
        self._begun = False

    async def __aenter__(self) -> Reading:
        if not self._begun:
            self._begun = True
            try:
                self._watch = Watch(self._folder) if self._folder is not None else None
                await to_the_end(self._log.begin)
            except BaseException:
                await self.__aexit__()
                raise
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._watch is not None:
            self._watch.close()
        self._log.close()

    async def __aiter__(self) -> AsyncGenerator[Entry, None]:
        until = self._selection.until
        async with self:
            while True:
                # Asked before the last look: what was written until then is seen by it.
                finished = self._ended()
                while (entries := await to_the_end(self._log.some)) is not None:
                    for entry in entries:
                        if until and entry[1] > until:
                            return
                        yield entry
                if self._watch is None or finished:
                    return
                await self._watch.changed(until=until)
                if until and times.now() > until:
                    return


class _Log:
    """The chosen lines of one log's files, in the order they were written, whatever is rotated meanwhile. Blocking."""

    def __init__(self, path: Path, selection: Selection, *, follow: bool) -> None:
        self._path = path
        self._selection = selection
        self._follow = follow
        self._file: IO[bytes] | None = None
        self._end: IO[bytes] | None = None
        self._size = 0
        self._ready: list[Entry] = []

    def begin(self) -> None:
        """Goes to the first line of the selection. The last one is that of now."""
        self._end = rotation.newest(self._path)
        self._size = os.fstat(self._end.fileno()).st_size if self._end is not None else 0
        self._to_first()
        if self._follow:
            self._forget_end()

    def _forget_end(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None

    def _to_first(self) -> None:
        tail = self._selection.tail
        if tail is None:
            self._file = rotation.oldest(self._path)
            return
        self._file = rotation.newest(self._path)
        if self._file is None:
            return
        if tail == 0:
            self._file.seek(0, os.SEEK_END)
            loglines.to_line_start(self._file)
            return
        start = _tail_start(self._file, self._selection)
        if start is None:
            self._file.close()
            self._file = rotation.oldest(self._path)
        else:
            self._file.seek(start)
        self._ready = list(loglines.last(filter(self._selection.takes, self._lines()), tail))
        if self._end is not None and not self._ready:
            # All that there was has been dropped by a rotation meanwhile: then what there is now.
            self._forget_end()
            self._ready = list(itertools.islice(filter(self._selection.takes, self._lines()), tail))

    def some(self) -> list[Entry] | None:
        """A few of the next lines; None when there are no more for now."""
        if self._ready:
            ready, self._ready = self._ready, []
            return ready
        if self._selection.tail is not None and not self._follow:
            return None
        seen, size, chosen = 0, 0, []
        for entry in itertools.islice(self._lines(), _LINES_AT_ONCE):
            seen += 1
            if self._selection.takes(entry):
                chosen.append(entry)
                size += len(entry[2])
                if size > _BYTES_AT_ONCE:
                    break
        return chosen if seen else None

    def _lines(self) -> Iterator[Entry]:
        while True:
            if self._file is None:
                self._file = rotation.oldest(self._path)
                if self._file is None:
                    return
            if self._end is not None and os.path.sameopenfile(self._end.fileno(), self._file.fileno()):
                yield from loglines.complete_lines(self._file, self._size)
                return
            yield from loglines.complete_lines(self._file)
            if self._end is not None and not rotation.among(self._path, self._end):
                # It was dropped before it could be read: all there is now came after it.
                return
            following = rotation.following(self._path, self._file)
            if following is None:
                return
            # Whatever was still written to it before it was rotated.
            yield from loglines.complete_lines(self._file)
            self._file.close()
            self._file = following

    def close(self) -> None:
        for file in (self._file, self._end):
            if file is not None:
                file.close()


def _tail_start(file: IO[bytes], selection: Selection) -> int | None:
    """Where to begin in the current file so that enough lines follow; None where it has too few.

    Only where both streams are wanted: otherwise the lines found might be of the wrong one.
    """
    if selection.tail is None or selection.since or not (selection.stdout and selection.stderr):
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
    return None
