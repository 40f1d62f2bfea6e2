from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from deploy.health import http_probe, tcp_probe, wait_healthy
from pipeline.services import Health
from tests.ports import free_port


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/ok": 204, "/moved": 302}.get(self.path, 503))
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_http(port: int):
    assert http_probe("127.0.0.1", port, "/ok", 1.0)() is None
    assert http_probe("127.0.0.1", port, "/moved", 1.0)() is None
    assert http_probe("127.0.0.1", port, "/sick", 1.0)() == "GET /sick answered 503"
    assert http_probe("127.0.0.1", free_port(), "/", 1.0)() == "GET /: connection refused"


def test_tcp(port: int):
    assert tcp_probe("127.0.0.1", port, 1.0)() is None
    nobody = free_port()
    assert tcp_probe("127.0.0.1", nobody, 1.0)() == f"port {nobody}: connection refused"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(answers: list[str | None], health: Health, died: str | None = None) -> tuple[str | None, float]:
    """The verdict, and how long it took on the clock. The last answer repeats."""
    clock = Clock()
    rest = iter(answers)
    verdict = wait_healthy(
        lambda: next(rest, answers[-1]),
        health,
        died=lambda: died,
        check=lambda: None,
        clock=clock,
        sleep=clock.sleep,
    )
    return verdict, clock.now - 100.0


HEALTH = Health(tcp=True, interval=1.0, retries=3, start_period=10.0)


def test_healthy_at_the_first_success():
    assert wait(["no", "no", None], HEALTH)[0] is None


def test_failures_in_the_start_period_do_not_count():
    assert wait(["no"] * 12 + [None], HEALTH)[0] is None


def test_after_it_the_retries_decide():
    verdict, took = wait(["no"], HEALTH)
    assert verdict == "no"
    assert 11.0 <= took <= 14.0


def test_a_process_that_ended_is_not_waited_for():
    assert wait(["no"], HEALTH, died="it exited with 1") == ("it exited with 1", 0.0)


def test_giving_up():
    def check() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        wait_healthy(lambda: "no", HEALTH, died=lambda: None, check=check)
