"""Who does not reach whom."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from engine.network import Networks, Pool, PortMapping, Wishes, links
from engine.network.netlink import Netlink

from .conftest import HOST, ONE, OUTSIDE, OUTSIDE6, TWO, Namespace, Namespaces, Servers, call, command, here, inside

pytestmark = pytest.mark.kernel
BOTH = Wishes(ipv6=Pool())


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
    with Netlink() as netlink:
        gateway_mac = links.find_link(netlink, networks.get("bridge").bridge).mac

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
    await networks.attach("bridge", TWO, two.path)
    assert (await inside(two, first.ip, 80)).startswith("one ")
    await networks.disconnect("bridge", TWO, netns=two.path)
    with pytest.raises(TimeoutError):
        await inside(two, first.ip, 80, 0.3)
    await networks.detach(TWO)
    await networks.remove("back")


@pytest.mark.parametrize("far", [OUTSIDE, OUTSIDE6])
async def test_the_world_sees_the_host_and_not_the_container(
    networks: Networks, namespaces: Namespaces, servers: Servers, outside: Namespace, far: str
) -> None:
    one = namespaces()
    await networks.create("both", wishes=BOTH)
    await networks.attach("both", ONE, one.path)
    servers(outside, "world")
    host = far.removesuffix("2") + "1"
    assert await inside(one, far, 80) == f"world {host}"


async def test_without_masquerade_the_world_sees_the_container(
    networks: Networks, namespaces: Namespaces, servers: Servers, outside: Namespace
) -> None:
    one = namespaces()
    await networks.create("open", driver_options={"com.docker.network.bridge.enable_ip_masquerade": "false"})
    endpoint = await networks.attach("open", ONE, one.path)
    servers(outside, "world")
    assert await inside(one, OUTSIDE, 80) == f"world {endpoint.ip}"


async def test_an_internal_network_leads_nowhere_else(
    networks: Networks, namespaces: Namespaces, servers: Servers, outside: Namespace
) -> None:
    one, two = namespaces(), namespaces()
    await networks.create("inner", internal=True, wishes=BOTH)
    first = await networks.attach("inner", ONE, one.path, ports=[PortMapping(80)])
    second = await networks.attach("inner", TWO, two.path)
    assert (first.gateway, first.gateway6, first.ports) == ("", "", [])
    servers(one, "one")
    servers(outside, "world")
    for address in (first.ip, first.ip6):
        assert (await inside(two, address, 80)).startswith("one ")
    for far in (OUTSIDE, OUTSIDE6):
        with pytest.raises(OSError, match="unreachable"):
            await inside(two, far, 80)
    # Not even by a route that a container with more rights gives itself, nor from outside.
    network = networks.get("inner")
    two.run(lambda: command(f"ip route add default via {network.gateway}"))
    two.run(lambda: command(f"ip -6 route add default via {network.gateway6}"))
    for far in (OUTSIDE, OUTSIDE6):
        with pytest.raises(TimeoutError):
            await inside(two, far, 80, 0.2)
    for address in (second.ip, second.ip6):
        with pytest.raises(TimeoutError):
            await inside(outside, address, 80, 0.2)


async def test_neighbours_that_may_not_talk(
    networks: Networks, namespaces: Namespaces, servers: Servers, outside: Namespace
) -> None:
    one, two = namespaces(), namespaces()
    await networks.create("apart", wishes=BOTH, driver_options={"com.docker.network.bridge.enable_icc": "false"})
    first = await networks.attach("apart", ONE, one.path, ports=[PortMapping(80)])
    await networks.attach("apart", TWO, two.path)
    servers(one, "one")
    servers(outside, "world")
    # By the gateway, as a container with more rights would try.
    two.run(lambda: command(f"ip route add {first.ip} via {first.gateway}"))
    two.run(lambda: command(f"ip -6 route add {first.ip6} via {first.gateway6}"))
    for address in (first.ip, first.ip6):
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            await inside(two, address, 80, 0.2)
    assert (await here(call, first.ip, 80)).startswith("one ")
    assert (await inside(outside, HOST, first.ports[0].host_port)).startswith("one ")
    assert (await inside(two, OUTSIDE, 80)).startswith("world ")


async def test_containers_do_not_advertise_themselves_as_the_hosts_router(networks: Networks) -> None:
    await networks.create("both", wishes=BOTH)
    for name, off in (("bridge", "1"), ("both", "0")):
        bridge = networks.get(name).bridge
        settings = command(f"sysctl -n net.ipv6.conf.{bridge}.accept_ra net.ipv6.conf.{bridge}.disable_ipv6")
        assert settings.split() == ["0", off]
