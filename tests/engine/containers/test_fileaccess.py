from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from engine.containers.archive import Write
from engine.containers.fileaccess import streamed


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_producer_has_ended_when_its_stream_has(cancels: int) -> None:
    """However often whoever reads is called off: it works on descriptors that are closed then."""
    writing, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def produce(write: Write) -> None:
        try:
            write(b"x")
            writing.set()
            gate.wait(20)
            for _ in range(100):
                write(b"y")
        finally:
            ended.set()

    async def read() -> None:
        async with contextlib.aclosing(streamed(produce)) as pieces:
            async for _ in pieces:
                pass

    reading = asyncio.create_task(read())
    await asyncio.to_thread(writing.wait, 20)
    for _ in range(cancels):
        reading.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
    assert not reading.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert ended.is_set()
