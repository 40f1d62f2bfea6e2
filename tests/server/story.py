"""A store with what a small team's server holds on an ordinary night, made through the store's own API."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pipeline.plan.models import BuildSpec, DeploySpec, Plan, PlannedStage, PushSpec, TestSpec
from pipeline.protocol import (
    Claim,
    Heartbeat,
    HostState,
    LogLine,
    NewHostStep,
    NewRelease,
    NewRollout,
    Outcome,
    Outputs,
    Registration,
    Replica,
    ReplicaState,
    Result,
    RolloutHost,
    RolloutState,
    RolloutUpdate,
    StepOutcome,
    WorkerInfo,
)
from pipeline.services import Health, NamedService
from pipeline.store import Store
from pipeline.triggers.event import Event
from pipeline.views import RunView


@dataclass
class Clock:
    """Seconds that pass only when told to."""

    now: float

    def __call__(self) -> float:
        return self.now


def digest_of(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def sha_of(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def service_of(name: str, *, replicas: int = 2, publish: int | None = 80, **labels: str) -> NamedService:
    return NamedService(
        name=name,
        hosts=labels,
        replicas=replicas,
        port=8000 if publish else None,
        publish=publish,
        health=Health(http="/healthz") if publish else None,
    )


def plan_of(service: NamedService, *, matrix: tuple[str, ...] = (), approval: bool = False) -> Plan:
    """build → test (each of the matrix) → push → deploy."""
    tests = [f"unit (python={version})" for version in matrix] or ["unit"]
    image = "${stages.image.image}"
    return Plan(
        pipeline=service.name,
        stages=(
            PlannedStage(name="image", base="image", spec=BuildSpec()),
            *(
                PlannedStage(
                    name=name, base="unit", needs=("image",), retries=1, spec=TestSpec(image=image, run=("pytest -q",))
                )
                for name in tests
            ),
            PlannedStage(
                name="publish",
                base="publish",
                needs=tuple(tests),
                spec=PushSpec(image=image, to=f"127.0.0.1:7750/{service.name}", tags=("latest",)),
            ),
            PlannedStage(
                name="production",
                base="production",
                needs=("publish",),
                spec=DeploySpec(service=service, image="${stages.publish.image}"),
                lock=f"deploy:{service.name}",
                approval=approval,
            ),
        ),
    )


@dataclass
class Story:
    """Tells what happens, step by step. A worker that has no name is `build1`."""

    store: Store
    clock: Clock
    beats: dict[str, Heartbeat] = field(default_factory=dict)

    # Hosts

    def host(self, name: str, **labels: str) -> Registration:
        address = f"10.0.0.{len(self.beats) + 11}"
        info = WorkerInfo(
            name=name, labels=labels, engine="Shipway Engine 0.1.0", version="0.1.0", address=address, concurrency=4
        )
        self.beats[name] = Heartbeat(worker=name, containers={"running": 0})
        return self.store.register_worker(info)

    def holds(self, host: str, *replicas: Replica) -> None:
        beat = Heartbeat(worker=host, containers={"running": len(replicas)}, replicas=replicas)
        self.beats[host] = beat
        self.store.heartbeat(beat)

    def beat(self, *, but: str = "") -> None:
        for name, beat in self.beats.items():
            if name != but:
                self.store.heartbeat(beat)

    # Runs

    def push(self, plan: Plan, message: str, author: str = "Ada", branch: str = "main") -> RunView:
        sha = sha_of(message)
        event = Event(
            kind="push", repository=plan.pipeline, ref=f"refs/heads/{branch}", sha=sha, message=message, author=author,
            committed=self.clock.now - 20,
        )  # fmt: skip
        run = self.store.create_run(plan, event)
        self.store.advance(run.id)
        return self.store.get_run(run.id)

    def claim(self, run: RunView, stage: str, worker: str = "build1") -> Claim:
        view = self.store.get_run(run.id).stage(stage)
        assert view is not None
        claim = self.store.claim(view.attempts[-1].id, worker)
        assert claim is not None, f"{stage} of run {run.id} can't be claimed: {view.state}"
        return claim

    def say(self, claim: Claim, *lines: str, stream: str = "stdout", first: int = 0) -> None:
        made = [
            LogLine(seq=first + number, stream=stream, time=self.clock.now, text=line)  # type: ignore[arg-type]
            for number, line in enumerate(lines)
        ]
        self.store.append_logs(claim.attempt, claim.token, made)

    def finish(
        self, claim: Claim, seconds: float, *, error: str = "", code: int | None = 0, retryable: bool = True, **out: str
    ) -> None:
        self.clock.now += seconds
        timings = {"pull": seconds * 0.08, "create": seconds * 0.07, "run": seconds * 0.85}
        outcome = Outcome(
            result=Result.FAILED if error else Result.PASSED,
            error=error,
            exit_code=code,
            outputs=Outputs(**out),  # type: ignore[arg-type]
            timings=timings,  # type: ignore[arg-type]
            retryable=retryable,
        )
        self.store.finish(claim.attempt, claim.token, outcome)
        self.store.advance(int(claim.run.id))

    def until_published(self, run: RunView, tests: tuple[str, ...] = ("unit",)) -> str:
        """Build, tests and push pass; returns the image by its digest."""
        digest = digest_of(f"{run.pipeline} {run.sha}")
        image = f"127.0.0.1:7750/{run.pipeline}@{digest}"
        self.clock.now += 0.2
        build = self.claim(run, "image")
        self.say(build, "Step 1/6 : FROM python:3.12-slim", 'Step 6/6 : CMD ["python", "-m", "app"]')
        self.finish(build, 4.2, image=digest, image_id=digest)
        for name in tests:
            test = self.claim(run, name)
            self.say(test, "................................                   [100%]", "32 passed in 2.71s")
            self.finish(test, 3.1, snapshot=digest)
        publish = self.claim(run, "publish")
        self.finish(publish, 1.1, image=image, digest=digest)
        return image

    # Rollouts

    def deploy(
        self, run: RunView, service: NamedService, image: str, hosts: tuple[str, ...], *, problem: str = ""
    ) -> str:
        """Rolls out, or with a problem undoes it on every host; returns the release."""
        return self.roll(self.claim(run, "production"), service, image, hosts, problem=problem)

    def roll(
        self,
        claim: Claim,
        service: NamedService,
        image: str,
        hosts: tuple[str, ...],
        *,
        problem: str = "",
        rollback: bool = False,
    ) -> str:
        held = (claim.attempt, claim.token)
        digest = image.partition("@")[2]
        new = NewRelease(service=service, image=image, digest=digest, rollback=rollback)
        release = self.store.record_release(*held, new)
        rollout = self.store.begin_rollout(*held, NewRollout(release=release.id, hosts=hosts)).id
        for host in hosts:
            bad = problem if host == hosts[-1] else ""
            self._step(held, rollout, host, bad)
            state = HostState.UPDATING if bad else HostState.UPDATED
            self.store.update_rollout(*held, rollout, RolloutUpdate(hosts=(RolloutHost(host=host, state=state),)))
            self.clock.now += 1.5
        if problem:
            reason = f"{hosts[-1]}: {problem}"
            self.say(claim, *(f"{host}: updated" for host in hosts[:-1]), stream="system")
            self.say(claim, f"returning every host to the old release: {reason}", stream="system", first=10)
            self.store.update_rollout(*held, rollout, RolloutUpdate(state=RolloutState.REVERTING, reason=reason))
            undone = tuple(RolloutHost(host=host, state=HostState.REVERTED) for host in hosts)
            self.store.update_rollout(*held, rollout, RolloutUpdate(state=RolloutState.REVERTED, hosts=undone))
            self.finish(claim, 2.0, error=f"{release.id} was undone: {reason}", code=None, retryable=False)
        else:
            self.store.update_rollout(*held, rollout, RolloutUpdate(state=RolloutState.BAKING))
            self.store.update_rollout(*held, rollout, RolloutUpdate(state=RolloutState.DONE))
            self.say(claim, *(f"{host}: updated" for host in hosts), stream="system")
            self.finish(claim, 2.0, release=release.id, image=image)
        return release.id

    def _step(self, held: tuple[str, str], rollout: int, host: str, problem: str) -> None:
        wish = NewHostStep(key=f"update@{host}", host=host, action="update")
        step = self.store.request_step(*held, rollout, wish)
        claim = self.store.claim_step(step.id, host)
        assert claim is not None
        self.store.finish_step(step.id, claim.token, StepOutcome(ok=not problem, error=problem))


def replicas(service: str, release: str, number: int = 2, state: ReplicaState = ReplicaState.HEALTHY) -> list[Replica]:
    return [Replica(service=service, release=release, name=f"{release}-{n + 1}", state=state) for n in range(number)]


WEB = service_of("web", role="web")
MAIL = service_of("mail", replicas=1, publish=None, role="jobs")
UNHEALTHY = "web-3-1 did not become healthy: GET /healthz answered 500, three times"
FAILURE = (
    "F.............................                     [100%]",
    "=================================== FAILURES ===================================",
    "________________________________ test_greeting _________________________________",
    "",
    "    def test_greeting():",
    '>       assert greet("world") == "Hello, world"',
    "E       AssertionError: assert 'Hello world' == 'Hello, world'",
    "",
    "tests/test_greeting.py:12: AssertionError",
    "1 failed, 31 passed in 2.84s",
)


def ordinary_night(store: Store, clock: Clock) -> dict[str, int]:
    """All of it: two releases live in turn, a test that fails, a rollout that is undone, a run that goes on.

    Returns the runs by what became of them. The clock ends at `now` as it began.
    """
    now = clock.now
    story = Story(store, clock)
    clock.now = now - 3 * 3600
    story.host("web1", role="web")
    story.host("web2", role="web")
    story.host("build1", role="jobs")
    hosts = ("web1", "web2")
    runs: dict[str, int] = {}

    first = story.push(plan_of(MAIL), "Send mail through the new relay", author="Grace")
    story.deploy(first, MAIL, story.until_published(first), ("build1",))
    runs["mail"] = first.id

    clock.now = now - 2 * 3600
    run = story.push(plan_of(WEB), "Greet the world")
    story.deploy(run, WEB, story.until_published(run), hosts)
    runs["first"] = run.id

    clock.now = now - 80 * 60
    run = story.push(plan_of(WEB), "Say when the page was made", author="Grace")
    story.deploy(run, WEB, story.until_published(run), hosts)
    runs["live"] = run.id

    clock.now = now - 31 * 60
    run = story.push(plan_of(WEB), "Drop the comma")
    build = story.claim(run, "image")
    story.finish(build, 4.0, image=digest_of("x"))
    for _ in range(2):
        test = story.claim(run, "unit")
        story.say(test, "installing the test requirements", stream="system")
        story.say(test, *FAILURE, first=1)
        story.finish(test, 3.4, error="exit code 1: pytest -q", code=1)
    runs["failed"] = run.id

    clock.now = now - 6 * 60
    run = story.push(plan_of(WEB), "Read greetings from YAML", author="Linus")
    story.deploy(run, WEB, story.until_published(run), hosts, problem=UNHEALTHY)
    runs["undone"] = run.id

    clock.now = now - 150
    refused = store.refuse_run(
        Event(kind="push", repository="mail", ref="refs/heads/retry", sha=sha_of("r"), message="Try three times"),
        reason='pipelines.yaml:12:5: unknown key "need": did you mean "needs"?\n'
        'pipelines.yaml:19:15: the stage "unit" is not there: did you mean "units"?',
    )
    runs["refused"] = refused.id

    clock.now = now - 9
    run = story.push(plan_of(WEB, matrix=("3.11", "3.12", "3.13"), approval=True), "Greet in the reader's language")
    build = story.claim(run, "image")
    story.finish(build, 4.4, image=digest_of("y"))
    story.finish(story.claim(run, "unit (python=3.11)"), 2.2)
    story.say(story.claim(run, "unit (python=3.12)"), "collecting ...", "tests/test_greeting.py ........")
    runs["running"] = run.id

    clock.now = now
    story.holds("web1", *replicas("web", "web-2"))
    story.holds("web2", *replicas("web", "web-2"))
    story.holds("build1", *replicas("mail", "mail-1", 1))
    return runs
