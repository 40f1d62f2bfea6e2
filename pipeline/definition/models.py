"""The pipeline file as values, after its short forms were written out. Texts may still hold `${…}`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from pipeline.plan.models import Kind, Repository, Scalar, SideService, Tag
from pipeline.services import EnvText, Lines, Names, Resources, Service
from pipeline.triggers.cron import check_cron
from pipeline.values import Duration, EnvName, Flag, Frozen, Labels, Name, as_tuple

MAX_PIPELINES = 100

StageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$")]
"""No dots: `${stages.NAME.image}` must stay readable."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


def _inside(value: str) -> str:
    if not value or value.startswith("/") or ".." in value.split("/"):
        raise ValueError(f'"{value}" leads out of the checkout: use a relative path without ..')
    return value


RelativePath = Annotated[str, AfterValidator(_inside)]
"""Inside of the checkout."""


def typed_scalar(value: Any) -> Any:
    """A plain scalar's own type: matrix cells and parameters keep `1.10` as text, `3` as a number."""
    from pipeline.definition.tree import Plain

    if not isinstance(value, Plain):
        return value
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        return number if str(number) == value and -_LARGEST <= number <= _LARGEST else str(value)
    return str(value)


_LARGEST = 2**53
"""What every reader of JSON keeps exactly. Larger ones, infinity and nan stay text."""


def _short(value: Scalar) -> Scalar:
    if isinstance(value, str) and (len(value) > MAX_CELL or not value.isprintable()):
        raise ValueError(f"this is not one line of at most {MAX_CELL} characters: write less, or use env")
    return value


MAX_CELL = 200
Cell = Annotated[Scalar, BeforeValidator(typed_scalar), AfterValidator(_short)]
Patterns = Annotated[tuple[Text, ...], BeforeValidator(as_tuple, json_schema_input_type=str | list[str])]


class PushTrigger(Frozen):
    """Which pushes start it. Patterns: `*` within a path's part, `**` over parts, `!` in front takes back."""

    branches: Patterns = Field(default=(), description="None and no tags: every branch.")
    tags: Patterns = Field(default=(), description="Tags that start it; none: no tag does.")
    paths: Patterns = Field(default=(), description="Only when a changed file matches.")


class Triggers(Frozen):
    push: PushTrigger | None = None
    schedule: Annotated[Text, AfterValidator(check_cron)] | None = Field(
        default=None, description="Five cron fields, in UTC. Runs the default branch."
    )


class ConcurrencyDef(Frozen):
    group: Text
    cancel: Literal["superseded", "none"] = Field(
        default="none", description="superseded: a newer run cancels older ones of the group."
    )


class BuildDef(Frozen):
    """Dockerfile → image."""

    context: RelativePath = Field(default=".", description="Folder in the checkout.")
    dockerfile: RelativePath = Field(default="Dockerfile", description="Relative to the context.")
    target: Text | None = Field(default=None, description="The last stage to build.")
    args: dict[str, EnvText] = Field(default_factory=dict, description="Values for the Dockerfile's ARG.")
    labels: dict[str, EnvText] = Field(default_factory=dict, description="Labels of the image.")
    platform: Text | None = None
    network: Literal["bridge", "host", "none"] = "bridge"
    cache: Flag = Field(default=True, description="false: build every step anew.")
    shared_cache: Text | None = Field(
        default=None, description="A name in a registry: what one worker has built there no other builds again."
    )
    pull: Flag = Field(default=False, description="true: ask the registry for a newer base image.")


class ContainerDef(Frozen):
    run: Annotated[
        tuple[Text, ...],
        BeforeValidator(as_tuple, json_schema_input_type=str | list[str]),
        Field(min_length=1, description="Shell lines; the first that fails ends the stage."),
    ]
    workdir: Text | None = None
    user: Text | None = None
    services: dict[Name, SideService] = Field(default_factory=dict, description="Containers beside it.")
    network: Literal["bridge", "none"] = "bridge"
    resources: Resources = Resources()
    artifacts: Lines = Field(default=(), description="Paths or globs to keep.")
    snapshot: Flag = Field(default=False, description="Keep the container's files as an image at the end.")


