"""Runs over the API: listed, looked at, tried again, cancelled, approved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.run.states import StageState
from pipeline.store import Store
from tests.patience import wait_for
from tests.server.running import Running
from tests.server.story import WEB, Clock, Story, plan_of


@pytest.fixture(scope="module")
def story(server: Running) -> Story:
    """Tells on the running server's own store."""
    story = Story(server.store, Clock(1_800_000_000.0))
    for name in ("web1", "web2"):
        story.host(name, role="web")
    story.host("build1", role="jobs")
    return story


@pytest.fixture(scope="module")
def store(server: Running) -> Store:
    return server.store


def test_the_newest_come_first_and_pages_go_back(server: Running, story: Story) -> None:
    made = [story.push(plan_of(WEB), f"Change {number}", branch=f"b{number}").id for number in range(5)]
    newest = [run["id"] for run in server.api("/runs", limit=3)["runs"]]
    assert newest == made[:1:-1]
    older = [run["id"] for run in server.api("/runs", limit=3, before=newest[-1])["runs"]]
    assert older[:2] == made[1::-1]


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({"branch": "b1"}, lambda run: run["branch"] == "b1"),
        ({"pipeline": "web"}, lambda run: run["pipeline"] == "web"),
        ({"repository": "web"}, lambda run: run["repository"] == "web"),
        ({"state": ["running", "queued"]}, lambda run: run["state"] in ("running", "queued")),
    ],
)
def test_runs_can_be_chosen(
    server: Running, story: Story, query: dict[str, Any], fits: Callable[[dict[str, Any]], bool]
) -> None:
    story.push(plan_of(WEB), "Chosen", branch="b1")
    found = server.api("/runs", **query)["runs"]
    assert found
    assert all(fits(run) for run in found)
    assert server.api("/runs", pipeline="nobody")["runs"] == []
    assert server.api("/runs", state="lost")["runs"] == []


def test_a_run_shows_its_stages(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Look at me", author="Grace")
    story.finish(story.claim(run, "image"), 1.0)
    seen = server.api(f"/runs/{run.id}")
    assert (seen["message"], seen["author"], seen["state"]) == ("Look at me", "Grace", "running")
    image, unit = seen["stages"][:2]
    assert (image["state"], image["attempts"][0]["worker"]) == ("passed", "build1")
    assert unit["needs"] == ["image"]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/runs/4711", 404, "not_found"),
        ("GET", "/runs/web", 400, "request"),
        ("GET", "/runs/99999999999999999999", 400, "request"),
        ("GET", "/runs/-1", 400, "request"),
        ("GET", "/runs?limit=0", 400, "request"),
        ("GET", "/runs?limit=many", 400, "request"),
        ("GET", "/runs?before=x", 400, "request"),
        ("POST", "/runs/4711/cancel", 404, "not_found"),
        ("POST", "/runs/4711/retry", 404, "not_found"),
        ("POST", "/runs/4711/stages/unit/approve", 404, "not_found"),
        ("DELETE", "/runs/1", 405, "request"),
        ("GET", "/nothing", 404, "not_found"),
    ],
)
def test_errors_have_a_kind_and_one_line(server: Running, method: str, path: str, status: int, kind: str) -> None:
    answer = server.session.request(method, f"{server.url}/api/v1{path}", timeout=20)
    assert answer.status_code == status
    body = answer.json()
    assert body["kind"] == kind
    assert body["error"]
    assert "\n" not in body["error"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b'{"reason": 1}', b'{"raeson": "x"}', b"[" * 50_000])
def test_a_body_that_is_not_what_was_asked_for_is_refused(server: Running, story: Story, body: bytes) -> None:
    run = story.push(plan_of(WEB), "Stays")
    answer = server.session.post(f"{server.url}/api/v1/runs/{run.id}/cancel", data=body, timeout=20)
    assert (answer.status_code, answer.json()["kind"]) == (400, "request")
    assert server.api(f"/runs/{run.id}")["state"] != "cancelled"


def test_a_body_may_be_absent(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Goes")
    answer = server.session.post(f"{server.url}/api/v1/runs/{run.id}/cancel", timeout=20)
    assert answer.status_code == 202


def test_a_cancelled_run_says_why(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Not now")
    answer = server.post(f"/api/v1/runs/{run.id}/cancel", {"reason": "not tonight"})
    assert answer.status_code == 202
    seen = server.api(f"/runs/{run.id}")
    assert (seen["state"], seen["reason"]) == ("cancelled", "not tonight")
    again = server.post(f"/api/v1/runs/{run.id}/cancel")
    assert (again.status_code, again.json()["kind"]) == (409, "conflict")


def test_a_failed_run_can_be_taken_up_where_it_failed(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Fails once")
    assert server.post(f"/api/v1/runs/{run.id}/retry").status_code == 409
    story.finish(story.claim(run, "image"), 1.0, error="no space", retryable=False)
    assert server.api(f"/runs/{run.id}")["reason"] == "image: no space"
    assert server.post(f"/api/v1/runs/{run.id}/retry", {"from_stage": "imago"}).status_code == 404
    answer = server.post(f"/api/v1/runs/{run.id}/retry", {"from_stage": "image"})
    assert answer.status_code == 202
    stage = server.api(f"/runs/{run.id}")["stages"][0]
    assert (stage["state"], len(stage["attempts"])) == ("dispatched", 2)


def test_a_stage_that_waits_for_approval_goes_on_by_somebodys_word(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB, approval=True), "Careful")
    early = server.post(f"/api/v1/runs/{run.id}/stages/production/approve")
    assert (early.status_code, early.json()["kind"]) == (409, "conflict")
    story.until_published(run)
    wait_for(lambda: _stage(server, run.id, "production")["state"] == StageState.WAITING, "the waiting")
    answer = server.post(f"/api/v1/runs/{run.id}/stages/production/approve", {"who": "ada"})
    assert answer.status_code == 202
    stage = _stage(server, run.id, "production")
    assert (stage["state"], stage["approved"], stage["approver"]) == ("dispatched", True, "ada")
    assert "approved by ada" in server.get(f"/runs/{run.id}?stage=production").text


def _stage(server: Running, run: int, name: str) -> Any:
    return next(stage for stage in server.api(f"/runs/{run}")["stages"] if stage["name"] == name)
