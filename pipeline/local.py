"""The worker API without a server: a StageClient straight over a store in the same process."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.protocol import (
    Claim,
    Heartbeat,
    HeartbeatReply,
    HostInfo,
    HostStep,
    LogLine,
    NewHostStep,
    NewRelease,
    NewRollout,
    Outcome,
    Registration,
    Release,
    Renewal,
    Rollout,
    RolloutUpdate,
    StepClaim,
    StepOutcome,
    WorkerInfo,
)
from pipeline.store import Store


class LocalStageClient:
    """For `shipway run`, and for tests of workers."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def register_worker(self, info: WorkerInfo) -> Registration:
        return self.store.register_worker(info)

    def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        return self.store.heartbeat(beat)

    def hosts(self, labels: dict[str, str]) -> list[HostInfo]:
        return self.store.hosts(labels)

    def claim(self, attempt: str, worker: str) -> Claim | None:
        return self.store.claim(attempt, worker)

    def renew(self, attempt: str, token: str) -> Renewal:
        return self.store.renew(attempt, token)

    def log(self, attempt: str, token: str, lines: Sequence[LogLine]) -> None:
        self.store.append_logs(attempt, token, lines)

    def finish(self, attempt: str, token: str, outcome: Outcome) -> None:
        self.store.finish(attempt, token, outcome)

    def record_release(self, attempt: str, token: str, release: NewRelease) -> Release:
        return self.store.record_release(attempt, token, release)

    def release(self, release: str) -> Release:
        return self.store.get_release(release)

    def current_release(self, service: str) -> Release | None:
        return self.store.current_release(service)

    def begin_rollout(self, attempt: str, token: str, rollout: NewRollout) -> Rollout:
        return self.store.begin_rollout(attempt, token, rollout)

    def rollout(self, rollout: int) -> Rollout:
        return self.store.get_rollout(rollout)

    def update_rollout(self, attempt: str, token: str, rollout: int, update: RolloutUpdate) -> Rollout:
        return self.store.update_rollout(attempt, token, rollout, update)

    def request_step(self, attempt: str, token: str, rollout: int, step: NewHostStep) -> HostStep:
        return self.store.request_step(attempt, token, rollout, step)

    def abandon_steps(self, attempt: str, token: str, rollout: int) -> None:
        self.store.abandon_steps(attempt, token, rollout)

    def steps(self, rollout: int) -> list[HostStep]:
        return self.store.steps(rollout)

    def pending_steps(self, worker: str) -> list[int]:
        return self.store.pending_steps(worker)

    def claim_step(self, step: int, worker: str) -> StepClaim | None:
        return self.store.claim_step(step, worker)

    def renew_step(self, step: int, token: str) -> Renewal:
        return self.store.renew_step(step, token)

    def finish_step(self, step: int, token: str, outcome: StepOutcome) -> None:
        self.store.finish_step(step, token, outcome)
