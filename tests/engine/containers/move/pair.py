"""Two engines, and a stretch of wire between them that can be cut, or at whose points somebody is killed."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from tests.engine.containers.daemon import Daemon
from tests.patience import wait_for

COUNT = "trap 'exit 0' TERM; i=0; while :; do echo $i; echo $i >/data/n; i=$((i+1)); usleep 2000; done"


class MoveFailed(Exception):
    """What the engine said."""


class Pair:
    """`here` has the container, `there` is where it goes."""

    def __init__(self, here: Daemon, there: Daemon) -> None:
        self.here = here
        self.there = there

    def move(self, name: str, host: str = "", **wish: Any) -> str:
        """The id that it has there. Raises MoveFailed."""
        api: Any = self.here.client.api
        body = {"Host": host or self.there.url, **wish}
        with contextlib.closing(api.post(api._url("/containers/{0}/move", name), json=body, stream=True)) as answer:
            if answer.status_code != 200:
                raise MoveFailed(answer.json()["message"])
            last = {}
            for line in answer.iter_lines():
                last = json.loads(line)
        if "error" in last:
            raise MoveFailed(last["error"])
        return str(last["aux"]["Id"])

    def runs(self, name: str) -> list[Daemon]:
        """Where it runs."""
        return [each for each in (self.here, self.there) if status(each, name) == "running"]

    def settled(self, name: str) -> Daemon:
        """The one engine that has the container in the end; the other has nothing of it."""

        def one() -> Daemon | None:
            states = {each: status(each, name) for each in (self.here, self.there)}
            running = [each for each, state in states.items() if state == "running"]
            assert len(running) < 2, states
            others = [state for each, state in states.items() if each not in running]
            return running[0] if running and others == [""] else None

        found: Daemon = wait_for(one, "the end of the move")
        return found


def status(daemon: Daemon, name: str) -> str:
    try:
        return str(daemon.client.api.inspect_container(name)["State"]["Status"])
    except NotFound:
        return ""


def holdings(daemon: Daemon) -> dict[str, set[str]]:
    """All that users see of an engine, and what it notes of moves."""
    client: Any = daemon.client
    return {
        "containers": {each.name for each in client.containers.list(all=True)},
        "volumes": {each.name for each in client.volumes.list()},
        "networks": {each.name for each in client.networks.list()},
        "images": {image.id for image in client.images.list(all=True)},
        "layers": {path.name for path in (daemon.config.data_root / "images/layers").iterdir()},
        "blobs": {path.name for path in (daemon.config.data_root / "images/blobs/sha256").iterdir()},
        "folders": {path.name for path in (daemon.config.data_root / "containers").glob("[0-9a-f]*")},
        "notes": {path.name for path in (daemon.config.data_root / "moves").glob("*")},
    }


class Wire:
    """Passes on what an engine says to the other, and calls `at(point, after)` at each request: before it is passed on,
    and when the answer is there and not yet handed back. A point is its method and the end of its path."""

    def __init__(self, folder: Path, target: str, at: Callable[[str, bool], None]) -> None:
        self.url = f"unix://{folder}/wire.sock"
        self._target = target.removeprefix("unix://")
        self._at = at
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "wire.sock"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(near,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_UNIX)
        points: list[str] = []
        with near, far, contextlib.suppress(OSError):
            far.connect(self._target)
            back = threading.Thread(target=self._back, args=(far, near, points), daemon=True)
            back.start()
            while data := near.recv(1 << 16):
                line = data.partition(b"\r\n")[0]
                if line.endswith(b" HTTP/1.1"):
                    method, path, _ = line.decode().split()
                    points.append(f"{method} {'/'.join(path.split('/')[3:]) or path}")
                    self._at(points[-1], False)
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
            back.join(10)

    def _back(self, far: socket.socket, near: socket.socket, points: list[str]) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 16):
                if data.startswith(b"HTTP/1.1 ") and points:
                    self._at(points[-1], True)
                near.sendall(data)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wired(target: Daemon, at: Callable[[str, bool], None]) -> Iterator[str]:
    """The address of a wire to an engine."""
    folder = Path(tempfile.mkdtemp(prefix="sww"))
    wire = Wire(folder, target.url, at)
    try:
        yield wire.url
    finally:
        wire.close()
        shutil.rmtree(folder)
