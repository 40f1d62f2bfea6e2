"""Services over the API: what runs where, every release, and wishes about them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.settings import Settings
from tests.server.conftest import night
from tests.server.running import Running
from tests.server.story import digest_of


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Running]:
    with night(settings) as server:
        yield server


def test_a_service_says_what_runs_where(server: Running) -> None:
    services = {service["name"]: service for service in server.api("/services")["services"]}
    assert list(services) == ["mail", "web"]
    web = services["web"]
    assert web["release"]["id"] == "web-2"
    assert [(host["host"], len(host["replicas"])) for host in web["hosts"]] == [("web1", 2), ("web2", 2)]
    assert web["rollout"]["state"] == "reverted"
    assert web["rollout"]["release"] == "web-3"
    assert server.api("/services/web") == web


def test_every_release_with_what_became_of_it(server: Running) -> None:
    releases = server.api("/services/web/releases")["releases"]
    assert [(each["id"], each["state"]) for each in releases][-3:] == [
        ("web-3", "failed"),
        ("web-2", "live"),
        ("web-1", "superseded"),
    ]
    assert "/healthz answered 500" in releases[0]["error"]
    assert [each["outcome"] for each in releases] == ["reverted", "done", "done"]
    assert all(each["author"] and each["started"] <= each["finished"] for each in releases)
    page = server.get("/services/web").text
    assert releases[0]["author"] in page
    assert releases[0]["tests"]
    assert len(server.api("/services/web/releases", limit=1)["releases"]) == 1


def test_workers_are_listed(server: Running) -> None:
    workers = {worker["name"]: worker for worker in server.api("/workers")["workers"]}
    assert workers["web1"]["labels"] == {"role": "web"}
    assert workers["web1"]["engine"] == "Shipway Engine 0.1.0"


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/services/nobody/rollback", {}, 404, "nobody"),
        ("/services/nobody/deploy", {}, 404, "nobody"),
        ("/services/mail/rollback", {}, 409, "no earlier release"),
        ("/services/web/rollback", {"release": "9"}, 404, "web-9"),
        ("/services/web/rollback", {"relase": "1"}, 400, "relase"),
        ("/services/web/deploy", {"image": "web:latest"}, 409, "digest"),
        ("/services/web/deploy", {"image": ""}, 409, "digest"),
    ],
)
def test_a_wish_that_can_not_be_is_refused_in_one_line(
    server: Running, path: str, body: dict[str, str], status: int, told: str
) -> None:
    before = len(server.api("/runs")["runs"])
    answer = server.post(f"/api/v1{path}", body)
    assert answer.status_code == status
    assert told in answer.json()["error"]
    assert len(server.api("/runs")["runs"]) == before


def test_what_is_not_there_is_not_found(server: Running) -> None:
    for path in ("/services/nobody", "/services/nobody/releases"):
        answer = server.get(f"/api/v1{path}")
        assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")


def test_a_rollback_is_a_run_like_any_other(server: Running) -> None:
    answer = server.post("/api/v1/services/web/rollback", {"who": "ada"})
    assert answer.status_code == 202
    run = server.api(f"/runs/{answer.json()['id']}")
    assert (run["title"], run["author"], run["event"]) == ("roll web back to web-1", "ada", "manual")
    assert [stage["kind"] for stage in run["stages"]] == ["deploy"]


def test_an_image_is_deployed_by_its_digest(server: Running) -> None:
    image = f"127.0.0.1:7750/web@{digest_of('by hand')}"
    answer = server.post("/api/v1/services/web/deploy", {"image": image})
    assert answer.status_code == 202
    assert image in answer.json()["title"]
