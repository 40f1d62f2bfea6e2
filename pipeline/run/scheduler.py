"""What should happen next in a run: pure decisions over the present states."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.plan.models import Condition
from pipeline.run.states import STAGE_ENDED, RunState, StageState
from pipeline.run.transitions import StageEvent

MAX_LOSSES = 5
"""How often a stage may lose its worker before it is given up."""


@dataclass(frozen=True)
class StageFacts:
    """What the scheduler looks at."""

    name: str
    state: StageState
    needs: tuple[str, ...] = ()
    condition: Condition = Condition.SUCCESS
    allow_failure: bool = False
    approval: bool = False
    approved: bool = False
    lock: str | None = None
    skip: str | None = None
    lost: bool = False
    """It failed because its workers were lost."""


@dataclass(frozen=True)
class Decision:
    stage: str
    event: StageEvent
    reason: str = ""


def decide(stages: Sequence[StageFacts], *, cancelled: bool = False, held: Collection[str] = ()) -> list[Decision]:
    """What each stage that has not started should do now. Repeat until nothing more comes: skips cascade.

    `held` are the locks that stages of any run hold. A cancelled run starts nothing more.
    """
    by_name = {stage.name: stage for stage in stages}
    taken = set(held)
    decisions: list[Decision] = []
    for stage in stages:
        if stage.state is StageState.WAITING and cancelled:
            decisions.append(Decision(stage.name, StageEvent.CANCEL))
        if stage.state is not StageState.PENDING:
            continue
        if cancelled:
            decisions.append(Decision(stage.name, StageEvent.CANCEL))
            continue
        decision = _pending(stage, by_name, taken)
        if decision is not None:
            decisions.append(decision)
            if decision.event is StageEvent.UNBLOCK and stage.lock:
                taken.add(stage.lock)
    return decisions


def _pending(stage: StageFacts, stages: Mapping[str, StageFacts], taken: set[str]) -> Decision | None:
    if stage.skip is not None:
        return Decision(stage.name, StageEvent.SKIP, stage.skip)
    needed = [stages[name] for name in stage.needs]
    if any(need.state not in STAGE_ENDED for need in needed):
        return None
    bad = [need for need in needed if not _satisfied(need)]
    if stage.condition is Condition.SUCCESS and bad:
        return Decision(stage.name, StageEvent.SKIP, f"{bad[0].name} {_ended(bad[0])}")
    if stage.condition is Condition.FAILURE and not _failed_before(stage, stages):
        return Decision(stage.name, StageEvent.SKIP, "nothing before it failed")
    if stage.approval and not stage.approved:
        return Decision(stage.name, StageEvent.ASK, "waits for approval")
    if stage.lock and stage.lock in taken:
        return None
    return Decision(stage.name, StageEvent.UNBLOCK)


def _satisfied(need: StageFacts) -> bool:
    return need.state is StageState.PASSED or (need.state is StageState.FAILED and need.allow_failure)


def _ended(need: StageFacts) -> str:
    return {StageState.FAILED: "failed", StageState.CANCELLED: "was cancelled"}.get(need.state, "was skipped")


def _failed_before(stage: StageFacts, stages: Mapping[str, StageFacts]) -> bool:
    """A failure is seen through the stages that it made skip."""
    queue, seen = list(stage.needs), set(stage.needs)
    while queue:
        need = stages[queue.pop()]
        if need.state is StageState.FAILED:
            return True
        queue.extend(name for name in need.needs if name not in seen)
        seen.update(need.needs)
    return False


def conclude(stages: Sequence[StageFacts], *, cancelled: bool = False) -> RunState | None:
    """How the run ended; None while something may still happen."""
    if any(stage.state not in STAGE_ENDED for stage in stages):
        return None
    bad = [stage for stage in stages if stage.state is StageState.FAILED and not stage.allow_failure]
    if cancelled or any(stage.state is StageState.CANCELLED for stage in stages):
        return RunState.CANCELLED
    if any(stage.lost for stage in bad):
        return RunState.LOST
    return RunState.FAILED if bad else RunState.PASSED
