"""`docker start`: files, namespaces, network and the first process, or none of them."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from engine.containers import (
    diskquota,
    imagedefaults,
    netfiles,
    plugging,
    sharing,
    specs,
    times,
    users,
    validation,
    volumefill,
)
from engine.containers.layered import Layered
from engine.containers.live import Live
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import EngineError, InvalidInput, SystemFailure
from engine.runtime.launcher import ExecFailed, LogConfig, Overlay
from engine.runtime.spec import Spec

_log = logging.getLogger(__name__)

_NOT_EXECUTABLE, _NOT_FOUND, _ENGINE_FAILED = 126, 127, 128


async def start(room: Room, container: Container, live: Live) -> None:
    """With the container's lock held, and nothing of it running.

    Raises InvalidInput where its command can't be executed, and whatever else stood in the way; the exit code
    and the reason are then in its state, and nothing of the attempt is left.
    """
    try:
        pid = await _start(room, container, live)
    except BaseException as error:
        await asyncio.shield(_undo(room, container, live))
        _record(room, container, error)
        if isinstance(error, ExecFailed):
            raise _refusal(container, error) from None
        raise
    state = container.state
    state.status, state.pid, state.exit_code, state.error = "running", pid, 0, ""
    state.oom_killed, state.started_at, state.finished_at = False, times.rfc3339(times.now()), times.ZERO
    container.stopped_by_user = False
    live.stop_started = False
    room.registry.save(container)
    room.watch_memory(container, cgroup_path(room, container))
    room.tell_of_volumes(container, "mount")
    room.tell(container, "start")


async def _start(room: Room, container: Container, live: Live) -> int:
    host_config = container.host_config
    shared = sharing.resolve(container, room.registry)
    paths = room.registry.paths(container)
    if room.images.loans.has(paths.upper):
        await asyncio.to_thread(room.images.loans.recall, paths.upper)
    lower = room.images.unpacked(container.image)
    if lower is None:
        lower = await asyncio.to_thread(room.images.lowerdirs, container.image)
    live.lower = tuple(lower)
    layers = Layered([paths.upper, *lower])
    host_network = shared.network == "host"
    borrowed = sharing.container_of(host_config.network_mode)
    if borrowed is None:
        own = plugging.nameserver(room, container)
        netfiles.prepare(container, paths, room.config.dns, host_network=host_network, own=own)
        net_paths = paths
    else:
        donor = room.registry.get(borrowed)
        net_paths = room.registry.paths(donor)
        # Its name goes with its /etc/hosts and /etc/hostname.
        container.config.hostname, container.config.domainname = donor.config.hostname, donor.config.domainname
    await volumefill.prepare(room, container, lower)
    spec = specs.build(
        container.config,
        host_config,
        imagedefaults.argv(container.config),
        container.mounts,
        specs.Surroundings(
            container_id=container.id,
            hostname=container.hostname,
            user=users.resolve(container.config.user, host_config.group_add, layers),
            cgroups_path=cgroup_path(room, container),
            id_shift=container.id_shift,
            sharing=shared,
            hosts=net_paths.hosts,
            hostname_file=net_paths.hostname,
            resolv=net_paths.resolv,
        ),
    )
    own_network = borrowed is None and not host_network
    plugged = own_network and plugging.wants_network(container)
    if not plugged and not live.pending:
        # Nothing has to be done between its birth and its program.
        pid = await _create(room, container, spec, lower, start=True)
        if own_network:
            container.network_settings.sandbox_key = f"/proc/{pid}/ns/net"
        return pid
    pid = await _create(room, container, spec, lower, start=False)
    try:
        if plugged:
            await plugging.plug(room, container, Path(f"/proc/{pid}/ns/net"))
        elif own_network:
            container.network_settings.sandbox_key = f"/proc/{pid}/ns/net"
        for session in live.pending:
            await session.bind(room.launcher)
    except (EngineError, OSError):
        # Its first process, building its world meanwhile, may have failed before: then that is the reason.
        await room.launcher.ready(container.id)
        raise
    live.pending.clear()
    await room.launcher.start(container.id)
    return pid


async def _create(room: Room, container: Container, spec: Spec, lower: Sequence[Path], *, start: bool) -> int:
    paths = room.registry.paths(container)
    size, files = validation.log_limits(container.host_config)
    log = None
    if container.host_config.log_config.type != "none":
        log = LogConfig(path=paths.log, max_size=size, max_files=files)
    if container.host_config.storage_opt:
        await asyncio.to_thread(
            diskquota.hold, container.host_config.storage_opt, container.id, paths.upper, paths.work
        )
    # Not volatile: what a container wrote must survive a crash of the host as far as it was synced.
    overlay = Overlay(
        lower=tuple(lower), upper=paths.upper, work=paths.work, volatile=container.host_config.auto_remove
    )
    if overlay.volatile:
        # Overlayfs does not mount again what it could not be sure of after a crash; after one this one is removed.
        shutil.rmtree(paths.work / "work" / "incompat", ignore_errors=True)
    return await room.launcher.create(
        container.id, spec, rootfs=overlay, log=log, open_stdin=container.config.open_stdin, start=start
    )


def cgroup_path(room: Room, container: Container) -> str:
    parent = container.host_config.cgroup_parent or room.config.cgroup_parent
    if ".." in parent.split("/"):
        raise InvalidInput(f"invalid cgroup parent {parent!r}")
    return f"/{parent.strip('/')}/{container.id}"


async def _undo(room: Room, container: Container, live: Live) -> None:
    try:
        await room.launcher.delete(container.id)
    except EngineError:
        _log.exception("container %s: could not clean up after a failed start", container.short_id)
    await plugging.unplug(room, container)
    await volumefill.release(room, container)
    for session in live.pending:
        session.abandon()
    live.pending.clear()


def _record(room: Room, container: Container, error: BaseException) -> None:
    code = _ENGINE_FAILED
    if isinstance(error, ExecFailed):
        missing = error.stage == "exec" and error.errno in (errno.ENOENT, errno.ENOTDIR)
        code = _NOT_FOUND if missing else _NOT_EXECUTABLE
    state = container.state
    state.status = "created" if state.finished_at == times.ZERO else "exited"
    state.pid, state.exit_code, state.error = 0, code, str(error) or type(error).__name__
    room.registry.save(container)


def _refusal(container: Container, error: ExecFailed) -> EngineError:
    """The words by which the docker command tells exit code 126 from 127."""
    command = imagedefaults.argv(container.config)[0]
    if error.stage == "working directory":
        return InvalidInput(f"failed to create task for container: {error}: set another working directory")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        reason = "no such file or directory" if "/" in command else "executable file not found in $PATH"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason = "permission denied"
    elif error.errno == errno.ENOEXEC:
        reason = "exec format error"
    else:
        return SystemFailure(f"failed to start container: {error}", error.errno)
    return InvalidInput(f'failed to create task for container: exec: "{command}": {reason}')
