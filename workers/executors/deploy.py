"""A release on its way to all its hosts: drives deploy's coordinator through the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from deploy.rollout import Action, Coordinator, StepReport, Stopped
from pipeline.errors import Conflict
from pipeline.plan.models import DeploySpec
from pipeline.protocol import (
    HostInfo,
    NewHostStep,
    NewRelease,
    NewRollout,
    Outputs,
    Release,
    Rollout,
    RolloutState,
    RolloutUpdate,
)
from workers.executors.base import StageFailed, Work
from workers.leases import Cancelled, TimedOut

_WAIT_FOR_OTHERS = 0.5
"""Seconds between two looks at another rollout of the same service that is under way."""


def execute(work: Work) -> Outputs:
    """See the package. A later attempt goes on with the rollout where its predecessor died."""
    spec = work.claim.spec
    assert isinstance(spec, DeploySpec)
    digest = spec.image.partition("@")[2]
    if not digest:
        raise StageFailed(f"{spec.image}: only an image by digest can be deployed", retryable=False)
    attempt, token = work.claim.attempt, work.claim.token
    release = work.client.record_release(
        attempt,
        token,
        NewRelease(
            service=spec.service,
            image=spec.image,
            digest=digest,
            environment=spec.environment,
            rollback=spec.rollback,
        ),
    )
    with work.phase("rollout"):
        ended = _roll_out(work, spec, release)
    outputs = Outputs(release=release.id, image=spec.image, digest=digest)
    match ended.state:
        case RolloutState.DONE:
            work.log.say(f"{release.id} is live")
            return outputs
        case RolloutState.REVERTED:
            old = f"{ended.previous} serves as before" if ended.previous else "nothing serves, as before"
            work.lease.check()
            raise StageFailed(f"rolled back: {ended.reason}: {old}", outputs=outputs, retryable=False)
    raise StageFailed(f"the rollout failed: {ended.reason}", outputs=outputs, retryable=False)


def _roll_out(work: Work, spec: DeploySpec, release: Release) -> Rollout:
    rollout = _begin(work, release, _hosts(work, spec))
    previous = f", {rollout.previous} before" if rollout.previous else ""
    names = ", ".join(host.host for host in rollout.hosts)
    work.log.say(f"rolling {release.id} out to {names}{previous}")
    line = _Line(work, rollout.id)
    return Coordinator(spec.service, line, line, line.check, work.log.say).run()


def _hosts(work: Work, spec: DeploySpec) -> list[HostInfo]:
    hosts = work.client.hosts(dict(spec.service.hosts))
    asked = ", ".join(f"{key}={value}" for key, value in spec.service.hosts.items())
    if not hosts:
        raise StageFailed(f"no worker has the labels {asked}: start one" if asked else "there is no worker")
    for host in hosts:
        if host.state == "lost":
            raise StageFailed(
                f"host {host.name} is silent: bring its worker back, or `shipway workers --forget {host.name}`"
            )
        if not host.engine_ok:
            raise StageFailed(f"host {host.name}: its engine does not answer: start it")
    return hosts


def _begin(work: Work, release: Release, hosts: list[HostInfo]) -> Rollout:
    """Waits while another release of the service is on its way."""
    said = False
    new = NewRollout(release=release.id, hosts=tuple(host.name for host in hosts))
    while True:
        work.lease.check()
        try:
            return work.client.begin_rollout(work.claim.attempt, work.claim.token, new)
        except Conflict as busy:
            if not said:
                work.log.say(str(busy))
                said = True
            time.sleep(_WAIT_FOR_OTHERS)


class _Line:
    """The coordinator's driver and journal, both through the server."""

    def __init__(self, work: Work, rollout: int) -> None:
        self._work = work
        self._client = work.client
        self._who = (work.claim.attempt, work.claim.token)
        self._rollout = rollout
        self._inline: dict[int, threading.Thread] = {}

    def request(self, host: str, key: str, action: Action, payload: Mapping[str, Any], deadline: float) -> None:
        step = self._client.request_step(
            *self._who,
            self._rollout,
            NewHostStep(key=key, host=host, action=action, payload=dict(payload), deadline=deadline),
        )
        inline = self._work.inline_step
        if inline is not None and host == self._work.worker and step.id not in self._inline:
            thread = threading.Thread(target=inline, args=(step.id,), daemon=True)
            self._inline[step.id] = thread
            thread.start()

    def reports(self) -> Mapping[str, StepReport]:
        steps = self._client.steps(self._rollout)
        return {step.key: StepReport(step.state, step.error) for step in steps}

    def abandon(self) -> None:
        self._client.abandon_steps(*self._who, self._rollout)

    def read(self) -> Rollout:
        return self._client.rollout(self._rollout)

    def write(self, update: RolloutUpdate) -> Rollout:
        return self._client.update_rollout(*self._who, self._rollout, update)

    def check(self) -> None:
        try:
            self._work.lease.check()
        except (Cancelled, TimedOut) as reason:
            raise Stopped(str(reason)) from reason
