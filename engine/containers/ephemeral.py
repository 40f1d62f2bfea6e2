"""One command in a container that leaves no record: how a build runs its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.config import EngineConfig
from engine.containers.session import Stream

if TYPE_CHECKING:
    from engine.network import Networks
    from engine.runtime.launcher import Exit, Launcher


@dataclass(frozen=True)
class StepMount:
    """Something of the host, or a fresh tmpfs (`source` None, `size` in bytes), shown at `target`."""

    target: str
    source: Path | None = None
    read_only: bool = False
    size: int | None = None
    mode: int = 0o1777


@dataclass(frozen=True)
class Step:
    """What to run. `user` as in a Dockerfile; `id_shift` is the host's id of the container's root.

    With an `id_shift` above 0 the step runs in a user namespace of its own of 65,536 ids, and `upper` must
    belong to that id.
    """

    args: Sequence[str]
    env: Sequence[str] = ()
    working_dir: str = "/"
    user: str = ""
    hostname: str = ""
    network: Literal["default", "none", "host"] | str = "default"
    mounts: Sequence[StepMount] = ()
    extra_hosts: Sequence[str] = ()
    id_shift: int = 0
    shm_size: int = 64 << 20
    memory: int = 0
    nano_cpus: int = 0
    pids: int = 0
    no_new_privileges: bool = False
    privileged: bool = False
    labels: dict[str, str] = field(default_factory=dict)


async def run_ephemeral(
    launcher: Launcher,
    networks: Networks,
    config: EngineConfig,
    *,
    lower: tuple[Path, ...],
    upper: Path,
    work: Path,
    step: Step,
    output: Callable[[Stream, bytes], None],
) -> Exit:
    """Runs `step` on an overlay of `lower` (topmost first) with its changes in `upper`, and waits for its end.

    `output` is called on the loop with each piece as it comes; all of it has been delivered on return.
    Cancelling the task kills the container. Whatever happens, nothing of the container is left but `upper`.
    Raises InvalidInput (no such user, no such folder), SystemFailure, and `ExecFailed` where the command
    can't be executed.
    """
    raise NotImplementedError
