"""What workers and the server say to each other, and the face that a worker programs against.

Each method of `StageClient` is one HTTP request under `/api/v1/worker` (`HttpStageClient` in workers), or one
call on a store in the same process (`LocalStageClient` here). All are safe to repeat with the same
arguments: a worker that got no answer asks again.

A claimed attempt is held by a lease: `token` proves it. When the lease has run out and the sweep has fenced
it, each call with that token raises LeaseLost, whatever the worker still believes. A worker that was
restarted and finds the container of one of its attempts still running may go on with the token that it kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, StringConstraints

from pipeline.plan.models import Kind, StageSpec
from pipeline.services import NamedService
from pipeline.values import EnvName, Frozen, Labels, Name

MAX_LINE = 16 * 1024
"""Characters of one log line; the sender splits longer ones."""
MAX_LINES = 1000
"""Log lines in one request."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Stream = Literal["stdout", "stderr", "system"]
"""`system`: words of the worker itself, such as `pulling python:3.12`."""
Phase = Literal["checkout", "pull", "create", "start", "run", "snapshot", "build", "push", "artifacts", "rollout"]


# Workers


class ReplicaState(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    EXITED = "exited"


class Replica(Frozen):
    """A service's container as its host sees it."""

    service: str
    release: str
    name: str
    state: ReplicaState
    image: str = ""
    detail: str = ""
    """Why it is unhealthy, or how it exited."""


class WorkerInfo(Frozen):
    """What a worker says of itself when it starts."""

    name: Name
    labels: Labels = Field(default_factory=dict)
    concurrency: int = Field(default=1, ge=1, le=256)
    version: str = ""
    engine: str = ""
    """Name and version of its engine, such as `shipway 0.1.0`."""
    address: str = ""
    """Where other hosts reach this one."""


class Registration(Frozen):
    """The server's answer."""

    lease_seconds: float
    heartbeat_seconds: float
    """A worker silent for three of these is `lost`: nothing new is sent to it alone."""
    registry: str = ""


class Heartbeat(Frozen):
    """How a worker and its host are now. Replaces what it said before."""

    worker: Name
    engine_ok: bool = True
    detail: str = ""
    containers: dict[str, int] = Field(default_factory=dict)
    """Number of the engine's containers by state, as the engine names them (running, exited, …)."""
    replicas: tuple[Replica, ...] = ()
    attempts: tuple[str, ...] = ()
    """What it is working on."""


class HeartbeatReply(Frozen):
    known: bool = True
    """False: the server has no such worker (a new database): register again."""
    cancelled: tuple[str, ...] = ()
    """Those of its attempts that should stop: cancelled, or lost to it."""
    steps: tuple[int, ...] = ()
    """Host steps that wait for this host: claim them."""


class HostInfo(Frozen):
    """A registered worker as others see it."""

    name: str
    labels: Labels
    address: str = ""
    state: Literal["online", "lost"]
    engine_ok: bool = True
    engine: str = ""
    version: str = ""
    concurrency: int = 1
    last_seen: float = 0.0
    """Unix seconds."""
    replicas: tuple[Replica, ...] = ()
    containers: dict[str, int] = Field(default_factory=dict)


# Attempts


class GitSource(Frozen):
    """The files of a run."""

    url: str
    sha: str
    ref: str = ""
    path: str | None = None
    """A folder on this machine to use as it is, uncommitted changes included; only with a local client."""
    token: str | None = Field(default=None, repr=False)


class RunInfo(Frozen):
    """What a stage may want to know about its run."""

    id: int
    pipeline: str
    repository: str = ""
    event: str = ""
    """push, tag, manual, schedule."""
    branch: str = ""
    tag: str = ""
    sha: str = ""
    message: str = ""
    author: str = ""


class Claim(Frozen):
    """An attempt that now belongs to the asking worker, with all it needs."""

    attempt: str
    """Unique for ever; good for names: digits, lower case letters, dots, dashes."""
    number: int
    """1 for the stage's first attempt."""
    fence: int
    """Grows with each attempt of the stage: whoever keeps the highest seen can refuse older ones."""
    token: str = Field(repr=False)
    lease_seconds: float
    stage: str
    kind: Kind
    spec: StageSpec
    """Everything resolved."""
    env: dict[EnvName, str]
    """The stage's own, and CI, CI_SYSTEM, CI_RUN, CI_PIPELINE, CI_STAGE, CI_ATTEMPT, CI_COMMIT, …"""
    secrets: dict[EnvName, str] = Field(default_factory=dict, repr=False)
    """Also those of the deployed service. The server masks their values in logs; never store them."""
    timeout: float
    """Seconds that the stage may take, from now."""
    labels: dict[str, str]
    """To put on every container, network and volume made for this attempt."""
    source: GitSource | None
    """None when the run has no repository: a manual deploy."""
    run: RunInfo


class LeaseState(StrEnum):
    OK = "ok"
    LOST = "lost"
    CANCELLED = "cancelled"
    """Still the worker's own: stop the work, clean up, and finish with `cancelled`."""


class Renewal(Frozen):
    state: LeaseState
    expires_in: float = 0.0


class LogLine(Frozen):
    """One line, without its newline. `seq` counts from 0 in the attempt; a line sent twice is kept once."""

    seq: int = Field(ge=0)
    stream: Stream = "stdout"
    time: float
    """Unix seconds."""
    text: str = Field(max_length=MAX_LINE)


class Artifact(Frozen):
    name: str
    size: int = Field(ge=0)
    digest: Digest
    path: str = ""
    """Where its worker keeps it."""


class Outputs(Frozen):
    """What later stages read as `${stages.NAME.image}` and so on."""

    image: str | None = None
    """A reference to run or deploy: an image id after a build, `repository@digest` after a push."""
    image_id: Digest | None = None
    digest: Digest | None = None
    """Of the manifest in the registry."""
    snapshot: str | None = None
    tags: tuple[str, ...] = ()
    release: str | None = None
    artifacts: tuple[Artifact, ...] = ()


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(Frozen):
    """How an attempt ended."""

    result: Result
    error: str = Field(default="", max_length=4096)
    """One line for people: what failed, and what to do if that is known."""
    exit_code: int | None = None
    outputs: Outputs = Outputs()
    timings: dict[Phase, float] = Field(default_factory=dict)
    """Seconds a phase."""
    retryable: bool = True
    """False: trying again can't help, such as a Dockerfile that does not parse."""


# Releases and rollouts


class NewRelease(Frozen):
    """Said by a deploy stage. The server adds the commit, the run and the test attempts before it."""

    service: NamedService
    image: str
    """`repository@sha256:…`"""
    digest: Digest
    environment: str = "production"
    rollback: bool = False


class ReleaseState(StrEnum):
    ROLLING = "rolling"
    LIVE = "live"
    SUPERSEDED = "superseded"
    FAILED = "failed"


class Release(Frozen):
    """A service's image at a digest with a configuration, and where it comes from."""

    id: str
    """`<service>-<number>`, unique: `web-3`."""
    service: str
    number: int
    state: ReleaseState
    spec: NamedService
    image: str
    digest: str
    environment: str
    rollback: bool = False
    run: int
    repository: str = ""
    commit: str = ""
    tests: tuple[str, ...] = ()
    """Attempts of the tests that passed before it in its run."""
    created: float
    live: float | None = None
    error: str = ""


class RolloutState(StrEnum):
    RUNNING = "running"
    BAKING = "baking"
    REVERTING = "reverting"
    DONE = "done"
    REVERTED = "reverted"
    FAILED = "failed"
    """Neither could be reached on some host; the reason says which."""


ROLLOUT_ENDED = frozenset({RolloutState.DONE, RolloutState.REVERTED, RolloutState.FAILED})


class HostState(StrEnum):
    PENDING = "pending"
    UPDATING = "updating"
    UPDATED = "updated"
    REVERTING = "reverting"
    REVERTED = "reverted"
    FAILED = "failed"


class RolloutHost(Frozen):
    """One host's part of a rollout."""

    host: str
    state: HostState = HostState.PENDING
    detail: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    """The coordinator's own notes, for its successor."""


class NewRollout(Frozen):
    release: str
    hosts: tuple[str, ...] = Field(min_length=1)


class Rollout(Frozen):
    """A release on its way over hosts. Rows, not memory: whoever coordinates next reads where it stands."""

    id: int
    service: str
    release: str
    previous: str | None
    """The release that was live before it: what a failure returns to. None: the first."""
    state: RolloutState
    reason: str = ""
    hosts: tuple[RolloutHost, ...]
    started: float
    finished: float | None = None


class RolloutUpdate(Frozen):
    """What changed: None leaves it as it is. Hosts not named stay as they are."""

    state: RolloutState | None = None
    reason: str | None = Field(default=None, max_length=4096)
    hosts: tuple[RolloutHost, ...] = ()


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    ABANDONED = "abandoned"


class NewHostStep(Frozen):
    """Work for one host, in the words of deploy's planner. Must be safe to run twice."""

    key: str = Field(max_length=200)
    """Unique in the rollout: asking again with the same key gives the same step."""
    host: str
    action: str = Field(max_length=64)
    payload: dict[str, Any] = Field(default_factory=dict)
    deadline: float = Field(default=600.0, gt=0)
    """Seconds; a step not done by then fails."""


class HostStep(Frozen):
    id: int
    rollout: int
    service: str
    key: str
    host: str
    action: str
    payload: dict[str, Any]
    state: StepState
    error: str = ""
    result: dict[str, Any] = Field(default_factory=dict)


class StepClaim(Frozen):
    """A host step that now belongs to the asking host's worker, held by a lease as attempts are."""

    step: HostStep
    token: str = Field(repr=False)
    lease_seconds: float
    release: Release
    previous: Release | None
    secrets: dict[EnvName, str] = Field(default_factory=dict, repr=False)
    """Of the release's service and, under the same names, of the previous one's."""


class StepOutcome(Frozen):
    ok: bool
    error: str = Field(default="", max_length=4096)
    result: dict[str, Any] = Field(default_factory=dict)


class StageClient(Protocol):
    """The worker's side of the server. Any call may raise Busy (ask again), NotFound, Conflict."""

    def register_worker(self, info: WorkerInfo) -> Registration: ...

    def heartbeat(self, beat: Heartbeat) -> HeartbeatReply: ...

    def hosts(self, labels: dict[str, str]) -> list[HostInfo]:
        """Registered workers that have all these labels, by name; lost ones too."""
        ...

    def claim(self, attempt: str, worker: str) -> Claim | None:
        """Takes the attempt. None: taken, over, not for this worker, or not yet to start: forget the hint."""
        ...

    def renew(self, attempt: str, token: str) -> Renewal:
        """Prolongs the lease. Never raises LeaseLost: the state says it."""
        ...

    def log(self, attempt: str, token: str, lines: Sequence[LogLine]) -> None:
        """Raises LeaseLost."""
        ...

    def finish(self, attempt: str, token: str, outcome: Outcome) -> None:
        """Ends the attempt. Saying it twice with the same token is fine. Raises LeaseLost."""
        ...

    def record_release(self, attempt: str, token: str, release: NewRelease) -> Release:
        """The release of this stage: made at the first call, the same one at each later call and attempt."""
        ...

    def release(self, release: str) -> Release: ...

    def current_release(self, service: str) -> Release | None:
        """The one that is live."""
        ...

    def begin_rollout(self, attempt: str, token: str, rollout: NewRollout) -> Rollout:
        """The rollout of this release, with the caller as its coordinator.

        A later attempt gets the rollout as its predecessor left it, and the predecessor is fenced off.
        Raises Conflict when another rollout of the service is under way.
        """
        ...

    def rollout(self, rollout: int) -> Rollout: ...

    def update_rollout(self, attempt: str, token: str, rollout: int, update: RolloutUpdate) -> Rollout:
        """Records progress. DONE makes the release live and the previous one superseded, REVERTED and FAILED
        make it failed: in the same transaction. Raises LeaseLost."""
        ...

    def request_step(self, attempt: str, token: str, rollout: int, step: NewHostStep) -> HostStep:
        """Asks a host's worker for a step; it is hinted at once and until claimed. Raises LeaseLost."""
        ...

    def abandon_steps(self, attempt: str, token: str, rollout: int) -> None:
        """All of the rollout's steps that are not over become abandoned; their hosts lose their leases."""
        ...

    def steps(self, rollout: int) -> list[HostStep]: ...

    def pending_steps(self, worker: str) -> list[int]:
        """Ids of the steps that wait for this host."""
        ...

    def claim_step(self, step: int, worker: str) -> StepClaim | None: ...

    def renew_step(self, step: int, token: str) -> Renewal: ...

    def finish_step(self, step: int, token: str, outcome: StepOutcome) -> None: ...
