from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from engine.errors import Conflict, InvalidInput
from engine.network.model import PortMapping
from engine.network.ports import HostPorts, normalise


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    held = HostPorts()
    yield held
    held.close()


def test_an_ephemeral_port_is_held_until_released(ports: HostPorts) -> None:
    [binding] = ports.reserve([PortMapping(80)])
    assert binding.host_ip == "0.0.0.0"
    assert binding.host_port > 0
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", binding.host_port))
        ports.release([binding])
        other.bind(("127.0.0.1", binding.host_port))


def test_a_port_that_a_program_listens_on(ports: HostPorts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Conflict, match=f":{port}/tcp: address already in use"):
            ports.reserve([PortMapping(80, host_port=port)])


def test_connections_that_linger_after_their_close_are_not_in_the_way(ports: HostPorts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        client = socket.create_connection(address)
        accepted, _ = server.accept()
        accepted.close()  # this side closes first: its port goes to TIME_WAIT
        client.close()
    [binding] = ports.reserve([PortMapping(80, host_ip="127.0.0.1", host_port=address[1])])
    assert binding.host_port == address[1]


def test_all_or_none(ports: HostPorts) -> None:
    [taken] = ports.reserve([PortMapping(80)])
    [free] = ports.reserve([PortMapping(81)])
    ports.release([free])
    wishes = [PortMapping(1, host_port=free.host_port), PortMapping(2, host_port=taken.host_port)]
    with pytest.raises(Conflict, match="port is already allocated"):
        ports.reserve(wishes)
    assert ports.reserve(wishes[:1])


def test_one_address_and_all_addresses_exclude_each_other(ports: HostPorts) -> None:
    [one] = ports.reserve([PortMapping(80, host_ip="127.0.0.1")])
    with pytest.raises(Conflict, match="already allocated"):
        ports.reserve([PortMapping(80, host_port=one.host_port)])
    [same] = ports.reserve([PortMapping(80, host_ip="127.0.0.2", host_port=one.host_port)])
    assert same.host_port == one.host_port
    [udp] = ports.reserve([PortMapping(80, "udp", host_port=one.host_port)])
    assert udp.protocol == "udp"


def test_one_port_for_both_versions(ports: HostPorts) -> None:
    first, second = ports.reserve([PortMapping(80)], ipv6=True)
    assert (first.host_ip, second.host_ip, first.host_port) == ("0.0.0.0", "::", second.host_port)
    with pytest.raises(Conflict, match=r"\[fd01::1\]:\d+ failed"):
        ports.reserve([PortMapping(80, host_ip="fd01::1", host_port=first.host_port)], ipv6=True)
    ports.release([first, second])
    with socket.create_server(("::", first.host_port), family=socket.AF_INET6):
        with pytest.raises(Conflict, match=r"\[::\]:\d+/tcp: address already in use"):
            ports.reserve([PortMapping(80, host_port=first.host_port)], ipv6=True)
        assert ports.reserve([PortMapping(80, host_port=first.host_port)]), "what is half taken is given back"


def test_the_first_free_port_of_a_range(ports: HostPorts) -> None:
    [first] = ports.reserve([PortMapping(80)])
    start = first.host_port
    [second] = ports.reserve([PortMapping(80, host_port=start, host_port_end=start + 20)])
    assert start < second.host_port <= start + 20


@pytest.mark.parametrize(
    "mapping",
    [
        PortMapping(0),
        PortMapping(65536),
        PortMapping(80, host_port=-1),
        PortMapping(80, host_port=90, host_port_end=80),
        PortMapping(80, host_ip="localhost"),
        PortMapping(80, "udp", host_ip="::1"),
        PortMapping(80, host_ip="fe80::g"),
        PortMapping(80, "sctp"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused(mapping: PortMapping) -> None:
    with pytest.raises(InvalidInput):
        normalise(mapping)
