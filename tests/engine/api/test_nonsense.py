"""Requests that nobody means: each is told so in one line, and the engine is as well as before."""

from __future__ import annotations

import contextlib
import json

import docker
import pytest

from tests.engine.api.wire import Wire

pytestmark = pytest.mark.kernel
BODIES = [
    "/containers/create",
    "/containers/c/update",
    "/containers/c/exec",
    "/exec/missing/start",
    "/networks/create",
    "/networks/bridge/connect",
    "/networks/bridge/disconnect",
    "/volumes/create",
    "/auth",
    "/commit?container=c",
]
UNKNOWN = [
    *(
        ("GET", f"/containers/missing/{what}")
        for what in ("json", "logs?stdout=1", "top", "stats", "changes", "export")
    ),
    *(("POST", f"/containers/missing/{what}") for what in ("start", "stop", "kill", "restart", "pause", "unpause")),
    *(("POST", f"/containers/missing/{what}") for what in ("rename?name=xx", "wait", "attach", "exec", "update")),
    *(("POST", "/commit?container=missing"), ("DELETE", "/containers/missing")),
    *(("GET", "/exec/missing/json"), ("POST", "/exec/missing/start"), ("POST", "/exec/missing/resize?h=1&w=1")),
    *(("GET", "/images/missing/json"), ("GET", "/images/missing/history"), ("DELETE", "/images/missing")),
    *(("POST", "/images/missing/tag?repo=x"), ("GET", "/images/missing/get"), ("POST", "/images/missing/push?tag=1")),
    *(("GET", "/networks/missing"), ("DELETE", "/networks/missing")),
    *(("GET", "/volumes/missing"), ("DELETE", "/volumes/missing")),
]
NUMBERS = [
    *(
        ("POST", "/containers/c/stop?t=x"),
        ("POST", "/containers/c/resize?h=x&w=1"),
        ("GET", "/containers/json?limit=x"),
    ),
    *(("GET", "/containers/json?filters=x"), ("GET", '/containers/json?filters={"a":1}'), ("GET", "/images/get")),
    *(("POST", '/containers/prune?filters={"x":["y"]}'), ("POST", '/images/prune?filters={"x":["y"]}')),
    *(("POST", '/networks/prune?filters={"x":["y"]}'), ("POST", '/volumes/prune?filters={"x":["y"]}')),
    *(("POST", f'/images/prune?filters={{"dangling":{said}}}') for said in ('["x"]', '["true","false"]', "[]")),
    *(("GET", '/networks?filters={"dangling":["x"]}'), ("GET", '/networks?filters={"type":["x"]}')),
    *(("POST", '/volumes/prune?filters={"all":["x"]}'), ("GET", "/system/df?type=x")),
    *(("GET", "/images/x@sha256:1/json"), ("GET", "/images/%2e%2e/json")),
]


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"\xff"])
def test_bodies(wire: Wire, client: docker.DockerClient, path: str, body: bytes) -> None:
    if "c" in path.split("/") or "=c" in path:
        wire.make("c1")
        path = path.replace("/c/", "/c1/").replace("=c", "=c1")
    answer = wire.ask("POST", path, body)
    assert (answer.status, "invalid JSON" in answer.message) == (400, True), answer


def test_bodies_that_are_json_and_more(wire: Wire) -> None:
    answer = wire.ask("POST", "/containers/create", b"{}{}")
    assert (answer.status, answer.message) == (400, "unexpected content after JSON")
    # What a page in a browser may send unasked.
    answer = wire.ask("POST", "/containers/create", b"{}", {"Content-Type": "text/plain"})
    assert (answer.status, "unsupported Content-Type" in answer.message) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        {"Image": 1},
        {"Image": "busybox:1.35", "Cmd": {"a": 1}},
        {"Image": "busybox:1.35", "Env": ["A=b\0"]},
        {"Image": "busybox:1.35", "HostConfig": {"Memory": "much"}},
        {"Image": "busybox:1.35", "HostConfig": {"PortBindings": {"99999/tcp": []}}},
        {"Image": "busybox:1.35", "HostConfig": []},
        {"Image": "busybox:1.35", "NetworkingConfig": "x"},
        {"Image": "../../etc"},
        {"Image": "busybox:1.35", "Volumes": {"/v": json.loads('{"a":' * 800 + "1" + "}" * 800)}},
    ],
)
def test_configurations(wire: Wire, body: dict[str, object]) -> None:
    answer = wire.ask("POST", "/containers/create", {"Cmd": ["true"]} | body)
    assert (answer.status, "\n" in answer.message) == (400, False), answer


@pytest.mark.parametrize(
    "body", [{"Cmd": [1]}, {"Cmd": "x", "Env": {"A": "b"}}, {"Cmd": "x", "User": 5}, {"Cmd": "x", "DetachKeys": 7}]
)
def test_executions(wire: Wire, client: docker.DockerClient, body: dict[str, object]) -> None:
    answer = wire.ask("POST", f"/containers/{wire.start('c1')}/exec", body)
    assert (answer.status, "invalid JSON" in answer.message) == (400, True), answer


@pytest.mark.parametrize(("method", "path"), UNKNOWN)
def test_what_nobody_has(wire: Wire, method: str, path: str) -> None:
    body = {"Cmd": ["true"]} if path.endswith("/exec") else {} if method == "POST" else None
    answer = wire.ask(method, path, body)
    assert (answer.status, "issing" in answer.message) == (404, True), answer


@pytest.mark.parametrize(("method", "path"), NUMBERS)
def test_queries(wire: Wire, client: docker.DockerClient, method: str, path: str) -> None:
    if "/c/" in path:
        wire.start("c1")
    assert wire.ask(method, path.replace("/c/", "/c1/")).status == 400


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"", "archive has neither a manifest.json nor an index.json"), (b"x" * 2000, "malformed tar")],
)
def test_what_is_no_saved_image_is_told_in_the_stream(wire: Wire, body: bytes, words: str) -> None:
    answer = wire.ask("POST", "/images/load", body)
    assert (answer.status, words in answer.json["error"]) == (200, True), answer


def test_a_body_without_end(wire: Wire) -> None:
    """It is refused long before it is whole."""
    with wire.connect() as connection:
        connection.sendall(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        connection.sendall(b"[" * (9 << 20))
        assert connection.recv(64).startswith(b"HTTP/1.1 400 Bad Request")


def test_long_addresses_and_headers(wire: Wire) -> None:
    """A build's arguments are in its address, the credentials of many registries in a header."""
    assert wire.ask("GET", f"/containers/{'x' * 500_000}/json").status == 404
    assert wire.ask("GET", "/_ping", headers={"X-Registry-Config": "x" * 500_000}).status == 200
    with wire.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /" + b"x" * (2 << 20))
        assert b" 400 " in connection.recv(64)


def test_all_is_well_after_it(wire: Wire) -> None:
    assert wire.ask("GET", "/_ping").body == b"OK"
