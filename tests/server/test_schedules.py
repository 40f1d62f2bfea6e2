"""A schedule in a repository's file starts runs of its default branch, from the first push on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store import Store, open_store
from pipeline.triggers.event import Event
from server.conductor import Conductor
from server.dispatch import NoDispatcher
from server.live import Feed
from tests.server.conftest import settings_of
from tests.server.gitrepo import GitRepo
from tests.server.running import SECRET
from tests.server.story import Clock

DAY = 86_400.0
FILE = """
pipelines:
  nightly: {on: {schedule: "0 3 * * *"}, stages: {image: {build: .}}}
  web: [{build: .}]
"""


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'x.db'}", clock=clock) as store:
        yield store


@pytest.fixture
def conductor(tmp_path: Path, repo: GitRepo, store: Store) -> Conductor:
    """Its threads are not started: the test does what they do."""
    settings = settings_of(tmp_path / "data", web={"url": repo.url, "secret": SECRET})
    return Conductor(settings, store, NoDispatcher(), Feed())


def push(conductor: Conductor, sha: str, branch: str = "main") -> None:
    event = Event(kind="push", repository="web", ref=f"refs/heads/{branch}", sha=sha)
    number = conductor.store.record_event(event)
    assert number is not None
    conductor.plan_event(number, event)


def night(conductor: Conductor, clock: Clock) -> list[tuple[str, str]]:
    """A day passes; the runs that began by themselves, as pipeline and commit."""
    before = {run.id for run in conductor.store.list_runs()}
    clock.now += DAY
    conductor.sweep()
    for number, event in conductor.store.pending_events():
        conductor.plan_event(number, event)
    fresh = [run for run in conductor.store.list_runs() if run.id not in before]
    assert {run.event for run in fresh} <= {"schedule"}
    return [(run.pipeline, run.sha) for run in fresh]


def test_a_night_runs_the_newest_commit_of_the_default_branch(
    conductor: Conductor, repo: GitRepo, clock: Clock
) -> None:
    assert night(conductor, clock) == []
    first = repo.commit("one", {"pipelines.yaml": FILE})
    push(conductor, first)
    assert [run.pipeline for run in conductor.store.list_runs()] == ["web"]
    assert night(conductor, clock) == [("nightly", first)]
    second = repo.commit("two", {"a": "b"})
    push(conductor, second)
    assert night(conductor, clock) == [("nightly", second)]
    assert night(conductor, clock) == [("nightly", second)]


def test_other_branches_schedule_nothing(conductor: Conductor, repo: GitRepo, clock: Clock) -> None:
    push(conductor, repo.commit("one", {"pipelines.yaml": "pipelines: {web: [{build: .}]}"}))
    repo.git("checkout", "--quiet", "-b", "next")
    sha = repo.commit("two", {"pipelines.yaml": FILE})
    repo.git("checkout", "--quiet", "main")
    push(conductor, sha, "next")
    assert night(conductor, clock) == []


def test_a_schedule_that_was_taken_out_ends(conductor: Conductor, repo: GitRepo, clock: Clock) -> None:
    push(conductor, repo.commit("one", {"pipelines.yaml": FILE}))
    push(conductor, repo.commit("two", {"pipelines.yaml": "pipelines: {web: [{build: .}]}"}))
    assert night(conductor, clock) == []


def test_an_event_that_can_not_be_planned_holds_up_nobody(
    conductor: Conductor, repo: GitRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = repo.commit("one", {"pipelines.yaml": FILE})
    for ref in ("refs/heads/bad", "refs/heads/main"):
        conductor.store.record_event(Event(kind="push", repository="web", ref=ref, sha=sha))
    changed = conductor._runs_of

    def broken(number: int, event: Event, repository: object) -> object:
        if event.branch == "bad":
            raise ZeroDivisionError
        return changed(number, event, repository)  # type: ignore[arg-type]

    monkeypatch.setattr(conductor, "_runs_of", broken)
    for number, event in conductor.store.pending_events():
        conductor._plan_event(number, event)
    assert [run.branch for run in conductor.store.list_runs()] == ["main"]
    assert [event.branch for _, event in conductor.store.pending_events()] == ["bad"]
