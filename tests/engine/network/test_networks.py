"""Real bridges, namespaces and rules."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import Conflict, Forbidden, InvalidInput, NotFound, SystemFailure
from engine.network import Networks, PortMapping
from engine.network.bridge import subnet_lock

from .conftest import EchoServer, Namespace, call

pytestmark = pytest.mark.kernel

Namespaces = Callable[[], Namespace]
Servers = Callable[..., EchoServer]
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


async def here(function: Callable[..., str], *arguments: object) -> str:
    return await asyncio.to_thread(function, *arguments)


async def inside(namespace: Namespace, host: str, port: int, timeout: float = 2) -> str:
    return await asyncio.to_thread(namespace.run, lambda: call(host, port, timeout))


def own_address() -> str | None:
    """An address of this host that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


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


async def test_a_published_port_answers_on_every_side(
    networks: Networks, namespaces: Namespaces, servers: Servers
) -> None:
    one, two = namespaces(), namespaces()
    servers(one, "web", 8000)
    endpoint = await networks.attach("bridge", ONE, one.path, ports=[PortMapping(8000)])
    await networks.attach("bridge", TWO, two.path)
    [binding] = endpoint.ports
    assert (binding.host_ip, binding.container_port) == ("0.0.0.0", 8000)
    hosts = ["127.0.0.1", endpoint.gateway]
    if address := own_address():
        hosts.append(address)
    for host in hosts:
        assert (await here(call, host, binding.host_port)).startswith("web ")
    # From a neighbour, and from the container itself.
    for namespace in (two, one):
        assert (await inside(namespace, endpoint.gateway, binding.host_port)).startswith("web ")
    await networks.detach(ONE)
    with pytest.raises(ConnectionRefusedError):
        await here(call, "127.0.0.1", binding.host_port)


async def test_a_port_of_one_address_only(networks: Networks, namespaces: Namespaces, servers: Servers) -> None:
    one, two = namespaces(), namespaces()
    servers(one, "web")
    wish = PortMapping(80, host_ip="127.0.0.1")
    endpoint = await networks.attach("bridge", ONE, one.path, ports=[wish])
    await networks.attach("bridge", TWO, two.path)
    port = endpoint.ports[0].host_port
    assert (await here(call, "127.0.0.1", port)).startswith("web ")
    with pytest.raises(OSError, match="refused"):
        await inside(two, endpoint.gateway, port)


async def test_published_udp(networks: Networks, namespaces: Namespaces) -> None:
    one = namespaces()
    endpoint = await networks.attach("bridge", ONE, one.path, ports=[PortMapping(53, "udp")])

    def serve() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 53))
        server.settimeout(2)
        return server

    def ask(server: socket.socket) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(b"ping", ("127.0.0.1", endpoint.ports[0].host_port))
            asked, address = server.recvfrom(100)
            server.sendto(asked.upper(), address)
            return client.recv(100)

    with one.run(serve) as server:
        assert await asyncio.to_thread(ask, server) == b"PING"


async def test_a_udp_client_that_goes_on_reaches_the_new_container(networks: Networks, namespaces: Namespaces) -> None:
    def serve() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 53))
        server.settimeout(2)
        return server

    one, two = namespaces(), namespaces()
    first = await networks.attach("bridge", ONE, one.path, ports=[PortMapping(53, "udp")])
    port = first.ports[0].host_port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, one.run(serve) as old:
        client.connect(("127.0.0.1", port))
        client.send(b"a")
        assert await asyncio.to_thread(old.recv, 10) == b"a"
        await networks.detach(ONE)
        await networks.attach("bridge", TWO, two.path, ports=[PortMapping(53, "udp", host_port=port)])
        with two.run(serve) as new:
            client.send(b"b")
            assert await asyncio.to_thread(new.recv, 10) == b"b"


