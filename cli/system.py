"""The parts of one system, in the order in which they start."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from cli.layout import Address, Layout
from cli.supervise import Part
from workers.broker import Broker


def parts(layout: Layout, inherited: Mapping[str, str]) -> Iterator[tuple[Part, str]]:
    """Each part with where it is reached, as a person would be told."""
    broker = Broker(layout.broker_data, layout.run / "broker.sock")
    environment = layout.environment(inherited, layout.broker_url or broker.url)

    def part(name: str, *argv: str, ready: Callable[[], bool], stop_timeout: float = 20.0) -> Part:
        log = layout.logs / f"{name}.log"
        return Part(name, argv, environment, ready, log, stop_timeout=stop_timeout)

    if layout.broker_url is None:
        broker.prepare()
        yield part("broker", *broker.argv, ready=broker.ready), str(broker.unix_socket)
    yield engine_part(layout, environment), f"unix://{layout.engine_socket}"
    yield (
        part(
            "registry",
            *_python("engine.registry.server"),
            *("--host", layout.registry.host, "--port", str(layout.registry.port)),
            *("--root", str(layout.registry_data)),
            ready=lambda: _answers(layout.registry, "/healthz"),
        ),
        f"http://{layout.registry.reached_at}",
    )
    yield part("server", *_python("server"), ready=lambda: _answers(layout.server, "/readyz")), layout.server_url
    yield (
        part(
            "worker",
            *(*_python("workers"), "--metrics", str(layout.metrics)),
            # Its services end with it: what led to them must not lead to whoever gets their addresses next.
            "--clear-traffic",
            ready=lambda: _answers(layout.metrics, "/readyz"),
            stop_timeout=60.0,
        ),
        f"metrics at http://{layout.metrics.reached_at}/metrics",
    )


def engine_part(layout: Layout, environment: Mapping[str, str]) -> Part:
    """The engine, which any of the others could do without."""
    return Part(
        "engine",
        (
            *_python("engine"),
            *("--host", f"unix://{layout.engine_socket}"),
            *("--data-root", str(layout.engine_data)),
            *("--exec-root", str(layout.run)),
            "--trust-host-ca",
        ),
        environment,
        lambda: answers_on_socket(layout.engine_socket, "/_ping"),
        layout.logs / "engine.log",
        stop_timeout=60.0,
    )


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module)


def _answers(address: Address, path: str) -> bool:
    host, _, port = address.reached_at.rpartition(":")
    return _asks(HTTPConnection(host, int(port), timeout=2), path)


def answers_on_socket(path: Path, url: str) -> bool:
    """Whether somebody answers a GET at a unix socket."""

    class _OnSocket(HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(path))

    return _asks(_OnSocket("localhost", timeout=2), url)


def _asks(connection: HTTPConnection, path: str) -> bool:
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 400
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
