"""GitHub's deliveries, as GitHub sends them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.triggers.event import Event
from tests.server.conftest import GITHUB
from tests.server.running import Running

DATA = Path(__file__).resolve().parents[1] / "data" / "github"


def deliver(server: Running, name: str, event: str, delivery: str) -> Any:
    headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": delivery}
    return server.hook("github", (DATA / f"{name}.json").read_bytes(), headers=headers)


def stored(server: Running, number: int) -> Event:
    with sqlite3.connect(server.settings.data / "shipway.db") as database:
        (document,) = database.execute("SELECT document FROM events WHERE id = ?", (number,)).fetchone()
    database.close()
    return Event.model_validate_json(document)


@pytest.mark.parametrize(
    ("name", "kind", "ref"),
    [("push_branch_create", "push", "refs/heads/feature-branch"), ("push_tag", "tag", "refs/tags/v0.0.1")],
)
def test_a_push_is_stored_in_our_own_words(server: Running, name: str, kind: str, ref: str) -> None:
    answer = deliver(server, name, "push", name)
    assert answer.status_code == 202
    event = stored(server, answer.json()["event"])
    payload = json.loads((DATA / f"{name}.json").read_text())
    assert (event.kind, event.ref, event.sha) == (kind, ref, payload["after"])
    assert event.repository == GITHUB
    assert event.author == payload["head_commit"]["author"]["name"]
    assert event.message == payload["head_commit"]["message"]
    assert event.committed == 1529460192.0


def test_a_deleted_tag_starts_nothing(server: Running) -> None:
    answer = deliver(server, "push_tag_delete", "push", "gone")
    assert answer.status_code == 202
    event = stored(server, answer.json()["event"])
    assert event.deleted
    assert not event.message


def test_a_redelivery_counts_once(server: Running, count: Callable[[str], int]) -> None:
    first = deliver(server, "push_tag", "push", "again")
    before = count("events")
    second = deliver(server, "push_tag", "push", "again")
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == {"ok": True, "duplicate": True}
    assert count("events") == before


def test_a_ping_is_answered(server: Running, count: Callable[[str], int]) -> None:
    before = count("events")
    body = {"zen": "Keep it logically awesome.", "hook_id": 1, "repository": {"full_name": GITHUB}}
    answer = server.hook("github", body, headers={"X-GitHub-Event": "ping"})
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert count("events") == before


def test_other_events_are_told_to_start_nothing(server: Running, count: Callable[[str], int]) -> None:
    before = count("events")
    answer = deliver(server, "pull_request", "pull_request", "pr")
    assert answer.status_code == 200
    assert "pull_request" in answer.json()["ignored"]
    assert count("events") == before


def test_a_wrong_signature_is_refused(server: Running, count: Callable[[str], int]) -> None:
    before = count("events")
    raw = (DATA / "push_tag.json").read_bytes()
    headers = {"X-GitHub-Event": "push", "X-GitHub-Delivery": "forged", "X-Hub-Signature-256": "sha256=" + "a" * 64}
    assert server.hook("github", raw, headers=headers).status_code == 401
    assert server.hook("github", raw + b" ", secret="guess", headers={"X-GitHub-Event": "push"}).status_code == 401
    assert count("events") == before


def test_the_old_sha1_signature_is_not_enough(server: Running) -> None:
    raw = (DATA / "push_tag.json").read_bytes()
    answer = server.session.post(
        f"{server.url}/hooks/github", data=raw, headers={"X-Hub-Signature": "sha1=" + "a" * 40}, timeout=20
    )
    assert answer.status_code == 401


def test_a_push_without_its_fields_says_where(server: Running) -> None:
    body = {"repository": {"full_name": GITHUB}, "ref": "refs/heads/main"}
    answer = server.hook("github", body, headers={"X-GitHub-Event": "push"})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(("before: ", "after: "))
