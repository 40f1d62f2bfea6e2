"""Threads in a row: each stage works on its bytes while the next works on those before.

hashlib, isal, zstd and file reads release the interpreter's lock, so two stages really run at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_DEPTH = 8


class _End:
    """Marks the end of a stream, with the error that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Sink(Generic[_T]):
    """Hands what is `put` to `consume` on a thread of its own.

    `close` waits until all is consumed and raises what `consume` raised; `put` raises it once it is known.
    """

    def __init__(self, consume: Callable[[_T], object], name: str, depth: int = _DEPTH) -> None:
        self._consume = consume
        self._queue: queue.Queue[_T | _End] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: _T) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def close(self) -> None:
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Like `close`, but keeps the error to itself. May be called twice."""
        if self._thread.is_alive():
            self._queue.put(_End())
            self._thread.join()

    def _run(self) -> None:
        while not isinstance(item := self._queue.get(), _End):
            if self._error is None:
                try:
                    self._consume(item)
                except BaseException as error:
                    self._error = error


def ahead(items: Iterable[_T], name: str, depth: int = _DEPTH) -> Generator[_T, None, None]:
    """The same items, produced on a thread of their own, a few ahead of who takes them."""
    buffer: queue.Queue[_T | _End] = queue.Queue(depth)
    stopped = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if stopped.is_set():
                    return
                buffer.put(item)
        except BaseException as raised:
            error = raised
        buffer.put(_End(error))

    thread = threading.Thread(target=produce, name=name, daemon=True)
    thread.start()
    try:
        while not isinstance(item := buffer.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room
            try:
                buffer.get_nowait()
            except queue.Empty:
                thread.join(0.001)
