"""The stages of a run as they will be executed: typed by kind, only earlier outputs left to look up."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from pipeline.services import Health, Lines, NamedService, Resources
from pipeline.values import Duration, EnvName, Frozen, Labels


def check_repository(text: str) -> str:
    """The text, if it names a repository and its registry, without a tag. Raises ValueError."""
    if "${" in text:
        return text
    host, slash, path = text.partition("/")
    if not slash or not _HOST.fullmatch(host) or not ("." in host or ":" in host or host == "localhost"):
        raise ValueError(f'"{text}" does not name a registry: write registry.example.com/{text.lstrip("/") or "web"}')
    if not _PATH.fullmatch(path):
        remedy = "put the tag under tags:" if ":" in path else "use lower case letters, digits, -, _, . and /"
        raise ValueError(f'"{path}" is not a repository\'s name: {remedy}')
    return text


def check_tag(text: str) -> str:
    """The text, if a registry takes it as a tag. Raises ValueError."""
    if "${" in text or _TAG.fullmatch(text):
        return text
    raise ValueError(f'"{text}" is not a tag: use letters, digits, -, _ and ., at most 128')


_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
Repository = Annotated[str, StringConstraints(max_length=255), AfterValidator(check_repository)]
Tag = Annotated[str, AfterValidator(check_tag)]


class Kind(StrEnum):
    BUILD = "build"
    TEST = "test"
    PUSH = "push"
    DEPLOY = "deploy"
    RUN = "run"


class BuildSpec(Frozen):
    """Dockerfile → image. Outputs: `image_id`, and `image` = the same (an image of the worker's engine)."""

    kind: Literal[Kind.BUILD] = Kind.BUILD
    context: str = "."
    """Folder in the checkout, relative and inside of it."""
    dockerfile: str = "Dockerfile"
    """Relative to the context."""
    target: str | None = None
    args: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    platform: str | None = None
    network: Literal["bridge", "host", "none"] = "bridge"
    cache: bool = True
    shared_cache: str | None = None
    """Where engines share built steps: a repository's tag."""
    pull: bool = False


class SideService(Frozen):
    """A container beside a test, on a network of the stage's own, reached by its key as host name."""

    image: str
    env: dict[EnvName, str] = Field(default_factory=dict)
    command: Lines | None = None
    health: Health | None = None
    """The stage's own commands start when it is healthy. None: as soon as it runs."""


class ContainerSpec(Frozen):
    """What `test` and `run` have in common: shell lines in a container of an image.

    Lines are joined by newlines and run by the image's `/bin/sh -e`; the first that fails ends the stage
    and its exit code is the stage's. A snapshot keeps the image's own command, entrypoint and user, not the
    lines. It is also taken when the stage fails, so that the container can be looked at.
    """

    image: str
    run: Lines
    workdir: str | None = None
    """None: `source` if there is one, else the image's own."""
    user: str | None = None
    source: str | None = None
    """Path in the container where a writable copy of the checkout is put. None: no checkout inside."""
    services: dict[str, SideService] = Field(default_factory=dict)
    network: Literal["bridge", "none"] = "bridge"
    resources: Resources = Resources()
    artifacts: tuple[str, ...] = ()
    """Paths or globs, relative to the working folder, copied out of the container at the end."""
    snapshot: bool = False


class TestSpec(ContainerSpec):
    """Outputs: `snapshot` (an image id) if it takes one, `artifacts`."""

    __test__ = False  # pytest: not a test case
    kind: Literal[Kind.TEST] = Kind.TEST


class RunSpec(ContainerSpec):
    """As a test, but for any other work."""

    kind: Literal[Kind.RUN] = Kind.RUN


class PushSpec(Frozen):
    """Image → registry. Outputs: `digest`, `image` = `<to>@<digest>`, `tags`."""

    kind: Literal[Kind.PUSH] = Kind.PUSH
    image: str
    to: Repository
    """Repository with its registry, without tag: `127.0.0.1:7750/web`."""
    tags: tuple[Tag, ...] = ()


class DeploySpec(Frozen):
    """A release rolled out on all hosts that the service chooses. Outputs: `release`, `image`, `digest`."""

    kind: Literal[Kind.DEPLOY] = Kind.DEPLOY
    service: NamedService
    image: str
    """By digest, after resolving: `127.0.0.1:7750/web@sha256:…`."""
    environment: str = "production"
    rollback: bool = False
    """The image is an old release's and returns on purpose."""


StageSpec = Annotated[BuildSpec | TestSpec | PushSpec | DeploySpec | RunSpec, Field(discriminator="kind")]

Scalar = str | int | float | bool


class Condition(StrEnum):
    """When a stage may start, by how the stages that it needs have ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"


CONDITIONS = frozenset(condition.value for condition in Condition)


class PlannedStage(Frozen):
    """One node of the plan."""

    name: str
    """Unique in the run: `unit`, or `unit (python=3.11)` for one cell of a matrix."""
    base: str
    """The key in the file; the same for all cells of a matrix."""
    needs: tuple[str, ...] = ()
    """Names of planned stages that must end before."""
    spec: StageSpec
    """May still hold `${stages.NAME.OUTPUT}`, resolved when the stage is claimed."""
    condition: Condition = Condition.SUCCESS
    runs_on: Labels = Field(default_factory=dict)
    near: str | None = None
    """A stage whose image exists only in the engine of the worker that ran it: run on that worker."""
    timeout: Duration = 3600.0
    retries: int = 0
    """Further attempts after a failure. Attempts lost with their worker are not counted."""
    allow_failure: bool = False
    approval: bool = False
    """Waits for somebody's word before it starts."""
    lock: str | None = None
    """At most one stage with the same lock runs at a time, over all runs."""
    env: dict[EnvName, str] = Field(default_factory=dict)
    secrets: tuple[EnvName, ...] = ()
    matrix: dict[str, Scalar] = Field(default_factory=dict)
    skip: str | None = None
    """Why it will not run, when its `when` was false at planning."""

    @property
    def kind(self) -> Kind:
        return self.spec.kind


class Concurrency(Frozen):
    """Runs of one group: at most one at a time."""

    group: str
    cancel: Literal["superseded", "none"] = "none"
    """superseded: a newer run cancels the older ones. none: it waits for them."""


class Plan(Frozen):
    """What one run will do."""

    pipeline: str
    stages: tuple[PlannedStage, ...]
    """In an order in which each comes after what it needs."""
    concurrency: Concurrency | None = None

    def stage(self, name: str) -> PlannedStage:
        return next(stage for stage in self.stages if stage.name == name)
