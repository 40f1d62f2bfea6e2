"""Published ports, from every side and over both versions of IP."""

from __future__ import annotations

import asyncio
import socket

import pytest

from engine.config import EngineConfig
from engine.errors import InvalidInput
from engine.network import Networks, Pool, PortMapping, Wishes

from .conftest import (
    HOST,
    HOST6,
    ONE,
    OUTSIDE,
    OUTSIDE6,
    THREE,
    TWO,
    Namespace,
    Namespaces,
    Servers,
    call,
    command,
    here,
    inside,
)

pytestmark = pytest.mark.kernel
BOTH = Wishes(ipv6=Pool())


def hear_out(host: str, port: int) -> str:
    """All that the server there says: it closes first."""
    with socket.create_connection((host, port), timeout=2) as connection:
        return b"".join(iter(lambda: connection.recv(100), b"")).decode()


async def test_a_published_port_answers_on_every_side(
    networks: Networks, namespaces: Namespaces, servers: Servers, outside: Namespace
) -> None:
    one, two = namespaces(), namespaces()
    servers(one, "web", 8000)
    await networks.create("both", wishes=BOTH)
    endpoint = await networks.attach("both", ONE, one.path, ports=[PortMapping(8000)])
    await networks.attach("both", TWO, two.path)
    first, second = endpoint.ports
    assert (first.host_ip, second.host_ip, first.container_port) == ("0.0.0.0", "::", 8000)
    port = first.host_port
    assert port == second.host_port
    for host in ("127.0.0.1", HOST, HOST6, endpoint.gateway, endpoint.gateway6):
        assert (await here(call, host, port)).startswith("web ")
    # From a neighbour, and from the container itself.
    for namespace in (two, one):
        for host in (endpoint.gateway, endpoint.gateway6, HOST, HOST6):
            assert (await inside(namespace, host, port)).startswith("web ")
    # Others are seen with their own addresses, and reach what is published alone.
    assert await inside(outside, HOST, port) == f"web {OUTSIDE}"
    assert await inside(outside, HOST6, port) == f"web {OUTSIDE6}"
    for address in (endpoint.ip, endpoint.ip6):
        with pytest.raises(TimeoutError):
            await inside(outside, address, 8000, 0.2)
    for host in ("localhost", "::1"):
        assert (await here(call, host, port)).startswith("web ")
    assert (await here(hear_out, "::1", port)).startswith("web ")
    await networks.detach(ONE)
    for host in ("127.0.0.1", "::1", HOST6):
        with pytest.raises(ConnectionRefusedError):
            await here(call, host, port)
    # What lingers after its close holds up nobody.
    again = await networks.attach("both", THREE, namespaces().path, ports=[PortMapping(8000, host_port=port)])
    assert len(again.ports) == 2


@pytest.mark.parametrize(("wish", "host"), [("127.0.0.1", "127.0.0.1"), (HOST, HOST), (HOST6, HOST6)])
async def test_a_port_of_one_address_only(
    networks: Networks, namespaces: Namespaces, servers: Servers, outside: Namespace, wish: str, host: str
) -> None:
    one, two = namespaces(), namespaces()
    servers(one, "web")
    await networks.create("both", wishes=BOTH)
    endpoint = await networks.attach("both", ONE, one.path, ports=[PortMapping(80, host_ip=wish)])
    await networks.attach("both", TWO, two.path)
    [binding] = endpoint.ports
    assert binding.host_ip == host
    assert (await here(call, host, binding.host_port)).startswith("web ")
    for gateway in (endpoint.gateway, endpoint.gateway6):
        with pytest.raises(OSError, match="refused"):
            await inside(two, gateway, binding.host_port)
    if host == "127.0.0.1":
        with pytest.raises(OSError, match="refused"):
            await inside(outside, HOST, binding.host_port)
    else:
        assert (await inside(outside, host, binding.host_port)).startswith("web ")


async def test_ipv6_loopback(config: EngineConfig, namespaces: Namespaces, outside: Namespace) -> None:
    """Carried by the engine: both ways to their ends, also to a container without IPv6, also in its next life."""
    one = namespaces()
    server = one.run(lambda: socket.create_server(("0.0.0.0", 80)))

    def serve() -> None:
        client, _ = server.accept()
        with client:
            heard = b""
            while data := client.recv(1 << 16):
                heard += data
            client.sendall(heard[::-1])

    def ask(port: int) -> bytes:
        with socket.create_connection(("::1", port), timeout=5) as connection:
            connection.sendall(b"ab" * 500_000)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    endpoint = await networks.attach("bridge", ONE, one.path, ports=[PortMapping(80, host_ip="::1")])
    [binding] = endpoint.ports
    assert binding.host_ip == "::1"
    with server:
        for _ in range(2):
            serving = asyncio.create_task(asyncio.to_thread(serve))
            assert await asyncio.to_thread(ask, binding.host_port) == b"ba" * 500_000
            await serving
            with pytest.raises(OSError, match="refused"):
                await inside(outside, HOST6, binding.host_port)
            await networks.close(keep=True)
            networks = Networks(config, config.data_root / "networks")
            await networks.start()
    await networks.close()


async def test_an_address_that_the_network_publishes_on(networks: Networks, namespaces: Namespaces) -> None:
    option = {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
    await networks.create("near", driver_options=option)
    endpoint = await networks.attach("near", ONE, namespaces().path, ports=[PortMapping(80), PortMapping(81)])
    assert {binding.host_ip for binding in endpoint.ports} == {"127.0.0.1"}


async def test_ports_move_to_another_network(
    networks: Networks, namespaces: Namespaces, servers: Servers, outside: Namespace
) -> None:
    one = namespaces()
    servers(one, "web")
    await networks.create("other")
    first = await networks.attach("bridge", ONE, one.path, ports=[PortMapping(80)])
    await networks.attach("other", ONE, one.path)
    port = first.ports[0].host_port
    await networks.disconnect("bridge", ONE, netns=one.path)
    [binding] = await networks.publish(ONE, [PortMapping(80, host_port=port)])
    assert binding.host_port == port
    assert await inside(outside, HOST, port) == f"web {OUTSIDE}"
    assert (await inside(one, HOST, port)).startswith("web ")


async def test_publishing_that_fails_leaves_nothing(
    networks: Networks, config: EngineConfig, namespaces: Namespaces, servers: Servers
) -> None:
    one = namespaces()
    servers(one, "web")
    await networks.attach("bridge", ONE, one.path)
    rules = await here(command, "nft list ruleset")
    records = config.exec_root / "network"
    records.rename(config.exec_root / "aside")
    with pytest.raises(FileNotFoundError):
        await networks.publish(ONE, [PortMapping(80, host_port=28080)])
    assert await here(command, "nft list ruleset") == rules
    (config.exec_root / "aside").rename(records)
    await networks.publish(ONE, [PortMapping(80, host_port=28080)])
    assert (await here(call, "127.0.0.1", 28080)).startswith("web ")


async def test_what_can_not_be_published(networks: Networks, namespaces: Namespaces) -> None:
    one = namespaces()
    for wish, says in (
        (PortMapping(80, host_ip=HOST6), "has no IPv6"),
        (PortMapping(80, "udp", host_ip="::1"), "publish on 127.0.0.1"),
        (PortMapping(80, host_ip="192.0.2.77"), "does not have that address"),
    ):
        with pytest.raises(InvalidInput, match=says):
            await networks.attach("bridge", ONE, one.path, ports=[wish])
    assert networks.endpoints(ONE) == []


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
