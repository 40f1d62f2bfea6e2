"""Which pipelines an event starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.definition.models import Definition, PipelineDef
from pipeline.triggers.event import Event
from pipeline.triggers.glob import glob


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether the last pattern that speaks of the name includes it; those with `!` exclude."""
    chosen: bool | None = None
    for pattern in patterns:
        negative = pattern.startswith("!")
        if chosen is None:
            chosen = negative  # a list that begins by excluding includes all else
        if glob(pattern.removeprefix("!")).fits(name):
            chosen = not negative
    return bool(chosen)


def starts(pipeline: PipelineDef, event: Event, changed: Callable[[], Iterable[str] | None]) -> bool:
    """Whether an event starts a pipeline. `changed` is only called when paths matter; None from it: unknown."""
    if event.kind == "schedule":
        return pipeline.on.schedule is not None and pipeline.on.schedule == event.schedule
    push = pipeline.on.push
    if event.kind not in ("push", "tag") or push is None or event.deleted:
        return False
    if event.tag:
        return matches(event.tag, push.tags)
    if push.branches and not matches(event.branch, push.branches):
        return False
    if push.tags and not push.branches:
        return False
    if not push.paths:
        return True
    files = changed()
    return files is None or any(matches(file, push.paths) for file in files)


def pipelines_for(definition: Definition, event: Event, changed: Callable[[], Iterable[str] | None]) -> list[str]:
    """The names of the pipelines that an event starts, in the file's order."""
    known: list[list[str] | None] = []

    def once() -> list[str] | None:
        if not known:
            files = changed()
            known.append(None if files is None else list(files))
        return known[0]

    return [name for name, pipeline in definition.pipelines.items() if starts(pipeline, event, once)]
