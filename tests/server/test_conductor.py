"""Events of real repositories become runs; what is wrong with them becomes a run that says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.errors import Conflict, NotFound
from pipeline.plan.models import DeploySpec
from pipeline.protocol import ReleaseState
from pipeline.settings import Settings
from pipeline.store import Store, open_store
from pipeline.triggers.event import Event
from server.conductor import Conductor
from server.dispatch import NoDispatcher
from server.live import Feed
from tests.patience import wait_for
from tests.server.conftest import settings_of
from tests.server.gitrepo import PIPELINES, GitRepo
from tests.server.running import SECRET, running
from tests.server.story import WEB, Clock, Story, ordinary_night


class Recorder(NoDispatcher):
    """Keeps the hints, or is a broker that is away."""

    def __init__(self) -> None:
        self.hints: list[str] = []
        self.away = False

    def attempt(self, attempt: str, labels: Mapping[str, str], near: str | None = None) -> None:
        if self.away:
            raise ConnectionError("the broker can't be reached")
        self.hints.append(attempt)

    def depths(self, queues: Iterable[str]) -> dict[str, int]:
        return {}


@pytest.fixture
def settings(tmp_path: Path, repo: GitRepo) -> Settings:
    gone = {"url": str(tmp_path / "gone"), "secret": SECRET}
    return settings_of(tmp_path / "data", web={"url": repo.url, "secret": SECRET}, gone=gone)


@pytest.fixture
def store(settings: Settings, clock: Clock) -> Iterator[Store]:
    with open_store(settings.database, clock=clock, lease_seconds=3600) as store:
        yield store


@pytest.fixture
def dispatcher() -> Recorder:
    return Recorder()


@pytest.fixture
def conductor(settings: Settings, store: Store, dispatcher: Recorder) -> Conductor:
    """Without its threads: each test says what happens when."""
    return Conductor(settings, store, dispatcher, Feed())


def push(
    conductor: Conductor, sha: str, *, repository: str = "web", ref: str = "refs/heads/main", before: str = ""
) -> int:
    event = Event(kind="tag" if "tags" in ref else "push", repository=repository, ref=ref, sha=sha, before=before)
    number = conductor.accept(event, hook="generic", delivery=None)
    assert number is not None
    return number


def plan_pending(conductor: Conductor) -> list[int]:
    """Plans all that is pending, once; the new runs."""
    return [run.id for number, event in conductor.store.pending_events() for run in conductor.plan_event(number, event)]


def test_a_push_becomes_a_run_a_pipeline_with_hints_for_what_may_start(
    conductor: Conductor, repo: GitRepo, dispatcher: Recorder
) -> None:
    sha = repo.commit("Greet the world\n\nAt last.", {"pipelines.yaml": PIPELINES})
    push(conductor, sha)
    web, docs = (conductor.store.get_run(run) for run in plan_pending(conductor))
    assert (web.pipeline, docs.pipeline) == ("web", "docs")
    assert (web.message, web.author, web.sha) == ("Greet the world", "Ada", sha)
    assert [stage.state for stage in web.stages] == ["dispatched", "pending"]
    first = web.stage("image")
    assert first is not None
    assert first.attempts[0].id in dispatcher.hints
    assert conductor.store.pending_events() == []


def test_paths_that_did_not_change_start_nothing(conductor: Conductor, repo: GitRepo) -> None:
    before = repo.commit("One", {"pipelines.yaml": PIPELINES})
    after = repo.commit("Two", {"app.py": "print()\n"})
    push(conductor, after, before=before)
    assert [conductor.store.get_run(run).pipeline for run in plan_pending(conductor)] == ["web"]


def test_a_branch_that_nobody_waits_for_starts_nothing(conductor: Conductor, repo: GitRepo) -> None:
    sha = repo.commit("One", {"pipelines.yaml": PIPELINES})
    push(conductor, sha, ref="refs/heads/feature")
    assert plan_pending(conductor) == []
    assert conductor.store.pending_events() == []
    assert conductor.store.list_runs() == []


def test_a_bad_file_becomes_a_refused_run_that_tells_all_errors(conductor: Conductor, repo: GitRepo) -> None:
    text = """\
pipelines:
  web:
    on: {push: {branches: [main]}}
    stages:
      image: {build: {contxt: .}}
      unit: {needs: imagine, test: {image: "${stages.image.image}", run: [./test]}}
