"""Who may change something, and who may not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from pipeline.settings import Settings
from server.access import refusal
from tests.server.running import Running, running

TOKEN = "a-token-of-some-length"


def asked(
    settings: Settings, *, client: str = "127.0.0.1", server: str = "127.0.0.1", **headers: str
) -> tuple[int, str] | None:
    sent = {"host": "127.0.0.1:7700", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/runs/1/cancel",
        "client": (client, 4711),
        "server": (server, 7700),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }
    return refusal(Request(scope), settings)


@pytest.fixture
def open_settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, server_url="http://ci.example.com:7700")


@pytest.fixture
def token_settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"data": tmp_path, "api_token": TOKEN})


@pytest.mark.parametrize(
    ("client", "server", "host"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:7700"),
        ("127.0.0.9", "127.0.0.1", "localhost:7700"),
        ("::1", "::1", "[::1]:7700"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.1:7700"),
        ("127.0.0.1", "127.0.0.1", "ci.example.com:7700"),
    ],
)
def test_without_a_token_this_machine_may(open_settings: Settings, client: str, server: str, host: str) -> None:
    assert asked(open_settings, client=client, server=server, host=host) is None


@pytest.mark.parametrize("client", ["10.0.0.2", "192.168.1.7", "2001:db8::1", ""])
def test_without_a_token_others_may_not(open_settings: Settings, client: str) -> None:
    refused = asked(open_settings, client=client, server="10.0.0.1", host="10.0.0.1:7700")
    assert refused is not None
    assert refused[0] == 403
    assert "SHIPWAY_API_TOKEN" in refused[1]


@pytest.mark.parametrize("host", ["evil.example:7700", "127.0.0.1.evil.example", "", "localhost.evil.example:7700"])
def test_a_name_that_a_stranger_may_have_made_lead_here_is_refused(open_settings: Settings, host: str) -> None:
    refused = asked(open_settings, host=host)
    assert refused is not None
    assert refused[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8080", "https://localhost"])
def test_a_page_from_elsewhere_may_not_even_with_a_token(
    open_settings: Settings, token_settings: Settings, origin: str
) -> None:
    for settings in (open_settings, token_settings):
        refused = asked(settings, origin=origin, authorization=f"Bearer {TOKEN}")
        assert refused is not None
        assert refused[0] == 403


def test_the_token_opens_from_anywhere(token_settings: Settings) -> None:
    assert asked(token_settings, client="10.0.0.2", host="x.example", authorization=f"Bearer {TOKEN}") is None
    assert asked(token_settings, origin="http://127.0.0.1:7700", authorization=f"bearer {TOKEN}") is None


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN]
)
def test_with_a_token_in_the_settings_nobody_may_without(token_settings: Settings, given: str | None) -> None:
    headers = {} if given is None else {"authorization": given}
    refused = asked(token_settings, **headers)
    assert refused is not None
    assert refused[0] == 401


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("guarded")
    with running(Settings.model_validate({"data": data, "api_token": TOKEN, "sweep_seconds": 0.2})) as server:
        yield server


def test_every_change_asks_for_it_and_no_read_does(guarded: Running) -> None:
    for path in (
        "/runs/1/cancel",
        "/runs/1/retry",
        "/runs/1/stages/x/approve",
        "/services/x/deploy",
        "/services/x/rollback",
    ):
        assert guarded.post(f"/api/v1{path}").status_code == 401, path
        allowed = guarded.post(f"/api/v1{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        assert allowed.status_code == 404, path
    for path in ("/", "/api/v1/runs", "/api/v1/services", "/api/v1/workers", "/metrics", "/healthz", "/readyz"):
        assert guarded.get(path).status_code == 200, path


def test_a_proxy_on_this_machine_does_not_lend_its_trust(tmp_path: Path) -> None:
    with running(Settings(data=tmp_path, sweep_seconds=0.2)) as server:
        direct = server.post("/api/v1/runs/1/cancel")
        passed_on = server.post("/api/v1/runs/1/cancel", headers={"X-Forwarded-For": "203.0.113.7"})
    assert (direct.status_code, passed_on.status_code) == (404, 403)


def test_the_workers_have_a_token_of_their_own(guarded: Running) -> None:
    answer = guarded.post("/api/v1/worker/claim", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 401
    kept = guarded.settings.data / "worker-token"
    assert kept.stat().st_mode & 0o777 == 0o600
    token = kept.read_text().strip()
    body = {"attempt": "x", "worker": "y"}
    answer = guarded.post("/api/v1/worker/claim", body, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()) == (200, None)
