"""A Dockerfile's stages as a graph: what each is built from and copies from, and the target. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.build.csvfields import read_fields
from engine.build.expand import ExpansionError, Rules, read
from engine.build.instructions import Copy, Dockerfile, Instruction, Run, Stage
from engine.build.problems import DockerfileError, did_you_mean
from engine.errors import InvalidInput
from engine.images.descriptor import Platform
from engine.images.reference import Reference

SCRATCH = "scratch"


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its base known: an earlier stage's position, an image's name, or None for scratch."""

    position: int
    stage: Stage
    base: int | str | None
    platform: Platform | None

    @property
    def title(self) -> str:
        return self.stage.name or f"stage-{self.position}"


@dataclass(frozen=True)
class StageGraph:
    """All stages, and the position of the one to build."""

    stages: tuple[PlannedStage, ...]
    target: int

    def origin(self, position: int, name: str) -> int | str:
        """What `--from=name` in the stage at `position` means: an earlier stage, or an image."""
        if "$" in name:
            raise DockerfileError(
                "variable expansion is not supported for --from, "
                "define a new stage with FROM using ARG from global scope as a workaround"
            )
        if name.isdecimal():
            if int(name) >= position:
                raise DockerfileError(f"invalid stage index {name}: only stages before this one can be used")
            return int(name)
        for planned in reversed(self.stages):  # of two stages with one name the later one has it
            if planned.stage.name and planned.stage.name == name.lower():
                if planned.position == position:
                    raise DockerfileError(f"circular dependency: stage {name} copies from itself")
                if planned.position > position:
                    raise DockerfileError(
                        f'cannot copy from stage "{name}": it needs to be defined before the one that uses it'
                    )
                return planned.position
        return name


def plan_stages(dockerfile: Dockerfile, target: str, variables: Mapping[str, str]) -> StageGraph:
    """Finds each stage's base and the target. Raises DockerfileError, and InvalidInput for the target."""
    if not dockerfile.stages:
        raise DockerfileError("dockerfile contains no stages to build")
    planned: list[PlannedStage] = []
    by_name: dict[str, int] = {}
    for position, stage in enumerate(dockerfile.stages):
        opening = stage.opening
        base, hint = _expanded(opening.base, variables, dockerfile.escape, opening.line)
        if not base:
            raise DockerfileError(f"base name ({opening.base}) should not be blank{hint}", opening.line, "FROM")
        found: int | str | None = by_name.get(base.lower(), base)
        if isinstance(found, str) and found != SCRATCH:
            _check_name(found, opening.line)
        planned.append(
            PlannedStage(
                position,
                stage,
                None if found == SCRATCH else found,
                _platform(opening.platform, variables, dockerfile.escape, opening.line),
            )
        )
        if stage.name:
            by_name[stage.name] = position
    graph = StageGraph(tuple(planned), _target(planned, by_name, target))
    for one in planned:
        _check_origins(graph, one)
    return graph


def _check_name(base: str, line: int) -> None:
    try:
        Reference.parse(base)
    except InvalidInput as error:
        raise DockerfileError(f'failed to parse stage name "{base}": {error}', line, "FROM") from None


def _check_origins(graph: StageGraph, planned: PlannedStage) -> None:
    """Whatever the target needs: a stage that copies from a later one, or from itself, can never be built."""
    for step in planned.stage.steps:
        for name in origins_of(step):
            try:
                graph.origin(planned.position, name)
            except DockerfileError as error:
                raise error.at(step.line, step.keyword) from None


def origins_of(step: Instruction) -> tuple[str, ...]:
    """The stages and images that an instruction reads from, as written."""
    if isinstance(step, Copy):
        return (step.origin,) if step.origin else ()
    if isinstance(step, Run):
        return tuple(origin for mount in step.mounts if (origin := _mount_origin(mount)))
    return ()


def _mount_origin(mount: str) -> str:
    for field in read_fields(mount):
        key, _, value = field.partition("=")
        if key.lower() == "from":
            return value
    return ""


def _expanded(word: str, variables: Mapping[str, str], escape: str, line: int) -> tuple[str, str]:
    """The text, and what to say with a complaint about it: that a variable's name is nearly another's."""
    try:
        found = read(word, variables, Rules(escape=escape))
    except ExpansionError as error:
        raise DockerfileError(str(error), line, "FROM") from None
    return found.text, next(filter(None, (did_you_mean(name, variables) for name in sorted(found.unknown))), "")


def _platform(word: str, variables: Mapping[str, str], escape: str, line: int) -> Platform | None:
    if not word:
        return None
    text, hint = _expanded(word, variables, escape, line)
    if not text:
        raise DockerfileError(f"empty platform value from expression {word}{hint}", line, "FROM")
    try:
        return Platform.parse(text)
    except InvalidInput as error:
        raise DockerfileError(f"failed to parse platform {word}: {error}{hint}", line, "FROM") from None


def _target(planned: list[PlannedStage], by_name: dict[str, int], target: str) -> int:
    if not target:
        return len(planned) - 1
    if target.lower() in by_name:
        return by_name[target.lower()]
    if target.isdecimal() and int(target) < len(planned):
        return int(target)
    raise InvalidInput(f'target stage "{target}" could not be found{did_you_mean(target, by_name)}')
