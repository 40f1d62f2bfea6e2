"""The hook of bare repositories: only a body that its repository's secret signed is believed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.triggers.event import Event
from pipeline.views import RunView
from server.hooks.signature import MAX_BODY, sign, verify
from tests.patience import wait_for
from tests.server.gitrepo import GitRepo
from tests.server.running import Running


def body_of(repo: GitRepo, **more: Any) -> dict[str, Any]:
    sha = repo.git("rev-parse", "HEAD").strip()
    return {"repository": "web", "ref": "refs/heads/main", "before": "0" * 40, "after": sha, **more}


def test_a_signed_push_becomes_a_run(server: Running, repository: GitRepo) -> None:
    body = body_of(repository, pusher="ada")
    answer = server.hook("generic", body, headers={"X-Shipway-Delivery": "one"})
    assert answer.status_code == 202
    assert answer.json()["ok"] is True
    found = [server.api(f"/runs/{number}") for number in answer.json()["runs"]]
    assert [run["pipeline"] for run in found] == ["web", "docs"]
    assert found[0]["message"] == "Greet the world"
    assert found[0]["author"] == "Ada"
    assert found[0]["branch"] == "main"


@pytest.mark.parametrize("signature", [None, "", "sha256=", "sha256=" + "0" * 64, "sha1=" + "0" * 40, "nonsense"])
def test_a_wrong_signature_is_refused_and_nothing_is_stored(
    server: Running, repository: GitRepo, count: Callable[[str], int], signature: str | None
) -> None:
    before = count("events"), count("deliveries")
    headers = {} if signature is None else {"X-Shipway-Signature-256": signature}
    answer = server.session.post(
        f"{server.url}/hooks/generic", data=json.dumps(body_of(repository)), headers=headers, timeout=20
    )
    assert answer.status_code == 401
    assert "signature" in answer.json()["error"]
    assert (count("events"), count("deliveries")) == before


def test_the_signature_of_another_body_or_secret_is_wrong(
    server: Running, repository: GitRepo, count: Callable[[str], int]
) -> None:
    before = count("events")
    body = body_of(repository)
    other = sign("s3cret", json.dumps({**body, "ref": "refs/heads/other"}).encode())
    assert server.hook("generic", body, headers={"X-Shipway-Signature-256": other}).status_code == 401
    assert server.hook("generic", body, secret="guess").status_code == 401
    assert count("events") == before


def test_an_unknown_repository_is_refused_with_the_same_words(server: Running, repository: GitRepo) -> None:
    unknown = server.hook("generic", body_of(repository, repository="nobody"))
    wrong = server.hook("generic", body_of(repository), secret="guess")
    assert (unknown.status_code, unknown.json()) == (wrong.status_code, wrong.json()) == (401, wrong.json())


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"repository": ["web"]}'])
def test_what_names_no_repository_is_refused(server: Running, count: Callable[[str], int], raw: bytes) -> None:
    before = count("events")
    assert server.hook("generic", raw).status_code == 401
    assert count("events") == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"after": "main"}, "after"),
        ({"after": None}, "after"),
        ({"ref": "main"}, "ref"),
        ({"ref": "refs/heads/" + "x" * 2000}, "ref"),
        ({"ref": "refs/heads/with space"}, "ref"),
        ({"before": "--upload-pack=touch /tmp/x"}, "before"),
    ],
)
def test_a_signed_body_that_makes_no_sense_says_where(
    server: Running, repository: GitRepo, count: Callable[[str], int], change: dict[str, Any], told: str
) -> None:
    before = count("events")
    answer = server.hook("generic", body_of(repository, **change))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"{told}: ")
    assert count("events") == before


def test_a_delivery_counts_once(server: Running, repository: GitRepo, count: Callable[[str], int]) -> None:
    body = body_of(repository, ref="refs/heads/twice")
    first = server.hook("generic", body, headers={"X-Shipway-Delivery": "two"})
    before = count("events")
    again = server.hook("generic", body, headers={"X-Shipway-Delivery": "two"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["duplicate"] is True
    assert count("events") == before


def test_a_push_that_can_not_be_planned_soon_is_accepted_without_its_runs(
    server: Running, repository: GitRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    plan = server.conductor.plan_event

    def slow(number: int, event: Event) -> list[RunView]:
        may_go_on.wait(20)
        return plan(number, event)

    monkeypatch.setattr(server.conductor, "plan_event", slow)
    monkeypatch.setattr("server.hooks.generic.PATIENCE", 0.01)
    answer = server.hook("generic", body_of(repository), headers={"X-Shipway-Delivery": "slow"})
    assert (answer.status_code, answer.json()["runs"]) == (202, [])
    before = len(server.api("/runs")["runs"])
    may_go_on.set()
    wait_for(lambda: len(server.api("/runs")["runs"]) == before + 2, "the runs")


def test_without_an_id_the_push_itself_is_the_delivery(server: Running, repository: GitRepo) -> None:
    body = body_of(repository, ref="refs/heads/unnamed")
    assert [server.hook("generic", body).status_code for _ in range(2)] == [202, 200]
    assert server.hook("generic", {**body, "before": "1" * 40}).status_code == 202


def test_a_repository_may_be_named_by_its_address(server: Running, repository: GitRepo) -> None:
    for name in (repository.url, f"file://{repository.url}", repository.url + ".git", repository.url + "/"):
        answer = server.hook("generic", body_of(repository, repository=name), headers={"X-Shipway-Event": "ping"})
        assert answer.status_code == 200, name


def test_a_body_that_is_too_large_is_refused_while_it_comes(server: Running, count: Callable[[str], int]) -> None:
    before = count("events")
    with server.connection() as declared:
        declared.putrequest("POST", "/hooks/generic")
        declared.putheader("Content-Length", str(MAX_BODY + 1))
        declared.endheaders()
        answer = declared.getresponse()
        assert (answer.status, b"MiB" in answer.read()) == (413, True)
    with server.connection() as streamed:
        streamed.putrequest("POST", "/hooks/generic")
        streamed.putheader("Transfer-Encoding", "chunked")
        streamed.endheaders()
        streamed.send(b"%x\r\n" % (MAX_BODY + 1) + b"x" * (MAX_BODY + 1))  # and no end
        answer = streamed.getresponse()
        assert (answer.status, b"MiB" in answer.read()) == (413, True)
    assert count("events") == before


def test_only_posts_are_deliveries(server: Running) -> None:
    assert server.get("/hooks/generic").status_code == 405
    assert server.post("/hooks/elsewhere").status_code == 404


def test_verify_wants_the_whole_signature() -> None:
    assert verify("k", b"body", sign("k", b"body"))
    assert verify("k", b"body", sign("k", b"body").upper().replace("SHA256", "sha256"))
    assert not verify("k", b"body", sign("k", b"body")[:-1])
    assert not verify("k", b"body", sign("k", b"body") + "0")
    assert not verify("k", b"body", None)
