"""The worker API, spoken by the workers' own client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import Busy, Conflict, LeaseLost, NotFound, PipelineError
from pipeline.protocol import (
    Heartbeat,
    HostState,
    LeaseState,
    LogLine,
    NewHostStep,
    NewRelease,
    NewRollout,
    Outcome,
    Outputs,
    Result,
    RolloutHost,
    RolloutState,
    RolloutUpdate,
    StepOutcome,
    StepState,
    WorkerInfo,
)
from pipeline.store import Store
from pipeline.triggers.event import Event
from pipeline.wire import CALLS, MAX_BODY
from server.tokens import worker_token
from tests.server.running import Running
from tests.server.story import WEB, Clock, Story, digest_of, plan_of, replicas
from workers.client import HttpStageClient

IMAGE = f"127.0.0.1:7750/web@{digest_of('web')}"


@pytest.fixture
def client(server: Running) -> HttpStageClient:
    return HttpStageClient(server.url, lambda: worker_token(server.settings), patience=0)


class Spoken(HttpStageClient):
    """Remembers which calls were made."""

    def __init__(self, server: Running) -> None:
        super().__init__(server.url, lambda: worker_token(server.settings), patience=0)
        self.calls: set[str] = set()

    def _call(self, method: str, patience: float | None = None, **arguments: Any) -> Any:
        self.calls.add(method)
        return super()._call(method, patience, **arguments)


def test_a_whole_deploy_in_every_call_there_is(server: Running) -> None:
    client = Spoken(server)
    store: Store = server.store
    registration = client.register_worker(WorkerInfo(name="web1", labels={"role": "web"}))
    assert registration.registry == server.settings.registry_url
    assert client.heartbeat(Heartbeat(worker="web1", replicas=tuple(replicas("web", "web-0")))).known
    assert [host.name for host in client.hosts({"role": "web"})] == ["web1"]

    run = Story(store, Clock(0.0)).push(plan_of(WEB), "Over the wire")
    outputs = {"image": Outputs(image=digest_of("i")), "unit": Outputs(), "publish": Outputs(image=IMAGE)}
    for stage in ("image", "unit", "publish"):
        claim = client.claim(_attempt(store, run.id, stage), "web1")
        assert claim is not None
        assert client.renew(claim.attempt, claim.token).state is LeaseState.OK
        client.log(claim.attempt, claim.token, [LogLine(seq=0, time=1.0, text=f"{stage} says so")])
        client.finish(claim.attempt, claim.token, Outcome(result=Result.PASSED, outputs=outputs[stage]))
    assert store.read_logs(run.id, "unit")[0].text == "unit says so"

    claim = client.claim(_attempt(store, run.id, "production"), "web1")
    assert claim is not None
    held = (claim.attempt, claim.token)
    assert client.current_release("web") is None
    release = client.record_release(*held, NewRelease(service=WEB, image=IMAGE, digest=digest_of("web")))
    assert client.release(release.id) == release
    rollout = client.begin_rollout(*held, NewRollout(release=release.id, hosts=("web1",)))
    step = client.request_step(*held, rollout.id, NewHostStep(key="update@web1", host="web1", action="update"))
    assert client.pending_steps("web1") == [step.id]
    taken = client.claim_step(step.id, "web1")
    assert taken is not None
    assert client.renew_step(step.id, taken.token).state is LeaseState.OK
    client.finish_step(step.id, taken.token, StepOutcome(ok=True))
    client.request_step(*held, rollout.id, NewHostStep(key="watch@web1", host="web1", action="watch"))
    client.abandon_steps(*held, rollout.id)
    assert [each.state for each in client.steps(rollout.id)] == [StepState.DONE, StepState.ABANDONED]
    updated = (RolloutHost(host="web1", state=HostState.UPDATED),)
    client.update_rollout(*held, rollout.id, RolloutUpdate(state=RolloutState.DONE, hosts=updated))
    assert client.rollout(rollout.id).state is RolloutState.DONE
    live = client.current_release("web")
    assert live is not None
    assert live.id == release.id
    client.finish(*held, Outcome(result=Result.PASSED, outputs=Outputs(release=release.id)))
    assert store.get_run(run.id).state == "passed"
    assert client.calls == set(CALLS)


def _attempt(store: Store, run: int, stage: str) -> str:
    view = store.get_run(run).stage(stage)
    assert view is not None
    return view.attempts[-1].id


@pytest.fixture
def story(server: Running) -> Story:
    story = Story(server.store, Clock(0.0))
    story.host("build1")
    return story


def test_what_is_lost_or_unknown_is_raised_again_by_its_kind(
    server: Running, story: Story, client: HttpStageClient
) -> None:
    run = story.push(plan_of(WEB), "Kinds")
    claim = client.claim(_attempt(server.store, run.id, "image"), "build1")
    assert claim is not None
    assert client.claim(claim.attempt, "build1") is None
    assert client.renew(claim.attempt, "guess").state is LeaseState.LOST
    with pytest.raises(LeaseLost):
        client.log(claim.attempt, "guess", [LogLine(seq=0, time=1.0, text="x")])
    with pytest.raises(NotFound):
        client.release("web-4711")
    client.finish(claim.attempt, claim.token, Outcome(result=Result.PASSED))
    client.finish(claim.attempt, claim.token, Outcome(result=Result.PASSED))
    with pytest.raises(LeaseLost):
        client.finish(claim.attempt, "guess", Outcome(result=Result.PASSED))
    assert not client.heartbeat(Heartbeat(worker="nobody")).known


def test_a_claim_brings_the_repositorys_token_which_is_stored_nowhere(
    server: Running, story: Story, client: HttpStageClient
) -> None:
    event = Event(kind="push", repository="private", url="https://git.example.com/p.git", sha="a" * 40)
    run = story.store.create_run(plan_of(WEB), event)
    story.store.advance(run.id)
    claim = client.claim(_attempt(server.store, run.id, "image"), "build1")
    assert claim is not None
    assert claim.source is not None
    assert (claim.source.url, claim.source.token) == ("https://git.example.com/p.git", "a-git-token")
    database = b"".join(path.read_bytes() for path in server.settings.data.glob("shipway.db*"))
    assert b"git.example.com/p.git" in database
    assert b"a-git-token" not in database


def test_finishing_a_stage_hints_at_the_next(server: Running, story: Story, client: HttpStageClient) -> None:
    run = story.push(plan_of(WEB), "Onward")
    claim = client.claim(_attempt(server.store, run.id, "image"), "build1")
    assert claim is not None
    client.finish(claim.attempt, claim.token, Outcome(result=Result.PASSED))
    unit = server.store.get_run(run.id).stage("unit")
    assert unit is not None
    assert unit.state == "dispatched"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer guess"}, {"Authorization": "Basic Zm9v"}])
def test_without_the_token_nothing_is_done(server: Running, headers: dict[str, str]) -> None:
    answer = server.post("/api/v1/worker/claim", {"attempt": "x", "worker": "y"}, headers=headers)
    assert answer.status_code == 401
    assert "SHIPWAY_WORKER_TOKEN" in answer.json()["error"]


@pytest.fixture
def allowed(server: Running) -> dict[str, str]:
    return {"Authorization": f"Bearer {worker_token(server.settings)}"}


def test_calls_that_are_not_there_and_arguments_that_do_not_fit(server: Running, allowed: dict[str, str]) -> None:
    assert server.post("/api/v1/worker/close", headers=allowed).status_code == 404
    assert server.get("/api/v1/worker/claim", headers=allowed).status_code == 405
    for body in ({}, {"attempt": 1, "worker": "x"}, {"attempt": "a", "worker": "b", "more": 1}):
        assert server.post("/api/v1/worker/claim", body, headers=allowed).status_code == 422
    for raw in (b"", b"{", b"\xff"):
        answer = server.session.post(f"{server.url}/api/v1/worker/claim", data=raw, headers=allowed, timeout=20)
        assert answer.status_code == 422
        assert json.loads(answer.text)["error"]


def test_a_batch_that_is_too_large_is_refused(server: Running, allowed: dict[str, str]) -> None:
    with server.connection() as connection:
        connection.putrequest("POST", "/api/v1/worker/log")
        for name, value in {**allowed, "Content-Length": str(MAX_BODY + 1)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_server_that_is_away_is_busy(server: Running) -> None:
    client = HttpStageClient("http://127.0.0.1:9", lambda: None, patience=0)
    with pytest.raises(Busy):
        client.pending_steps("web1")


def test_every_error_of_the_wire_keeps_its_kind(server: Running, story: Story, client: HttpStageClient) -> None:
    first = story.push(plan_of(WEB), "A rollout that is under way")
    image = story.until_published(first)
    held = story.claim(first, "production")
    release = client.record_release(
        held.attempt, held.token, NewRelease(service=WEB, image=image, digest=image.partition("@")[2])
    )
    rollout = client.begin_rollout(held.attempt, held.token, NewRollout(release=release.id, hosts=("web1",)))
    done = RolloutUpdate(state=RolloutState.REVERTED, reason="enough")
    client.update_rollout(held.attempt, held.token, rollout.id, done)
    with pytest.raises(Conflict):
        client.update_rollout(held.attempt, held.token, rollout.id, RolloutUpdate(state=RolloutState.DONE))
    with pytest.raises(PipelineError):
        client.rollout(4711)
