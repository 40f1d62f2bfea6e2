"""The engine's daemon: wires the rooms, puts right what an earlier life left, serves, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from engine.api.app import Api
from engine.api.metrics import Metrics
from engine.api.rooms import Rooms
from engine.api.sockets import listen, tls_context
from engine.api.tls import Gateway
from engine.build.builder import Builder
from engine.config import EngineConfig
from engine.containers.ephemeral import run_ephemeral
from engine.containers.events import EventBus
from engine.containers.lifecycle import Containers
from engine.containers.model import Container
from engine.errors import Conflict, EngineError, Forbidden, NotFound
from engine.images.store import ImageStore
from engine.kernel import libc
from engine.network import Networks
from engine.registry.client import RegistryClient
from engine.runtime.launcher import Launcher

_log = logging.getLogger(__name__)
_HOUSEKEEPING_SECONDS = 6 * 3600.0


def serve(config: EngineConfig) -> None:
    """Run the engine until SIGTERM or SIGINT.

    Then containers are stopped, unless `config.live_restore`; after a crash they always run on, and the next
    `serve` finds them.

    Raises:
        Forbidden: without root.
        Conflict: another engine has the data folder or a socket.
        SystemFailure: the kernel refused something that is needed.
    """
    if os.geteuid() != 0:
        raise Forbidden("the engine needs root: it makes namespaces, mounts and networks")
    os.umask(0o022)
    for folder in (config.data_root, config.exec_root):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
    with contextlib.ExitStack() as held:
        for folder in dict.fromkeys((config.data_root.resolve(), config.exec_root.resolve())):
            held.enter_context(_alone(folder))
        held.enter_context(_pidfile(config.pidfile))
        asyncio.run(_serve(config))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder: two engines with the same data, or the same zygote, would ruin each other's containers."""
    descriptor = os.open(folder / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"another engine is running on {folder}: stop it, or give another folder") from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _pidfile(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


async def _serve(config: EngineConfig) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stopping, number)

    context = tls_context(config.tls) if config.tls else None
    sockets = [one for host in config.hosts for one in listen(host, group=config.group)]
    try:
        rooms = await _open(config)
        try:
            await _listen(rooms, sockets, context, stopping)
        finally:
            await _close(rooms)
    finally:
        for one in sockets:
            one.close()
        for host in config.hosts:
            if host.startswith("unix://"):
                Path(host.removeprefix("unix://")).unlink(missing_ok=True)


def _stop(stopping: asyncio.Event, number: int) -> None:
    if stopping.is_set():
        _log.warning("told to stop again: ending at once, containers run on")
        os._exit(130)
    _log.info("%s: stopping", signal.Signals(number).name)
    stopping.set()


async def _open(config: EngineConfig) -> Rooms:
    """All rooms, each with what it found reconciled."""
    launcher = await Launcher.connect(config.exec_root, config.cgroup_parent)
    try:
        return await _open_on(config, launcher)
    except BaseException:
        # A zygote without containers is nobody's; one with some waits for an engine that starts.
        await (launcher.close() if await launcher.list() else launcher.shutdown())
        raise


async def _open_on(config: EngineConfig, launcher: Launcher) -> Rooms:
    images = ImageStore(config.data_root / "images")
    networks = Networks(config, config.data_root / "networks")
    await networks.start()
    events = EventBus()
    containers = Containers(config, launcher, images, networks, events)
    await containers.restore()
    await _remove_ended(containers)
    await networks.reconcile({container.id for container in containers.list() if container.state.alive})
    run_step = partial(run_ephemeral, launcher, networks, config)
    registry = RegistryClient(
        insecure=config.insecure_registries, mirrors=config.registry_mirrors, credentials=config.registry_config
    )
    return Rooms(
        config=config,
        launcher=launcher,
        images=images,
        registry=registry,
        networks=networks,
        containers=containers,
        builder=Builder(config, images, run_step, ranges=containers.ranges),
        volumes=containers.volumes,
        events=events,
        metrics=Metrics(),
    )


async def _listen(
    rooms: Rooms, sockets: list[socket.socket], context: ssl.SSLContext | None, stopping: asyncio.Event
) -> None:
    api = Api(rooms)
    server = api.server()
    loop = asyncio.get_running_loop()
    listeners: list[asyncio.Server] = []
    for one in sockets:
        if one.family == socket.AF_UNIX:
            listeners.append(await loop.create_unix_server(server, sock=one))
            continue
        if context is None:
            where = "tcp://{}:{}".format(*one.getsockname()[:2])
            _log.warning("%s is open to everyone who can reach it: they are root here; use --tlsverify", where)
            listeners.append(await loop.create_server(server, sock=one))
        else:
            gateway = Gateway(context, server)
            listeners.append(await asyncio.start_server(gateway.serve, sock=one))
    # What has been loaded so far stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    libc.trim_heap()
    _log.info("engine %s listens at %s", rooms.config.instance, ", ".join(rooms.config.hosts))
    _notify("READY=1")
    keeping = asyncio.create_task(_keep_house(rooms))
    await stopping.wait()
    keeping.cancel()
    _notify("STOPPING=1")
    for listener in listeners:
        listener.close()
    await api.finish(2.0)
    await server.shutdown(1.0)


async def _keep_house(rooms: Rooms) -> None:
    """Now and then: build results that nothing has used for long go, and what broken transfers left."""
    while True:
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)
        try:
            freed = await rooms.builder.prune() + await asyncio.to_thread(rooms.images.collect)
            _log.info("housekeeping freed %d bytes", freed)
        except (EngineError, OSError):
            _log.exception("housekeeping failed: it is tried again in %g hours", _HOUSEKEEPING_SECONDS / 3600)


async def _close(rooms: Rooms) -> None:
    """End, with the containers unless they are to live on."""
    keep = rooms.config.live_restore
    if not keep:
        await _stop_containers(rooms)
    rooms.builder.close()
    await rooms.containers.close()
    await rooms.registry.close()
    await rooms.networks.close(keep=keep)
    if keep:
        await rooms.launcher.close()
    else:
        await rooms.launcher.shutdown()
    rooms.images.close()


async def _stop_containers(rooms: Rooms) -> None:
    async def stop(container: Container) -> None:
        try:
            # Not the user's wish: what has a restart policy runs again with the next engine.
            await rooms.containers.stop(container.id, by_user=False)
        except EngineError as error:
            _log.warning("container %s: %s", container.short_id, error)

    try:
        async with asyncio.timeout(rooms.config.shutdown_timeout):
            await asyncio.gather(*(stop(container) for container in rooms.containers.list()))
    except TimeoutError:
        _log.warning("some containers did not stop within %g s: killed", rooms.config.shutdown_timeout)
    await _remove_ended(rooms.containers)


async def _remove_ended(containers: Containers) -> None:
    """`--rm`, where the engine's own end came between the container's end and its removal."""
    for container in containers.list(all=True):
        if container.host_config.auto_remove and not container.state.running:
            # One that is being moved is not ours to remove.
            with contextlib.suppress(NotFound, Conflict):
                await containers.remove(container.id)


def _notify(state: str) -> None:
    """Tell the service manager, if one asked to be told (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        manager.send(state.encode())
