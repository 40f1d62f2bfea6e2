"""What holds for every answer, and what each part says of its health."""

from __future__ import annotations

import logging
import socket

import pytest

from pipeline.settings import Settings
from tests.patience import wait_for
from tests.server.running import Running, running


@pytest.mark.parametrize(
    "path", ["/", "/runs/4711", "/api/v1/runs", "/api/v1/nothing", "/nothing", "/static/shipway.css"]
)
def test_every_answer_forbids_what_a_browser_need_not_do(server: Running, path: str) -> None:
    headers = server.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers


def test_pages_answer_errors_as_pages_and_the_api_as_json(server: Running) -> None:
    page = server.get("/runs/4711")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "there is no run 4711" in page.text
    assert server.get("/runs/abc").status_code == 400
    assert server.get("/services/nobody").status_code == 404
    assert server.get("/nothing").status_code == 404
    api = server.get("/api/v1/runs/4711")
    assert (api.status_code, api.json()) == (404, {"error": "there is no run 4711", "kind": "not_found"})


def test_what_nobody_foresaw_is_told_to_the_log_only(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(server.store, "get_run", broken)
    with caplog.at_level(logging.ERROR):
        # uvicorn hangs up after an error of this kind.
        answer = server.get("/api/v1/runs/1", headers={"Connection": "close"})
        page = server.get("/runs/1", headers={"Connection": "close"})
    assert (answer.status_code, answer.json()["kind"]) == (500, "internal")
    assert page.status_code == 500
    assert "hunter2" not in answer.text + page.text
    assert "hunter2" in caplog.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_healthy_and_ready(server: Running) -> None:
    assert server.get("/healthz").text == "ok\n"
    answer = server.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "problems": [], "broker": "ok"})


def test_not_ready_without_its_database(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("disk I/O error")

    monkeypatch.setattr(server.store, "list_runs", broken)
    answer = server.get("/readyz")
    assert answer.status_code == 503
    assert "disk I/O error" in answer.json()["problems"][0]
    assert server.get("/healthz").status_code == 200


def test_not_ready_without_its_threads(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = settings.model_copy(update={"data": tmp_path_factory.mktemp("threads")})
    with running(other) as server:
        server.conductor.stop()
        answer = server.get("/readyz")
    assert answer.status_code == 503
    assert "restart the server" in answer.json()["problems"][0]


def test_a_broker_that_is_away_is_told_and_the_page_stays(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.conductor, "broker_ok", False)
    answer = server.get("/readyz")
    assert (answer.status_code, answer.json()["broker"]) == (200, "away")


def test_small_answers_are_not_held_back(server: Running) -> None:
    """Nagle's algorithm makes each answer wait for the client's delayed acknowledgement: 40 ms."""
    with server.events("/live") as events:
        next(events)
        found = wait_for(lambda: list(server.serving.server_state.connections), "the connection")
        for connection in found:
            peer: socket.socket = connection.transport.get_extra_info("socket")
            assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_the_server_stops_at_once_whoever_is_listening(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = settings.model_copy(update={"data": tmp_path_factory.mktemp("stops")})
    with running(other) as server, server.events("/live") as home:
        next(home)
        assert server.serving.config.timeout_graceful_shutdown is not None
        server.serving.config.timeout_graceful_shutdown = 600
        server.serving.should_exit = True
        # Ends because the server lets go, not because its patience has ended.
        assert [event.name for event in home if event.name == "end"] == []
    assert server.state.feed.closed
