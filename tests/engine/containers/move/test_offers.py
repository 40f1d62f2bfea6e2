"""What an engine keeps of a container that wants to come."""

from __future__ import annotations

import asyncio
import secrets

import msgspec
import pytest

from engine.containers import names
from engine.containers.move import offer as offers
from engine.errors import NotFound
from tests.engine.containers.harness import Rooms

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


async def test_nothing_of_an_offer_that_can_not_be_noted(rooms: Rooms) -> None:
    made = await rooms.create("true", name="comes")
    incoming, move = rooms.containers.incoming, secrets.token_hex(16)
    found = await asyncio.to_thread(
        offers.of,
        rooms.containers._room,
        rooms.get(made),
        move=move,
        container_id=names.new_id(),
        use_volumes=False,
    )
    offer = msgspec.structs.replace(found, name="came")
    notes = rooms.config.data_root / "moves"
    notes.write_text("no folder")
    with pytest.raises(OSError, match="moves"):
        await incoming.offer(offer)
    with pytest.raises(NotFound):
        incoming.state(move)
    notes.unlink()
    assert not (await incoming.offer(offer)).blobs
    await incoming.discard(move)
