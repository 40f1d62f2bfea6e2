from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from deploy.replicas import Replicas
from scripts.baseimages import BUSYBOX, busybox_root
from tests.deploy import registries

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

_SERVER = """
import http.server, sys, threading, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (sys.argv[1] + " " + self.client_address[0]).encode()
        self.send_response(200 if self.path != "/sick" else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
server = Server(("0.0.0.0", 8000), Handler)
print("up", flush=True)
server.serve_forever()
"""


class NetLab:
    """A host with a bridge, containers on it and a client outside, all network namespaces.

    host: 10.9.0.1 (bridge), 192.168.9.1 (outside); containers 10.9.0.2 and on; client 192.168.9.2.
    """

    def __init__(self) -> None:
        self._tag = f"swt{uuid.uuid4().hex[:6]}"
        self._spaces: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []
        self.host = self._space("h")
        self.client = self._space("c")
        self._ip("-n", self.host, "link", "add", "br0", "type", "bridge")
        self._ip("-n", self.host, "addr", "add", "10.9.0.1/24", "dev", "br0")
        self._ip("-n", self.host, "link", "set", "br0", "up")
        self._pair(self.host, "out", self.client, "eth0")
        self._ip("-n", self.host, "addr", "add", "192.168.9.1/24", "dev", "out")
        self._ip("-n", self.client, "addr", "add", "192.168.9.2/24", "dev", "eth0")

    def container(self, number: int) -> str:
        """A namespace at 10.9.0.<number> behind the host's bridge."""
        name = self._space(f"n{number}")
        self._pair(self.host, f"v{number}", name, "eth0")
        self._ip("-n", self.host, "link", "set", f"v{number}", "master", "br0")
        self._ip("-n", name, "addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
        self._ip("-n", name, "route", "add", "default", "via", "10.9.0.1")
        return name

    def serve(self, space: str, word: str) -> subprocess.Popen[str]:
        """An HTTP server on port 8000 in the namespace; answers `<word> <client's address>`."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-c", _SERVER, word],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def run(self, space: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, done by a thread inside the namespace."""
        return self.spawn(space, work)()

    def spawn(self, space: str, work: Callable[[], Any]) -> Callable[[], Any]:
        """Starts `work` in a thread inside the namespace; the answer waits for its result."""
        box: list[Any] = []

        def body() -> None:
            descriptor = os.open(f"/run/netns/{space}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
                box.append((True, work()))
            except BaseException as error:
                box.append((False, error))
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=body)
        thread.start()

        def result() -> Any:
            thread.join()
            good, value = box[0]
            if not good:
                raise value
            return value

        return result

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for name in self._spaces:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def _space(self, suffix: str) -> str:
        name = f"{self._tag}{suffix}"
        self._ip("netns", "add", name)
        self._spaces.append(name)
        self._ip("-n", name, "link", "set", "lo", "up")
        return name

    def _pair(self, left: str, left_name: str, right: str, right_name: str) -> None:
        self._ip("-n", left, "link", "add", left_name, "type", "veth", "peer", right_name, "netns", right)
        self._ip("-n", left, "link", "set", left_name, "up")
        self._ip("-n", right, "link", "set", right_name, "up")

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def netlab() -> Iterator[NetLab]:
    lab = NetLab()
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of an engine of this session's own, with the image `busybox:1.35`."""
    place = Path(tempfile.mkdtemp(prefix="swd"))
    url = f"unix://{place}/e.sock"
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "engine", "--host", url),
                *("--data-root", str(place / "data"), "--exec-root", str(place / "run")),
            ],
            cwd=registries.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        client = _client(url, process, place / "log")
        name, _, tag = BUSYBOX.partition(":")
        client.api.import_image_from_data(busybox_root(), repository=name, tag=tag)
        yield client
        client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(place, ignore_errors=True)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _client(url: str, process: subprocess.Popen[bytes], log: Path) -> docker.DockerClient:
    deadline = time.monotonic() + 30
    while not _listens(url.removeprefix("unix://")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return docker.DockerClient(url, timeout=60)


@pytest.fixture
def replicas(engine: docker.DockerClient) -> Iterator[Replicas]:
    """The engine's replicas; none is left afterwards."""
    made = Replicas(engine)
    yield made
    for found in made.find():
        made.remove(found.name, grace=0)