"""
    push(conductor, repo.commit("Break it", {"pipelines.yaml": text}))
    (number,) = plan_pending(conductor)
    run = conductor.store.get_run(number)
    assert run.state == "failed"
    assert run.stages == ()
    lines = run.reason.splitlines()
    assert any(line.startswith("pipelines.yaml:5:") and "contxt" in line for line in lines)
    assert any(line.startswith("pipelines.yaml:6:") and "imagine" in line for line in lines)
    assert conductor.store.pending_events() == []


def test_a_commit_without_a_file_says_so(conductor: Conductor, repo: GitRepo) -> None:
    push(conductor, repo.commit("Nothing yet", {"README": "hello\n"}))
    numbers = [plan_pending(conductor) for _ in range(3)]
    run = conductor.store.get_run(numbers[2][0])
    assert run.state == "failed"
    assert "pipelines.yaml: there is no such file" in run.reason


def test_a_repository_that_is_away_is_tried_again_and_then_refused(conductor: Conductor) -> None:
    push(conductor, "a" * 40, repository="gone")
    assert plan_pending(conductor) == []
    assert len(conductor.store.pending_events()) == 1
    assert plan_pending(conductor) == []
    (number,) = plan_pending(conductor)
    run = conductor.store.get_run(number)
    assert (run.state, run.repository) == ("failed", "gone")
    assert "gone" in run.reason
    assert conductor.store.pending_events() == []


@pytest.mark.parametrize("event", [{"sha": "0" * 40}, {"repository": "nobody", "sha": "a" * 40}])
def test_deleted_branches_and_unknown_repositories_are_passed_over(conductor: Conductor, event: dict[str, str]) -> None:
    push(conductor, **event)
    assert plan_pending(conductor) == []
    assert conductor.store.pending_events() == []


def test_planning_the_same_event_twice_makes_one_run(conductor: Conductor, repo: GitRepo) -> None:
    number = push(conductor, repo.commit("One", {"pipelines.yaml": PIPELINES}))
    ((_, event),) = conductor.store.pending_events()
    first = {run.id for run in conductor.plan_event(number, event)}
    assert {run.id for run in conductor.plan_event(number, event)} == first
    assert len(conductor.store.list_runs()) == len(first)


def test_hints_that_could_not_be_sent_are_sent_when_the_broker_is_back(
    conductor: Conductor, repo: GitRepo, dispatcher: Recorder, clock: Clock
) -> None:
    dispatcher.away = True
    push(conductor, repo.commit("One", {"pipelines.yaml": PIPELINES}))
    plan_pending(conductor)
    assert not conductor.broker_ok
    dispatcher.away = False
    clock.now += 60
    conductor.sweep()
    assert conductor.broker_ok
    assert len(dispatcher.hints) == 2


def test_what_was_accepted_before_a_crash_is_planned_after_it(settings: Settings, repo: GitRepo) -> None:
    sha = repo.commit("One", {"pipelines.yaml": PIPELINES})
    with open_store(settings.database) as store:
        event = Event(kind="push", repository="web", ref="refs/heads/main", sha=sha)
        assert store.record_event(event, hook="generic", delivery="before the crash") is not None
    with running(settings) as server:
        wait_for(lambda: len(server.api("/runs")["runs"]) == 2, "the runs")


def test_a_rollback_leads_to_the_last_release_with_another_image(
    conductor: Conductor, store: Store, clock: Clock
) -> None:
    ordinary_night(store, clock)
    target = conductor.earlier_release("web")
    assert target is not None
    assert target.id == "web-1"
    run = conductor.rollback("web", None, who="ada")
    spec = store.plan_of(run.id).stage("deploy").spec
    assert isinstance(spec, DeploySpec)
    assert (spec.image, spec.rollback, spec.service.name) == (target.image, True, "web")
    assert run.title == "roll web back to web-1"


def test_a_rollback_may_name_any_release(conductor: Conductor, store: Store, clock: Clock) -> None:
    ordinary_night(store, clock)
    for name in ("2", "web-2"):
        run = conductor.rollback("web", name)
        spec = store.plan_of(run.id).stage("deploy").spec
        assert isinstance(spec, DeploySpec)
        assert spec.image == store.get_release("web-2").image
    with pytest.raises(NotFound, match="web-9"):
        conductor.rollback("web", "9")
    with pytest.raises(Conflict, match="no earlier release"):
        conductor.rollback("mail", None)
    with pytest.raises(NotFound):
        conductor.rollback("nobody", None)


def test_after_a_rollback_the_way_back_leads_forward_again(conductor: Conductor, store: Store, clock: Clock) -> None:
    ordinary_night(store, clock)
    story = Story(store, clock)
    run = conductor.rollback("web", None)
    target = store.get_release("web-1")
    story.roll(story.claim(run, "deploy"), WEB, target.image, ("web1", "web2"), rollback=True)
    current = store.current_release("web")
    assert current is not None
    assert (current.id, current.digest, current.rollback) == ("web-4", target.digest, True)
    assert store.get_release("web-2").state is ReleaseState.SUPERSEDED
    back = conductor.earlier_release("web")
    assert back is not None
    assert back.id == "web-2"


def test_the_same_image_once_more_is_no_way_back(conductor: Conductor, store: Store, clock: Clock) -> None:
    ordinary_night(store, clock)
    story = Story(store, clock)
    run = conductor.deploy("web", None)
    story.roll(story.claim(run, "deploy"), WEB, store.get_release("web-2").image, ("web1", "web2"))
    back = conductor.earlier_release("web")
    assert back is not None
    assert back.id == "web-1"


def test_a_deploy_by_hand_wants_a_digest(conductor: Conductor, store: Store, clock: Clock) -> None:
    ordinary_night(store, clock)
    with pytest.raises(Conflict, match="by its digest"):
        conductor.deploy("web", "127.0.0.1:7750/web:latest")
    run = conductor.deploy("web", None, who="ada")
    spec = store.plan_of(run.id).stage("deploy").spec
    assert isinstance(spec, DeploySpec)
    assert spec.image == store.get_release("web-2").image
