"""A real engine in a process of its own, to be killed, with the docker library's client."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from docker.utils.socket import frames_iter

from engine.config import EngineConfig
from scripts.baseimages import busybox_root
from tests.patience import wait_for

ROOT = Path(__file__).resolve().parents[3]


class Daemon:
    """`python -m engine` on folders of its own; `client` talks to it."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="swd"))
        self.config = EngineConfig(data_root=self.place / "data", exec_root=self.place / "run")
        self.url = f"unix://{self.place}/e.sock"
        self.process: subprocess.Popen[bytes]
        self.client: docker.DockerClient

    def start(self, *flags: str) -> None:
        """Returns when it answers."""
        places = ("--data-root", str(self.config.data_root), "--exec-root", str(self.config.exec_root))
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engine", "--host", self.url, *places, *flags],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._listens, "the engine's start")
        self.client = docker.DockerClient(self.url)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log()
        with socket.socket(socket.AF_UNIX) as caller:
            return caller.connect_ex(self.url.removeprefix("unix://")) == 0

    def log(self) -> str:
        return (self.place / "log").read_text()

    def kill(self) -> None:
        """As a crash would."""
        self.client.close()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    @property
    def zygote(self) -> int:
        """Its pid: the parent of every container."""
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (process / "cmdline").read_bytes()
                    if b"engine.runtime.zygote" in line and str(self.config.exec_root).encode() in line:
                        return int(process.name)
        raise AssertionError("no zygote")

    def run(self, script: str, **more: Any) -> Container:
        """A detached container of busybox's shell, without a network unless `more` says otherwise."""
        options = {"network_mode": "none", **more}
        return self.client.containers.run("busybox:1.35", ["sh", "-c", script], detach=True, **options)

    def exec(self, container: Container, *argv: str) -> tuple[int, bytes]:
        """(exit code, both streams together). The library's own call leaves its connection open."""
        api = self.client.api
        made = api.exec_create(container.id, list(argv))["Id"]
        with _open(api.exec_start(made, socket=True)) as stream:
            said = b"".join(data for _, data in frames_iter(stream, tty=False))
        return api.exec_inspect(made)["ExitCode"], said

    def next_lines(self, container: Container, count: int) -> list[bytes]:
        """Some lines of what it writes from now on; the first is a whole one."""
        said = b""
        with _open(self.client.api.attach_socket(container.id, {"stdout": 1, "stream": 1})) as stream:
            for _, data in frames_iter(stream, tty=False):
                said += data
                if said.count(b"\n") > count + 1:
                    break
        return said.split(b"\n")[1 : count + 1]

    def type_to(self, container: Container, data: bytes) -> None:
        with _open(self.client.api.attach_socket(container.id, {"stdin": 1, "stream": 1})) as stream:
            stream._sock.sendall(data)


@contextlib.contextmanager
def _open(stream: Any) -> Iterator[Any]:
    inner = stream._sock
    try:
        yield stream
    finally:
        stream.close()
        inner.close()


@contextlib.contextmanager
def running() -> Iterator[Daemon]:
    """One with a busybox image; in the end nothing of it is left."""
    daemon = Daemon()
    try:
        daemon.start()
        daemon.client.api.import_image_from_data(busybox_root(), repository="busybox", tag="1.35")
        yield daemon
    finally:
        if daemon.process.poll() is not None:
            # Whoever was killed is started once more, to clear up.
            daemon.start()
        for container in daemon.client.containers.list(all=True):
            container.remove(force=True)
        daemon.stop()
        shutil.rmtree(daemon.place)


def lines_of(container: Container) -> list[bytes]:
    """What its log has on stdout."""
    return bytes(container.logs(stdout=True, stderr=False)).splitlines()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))
