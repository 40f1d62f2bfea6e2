"""The worker's line to the server: `StageClient` over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import requests

from pipeline.errors import Busy
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
from pipeline.wire import CALLS, PREFIX, error_of

_CONNECT_TIMEOUT = 3.0
_READ_TIMEOUT = 30.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class HttpStageClient:
    """Implements `StageClient`. Safe to share between threads.

    Each call may be repeated, so a server that restarts is waited for: `patience` seconds, then Busy.
    """

    def __init__(
        self,
        server_url: str,
        token: Callable[[], str | None],
        *,
        patience: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base = server_url.rstrip("/") + PREFIX
        self._token = token
        self._patience = patience
        self._sleep = sleep
        self._local = threading.local()

    def register_worker(self, info: WorkerInfo) -> Registration:
        result: Registration = self._call("register_worker", info=info)
        return result

    def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        result: HeartbeatReply = self._call("heartbeat", 0.0, beat=beat)
        return result

    def hosts(self, labels: dict[str, str]) -> list[HostInfo]:
        result: list[HostInfo] = self._call("hosts", labels=labels)
        return result

    def claim(self, attempt: str, worker: str) -> Claim | None:
        result: Claim | None = self._call("claim", 5.0, attempt=attempt, worker=worker)
        return result

    def renew(self, attempt: str, token: str) -> Renewal:
        result: Renewal = self._call("renew", 0.0, attempt=attempt, token=token)
        return result

    def log(self, attempt: str, token: str, lines: Sequence[LogLine]) -> None:
        self._call("log", attempt=attempt, token=token, lines=tuple(lines))

    def finish(self, attempt: str, token: str, outcome: Outcome) -> None:
        self._call("finish", attempt=attempt, token=token, outcome=outcome)

    def record_release(self, attempt: str, token: str, release: NewRelease) -> Release:
        result: Release = self._call("record_release", attempt=attempt, token=token, release=release)
        return result

    def release(self, release: str) -> Release:
        result: Release = self._call("release", release=release)
        return result

    def current_release(self, service: str) -> Release | None:
        result: Release | None = self._call("current_release", service=service)
        return result

    def begin_rollout(self, attempt: str, token: str, rollout: NewRollout) -> Rollout:
        result: Rollout = self._call("begin_rollout", attempt=attempt, token=token, rollout=rollout)
        return result

    def rollout(self, rollout: int) -> Rollout:
        result: Rollout = self._call("rollout", rollout=rollout)
        return result

    def update_rollout(self, attempt: str, token: str, rollout: int, update: RolloutUpdate) -> Rollout:
        result: Rollout = self._call("update_rollout", attempt=attempt, token=token, rollout=rollout, update=update)
        return result

    def request_step(self, attempt: str, token: str, rollout: int, step: NewHostStep) -> HostStep:
        result: HostStep = self._call("request_step", attempt=attempt, token=token, rollout=rollout, step=step)
        return result

    def abandon_steps(self, attempt: str, token: str, rollout: int) -> None:
        self._call("abandon_steps", attempt=attempt, token=token, rollout=rollout)

    def steps(self, rollout: int) -> list[HostStep]:
        result: list[HostStep] = self._call("steps", rollout=rollout)
        return result

    def pending_steps(self, worker: str) -> list[int]:
        result: list[int] = self._call("pending_steps", 0.0, worker=worker)
        return result

    def claim_step(self, step: int, worker: str) -> StepClaim | None:
        result: StepClaim | None = self._call("claim_step", 5.0, step=step, worker=worker)
        return result

    def renew_step(self, step: int, token: str) -> Renewal:
        result: Renewal = self._call("renew_step", 0.0, step=step, token=token)
        return result

    def finish_step(self, step: int, token: str, outcome: StepOutcome) -> None:
        self._call("finish_step", step=step, token=token, outcome=outcome)

    def _call(self, method: str, patience: float | None = None, **arguments: Any) -> Any:
        """One request, repeated while the server is away. Raises a PipelineError."""
        call = CALLS[method]
        body = call.encode(**arguments)
        gives_up = time.monotonic() + (self._patience if patience is None else patience)
        pause = _FIRST_PAUSE
        while True:
            try:
                return call.decode(self._post(method, body))
            except Busy:
                if time.monotonic() + pause > gives_up:
                    raise
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _post(self, method: str, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            response = self._session().post(
                self._base + method, data=body, headers=headers, timeout=(_CONNECT_TIMEOUT, _READ_TIMEOUT)
            )
        except requests.RequestException as error:
            raise Busy(f"the server at {self._base.removesuffix(PREFIX)} can't be reached: {error}") from error
        if response.status_code == 200:
            return response.content
        try:
            answer = response.json()
        except ValueError:
            answer = None
        raise error_of(answer, response.status_code)

    def _session(self) -> requests.Session:
        """One a thread: requests' sessions are not for sharing. A proxy of the environment is not for us."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False
        return session
