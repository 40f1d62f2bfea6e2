"""One command in a container that leaves no record: how a build runs its steps."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from engine.config import EngineConfig
from engine.containers import idranges, names, netfiles, pipes, resources, specs, users
from engine.containers.hostconfig import HostConfig, Limits
from engine.containers.layered import Layered
from engine.containers.model import ContainerConfig
from engine.containers.session import Stream
from engine.runtime.launcher import Overlay
from engine.runtime.spec import Mount, Spec

if TYPE_CHECKING:
    from engine.network import Networks
    from engine.runtime.launcher import Exit, Launcher


@dataclass(frozen=True)
class StepMount:
    """Something of the host, or a fresh tmpfs (`source` None, `size` in bytes), shown at `target`.

    `layers` are shown one over the other in place of a `source`, topmost first; what is written goes to `upper`,
    which has `work` beside it, or nothing can be written: then there must be two layers.
    """

    target: str
    source: Path | None = None
    read_only: bool = False
    size: int | None = None
    mode: int = 0o1777
    layers: tuple[Path, ...] = ()
    upper: Path | None = None
    work: Path | None = None


@dataclass(frozen=True)
class Step:
    """What to run. `user` as in a Dockerfile; `id_shift` is the host's id of the container's root.

    With an `id_shift` above 0 the step runs in a user namespace of its own, which has 65,536 ids from there, and
    what it writes to `upper` belongs to them; larger ids are the host's own. `network` is default, none, host or
    the name of a network.
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
    limits: Limits = field(default_factory=Limits)
    security_opt: Sequence[str] = ()
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
    """Runs `step` on an overlay of `lower` (topmost first) with changes in `upper`, and waits for its end.

    `output` is called on the loop with each piece as it comes; all of it has been delivered on return.
    Cancelling the task kills the container. Whatever happens, nothing of the container is left but `upper`.
    Raises InvalidInput (no such user, no such folder), SystemFailure, and `ExecFailed` where the command
    can't be executed.
    """
    container_id = names.new_id()
    folder = Path(tempfile.mkdtemp(prefix="step-", dir=_scratch(config)))
    try:
        # The engine's user namespace may not read below a 0700 folder, and must read the files in this one.
        folder.chmod(0o711)
        spec = _spec(config, networks, container_id, folder, Layered([upper, *lower]), step)
        overlay = Overlay(lower=lower, upper=upper, work=work, volatile=True)
        try:
            pid = await launcher.create(container_id, spec, rootfs=overlay, log=None)
            await _plug(networks, container_id, pid, folder, step)
            attachment = await launcher.attach(container_id)
            readers = {"stdout": pipes.Reader(attachment.stdout)}
            if attachment.stderr is not None:
                readers["stderr"] = pipes.Reader(attachment.stderr)
            return await _run(launcher, container_id, readers, output)
        finally:
            await asyncio.shield(_destroy(launcher, networks, container_id))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(config: EngineConfig) -> None:
    """Removes what steps left that a crash has ended. None may run."""
    shutil.rmtree(_steps(config), ignore_errors=True)


def _steps(config: EngineConfig) -> Path:
    return config.exec_root / "steps"


def _scratch(config: EngineConfig) -> Path:
    folder = _steps(config)
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    return folder


async def _run(
    launcher: Launcher,
    container_id: str,
    readers: dict[str, pipes.Reader],
    output: Callable[[Stream, bytes], None],
) -> Exit:
    try:
        await launcher.start(container_id)
        async with contextlib.aclosing(pipes.merged(readers)) as pieces:
            async for name, data in pieces:
                output("stderr" if name == "stderr" else "stdout", data)
        return await launcher.wait(container_id)
    finally:
        for reader in readers.values():
            reader.close()


async def _destroy(launcher: Launcher, networks: Networks, container_id: str) -> None:
    for state in await launcher.list():
        if state.id == container_id and state.status in ("running", "paused"):
            await launcher.kill(container_id, signal.SIGKILL, all=True)
            await launcher.wait(container_id)
    await launcher.delete(container_id)
    await networks.detach(container_id)


async def _plug(networks: Networks, container_id: str, pid: int, folder: Path, step: Step) -> None:
    if step.network in ("host", "none"):
        return
    netns = Path(f"/proc/{pid}/ns/net")
    network = "bridge" if step.network == "default" else step.network
    endpoint = await networks.attach(network, container_id, netns)
    extra = netfiles.extra_hosts(step.extra_hosts, endpoint.gateway)
    addresses = [address for address in (endpoint.ip, endpoint.ip6) if address]
    text = netfiles.hosts(extra, addresses, _hostname(container_id, step))
    netfiles.write(folder / "hosts", text, step.id_shift)


def _hostname(container_id: str, step: Step) -> str:
    return step.hostname or container_id[:12]


def _spec(
    config: EngineConfig,
    networks: Networks,
    container_id: str,
    folder: Path,
    files: Layered,
    step: Step,
) -> Spec:
    host_config = HostConfig(
        **msgspec.structs.asdict(step.limits),
        network_mode=step.network,
        shm_size=step.shm_size,
        privileged=step.privileged,
        security_opt=list(step.security_opt),
    )
    resources.validate(host_config)
    host_network = step.network == "host"
    own = None if step.network in ("default", "none", "host") else networks.nameserver(step.network)
    hostname = _hostname(container_id, step)
    netfiles.write(folder / "hosts", netfiles.hosts(netfiles.extra_hosts(step.extra_hosts)), step.id_shift)
    resolv = netfiles.resolv_of_host(host_config, config.dns, host_network=host_network, own=own)
    netfiles.write(folder / "resolv.conf", resolv, step.id_shift)
    netfiles.write(folder / "hostname", hostname + "\n", step.id_shift)
    spec = specs.build(
        ContainerConfig(env=list(step.env), working_dir=step.working_dir),
        host_config,
        list(step.args),
        [],
        specs.Surroundings(
            container_id=container_id,
            hostname=hostname,
            user=users.resolve(step.user, (), files),
            cgroups_path=f"{step.limits.cgroup_parent or config.cgroup_parent}/{container_id}",
            sharing=specs.Sharing(network="host" if host_network else "", user="" if step.id_shift else "host"),
            hosts=folder / "hosts",
            hostname_file=folder / "hostname",
            resolv=folder / "resolv.conf",
        ),
    )
    spec.mounts = [*spec.mounts, *(_mount(mount, mapped=step.id_shift > 0) for mount in step.mounts)]
    spec.linux.uid_mappings = spec.linux.gid_mappings = idranges.wide_mappings(step.id_shift)
    return spec


def _mount(mount: StepMount, *, mapped: bool) -> Mount:
    if mount.layers:
        options = ["nosuid", "nodev", *(f"lowerdir+={layer}" for layer in mount.layers)]
        if mount.upper is not None:
            options += [f"upperdir={mount.upper}", f"workdir={mount.work}", "volatile"]
        return Mount(destination=mount.target, type="overlay", source="overlay", options=options)
    if mount.source is None:
        options = ["nosuid", "nodev", f"mode={mount.mode:o}"]
        options += [f"size={mount.size}"] if mount.size else []
        return Mount(destination=mount.target, type="tmpfs", source="tmpfs", options=options)
    access = "ro" if mount.read_only else "rw"
    return Mount(
        destination=mount.target,
        type="bind",
        source=str(mount.source),
        options=["rbind", "rprivate", "nosuid", "nodev", access, *(["ridmap"] if mapped else [])],
    )
