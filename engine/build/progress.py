"""What a build tells while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepStarted:
    """Step `number` of `total` (from 1, FROM counts) begins; `text` is the instruction as written."""

    number: int
    total: int
    stage: str
    text: str
    line: int


@dataclass(frozen=True)
class StepCached:
    """The step's result was there already."""

    number: int


@dataclass(frozen=True)
class StepOutput:
    """What a command wrote; `stream` is stdout or stderr."""

    number: int
    stream: str
    data: bytes


@dataclass(frozen=True)
class StepFinished:
    """The step is done: a short id of its result, and how long it took in seconds."""

    number: int
    id: str
    seconds: float


@dataclass(frozen=True)
class Pulling:
    """A base image is being pulled."""

    name: str


@dataclass(frozen=True)
class Notice:
    """A word for the author of the Dockerfile, no error."""

    text: str
    line: int = 0


@dataclass(frozen=True)
class Built:
    """The image is there."""

    image_id: str
    tags: tuple[str, ...]


BuildEvent = StepStarted | StepCached | StepOutput | StepFinished | Pulling | Notice | Built
Progress = Callable[[BuildEvent], None]
