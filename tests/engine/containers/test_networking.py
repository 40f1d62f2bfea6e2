"""A container's networks as its record and its own files tell of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from engine.containers import plugging
from engine.containers.hostconfig import HostConfig, PortBinding
from engine.containers.model import Container, EndpointSettings, IPAMConfig, NetworkingConfig, to_json
from engine.errors import InvalidInput
from engine.network import Pool, Wishes
from tests.engine.containers.harness import Rooms
from tests.patience import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]
SUBNET, SUBNET6 = "10.217.30.0/24", "fd17:30::/64"


@pytest_asyncio.fixture(loop_scope="module")
async def networks(rooms: Rooms) -> AsyncIterator[tuple[str, str]]:
    """Two with names; the second with IPv6."""
    await rooms.networks.create("front", wishes=Wishes(Pool(SUBNET)))
    await rooms.networks.create("back", wishes=Wishes(ipv6=Pool(SUBNET6)))
    yield "front", "back"
    for container in rooms.containers.list(all=True):
        await rooms.containers.remove(container.id, force=True)
    for name in ("front", "back"):
        await rooms.networks.remove(name)


def on(network: str, **more: object) -> HostConfig:
    return msgspec.structs.replace(HostConfig(network_mode=network), **more)


async def resolver(rooms: Rooms, made: str) -> str:
    return (await rooms.exec(made, "cat", "/etc/resolv.conf"))[1].split("\n")[0]


async def test_what_a_container_keeps_over_its_stops(rooms: Rooms, networks: tuple[str, str]) -> None:
    """What its user asked for, and nothing of what it got."""
    asked = EndpointSettings(
        ipam_config=IPAMConfig(ipv4_address="10.217.30.9"), mac_address="02:00:00:00:00:09", aliases=["nine"]
    )
    before = to_json(asked)
    wanted = NetworkingConfig(endpoints_config={"front": asked})
    made = await rooms.create("sleep", "600", host=on("front"))
    rooms.get(made).network_settings.networks = wanted.endpoints_config
    for _ in range(2):
        await rooms.containers.start(made)
        got = rooms.get(made).network_settings.networks["front"]
        assert (got.ip_address, got.mac_address) == ("10.217.30.9", "02:00:00:00:00:09")
        assert "nine" in got.dns_names
        shown = (await rooms.exec(made, "ip", "link", "show", "eth0"))[1]
        assert "02:00:00:00:00:09" in shown
        await rooms.containers.stop(made, timeout=0)
        await eventually(lambda: not got.endpoint_id, "it being taken off its network")  # noqa: B023
        left = to_json(rooms.get(made).network_settings.networks["front"])
        assert left | {"DesiredMac": "", "NetworkID": "", "DNSNames": []} == before


async def test_the_first_network_with_names_brings_the_resolver(rooms: Rooms, networks: tuple[str, str]) -> None:
    made = await rooms.start("sleep", "600", host=HostConfig())
    await rooms.start("sleep", "600", name="mate", host=on("back"))
    assert await resolver(rooms, made) != "nameserver 127.0.0.11"
    await rooms.containers.network_connect("back", made)
    assert await resolver(rooms, made) == "nameserver 127.0.0.11"
    got = rooms.get(made).network_settings.networks["back"]
    assert got.global_ipv6_address.startswith("fd17:30::")
    hosts = (await rooms.exec(made, "cat", "/etc/hosts"))[1]
    assert f"{got.global_ipv6_address}\t" in hosts
    code, said = await rooms.exec(made, "nslookup", "mate")
    assert (code, "fd17:30::" in said) == (0, True), said
    await rooms.containers.network_disconnect("back", made)
    assert await resolver(rooms, made) != "nameserver 127.0.0.11"


async def test_ports_stay_published_while_a_network_is_left(rooms: Rooms, networks: tuple[str, str]) -> None:
    made = await rooms.start("sleep", "600", host=on("front", port_bindings={"80/tcp": [PortBinding("127.0.0.1", "")]}))
    [port] = rooms.get(made).network_settings.ports["80/tcp"] or []
    await rooms.containers.network_connect("back", made)
    await rooms.containers.network_disconnect("front", made)
    assert rooms.get(made).network_settings.ports == {"80/tcp": [port]}
    await rooms.containers.network_disconnect("back", made)
    assert not plugging.is_published(rooms.get(made))
    await rooms.containers.network_connect("front", made)
    assert plugging.is_published(rooms.get(made))


async def test_a_record_that_a_crash_left_behind_the_truth(rooms: Rooms, networks: tuple[str, str]) -> None:
    made = await rooms.create("sleep", "600", host=on("back", port_bindings={"80/tcp": [PortBinding()]}))
    stale = msgspec.json.encode(rooms.get(made).network_settings)
    await rooms.containers.start(made)
    await rooms.containers.network_connect("front", made)
    container = rooms.get(made)
    truth = to_json(container.network_settings)
    room = rooms.containers._room
    container.network_settings = msgspec.json.decode(stale, type=type(container.network_settings))
    plugging.recall(room, container)
    assert to_json(container.network_settings) == truth
    # The other way round: the network was left, and only the record does not know.
    await rooms.networks.disconnect("front", made)
    plugging.recall(room, container)
    assert container.network_settings.networks["front"].endpoint_id == ""
    await rooms.containers.network_disconnect("front", made)
    assert list(container.network_settings.networks) == ["back"]


@pytest.mark.parametrize(
    ("network", "settings", "says"),
    [
        ("bridge", EndpointSettings(aliases=["x"]), "only supported for user-defined networks"),
        ("front", EndpointSettings(mac_address="nonsense"), "invalid MAC"),
        ("front", EndpointSettings(ipam_config=IPAMConfig(ipv4_address="fd00::1")), "IPv4 address"),
        ("front", EndpointSettings(ipam_config=IPAMConfig(ipv6_address="nonsense")), "IPv6 address"),
    ],
)
async def test_what_no_network_can_give(
    rooms: Rooms, networks: tuple[str, str], network: str, settings: EndpointSettings, says: str
) -> None:
    made: Container = rooms.get(await rooms.create("true"))
    with pytest.raises(InvalidInput, match=says):
        await rooms.containers.network_connect(network, made.id, settings)


async def test_sctp_can_not_be_published(rooms: Rooms) -> None:
    with pytest.raises(InvalidInput, match="only tcp and udp"):
        await rooms.create("true", host=HostConfig(port_bindings={"132/sctp": [PortBinding()]}))
