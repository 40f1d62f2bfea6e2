from __future__ import annotations

import asyncio

import pytest

from engine.containers import times
from engine.containers.events import Event, EventBus


async def test_listeners_hear_what_comes_and_what_they_want() -> None:
    bus = EventBus()
    heard: list[str] = []

    async def listen() -> None:
        async for event in bus.subscribe(wanted=lambda event: event.kind == "container"):
            heard.append(event.action)
            if event.action == "die":
                return

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    for kind, action in (("container", "start"), ("image", "pull"), ("container", "die"), ("container", "late")):
        bus.publish(kind, action, "x")
    await asyncio.wait_for(listening, 5)
    assert heard == ["start", "die"]


async def test_the_past_and_a_bound() -> None:
    bus = EventBus()
    for number in range(3):
        bus.publish("container", str(number), "x", at=1000 + number)
    assert [event.action async for event in bus.subscribe(since=1001, until=2000)] == ["1", "2"]
    assert [event.action for event in bus.past(1001, 1001)] == ["1"]
    assert [event.action async for event in bus.subscribe(until=times.now())] == []


async def test_a_listener_that_does_not_listen_is_cut_off() -> None:
    bus = EventBus()
    events = bus.subscribe()
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    for number in range(10_000):
        bus.publish("container", str(number), "x")
    assert (await first).action == "0"
    rest = [event.action async for event in events]
    assert rest == [str(number) for number in range(1, 8192)]
    # Others are not hurt.
    waiting = asyncio.create_task(bus.next(lambda event: event.action == "now"))
    await asyncio.sleep(0)
    bus.publish("container", "now", "x")
    assert (await asyncio.wait_for(waiting, 5)).action == "now"


@pytest.mark.parametrize(
    ("kind", "older"),
    [
        ("container", {"status": "start", "id": "abc", "from": "box"}),
        ("image", {"status": "start", "id": "abc"}),  # whose label may be called so
        ("network", {}),
    ],
)
def test_dockers_json(kind: str, older: dict[str, str]) -> None:
    shown = Event(kind, "start", "abc", {"image": "box", "name": "n"}, 1_700_000_000_000_000_007).json()
    assert shown == {
        **older,
        "Type": kind,
        "Action": "start",
        "Actor": {"ID": "abc", "Attributes": {"image": "box", "name": "n"}},
        "scope": "local",
        "time": 1_700_000_000,
        "timeNano": 1_700_000_000_000_000_007,
    }
