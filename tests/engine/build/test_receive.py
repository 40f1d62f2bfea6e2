"""A context's tar as it arrives from a client: in pieces of any size, slowly, not at all to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.build import receive
from engine.errors import InvalidInput
from tests.engine.tars import tar_of

CONTENT = os.urandom(6 << 20)
ARCHIVE = tar_of({"big": CONTENT, "small": b"s"})


async def pieces(size: int, until: int | None = None) -> AsyncIterator[bytes]:
    whole = ARCHIVE[:until]
    for at in range(0, len(whole), size):
        yield whole[at : at + size]


@pytest.mark.parametrize("size", [100, 32_768, 5 << 20, 1 << 30])
async def test_pieces_of_any_size(tmp_path: Path, size: int) -> None:
    context = await receive(pieces(size), tmp_path)
    tree = context.tree()
    assert tree.read("big", len(CONTENT)) == CONTENT
    assert tree.read("small", 1) == b"s"
    context.close()


async def test_an_archive_that_ends_too_early(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="malformed tar"):
        await receive(pieces(32_768, 1 << 20), tmp_path)


async def test_a_client_that_breaks_off(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(32_768, 1 << 20):
            yield piece
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await receive(broken(), tmp_path)


async def test_nobody_waits_for_the_rest(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield ARCHIVE[:1000]
        begun.set()
        await asyncio.Event().wait()

    receiving = asyncio.create_task(receive(endless(), tmp_path))
    await begun.wait()
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert list(tmp_path.iterdir()) == []
