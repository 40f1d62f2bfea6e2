"""HTTP to an engine's socket, for what no client library would say or shows."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BUSYBOX = "busybox:1.35"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What an error says."""
        return str(self.json["message"])


class Wire:
    def __init__(self, path: str) -> None:
        self._path = path

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(self._path)
        return connection

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """`body` goes as JSON, unless it is bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("engine", timeout=20)
        connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    @contextlib.contextmanager
    def stream(
        self, method: str, path: str, *, until: bytes, upgrade: bool = False, body: bytes = b""
    ) -> Iterator[socket.socket]:
        """A connection on which the answer has come as far as `until`; the test may leave it there."""
        head = f"{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n" if body else ""
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        with self.connect() as connection:
            connection.sendall(f"{head}\r\n".encode() + body)
            said = b""
            while until not in said:
                piece = connection.recv(65536)
                assert piece, said
                said += piece
            yield connection

    def make(self, name: str, *argv: str, **config: Any) -> str:
        """A container of busybox that was not started; its id."""
        wanted = {"Image": BUSYBOX, "Cmd": list(argv) or ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}}
        answer = self.ask("POST", f"/containers/create?name={name}", wanted | config)
        assert answer.status == 201, answer
        return str(answer.json["Id"])

    def start(self, name: str, *argv: str, **config: Any) -> str:
        made = self.make(name, *argv, **config)
        answer = self.ask("POST", f"/containers/{made}/start")
        assert answer.status == 204, answer
        return made


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """(stream, bytes) of a multiplexed stream."""
    found = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return found
