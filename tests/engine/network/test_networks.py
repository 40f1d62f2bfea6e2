"""Real bridges, namespaces and rules."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import DefaultBridge, EngineConfig
from engine.errors import Conflict, Forbidden, InvalidInput, NotFound, SystemFailure
from engine.network import Networks, Pool, PortMapping, Wishes
from engine.network.bridge import subnet_lock
from tests.patience import wait_for

from .conftest import ONE, THREE, TWO, Namespaces, Servers, call, command, here, inside

pytestmark = pytest.mark.kernel


async def test_neighbours_talk_and_the_host_reaches_both(
    networks: Networks, namespaces: Namespaces, servers: Servers
) -> None:
    one, two = namespaces(), namespaces()
    first = await networks.attach("bridge", ONE, one.path)
    second = await networks.attach("bridge", TWO, two.path)
    assert first.gateway == second.gateway == networks.get("bridge").gateway
    assert (first.interface, first.ip != second.ip) == ("eth0", True)
    servers(one, "one")
    assert await inside(two, first.ip, 80) == f"one {second.ip}"
    assert await here(call, first.ip, 80) == f"one {first.gateway}"
    assert await inside(one, "127.0.0.1", 80) == "one 127.0.0.1"


async def test_the_way_out_moves_to_the_network_that_is_left(networks: Networks, namespaces: Namespaces) -> None:
    one = namespaces()
    await networks.create("other")
    await networks.attach("bridge", ONE, one.path)
    second = await networks.attach("other", ONE, one.path)
    assert second.interface == "eth1"
    await networks.disconnect("bridge", ONE, netns=one.path)

    def routes() -> str:
        return subprocess.run(["ip", "route"], check=True, capture_output=True, text=True).stdout

    found = await asyncio.to_thread(one.run, routes)
    assert f"default via {second.gateway} dev eth1" in found
    assert "eth0" not in found


async def test_what_interfaces_are_called(networks: Networks, namespaces: Namespaces) -> None:
    one = namespaces()
    await networks.create("named", driver_options={"com.docker.network.container_iface_prefix": "net"})
    await networks.create("more")
    option = "com.docker.network.endpoint.ifname"
    found = [
        (await networks.attach("bridge", ONE, one.path, driver_options={option: "wan"})).interface,
        (await networks.attach("named", ONE, one.path)).interface,
    ]
    assert found == ["wan", "net0"]
    with pytest.raises(Conflict, match="has an interface wan"):
        await networks.attach("more", ONE, one.path, driver_options={option: "wan"})
    with pytest.raises(InvalidInput, match="at most 15 characters"):
        await networks.attach("more", ONE, one.path, driver_options={option: "x" * 16})
    assert {"wan", "net0"} <= set(await asyncio.to_thread(one.run, lambda: [name for _, name in socket.if_nameindex()]))


async def test_a_container_that_wants_no_ipv6(networks: Networks, namespaces: Namespaces) -> None:
    one = namespaces()
    await networks.create("both", wishes=Wishes(ipv6=Pool()))
    await asyncio.to_thread(one.run, lambda: command("sysctl -qw net.ipv6.conf.default.disable_ipv6=1"))
    endpoint = await networks.attach("both", ONE, one.path)
    shown = await asyncio.to_thread(one.run, lambda: command("ip addr show eth0"))
    assert (endpoint.ip in shown, "inet6" in shown) == (True, False)


async def test_a_new_life_finds_everything_as_it_was(
    config: EngineConfig, namespaces: Namespaces, servers: Servers
) -> None:
    one, two = namespaces(), namespaces()
    servers(one, "one")
    first = Networks(config, config.data_root / "networks")
    await first.start()
    made = await first.create("kept", labels={"a": "b"}, wishes=Wishes(Pool("10.219.7.0/24")))
    endpoint = await first.attach("kept", ONE, one.path, ports=[PortMapping(80)])
    await first.attach("bridge", TWO, two.path)
    port = endpoint.ports[0].host_port
    await first.close(keep=True)
    assert (await here(call, "127.0.0.1", port)).startswith("one ")

    two.end()
    second = Networks(config, config.data_root / "networks")
    await second.start()
    try:
        assert second.get("kept").labels == {"a": "b"}
        assert second.get("kept").id == made.id
        assert second.endpoints(ONE) == [endpoint]
        assert (await here(call, "127.0.0.1", port)).startswith("one ")
        with pytest.raises(Conflict, match="already allocated"):
            await second.attach("bridge", THREE, two.path, ports=[PortMapping(80, host_port=port)])
        await second.reconcile({ONE})
        assert second.endpoints(TWO) == []
        await second.reconcile(set())
        assert second.endpoints(ONE) == []
    finally:
        await second.close()


async def test_what_nobody_owns_is_reclaimed(config: EngineConfig) -> None:
    stray = f"{config.bridge}abcde"
    await asyncio.to_thread(command, f"ip link add {stray} type bridge")
    await asyncio.to_thread(command, f"nft add table inet {config.nft_table}")
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    assert stray not in {name for _, name in socket.if_nameindex()}
    await networks.close()
    assert config.instance not in await asyncio.to_thread(command, "nft list tables")


async def test_nothing_is_left_of_a_failed_attempt(networks: Networks, namespaces: Namespaces) -> None:
    one = namespaces()
    gone = namespaces()
    gone.end()
    with pytest.raises(SystemFailure, match="network namespace"):
        await networks.attach("bridge", ONE, gone.path, ports=[PortMapping(80)])
    assert networks.endpoints(ONE) == []
    with socket.create_server(("0.0.0.0", 0)) as server:
        wish = PortMapping(80, host_port=server.getsockname()[1])
        with pytest.raises(Conflict, match="already in use by another program"):
            await networks.attach("bridge", ONE, one.path, ports=[PortMapping(81), wish])
    endpoint = await networks.attach("bridge", ONE, one.path, ports=[wish])
    assert endpoint.ports[0].host_port == wish.host_port
    with pytest.raises(Forbidden, match="already exists in network bridge"):
        await networks.attach("bridge", ONE, one.path)


async def test_nothing_is_left_of_an_attempt_that_is_called_off(
    config: EngineConfig, networks: Networks, namespaces: Namespaces
) -> None:
    def interfaces() -> list[str]:
        return [name for _, name in socket.if_nameindex() if name.startswith(f"v{config.instance}")]

    one, two = namespaces(), namespaces()
    attaching = asyncio.create_task(networks.attach("bridge", ONE, one.path, ports=[PortMapping(80)]))
    await asyncio.sleep(0)
    wait_for(interfaces, "its interface")  # without letting the loop hear of it
    attaching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attaching
    assert networks.endpoints(ONE) == []
    await networks.attach("bridge", TWO, two.path)
    await networks.disconnect("bridge", TWO)
    assert list((config.exec_root / "network").rglob("*.json")) == []
    assert interfaces() == []


async def test_what_may_not_be(networks: Networks) -> None:
    for name in ("", " ", "../x", "a\nb", "a" * 254):
        with pytest.raises(InvalidInput, match="invalid network name"):
            await networks.create(name)
    with pytest.raises(NotFound, match="driver"):
        await networks.create("x", driver="overlay")
    with pytest.raises(InvalidInput, match="gateway"):
        await networks.create("x", wishes=Wishes(Pool("10.219.9.0/24", gateway="10.0.0.1")))
    with pytest.raises(InvalidInput, match="too small"):
        await networks.create("x", wishes=Wishes(Pool("10.219.9.0/31")))
    with pytest.raises(Conflict, match="overlaps"):
        await networks.create("x", wishes=Wishes(Pool(networks.get("bridge").subnet)))
    await networks.create("x")
    with pytest.raises(Conflict, match="already exists"):
        await networks.create("x")
    for name in ("bridge", "host", "none"):
        with pytest.raises(Forbidden, match="pre-defined"):
            await networks.remove(name)
    with pytest.raises(NotFound, match="network y not found"):
        await networks.remove("y")
    assert [network.name for network in await networks.prune()] == ["x"]


async def test_the_default_network_is_as_configured(config: EngineConfig, namespaces: Namespaces) -> None:
    async def life(settings: DefaultBridge) -> Networks:
        networks = Networks(dataclasses.replace(config, default_bridge=settings), config.data_root / "networks")
        try:
            await networks.start()
        except BaseException:
            await networks.close(keep=True)
            raise
        return networks

    first = await life(DefaultBridge())
    chosen = first.get("bridge")
    assert (chosen.subnet6, first.nameserver("bridge")) == ("", None)
    await first.close()
    wanted = DefaultBridge("10.219.8.9/24", ipv6=True, subnet6="fd21:9::/64", icc=False, mtu=1400, host_ip="127.0.0.1")
    second = await life(wanted)
    made = second.get("bridge")
    assert (made.id, made.subnet, made.gateway) == (chosen.id, "10.219.8.0/24", "10.219.8.9")
    assert made.subnet6 == "fd21:9::/64"
    one = namespaces()
    endpoint = await second.attach("bridge", ONE, one.path, ports=[PortMapping(80)])
    assert endpoint.ip6.startswith("fd21:9::")
    assert [port.host_ip for port in endpoint.ports] == ["127.0.0.1"]
    assert " mtu 1400 " in await asyncio.to_thread(one.run, lambda: command("ip link show eth0"))
    await second.close(keep=True)
    third = await life(DefaultBridge())
    assert third.get("bridge").subnet6 == "fd21:9::/64", "it stays while containers are on it"
    await third.close()
    with pytest.raises(InvalidInput, match="invalid address"):
        await life(DefaultBridge("nonsense"))


async def test_a_default_network_that_makes_way_takes_no_other_networks_place(config: EngineConfig) -> None:
    """The next start, after one of the host: its subnet is in use, and no bridge is there yet."""
    first = Networks(config, config.data_root / "networks")
    await first.start()
    other = await first.create("other")
    taken = first.get("bridge").subnet
    await first.close()
    await asyncio.to_thread(command, "ip link add wan type bridge")
    await asyncio.to_thread(command, f"ip addr add {taken.replace('0/', '7/')} dev wan")
    second = Networks(config, config.data_root / "networks")
    await second.start()
    try:
        assert second.get("other").subnet == other.subnet
        assert second.get("bridge").subnet not in (taken, other.subnet)
    finally:
        await second.close()
        await asyncio.to_thread(command, "ip link del wan")


async def test_two_engines_never_choose_the_same_subnet(config: EngineConfig, tmp_path: Path) -> None:
    other = EngineConfig(data_root=tmp_path / "other", exec_root=tmp_path / "run")
    both = [Networks(one, one.data_root / "networks") for one in (config, other)]
    try:
        await asyncio.gather(*(one.start() for one in both))
        assert both[0].get("bridge").subnet != both[1].get("bridge").subnet
    finally:
        for one in both:
            await one.close()


def test_the_lock_can_be_taken_twice_in_a_row() -> None:
    for _ in range(2):
        with subnet_lock():
            pass


def test_an_engine_in_a_network_namespace_of_its_own(tmp_path: Path) -> None:
    program = """
