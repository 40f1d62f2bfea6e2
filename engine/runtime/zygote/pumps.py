"""What containers write, read as it comes: each stream is waited for, or the reader that is behind. Standard library
only."""

from __future__ import annotations

import os
import select
from functools import partial

from engine.runtime.zygote.container import Container
from engine.runtime.zygote.logpump import Sink, Stream, log_file
from engine.runtime.zygote.loop import Loop


class Pumps:
    """Of all containers, on one loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def begin(self, container: Container) -> None:
        log = log_file(container.log_wanted)
        container.log = log
        if container.terminal is not None:
            streams = [Stream("stdout", container.terminal, log)]
        else:
            streams = [Stream(name, fd, log) for name, fd in zip(("stdout", "stderr"), container.output, strict=True)]
        container.streams = streams
        for stream in streams:
            self.settle(stream)

    def end(self, container: Container) -> None:
        """Reads what is left. Whoever is behind is given the rest."""
        for stream in container.streams:
            self._loop.unwatch(stream.fd)
            stream.drain()
            os.close(stream.fd)
            self.settle(stream)

    def settle(self, stream: Stream) -> None:
        """Waits for what comes next of a stream: more output or, as long as a reader is behind, that reader."""
        for sink in stream.sinks[:]:
            if sink.gone or (stream.over and not sink.backlog):
                self._loop.unwatch(sink.fd)
                stream.sinks.remove(sink)
                os.close(sink.fd)
            elif not sink.backlog:
                self._loop.unwatch(sink.fd)
            elif self._loop.handler(sink.fd) is None:
                self._loop.watch(sink.fd, partial(self._flush, stream, sink), select.EPOLLOUT)
        if stream.over:
            return
        if stream.ended or any(sink.backlog for sink in stream.sinks):
            self._loop.unwatch(stream.fd)
        elif self._loop.handler(stream.fd) is None:
            self._loop.watch(stream.fd, partial(self._pump, stream))

    def _pump(self, stream: Stream) -> None:
        stream.pump()
        self.settle(stream)

    def _flush(self, stream: Stream, sink: Sink) -> None:
        sink.flush()
        self.settle(stream)
