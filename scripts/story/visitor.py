"""A client that asks for the service's page without a pause and writes down every answer."""

from __future__ import annotations

import http.client
import re
import threading
import time
from dataclasses import dataclass
from itertools import groupby

_VERSION = re.compile(r"Hello from version (\d+)")


@dataclass(frozen=True)
class Answer:
    """One request: when (monotonic seconds), the version the page named, or what went wrong."""

    at: float
    version: str | None
    error: str | None


class Visitor:
    """Requests `http://host:port/`, a new connection each time, in a thread until it is stopped."""

    def __init__(self, port: int, pause: float = 0.005, host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = port
        self._pause = pause
        self._answers: list[Answer] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="visitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def answers(self) -> list[Answer]:
        return list(self._answers)

    @property
    def failures(self) -> list[Answer]:
        return [answer for answer in self._answers if answer.error]

    @property
    def versions(self) -> list[str]:
        """The versions seen, in order, repeats folded: ["1", "2"] after one clean switch."""
        seen = [answer.version for answer in self._answers if answer.version]
        return [version for version, _ in groupby(seen)]

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._answers.append(self.ask())

    def ask(self) -> Answer:
        """One request, now, on a connection of its own."""
        return ask(self._port, host=self._host)


def ask(port: int, path: str = "/", host: str = "127.0.0.1") -> Answer:
    """One request on a connection of its own."""
    at = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return Answer(at, None, f"{type(error).__name__}: {error}")
    finally:
        connection.close()
    named = _VERSION.search(body)
    if response.status != 200 or named is None:
        return Answer(at, None, f"status {response.status}")
    return Answer(at, named.group(1), None)