class TestDef(ContainerDef):
    """Commands in a container of the image that was built."""

    __test__ = False  # pytest: not a test case
    image: Text | None = Field(default=None, description="None: what the stages before it built.")
    source: Annotated[str, StringConstraints(pattern=r"^/.+")] | None = Field(
        default=None, description="Where a copy of the checkout is put in the container; none: nowhere."
    )


class RunDef(ContainerDef):
    """Commands in a container of any image, with the checkout in it."""

    image: Text | None = Field(default=None, description="None: what the stages before it built.")
    source: Annotated[str, StringConstraints(pattern=r"^/.+")] | None = Field(
        default="/workspace", description="Where a copy of the checkout is put in the container."
    )


class PushDef(Frozen):
    """Image → registry."""

    image: Text | None = Field(
        default=None,
        description="None: the snapshot of the tests before it, if one was taken, else the image.",
    )
    to: Repository = Field(description="Repository with its registry: registry.example.com/web")
    tags: Annotated[tuple[Tag, ...], BeforeValidator(as_tuple, json_schema_input_type=str | list[str])] = Field(
        default=(), description="None: the commit. Those that come out empty are left out."
    )


class DeployDef(Frozen):
    """A release of a service, rolled out over its hosts."""

    service: Name = Field(description="A key of services.")
    image: Text | None = Field(default=None, description="By digest. None: what the stages before it pushed.")
    environment: Name = "production"
    approval: Literal["required", "none"] = Field(
        default="none", description="required: waits until somebody approves."
    )


class StageDef(Frozen):
    """One stage: exactly one of build, test, push, deploy and run, and what all stages have."""

    build: BuildDef | None = None
    test: TestDef | None = None
    push: PushDef | None = None
    deploy: DeployDef | None = None
    run: RunDef | None = None
    needs: Lines = Field(default=(), description="Stages that must pass before.")
    when: Text | None = Field(
        default=None,
        description='A condition: git.branch == "main"; or failure, always: by how needed stages ended.',
    )
    matrix: dict[StageName, Annotated[tuple[Cell, ...], Field(min_length=1, max_length=64)]] = Field(
        default_factory=dict, description="One stage for each combination."
    )
    env: dict[EnvName, EnvText] = Field(default_factory=dict)
    secrets: Names = Field(default=(), description="Put into the environment when it starts.")
    timeout: Duration = Field(default=3600.0, gt=0)
    retries: int = Field(default=0, ge=0, le=10, description="Further attempts after a failure.")
    runs_on: Labels = Field(default_factory=dict, description="Labels that the worker must have.")
    allow_failure: Flag = Field(default=False, description="Its failure does not fail the run.")

    @model_validator(mode="after")
    def _one_kind(self) -> StageDef:
        named = [kind.value for kind in Kind if getattr(self, kind.value) is not None]
        if len(named) != 1:
            what = f"has {' and '.join(named)}" if named else "says nothing to do"
            raise ValueError(f"a stage is exactly one of build, test, push, deploy and run: this one {what}")
        return self

    @property
    def kind(self) -> Kind:
        return next(kind for kind in Kind if getattr(self, kind.value) is not None)

    @property
    def body(self) -> BuildDef | TestDef | PushDef | DeployDef | RunDef:
        body: BuildDef | TestDef | PushDef | DeployDef | RunDef = getattr(self, self.kind.value)
        return body


class PipelineDef(Frozen):
    on: Triggers = Field(default=Triggers(push=PushTrigger()), description="What starts it; none: every push.")
    params: dict[StageName, Cell] = Field(
        default_factory=dict, description="Values that ${params.NAME} reads, with their defaults."
    )
    concurrency: ConcurrencyDef | None = None
    stages: dict[StageName, StageDef] = Field(min_length=1, max_length=200)


class Definition(Frozen):
    """One pipeline file, checked."""

    services: dict[Name, Service] = Field(default_factory=dict)
    pipelines: dict[Name, PipelineDef] = Field(min_length=1, max_length=MAX_PIPELINES)
