"""A real server in a thread of this process, and what tests say to it over real HTTP."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from pipeline.settings import Settings
from pipeline.store import Store
from server.conductor import Conductor
from server.dispatch import Dispatcher, NoDispatcher
from server.hooks.signature import sign
from server.serving import Serving, listen
from tests.patience import wait_for

SECRET = "s3cret"
"""Of every repository that a test tells the server of."""


@dataclass
class Running:
    """A server that answers at `url`."""

    url: str
    settings: Settings
    serving: Serving
    session: requests.Session
    runs: dict[str, int] = field(default_factory=dict)
    """Of its story, by what became of them."""

    @property
    def state(self) -> Any:
        return self.serving.config.app.state  # type: ignore[union-attr]

    @property
    def store(self) -> Store:
        store: Store = self.state.store
        return store

    @property
    def conductor(self) -> Conductor:
        conductor: Conductor = self.state.conductor
        return conductor

    def get(self, path: str, **rest: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=20, **rest)

    def post(self, path: str, body: Any = None, **rest: Any) -> requests.Response:
        return self.session.post(self.url + path, json={} if body is None else body, timeout=20, **rest)

    def api(self, path: str, **query: Any) -> Any:
        answer = self.get(f"/api/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def hook(
        self, kind: str, body: Any, *, secret: str = SECRET, headers: dict[str, str] | None = None
    ) -> requests.Response:
        """Delivers a signed body: bytes as they are, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        name = {"generic": "X-Shipway-Signature-256", "github": "X-Hub-Signature-256"}[kind]
        sent = {"Content-Type": "application/json", name: sign(secret, raw), **(headers or {})}
        return self.session.post(f"{self.url}/hooks/{kind}", data=raw, headers=sent, timeout=20)

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        host, port = self.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def events(self, path: str, headers: dict[str, str] | None = None) -> Iterator[Iterator[Event]]:
        """The server-sent events of an address as they come."""
        with self.connection() as connection:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield _events(response)


@dataclass
class Event:
    name: str
    data: str
    id: str


def _events(response: http.client.HTTPResponse) -> Iterator[Event]:
    fields: dict[str, list[str]] = {}
    for raw in response:
        line = raw.decode().rstrip("\n")
        if line:
            key, _, value = line.partition(":")
            fields.setdefault(key, []).append(value.removeprefix(" "))
        elif "event" in fields:
            yield Event(fields["event"][0], "\n".join(fields.get("data", [])), fields.get("id", [""])[0])
            fields = {}
        else:
            fields = {}


@contextmanager
def running(settings: Settings, dispatcher: Dispatcher | None = None) -> Iterator[Running]:
    """The server until the end of the block; then it must stop within its time."""
    serving = Serving(settings, dispatcher or NoDispatcher())
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]}, name="server under test", daemon=True)
    thread.start()
    with requests.Session() as session:
        session.trust_env = False
        try:
            wait_for(lambda: serving.started or not thread.is_alive(), "the server's start")
            assert serving.started, "the server did not start"
            yield Running(f"http://127.0.0.1:{port}", settings, serving, session)
        finally:
            serving.should_exit = True
            thread.join(timeout=15)
            assert not thread.is_alive(), "the server did not stop"