def frame_for_loopback(source: str, mac: str, gateway_mac: str, port: int) -> bytes:
    """A UDP datagram for 127.0.0.1, as no kernel would send it out by an interface."""
    datagram = struct.pack(">HHHH", 9, port, 8 + 5, 0) + b"knock"
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, socket.inet_aton(source), b"\x7f\0\0\1"
    )
    total = sum(struct.unpack(">10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:]
    macs = bytes.fromhex((gateway_mac + mac).replace(":", ""))
    return macs + b"\x08\x00" + header + datagram


async def test_containers_cannot_reach_what_listens_on_the_hosts_loopback(
    networks: Networks, namespaces: Namespaces
) -> None:
    one = namespaces()
    endpoint = await networks.attach("bridge", ONE, one.path)
    bridge = networks.get("bridge").bridge
    gateway_mac = (Path("/sys/class/net") / bridge / "address").read_text().strip()

    def knock(port: int) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(frame_for_loopback(endpoint.ip, endpoint.mac, gateway_mac, port))

    def heard(secret: socket.socket) -> bool:
        secret.settimeout(0.3)
        try:
            return secret.recv(10) == b"knock"
        except TimeoutError:
            return False

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as secret:
        secret.bind(("127.0.0.1", 0))
        await asyncio.to_thread(one.run, lambda: knock(secret.getsockname()[1]))
        assert not await asyncio.to_thread(heard, secret)


async def test_networks_are_apart(networks: Networks, namespaces: Namespaces, servers: Servers) -> None:
    one, two = namespaces(), namespaces()
    await networks.create("back")
    first = await networks.attach("bridge", ONE, one.path, ports=[PortMapping(80)])
    await networks.attach("back", TWO, two.path)
    servers(one, "one")
    with pytest.raises(TimeoutError):
        await inside(two, first.ip, 80, 0.3)
    # What is published is for everyone.
    assert (await inside(two, first.gateway, first.ports[0].host_port)).startswith("one ")
    await networks.connect("bridge", TWO, two.path)
    assert (await inside(two, first.ip, 80)).startswith("one ")
    await networks.disconnect("bridge", TWO, netns=two.path)
    with pytest.raises(TimeoutError):
        await inside(two, first.ip, 80, 0.3)
    await networks.detach(TWO)
    await networks.remove("back")


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


async def test_an_internal_network_leads_nowhere_else(
    networks: Networks, namespaces: Namespaces, servers: Servers
) -> None:
    one, two = namespaces(), namespaces()
    await networks.create("inner", internal=True)
    first = await networks.attach("inner", ONE, one.path, ports=[PortMapping(80)])
    await networks.attach("inner", TWO, two.path)
    assert (first.gateway, first.ports) == ("", [])
    servers(one, "one")
    assert (await inside(two, first.ip, 80)).startswith("one ")
    with pytest.raises(OSError, match="unreachable"):
        await inside(two, "192.0.2.254", 80)


def ask(server: str, name: str, kind: int = 1, *, stream: bool = False) -> tuple[int, list[str]]:
    """(response code, addresses) for a name, over UDP or TCP."""
    encoded = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    query = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + encoded + struct.pack(">HH", kind, 1)
    if stream:
        with socket.create_connection((server, 53), timeout=5) as connection:
            connection.sendall(struct.pack(">H", len(query)) + query)
            answer = connection.recv(2000)[2:]
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(query, (server, 53))
            answer = client.recv(2000)
    assert answer[:2] == b"\x12\x34"
    count = struct.unpack_from(">H", answer, 6)[0]
    at = len(query)
    return answer[3] & 15, [socket.inet_ntoa(answer[at + 16 * n + 12 : at + 16 * n + 16]) for n in range(count)]


@pytest.mark.parametrize("stream", [False, True])
async def test_names(networks: Networks, namespaces: Namespaces, stream: bool) -> None:
    one, two, three = namespaces(), namespaces(), namespaces()
    await networks.create("app")
    db = await networks.attach("app", ONE, one.path, aliases=["db", "Store"])
    other = await networks.attach("app", TWO, two.path, aliases=["other", "store"])
    await networks.attach("app", THREE, three.path, aliases=["asker"])
    server = networks.nameserver("app")
    assert server

    async def find(name: str, kind: int = 1) -> tuple[int, list[str]]:
        code, found = await asyncio.to_thread(three.run, lambda: ask(server, name, kind, stream=stream))
        return code, sorted(found)

    assert await find("db") == (0, [db.ip])
    assert await find("DB.app") == (0, [db.ip])
    assert await find("store") == (0, sorted([db.ip, other.ip]))
    assert await find(ONE[:12]) == (0, [db.ip])
    assert await find("db", 28) == (0, [])
    await networks.detach(ONE)
    assert await find("store") == (0, [other.ip])


async def test_names_although_the_host_has_a_resolver_on_every_address(
    config: EngineConfig, namespaces: Namespaces
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        try:
            taken.bind(("0.0.0.0", 53))
        except OSError:
            pytest.skip("this host has a resolver on every address already")
        networks = Networks(config, config.data_root / "networks")
        await networks.start()
        try:
            one = namespaces()
            endpoint = await networks.attach("bridge", ONE, one.path, aliases=["me"])
            for stream in (False, True):
                asking = asyncio.to_thread(one.run, lambda: ask(endpoint.gateway, "me", stream=stream))  # noqa: B023
                assert await asking == (0, [endpoint.ip])
        finally:
            await networks.close()


async def test_a_new_life_finds_everything_as_it_was(
    config: EngineConfig, namespaces: Namespaces, servers: Servers
) -> None:
    one, two = namespaces(), namespaces()
    servers(one, "one")
    first = Networks(config, config.data_root / "networks")
    await first.start()
    made = await first.create("kept", labels={"a": "b"}, subnet="10.219.7.0/24")
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
    def command(*words: str) -> str:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    stray = f"s{config.instance}abcdef"
    await asyncio.to_thread(command, "ip", "link", "add", stray, "type", "bridge")
    await asyncio.to_thread(command, "nft", "add", "table", "ip", config.nft_table)
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    assert stray not in {name for _, name in socket.if_nameindex()}
    await networks.close()
    assert config.instance not in await asyncio.to_thread(command, "nft", "list", "tables")


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


async def test_what_may_not_be(networks: Networks) -> None:
    for name in ("", " ", "../x", "a\nb", "a" * 254):
        with pytest.raises(InvalidInput, match="invalid network name"):
            await networks.create(name)
    with pytest.raises(NotFound, match="driver"):
        await networks.create("x", driver="overlay")
    with pytest.raises(InvalidInput, match="gateway"):
        await networks.create("x", subnet="10.219.9.0/24", gateway="10.0.0.1")
    with pytest.raises(InvalidInput, match="too small"):
        await networks.create("x", subnet="10.219.9.0/31")
    with pytest.raises(Conflict, match="overlaps"):
        await networks.create("x", subnet=networks.get("bridge").subnet)
    await networks.create("x")
    with pytest.raises(Conflict, match="already exists"):
        await networks.create("x")
    for name in ("bridge", "host", "none"):
        with pytest.raises(Forbidden, match="pre-defined"):
            await networks.remove(name)
    with pytest.raises(NotFound, match="network y not found"):
        await networks.remove("y")
    assert [network.name for network in await networks.prune()] == ["x"]


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
from engine.config import EngineConfig
from engine.network import Networks, PortMapping
from tests.engine.network.conftest import EchoServer, Namespace, call

async def main():
    config = EngineConfig(data_root=Path(sys.argv[1]) / "d", exec_root=Path(sys.argv[1]) / "r")
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
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
    shown = subprocess.run(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "-", sys.executable, "-c", program, tmp_path],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=60,
    ).stdout.splitlines()
    assert shown[0].startswith("one ")
    assert "lo" in shown[1]
    assert "sw" not in shown[1]
