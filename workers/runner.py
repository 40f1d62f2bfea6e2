"""From a hint to a finished attempt or host step: claim, hold the lease, do the work, say how it ended.

Used by the stage processes, by the host agent, and by `shipway run` in a process of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from deploy.desired import Records
from deploy.errors import DeployError
from deploy.host import Host
from deploy.releases import Target
from deploy.replicas import Replicas
from deploy.rollout import Action
from deploy.traffic.base import Traffic, TrafficError
from pipeline.errors import LeaseLost, PipelineError, SourceError
from pipeline.plan.models import Kind
from pipeline.protocol import Claim, Outcome, Outputs, Phase, Result, StageClient, StepClaim, StepOutcome
from workers import metrics
from workers.engine import connect
from workers.executors import build, container, deploy, push
from workers.executors.base import StageFailed, Work
from workers.leases import Cancelled, Lease, TimedOut
from workers.logship import LogShipper
from workers.workspace import Workspaces

log = logging.getLogger(__name__)

_EXECUTORS: dict[Kind, Callable[[Work], Outputs]] = {
    Kind.BUILD: build.execute,
    Kind.TEST: container.execute,
    Kind.RUN: container.execute,
    Kind.PUSH: push.execute,
    Kind.DEPLOY: deploy.execute,
}


class Runner:
    """One worker's hands. `data` keeps workspaces, artifacts and what the host should run.

    `traffic` is the host's switch. With `inline`, host steps of this worker are done in this process.
    """

    def __init__(
        self, client: StageClient, engine_url: str, data: Path, worker: str, traffic: Traffic, *, inline: bool = False
    ) -> None:
        self.client = client
        self.worker = worker
        self.data = data
        self.workspaces = Workspaces(data / "workspaces")
        self.artifacts = data / "artifacts"
        self.records = Records(data / "services")
        self.traffic = traffic
        self._engine_url = engine_url
        self._engine: docker.DockerClient | None = None
        self._lock = threading.Lock()
        self._inline = inline

    def engine(self) -> docker.DockerClient:
        """Connected at the first need. Raises StageFailed when the engine does not answer."""
        with self._lock:
            if self._engine is None:
                try:
                    self._engine = connect(self._engine_url)
                except (DockerException, requests.RequestException) as error:
                    raise StageFailed(f"no engine at {self._engine_url}: {error}: start it") from error
            return self._engine

    def close(self) -> None:
        """Lets go of the engine. Not while something is done with it."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def host(self, say: Callable[[str], None]) -> Host:
        return Host(Replicas(self.engine()), self.traffic, self.records, say=say)

    def attempt(self, attempt: str) -> Outcome | None:
        """Claims and does one attempt. None: it was not to be had, or is no longer ours."""
        claim = self.client.claim(attempt, self.worker)
        if claim is None:
            return None
        metrics.claimed()
        try:
            outcome = self._held(claim)
            self.client.finish(claim.attempt, claim.token, outcome)
        except LeaseLost as lost:
            log.warning("attempt %s: %s", claim.attempt, lost)
            metrics.attempt(claim.kind, "lost", {})
            return None
        metrics.attempt(claim.kind, outcome.result, outcome.timings)
        return outcome

    def _held(self, claim: Claim) -> Outcome:
        """The attempt's work under its lease. Raises LeaseLost."""
        lease = Lease(lambda: self.client.renew(claim.attempt, claim.token), claim.lease_seconds, timeout=claim.timeout)
        shipper = LogShipper(lambda lines: self.client.log(claim.attempt, claim.token, lines))
        with lease, shipper:
            timings: dict[Phase, float] = {}
            try:
                work = Work(
                    claim=claim,
                    client=self.client,
                    engine=self.engine(),
                    lease=lease,
                    log=shipper,
                    workspaces=self.workspaces,
                    artifacts=self.artifacts,
                    worker=self.worker,
                    inline_step=self.step if self._inline else None,
                )
                timings = work.timings
                outcome = _judged(work)
            except StageFailed as failure:
                outcome = _failed(failure)
            outcome = outcome.model_copy(update={"timings": dict(timings)})
            if outcome.error:
                shipper.say(outcome.error)
        return outcome

    def step(self, step: int) -> None:
        """Claims and does one host step of a rollout."""
        claim = self.client.claim_step(step, self.worker)
        if claim is None:
            return
        outcome: StepOutcome
        with Lease(lambda: self.client.renew_step(step, claim.token), claim.lease_seconds) as lease:
            try:
                self._act(claim, lease)
                outcome = StepOutcome(ok=True)
            except (LeaseLost, Cancelled) as stop:
                log.warning("step %s: %s", claim.step.key, stop)
                return
            except (DeployError, StageFailed, TrafficError) as failure:
                outcome = StepOutcome(ok=False, error=str(failure)[:4096])
            except Exception as error:
                log.exception("step %s", claim.step.key)
                outcome = StepOutcome(ok=False, error=f"{type(error).__name__}: {error}"[:4096])
            try:
                self.client.finish_step(step, claim.token, outcome)
            except LeaseLost as lost:
                log.warning("step %s: %s", claim.step.key, lost)

    def _act(self, claim: StepClaim, lease: Lease) -> None:
        step = claim.step
        host = self.host(lambda line: log.info("%s: %s", step.service, line))
        target = Target.of(claim.release)
        match step.action:
            case Action.PREPARE:
                host.prepare(target)
            case Action.UPDATE:
                host.converge(target, claim.secrets, lease.check)
            case Action.WATCH:
                host.watch(target, float(step.payload["seconds"]), lease.check)
            case Action.REVERT:
                if claim.previous is None:
                    host.withdraw(target, lease.check)
                else:
                    host.converge(Target.of(claim.previous), claim.secrets, lease.check)
            case unknown:
                raise DeployError(f"this worker can't {unknown}: it is older than the coordinator; update it")


def _judged(work: Work) -> Outcome:
    """Does the work; every way it can end, as an outcome. Raises LeaseLost, StageFailed."""
    try:
        outputs = _executed(work)
    except Cancelled as stop:
        return Outcome(result=Result.CANCELLED, error=str(stop))
    except TimedOut as stop:
        return Outcome(result=Result.FAILED, error=f"timed out: {stop}")
    return Outcome(result=Result.PASSED, exit_code=0, outputs=outputs)


def _executed(work: Work) -> Outputs:
    """Raises LeaseLost, Cancelled, TimedOut, and StageFailed for all else."""
    try:
        return _EXECUTORS[work.claim.kind](work)
    except (LeaseLost, Cancelled, TimedOut):
        raise
    except StageFailed:
        # What failed because it was stopped is not the stage's fault.
        work.lease.check()
        raise
    except SourceError as error:
        raise StageFailed(str(error)) from error
    except PipelineError as error:
        raise StageFailed(f"the server: {error}") from error
    except Exception as error:
        # A bug of ours must end the attempt, not the worker.
        work.lease.check()
        log.exception("attempt %s", work.claim.attempt)
        raise StageFailed(f"unexpected {type(error).__name__}: {error}") from error


def _failed(failure: StageFailed) -> Outcome:
    return Outcome(
        result=Result.FAILED,
        error=str(failure),
        exit_code=failure.exit_code,
        outputs=failure.outputs,
        retryable=failure.retryable,
    )
