from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from engine.config import EngineConfig
from engine.network import Networks

T = TypeVar("T")
NEWNET = 0x40000000


class Namespace:
    """A network namespace with a process that holds it: as much of a container as a network sees."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            libc.unshare(NEWNET)
            os.write(told, b".")
            signal.pause()
            os._exit(0)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        self.path = Path(f"/proc/{self.pid}/ns/net")
        self._alive = True

    def run(self, function: Callable[[], T]) -> T:
        """`function` in a thread that is inside; sockets it makes stay there."""
        found: list[T] = []
        failed: list[BaseException] = []

        def inside() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with self.path.open() as namespace:
                assert libc.setns(namespace.fileno(), NEWNET) == 0
            try:
                found.append(function())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def end(self) -> None:
        if self._alive:
            self._alive = False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class EchoServer:
    """Answers each connection with its name and the address of whoever asks, over IPv4 and IPv6."""

    def __init__(self, namespace: Namespace, name: str, port: int = 80) -> None:
        self._name = name.encode()
        self._listener = namespace.run(
            lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, address = self._listener.accept()
            except OSError:
                return
            with client:
                client.sendall(self._name + b" " + address[0].removeprefix("::ffff:").encode())

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def call(host: str, port: int, timeout: float = 2) -> str:
    """What the server there says."""
    with socket.create_connection((host, port), timeout=timeout) as connection:
        return connection.recv(100).decode()


async def here(function: Callable[..., str], *arguments: object) -> str:
    return await asyncio.to_thread(function, *arguments)


async def inside(namespace: Namespace, host: str, port: int, timeout: float = 2) -> str:
    """What the server there says to someone in the namespace."""
    return await asyncio.to_thread(namespace.run, lambda: call(host, port, timeout))


def command(line: str) -> str:
    return subprocess.run(line.split(), check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="package", autouse=True)
def host_of_its_own() -> Iterator[None]:
    """A network namespace that stands for the host: whatever rules and addresses the real one has, these lack."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as before:
        assert libc.unshare(NEWNET) == 0
        command("ip link set lo up")
        yield
        assert libc.setns(before.fileno(), NEWNET) == 0


HOST, HOST6 = "203.0.113.1", "2001:db8:1::1"
OUTSIDE, OUTSIDE6 = "203.0.113.2", "2001:db8:1::2"


@pytest.fixture
def outside(namespaces: Callable[[], Namespace]) -> Iterator[Namespace]:
    """Another host, on a wire to this one; each is the other's way to everywhere."""
    other = namespaces()
    command(f"ip link add wire type veth peer name wire netns {other.pid}")

    def plug(address: str, address6: str, router: str, router6: str) -> None:
        command(f"ip addr add {address}/24 dev wire")
        command(f"ip addr add {address6}/64 dev wire nodad")
        command("ip link set wire up")
        command(f"ip route add default via {router}")
        command(f"ip -6 route add default via {router6}")

    plug(HOST, HOST6, OUTSIDE, OUTSIDE6)
    other.run(lambda: plug(OUTSIDE, OUTSIDE6, HOST, HOST6))
    yield other
    command("ip link del wire")


@pytest.fixture
def namespaces() -> Iterator[Callable[[], Namespace]]:
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace())
        return made[-1]

    yield make
    for namespace in made:
        namespace.end()


Namespaces = Callable[[], Namespace]
Servers = Callable[..., EchoServer]
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


@pytest.fixture
def servers() -> Iterator[Callable[..., EchoServer]]:
    made: list[EchoServer] = []

    def make(namespace: Namespace, name: str, port: int = 80) -> EchoServer:
        made.append(EchoServer(namespace, name, port))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def config(tmp_path: Path) -> Iterator[EngineConfig]:
    exec_root = Path(tempfile.mkdtemp(prefix="swn"))
    yield EngineConfig(data_root=tmp_path / "data", exec_root=exec_root)
    shutil.rmtree(exec_root)


@pytest.fixture
async def networks(config: EngineConfig) -> AsyncIterator[Networks]:
    opened = Networks(config, config.data_root / "networks")
    await opened.start()
    yield opened
    await opened.close()
    names = {name for _, name in socket.if_nameindex()}
    assert not [name for name in names if config.instance in name], "interfaces are left"
