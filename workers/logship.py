"""A stage's words on their way to the server: numbered, in batches, never more than a bound in memory."""

from __future__ import annotations

import codecs
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.errors import Busy, LeaseLost, PipelineError
from pipeline.protocol import MAX_LINE, MAX_LINES, LogLine, Stream

_EVERY = 0.05
"""Seconds between two batches: what a follower sees as live."""
_MAX_WAITING = 20_000
"""Lines in memory. A container that writes faster than the server takes is slowed down."""
_MAX_BATCH = 512 * 1024


class LogShipper:
    """Takes text from the work, sends lines from a thread of its own. A context manager: leaving it sends
    the rest. When the lease is lost, what is left is dropped."""

    def __init__(self, send: Callable[[Sequence[LogLine]], None], *, clock: Callable[[], float] = time.time) -> None:
        self._send = send
        self._clock = clock
        self._waiting: deque[LogLine] = deque()
        self._seq = 0
        self._condition = threading.Condition()
        self._closing = False
        self._dead = False
        self._parts: dict[Stream, str] = {}
        self._decoders: dict[Stream, codecs.IncrementalDecoder] = {}
        self._thread = threading.Thread(target=self._run, name="logship", daemon=True)

    def __enter__(self) -> LogShipper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for stream in list(self._parts):
            self.flush(stream)
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join()

    def say(self, text: str) -> None:
        """Words of the worker itself, in lines of their own."""
        for line in text.splitlines() or [""]:
            self._add("system", line)

    def write(self, stream: Stream, data: bytes) -> None:
        """Output as it comes; lines may arrive in pieces, and so may characters."""
        decoder = self._decoders.setdefault(stream, codecs.getincrementaldecoder("utf-8")("replace"))
        *whole, rest = (self._parts.get(stream, "") + decoder.decode(data)).split("\n")
        for line in whole:
            self._add(stream, line.removesuffix("\r"))
        while len(rest) > MAX_LINE:
            self._add(stream, rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._parts[stream] = rest

    def flush(self, stream: Stream) -> None:
        """A last line that has no newline."""
        rest = self._parts.pop(stream, "")
        if rest:
            self._add(stream, rest)

    def _add(self, stream: Stream, text: str) -> None:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        for start in range(0, len(text) or 1, MAX_LINE):
            with self._condition:
                while len(self._waiting) >= _MAX_WAITING and not self._dead:
                    self._condition.wait()
                if self._dead:
                    return
                line = LogLine(seq=self._seq, stream=stream, time=self._clock(), text=text[start : start + MAX_LINE])
                self._seq += 1
                self._waiting.append(line)
                if len(self._waiting) == 1:
                    self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._closing:
                    self._condition.wait()
                if not self._waiting:
                    return
                if not self._closing and len(self._waiting) < MAX_LINES:
                    self._condition.wait(_EVERY)
                batch = self._batch()
            if not self._ship(batch):
                with self._condition:
                    self._dead = True
                    self._waiting.clear()
                    self._condition.notify_all()
                return

    def _batch(self) -> list[LogLine]:
        batch: list[LogLine] = []
        size = 0
        while self._waiting and len(batch) < MAX_LINES and size < _MAX_BATCH:
            line = self._waiting.popleft()
            batch.append(line)
            size += len(line.text) + 64
        self._condition.notify_all()
        return batch

    def _ship(self, batch: Sequence[LogLine]) -> bool:
        """False: nobody wants these lines any more. The client itself is patient while the server is away."""
        try:
            self._send(batch)
        except LeaseLost:
            return False
        except (Busy, PipelineError):
            return False
        return True
