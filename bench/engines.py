"""Engines as processes of their own, and what every bench asks them by."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])
OURS = (sys.executable, "-c", f"import sys; sys.path.insert(0, {_ROOT!r}); from cli.main import main; main()", "engine")


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@contextlib.contextmanager
def started(name: str, folder: Path, *command: str) -> Iterator[str]:
    """A daemon, until the end; yields its socket."""
    path = folder / f"{name}.sock"
    folders = ["--data-root", str(folder / name), "--exec-root", str(folder / f"{name}-run")]
    pidfile = ["--pidfile", str(folder / f"{name}.pid")]
    with (folder / f"{name}.log").open("wb") as log:
        daemon = subprocess.Popen([*command, "--host", f"unix://{path}", *folders, *pidfile], stdout=log, stderr=log)
    try:
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: daemon.poll() is not None or _answers(str(path)), "", 60)
        if not _answers(str(path)):
            raise SystemExit((folder / f"{name}.log").read_text()[-2000:])
        yield str(path)
    finally:
        daemon.terminate()
        daemon.wait(60)


def _answers(path: str) -> bool:
    with contextlib.closing(Connection(path)) as connection, contextlib.suppress(OSError):
        connection.request("GET", "/v1.41/info")
        return connection.getresponse().status == 200
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(done: Callable[[], bool], otherwise: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)
