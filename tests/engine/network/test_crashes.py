"""An engine that is killed between two steps of whatever it does with networks: the next one leaves nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.network import Networks, Pool, PortMapping, Wishes, links
from engine.network.netlink import Netlink
from tests.engine.killing import at_points

from .conftest import ONE, TWO, Namespace, Namespaces, command

pytestmark = pytest.mark.kernel
BRIDGE_NAME = "com.docker.network.bridge.name"


def opened(config: EngineConfig) -> Networks:
    return Networks(config, config.data_root / "networks")


def interfaces() -> set[str]:
    with Netlink() as netlink:
        return {link.name for link in links.list_links(netlink)}


def count_netlink() -> None:
    """In a process that is to be killed: it dies before and after messages to the kernel, too."""
    for name in ("send", "batch"):
        setattr(Netlink, name, between_steps(getattr(Netlink, name)))


def between_steps(real: Callable[..., None]) -> Callable[..., None]:
    def step() -> None:
        os.close(os.dup(2))  # one of the calls that are counted

    def call(*args: Any, **named: Any) -> None:
        step()
        real(*args, **named)
        step()

    return call


async def live(config: EngineConfig, one: Path, two: Path) -> None:
    """A life with all that changes the kernel; it ends without tidying up."""
    networks = opened(config)
    await networks.start()
    await networks.create("app", wishes=Wishes(ipv6=Pool()))
    await networks.create("named", driver_options={BRIDGE_NAME: "crash0"})
    await networks.attach("app", ONE, one, ports=[PortMapping(80)], aliases=["one"])
    await networks.attach("named", ONE, one)
    await networks.attach("app", TWO, two)
    await networks.disconnect("named", ONE, netns=one)
    await networks.remove("named")
    await networks.detach(TWO)


@pytest.fixture
def before() -> Iterator[set[str]]:
    there = interfaces()
    yield there
    assert interfaces() == there


def test_the_next_start_reclaims_what_no_live_container_owns(
    config: EngineConfig, namespaces: Namespaces, before: set[str]
) -> None:
    boxes: list[Namespace] = [namespaces(), namespaces()]

    def work() -> None:
        count_netlink()
        asyncio.run(live(config, boxes[0].path, boxes[1].path))

    async def next_life() -> None:
        """ONE lives if it was plugged in wholly, TWO has died with its engine."""
        networks = opened(config)
        await networks.start()
        await networks.reconcile({ONE})
        try:
            bridges = {network.bridge for network in networks.list() if network.bridge}
            ends = {endpoint.host_interface for endpoint in networks.endpoints(ONE)}
            assert networks.endpoints(TWO) == []
            await networks._sweep_interfaces()
            assert interfaces() - before == bridges | ends
            rules = json.loads(await asyncio.to_thread(command, "nft -j list ruleset"))["nftables"]
            assert {rule["table"]["name"] for rule in rules if "table" in rule} == {config.nft_table}
            published = [one for rule in rules for one in rule.get("map", {}).get("elem", ())]
            assert len(published) == sum(len(endpoint.ports) for endpoint in networks.endpoints(ONE))
        finally:
            await networks.close()
        for network in networks.list():
            (config.data_root / "networks" / f"{network.id}.json").unlink(missing_ok=True)

    def after() -> None:
        asyncio.run(next_life())
        for number, box in enumerate(boxes):
            box.end()
            boxes[number] = namespaces()

    assert at_points(12, work, after) > 8
