"""What this host should run, on disk: so that a host that was switched off comes back as it was.

Beside each service's record lies its lock. Whoever changes the service on this host holds it: a rollout's
step, or the host's own upkeep. A record holds no secret: those are in the containers only.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from deploy.errors import Busy
from deploy.releases import Target
from pipeline.values import Frozen


class Desired(Frozen):
    """One service on this host. `serving` names the replicas that traffic was last led to, of whatever
    release: in the middle of a rollout both old and new ones are among them."""

    target: Target
    serving: tuple[str, ...]


class Records:
    """A folder with a file for each service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def services(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def read(self, service: str) -> Desired | None:
        """None: nothing should run here, or the record can't be understood (a rollout writes it anew)."""
        try:
            return Desired.model_validate_json((self._folder / f"{service}.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, desired: Desired) -> None:
        """Atomic, and on the disk before it returns."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = desired.target.service.name
        fresh = self._folder / f".{name}.{os.getpid()}"
        with fresh.open("w") as file:
            file.write(desired.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._folder / f"{name}.json")

    def forget(self, service: str) -> None:
        with suppress(FileNotFoundError):
            (self._folder / f"{service}.json").unlink()

    @contextmanager
    def lock(self, service: str, *, check: Callable[[], None], timeout: float) -> Iterator[None]:
        """Holds the service on this host. Raises Busy after `timeout` seconds, or what `check` raises."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / f"{service}.lock").open("a") as file:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Busy(f"{service} is being changed on this host by somebody else") from None
                check()
                time.sleep(0.02)
            yield
