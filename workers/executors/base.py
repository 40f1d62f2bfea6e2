"""What every executor is given, and how it says that the stage failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker

from deploy.releases import STAGE_LABELS
from pipeline.protocol import Claim, Outputs, Phase, StageClient
from workers.leases import Lease
from workers.logship import LogShipper
from workers.process import owner
from workers.workspace import Workspaces

ATTEMPT_LABEL, OWNER_LABEL = STAGE_LABELS


class StageFailed(Exception):
    """The stage did not do what it should; the text is one line for people."""

    def __init__(
        self,
        error: str,
        *,
        exit_code: int | None = None,
        retryable: bool = True,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(" ".join(error.split())[:4000])
        self.exit_code = exit_code
        self.retryable = retryable
        self.outputs = outputs or Outputs()


@dataclass
class Work:
    """One claimed attempt and the tools to do it."""

    claim: Claim
    client: StageClient
    engine: docker.DockerClient
    lease: Lease
    log: LogShipper
    workspaces: Workspaces
    artifacts: Path
    worker: str
    inline_step: Callable[[int], None] | None = None
    """Does a host step of this very worker in this process, where no host agent listens."""
    timings: dict[Phase, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Measures; a phase entered twice counts both."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - began

    @property
    def labels(self) -> dict[str, str]:
        """For every container, network and volume of the attempt."""
        return {**self.claim.labels, ATTEMPT_LABEL: self.claim.attempt, OWNER_LABEL: owner()}

    def name(self, what: str = "") -> str:
        """A container's or network's name that no other attempt has."""
        return "-".join(part for part in ("shipway", self.claim.attempt, what) if part)
