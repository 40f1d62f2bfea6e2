from __future__ import annotations

import asyncio
import os
import socket

import pytest

from engine.runtime.line import Line
from engine.runtime.zygote import protocol


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_descriptors_that_come_for_one_who_has_gone_are_closed(turns: int) -> None:
    """Whether the answer has come when he goes, has just come, or comes later."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = Line(lambda event: None, lambda failure: None)
    line.open(ours)
    asking = asyncio.create_task(line.ask("mount", {}))
    await asyncio.sleep(0)
    packet = protocol.receive(theirs)
    assert packet is not None
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    protocol.send(theirs, {"id": packet[0]["id"], "ok": {}}, (write,))
    os.close(write)
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    for _ in range(3):
        await asyncio.sleep(0)
    assert os.read(read, 1) == b""  # else it would say that somebody may still write
    os.close(read)
    line.close()
    theirs.close()
