"""Names between containers, asked as a container asks: of 127.0.0.11."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from engine.config import EngineConfig
from engine.network import Networks, Pool, Wishes

from .conftest import ONE, OUTSIDE, THREE, TWO, Namespace, Namespaces

pytestmark = pytest.mark.kernel
A, PTR, AAAA = 1, 12, 28
SERVER = "127.0.0.11"


def question(name: str, kind: int) -> bytes:
    encoded = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    return b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + encoded + struct.pack(">HH", kind, 1)


def answer_of(message: bytes, asked: bytes) -> tuple[int, list[str]]:
    """(response code, addresses); a code of -1 where the answer is truncated."""
    assert message[:2] == b"\x12\x34"
    if message[2] & 2:
        return -1, []
    found, at = [], len(asked)
    for _ in range(struct.unpack_from(">H", message, 6)[0]):
        (size,) = struct.unpack_from(">H", message, at + 10)
        if size in (4, 16):
            found.append(str(ipaddress.ip_address(message[at + 12 : at + 12 + size])))
        at += 12 + size
    return message[3] & 15, sorted(found)


def ask(name: str, kind: int = A, *, stream: bool = False, server: str = SERVER) -> tuple[int, list[str]]:
    query = question(name, kind)
    if stream:
        with socket.create_connection((server, 53), timeout=5) as connection:
            connection.sendall(struct.pack(">H", len(query)) + query)
            data = b""
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                data += connection.recv(65536)
            return answer_of(data[2:], query)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((server, 53))
        client.send(query)
        return answer_of(client.recv(65536), query)


async def find(asker: Namespace, name: str, kind: int = A, *, stream: bool = False) -> tuple[int, list[str]]:
    return await asyncio.to_thread(asker.run, lambda: ask(name, kind, stream=stream))


@pytest.mark.parametrize("stream", [False, True])
async def test_names(networks: Networks, namespaces: Namespaces, stream: bool) -> None:
    one, two, three = namespaces(), namespaces(), namespaces()
    await networks.create("app", wishes=Wishes(ipv6=Pool()))
    db = await networks.attach("app", ONE, one.path, aliases=["db", "Store"])
    other = await networks.attach("app", TWO, two.path, aliases=["other", "store"])
    await networks.attach("app", THREE, three.path, aliases=["asker"], links=["other:mine", "missing:lost"])
    for name, kind, expected in (
        ("db", A, [db.ip]),
        ("DB.app", A, [db.ip]),
        ("store", A, sorted([db.ip, other.ip])),
        (ONE[:12], A, [db.ip]),
        ("db", AAAA, [db.ip6]),
        ("db", 65, []),
        ("mine", A, [other.ip]),
        ("mine", AAAA, [other.ip6]),
    ):
        assert await find(three, name, kind, stream=stream) == (0, expected)
    assert await find(two, "mine", stream=stream) != (0, [other.ip]), "links are of one container alone"
    await networks.detach(ONE)
    assert await find(three, "store", stream=stream) == (0, [other.ip])


@pytest.mark.parametrize("kind", ["ip", "ip6"])
async def test_names_of_addresses(networks: Networks, namespaces: Namespaces, kind: str) -> None:
    one = namespaces()
    await networks.create("app", wishes=Wishes(ipv6=Pool()))
    endpoint = await networks.attach("app", ONE, one.path, aliases=["db"])
    pointer = ipaddress.ip_address(getattr(endpoint, kind)).reverse_pointer

    def raw() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(question(pointer, PTR), (SERVER, 53))
            return client.recv(1000)

    assert (await asyncio.to_thread(one.run, raw)).endswith(b"\2db\3app\0")


async def test_names_of_several_networks(networks: Networks, namespaces: Namespaces) -> None:
    one, two, three = namespaces(), namespaces(), namespaces()
    for name in ("front", "back"):
        await networks.create(name)
    await networks.attach("bridge", ONE, one.path)
    with pytest.raises(OSError, match="refused"):
        await find(one, "db")
    await networks.attach("front", ONE, one.path)
    web = await networks.attach("front", TWO, two.path, aliases=["web"])
    db = await networks.attach("back", THREE, three.path, aliases=["db"])
    assert await find(one, "db") == (2, [])
    await networks.attach("back", ONE, one.path)
    await networks.disconnect("bridge", ONE, netns=one.path)
    assert await find(one, "db") == (0, [db.ip])
    assert await find(one, "web") == (0, [web.ip])
    await networks.disconnect("front", ONE, netns=one.path)
    assert await find(one, "db") == (0, [db.ip])
    assert await find(one, "web") == (2, [])


async def test_an_answer_that_does_not_fit_comes_over_tcp(networks: Networks, namespaces: Namespaces) -> None:
    await networks.create("app")
    boxes = [namespaces() for _ in range(32)]
    endpoints = [
        await networks.attach("app", f"{number:064}", box.path, aliases=["many"]) for number, box in enumerate(boxes)
    ]
    one = boxes[0]
    everyone = sorted(endpoint.ip for endpoint in endpoints)
    assert await find(one, "many") == (-1, [])
    assert await find(one, "many", stream=True) == (0, everyone)

    def with_room() -> tuple[int, list[str]]:
        query = question("many", A)
        options = b"\0\0\x29\x10\0\0\0\0\0\0\0"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(query[:10] + b"\0\1" + query[12:] + options, (SERVER, 53))
            return answer_of(client.recv(65536), query)

    assert await asyncio.to_thread(one.run, with_room) == (0, everyone)


async def test_a_container_may_serve_names_itself(networks: Networks, namespaces: Namespaces) -> None:
    await networks.create("app")
    one, two = namespaces(), namespaces()
    endpoint = await networks.attach("app", ONE, one.path, aliases=["server"])
    await networks.attach("app", TWO, two.path)

    def bind() -> list[socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("0.0.0.0", 53))
        return [udp, socket.create_server(("0.0.0.0", 53))]

    own = one.run(bind)
    assert await find(one, "server") == await find(two, "server") == (0, [endpoint.ip])
    for each in own:
        each.close()


@contextmanager
def upstream(namespace: Namespace, *, code: int = 0) -> Iterator[list[bytes]]:
    """A resolver that has one answer to every question, over UDP; what it was asked."""

    def bind() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 53))
        return server

    asked: list[bytes] = []

    def serve() -> None:
        while (received := server.recvfrom(1000))[0]:
            query, address = received
            asked.append(query)
            record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x09\x09\x09\x09"
            head = query[:2] + bytes([0x81, 0x80 | code]) + b"\0\1\0\1\0\0\0\0"
            server.sendto(head + query[12:] + record, address)

    with namespace.run(bind) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            with suppress(OSError):  # it says that it is not connected, and wakes who waits all the same
                server.shutdown(socket.SHUT_RDWR)
            thread.join()


@asynccontextmanager
async def engine(config: EngineConfig, *servers: str) -> AsyncIterator[Networks]:
    networks = Networks(EngineConfig(config.data_root, config.exec_root, dns=servers), config.data_root / "networks")
    await networks.start()
    try:
        yield networks
    finally:
        await networks.close()


async def test_what_no_container_is_called_is_asked_of_others(
    config: EngineConfig, namespaces: Namespaces, outside: Namespace
) -> None:
    one, two = namespaces(), namespaces()
    async with engine(config, "not-an-address", "127.0.0.1", OUTSIDE) as networks:
        await networks.create("app")
        await networks.attach("app", ONE, one.path, aliases=["db"])
        await networks.create("inner", internal=True)
        await networks.attach("inner", TWO, two.path, aliases=["hidden"])
        with upstream(outside) as asked:
            assert await find(one, "example.org") == (0, ["9.9.9.9"])
            assert len(asked) == 1
            # From an internal network nothing gets out, not even as a name.
            assert await find(two, "secret.example.org") == (2, [])
            assert len(asked) == 1


async def test_the_resolvers_that_a_container_brings(networks: Networks, namespaces: Namespaces) -> None:
    one, two = namespaces(), namespaces()
    await networks.create("app")
    server = await networks.attach("app", TWO, two.path)
    await networks.attach("app", ONE, one.path, dns=[server.ip])
    with upstream(two, code=2):
        assert (await find(one, "example.org"))[0] == 2, "a bad answer is better than none"
    with upstream(two) as asked:
        assert await find(one, "example.org") == (0, ["9.9.9.9"])
        assert asked


async def test_without_any_resolver_containers_still_have_names(config: EngineConfig, namespaces: Namespaces) -> None:
    one = namespaces()
    async with engine(config, "127.0.0.1") as networks:
        await networks.create("app")
        endpoint = await networks.attach("app", ONE, one.path, aliases=["db"])
        assert await find(one, "db") == (0, [endpoint.ip])
        assert await find(one, "example.org") == (2, [])
        assert await find(one, "example.org", stream=True) == (2, [])


async def test_a_new_life_answers_again(config: EngineConfig, namespaces: Namespaces) -> None:
    one = namespaces()
    first = Networks(config, config.data_root / "networks")
    await first.start()
    await first.create("app")
    endpoint = await first.attach("app", ONE, one.path, aliases=["db"])
    await first.close(keep=True)
    async with engine(config) as second:
        await second.reconcile({ONE})
        assert await find(one, "db") == (0, [endpoint.ip])
