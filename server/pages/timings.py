"""The phases of a stage's attempts as bars. Pure; widths in thousandths of the longest attempt."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.views import AttemptView, StageView

_ORDER = (
    "queue", "checkout", "pull", "build", "create", "start", "run", "snapshot", "push", "rollout", "artifacts",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    phase: str
    seconds: float
    x: float
    width: float


@dataclass(frozen=True)
class Bar:
    attempt: AttemptView
    parts: tuple[Part, ...]


def bars(stage: StageView) -> tuple[Bar, ...]:
    """One an attempt, in order."""
    longest = max((sum(attempt.timings.values()) for attempt in stage.attempts), default=0.0) or 1.0
    return tuple(Bar(attempt, _parts(attempt, longest)) for attempt in stage.attempts)


def _parts(attempt: AttemptView, longest: float) -> tuple[Part, ...]:
    known = sorted(attempt.timings, key=lambda phase: _ORDER.index(phase) if phase in _ORDER else len(_ORDER))
    parts: list[Part] = []
    x = 0.0
    for phase in known:
        seconds = attempt.timings[phase]
        width = 1000 * seconds / longest
        parts.append(Part(phase, seconds, round(x, 1), round(width, 1)))
        x += width
    return tuple(parts)
