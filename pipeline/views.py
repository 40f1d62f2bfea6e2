"""What people and scripts see of runs and services: the shapes of the REST API, the pages and `--json`."""

from __future__ import annotations

from pydantic import Field, computed_field

from pipeline.plan.models import Kind, Scalar
from pipeline.protocol import HostInfo, Outputs, Release, Replica, Rollout, RolloutState
from pipeline.run.states import AttemptState, RunState, StageState
from pipeline.services import NamedService
from pipeline.values import Frozen, Labels


class AttemptView(Frozen):
    """One try of a stage. Times are Unix seconds."""

    id: str
    number: int
    state: AttemptState
    worker: str | None = None
    created: float
    started: float | None = None
    finished: float | None = None
    error: str = ""
    exit_code: int | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    """Seconds a phase; `queue` is the time from ready to claimed."""


class StageView(Frozen):
    name: str
    base: str
    kind: Kind
    position: int
    state: StageState
    needs: tuple[str, ...] = ()
    matrix: dict[str, Scalar] = Field(default_factory=dict)
    allow_failure: bool = False
    reason: str = ""
    """Why it failed, was skipped or waits: one line."""
    approved: bool = False
    approver: str = ""
    """Who approved it, as they said."""
    started: float | None = None
    finished: float | None = None
    duration: float | None = None
    """Seconds; of a stage still running, until now."""
    outputs: Outputs = Outputs()
    attempts: tuple[AttemptView, ...] = ()


class RunView(Frozen):
    id: int
    pipeline: str
    state: RunState
    reason: str = ""
    """Why it failed or was cancelled: one line."""
    repository: str = ""
    event: str = ""
    branch: str = ""
    tag: str = ""
    sha: str = ""
    message: str = ""
    """First line of the commit's message."""
    author: str = ""
    title: str = ""
    """What it is about when there is no commit, such as `rollback web to web-3`."""
    created: float
    started: float | None = None
    finished: float | None = None
    duration: float | None = None
    stages: tuple[StageView, ...] = ()

    def stage(self, name: str) -> StageView | None:
        return next((stage for stage in self.stages if stage.name == name), None)


class PastRelease(Release):
    """A release and how its rollout went. Times are Unix seconds."""

    author: str = ""
    """Of the commit, or whoever asked for the deploy or the rollback."""
    approver: str = ""
    outcome: RolloutState | None = None
    """None: it never began to roll out."""
    reason: str = ""
    started: float | None = None
    finished: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def who(self) -> str:
        """One line for people."""
        return ", ".join(part for part in (self.author, self.approver and f"approved by {self.approver}") if part)


class ServiceView(Frozen):
    """A service: what should run, and what its hosts say does."""

    name: str
    repository: str = ""
    spec: NamedService
    release: Release | None = None
    """The live one."""
    rollout: Rollout | None = None
    """The one under way, else the last."""
    hosts: tuple[HostReplicas, ...] = ()


class HostReplicas(Frozen):
    host: str
    online: bool
    replicas: tuple[Replica, ...] = ()


ServiceView.model_rebuild()


class Ready(Frozen):
    """A stage that may start: a hint to send, to the worker `near` if given, else to whoever has `labels`."""

    run: int
    stage: str
    attempt: str
    near: str | None = None
    labels: Labels = Field(default_factory=dict)


class StepReady(Frozen):
    """A host step that waits for its host: a hint to send."""

    step: int
    host: str


class Swept(Frozen):
    """What a sweep found, and which hints to send."""

    ready: tuple[Ready, ...] = ()
    steps: tuple[StepReady, ...] = ()
    lost: tuple[str, ...] = ()
    """Attempts whose lease ran out."""
    stranded: int = 0
    """Stages of which what they wait for is another now, or that gave up."""
    events: int = 0
    """How many events of schedules wait to become runs."""


class StoredLine(Frozen):
    """A log line as it is read back. `id` grows over all lines: ask for what comes after it."""

    id: int
    attempt: str
    seq: int
    stream: str
    time: float
    text: str


__all__ = [
    "AttemptView",
    "HostInfo",
    "HostReplicas",
    "PastRelease",
    "Ready",
    "RunView",
    "ServiceView",
    "StageView",
    "StepReady",
    "StoredLine",
    "Swept",
]