import asyncio, socket, sys
from pathlib import Path
from engine.config import DefaultBridge, EngineConfig
from engine.network import Networks, Pool, PortMapping, Wishes
from tests.engine.network.conftest import EchoServer, Namespace, call

async def main():
    config = EngineConfig(data_root=Path(sys.argv[1]) / "d", exec_root=Path(sys.argv[1]) / "r")
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    await networks.create("both", wishes=Wishes(ipv6=Pool()))
    print(Path("/proc/sys/net/ipv6/conf/wire/accept_ra").read_text().strip())
    one = Namespace()
    server = EchoServer(one, "one")
    try:
        endpoint = await networks.attach("bridge", "1" * 64, one.path, ports=[PortMapping(80)])
        print(await asyncio.to_thread(call, "127.0.0.1", endpoint.ports[0].host_port))
    finally:
        server.close()
        one.end()
        await networks.close()
    print([name for _, name in socket.if_nameindex()])

asyncio.run(main())
"""
    # A wire by which the host learns its way to IPv6: it listens there even when it begins to forward.
    wire = "ip link set lo up; ip link add wire type veth; sysctl -qw net.ipv6.conf.wire.accept_ra=1"
    shown = subprocess.run(
        ["unshare", "--net", "sh", "-c", f'{wire}; exec "$@"', "-", sys.executable, "-c", program, tmp_path],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=60,
    ).stdout.splitlines()
    assert shown[0] == "2"
    assert shown[1].startswith("one ")
    assert "lo" in shown[2]
    assert "sw" not in shown[2]
