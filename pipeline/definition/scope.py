"""What a `${…}` or a `when` at one place of the file may refer to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

from pipeline.definition.models import StageDef
from pipeline.plan.graph import ancestors
from pipeline.plan.models import Kind
from pipeline.values import did_you_mean

GIT = (
    "sha", "short_sha", "branch", "tag", "ref", "before", "message", "author", "repository", "url", "pusher",
)  # fmt: skip
EVENT = ("kind",)
OUTPUTS = {
    Kind.BUILD: ("image", "image_id"),
    Kind.TEST: ("snapshot",),
    Kind.RUN: ("snapshot",),
    Kind.PUSH: ("image", "digest"),
    Kind.DEPLOY: ("image", "digest", "release"),
}
_ANYBODYS = {
    "branch": "read it from the environment: $CI_BRANCH",
    "tag": "read it from the environment: $CI_TAG",
    "ref": "read $CI_BRANCH or $CI_TAG",
    "message": "put it into env: and read it from there",
    "author": "put it into env: and read it from there",
    "pusher": "put it into env: and read it from there",
}
"""Whoever may push chooses these: in a shell line they would be run."""

Wrong = tuple[str, str]
"""What, and the remedy."""


Needs = Mapping[str, tuple[str, ...] | None]
"""What each stage needs; None where that can't be understood."""


class Scope:
    """The names at one place, of a stage or, without a name, of none.

    `stages` are all of the pipeline's, None for one that is wrong itself.
    """

    def __init__(
        self,
        params: Iterable[str],
        name: str = "",
        matrix: Iterable[str] = (),
        stages: Mapping[str, StageDef | None] = MappingProxyType({}),
        needs: Needs = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.stages = stages
        self.needs = needs
        self.spaces: dict[str, tuple[str, ...]] = {"git": GIT, "event": EVENT, "params": tuple(params)}
        if cells := tuple(matrix):
            self.spaces["matrix"] = cells

    def check(self, path: tuple[str, ...], *, when: bool = False, shell: bool = False) -> Wrong | None:
        """What is wrong with a reference; None when it is fine."""
        shown = ".".join(path)
        space = path[0]
        if space == "stages" and self.name and not when:
            return self._stage_output(path)
        if space not in self.spaces:
            if space == "stages" and self.name:
                return "a condition is decided before any stage runs", "use git, event, params or matrix"
            known = [*self.spaces, *(["stages"] if self.name and not when else [])]
            return f'nothing is called "{shown}"', did_you_mean(space, known)
        if len(path) != 2 or path[1] not in self.spaces[space]:
            known = [f"{space}.{name}" for name in self.spaces[space]]
            return f'nothing is called "{shown}"', did_you_mean(shown, known) or f"this pipeline has no {space}"
        if shell and space == "git" and path[1] in _ANYBODYS:
            return "whoever may push chooses it, and the shell would run it", _ANYBODYS[path[1]]
        return None

    @cached_property
    def _before(self) -> Mapping[str, int]:
        return ancestors(self.name, {key: needs or () for key, needs in self.needs.items()})

    def _stage_output(self, path: tuple[str, ...]) -> Wrong | None:
        if len(path) != 3:
            return f'"{".".join(path)}" is not complete', "write stages.NAME.image"
        _, name, output = path
        if name not in self.stages:
            return f'there is no stage "{name}"', did_you_mean(name, self.stages)
        other = self.stages[name]
        if other is None:
            return None  # what is wrong with it is told at its own place
        if output not in OUTPUTS[other.kind]:
            known = [f"stages.{name}.{each}" for each in OUTPUTS[other.kind]]
            return f'a {other.kind.value} stage has no "{output}"', did_you_mean(".".join(path), known)
        if name not in self._before and None not in self.needs.values():
            return f'the stage "{name}" may not have ended by then', f"add it to needs: [{name}]"
        if other.matrix:
            return f'"{name}" runs once for each cell of its matrix, so it has no single {output}', ""
        if output == "snapshot" and not getattr(other.body, "snapshot", False):
            return f'the stage "{name}" takes no snapshot', "set snapshot: true in it"
        return None
