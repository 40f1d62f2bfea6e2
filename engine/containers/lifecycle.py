"""The engine's containers: the one face that the API and the builder use."""

from __future__ import annotations

import asyncio
import builtins
import itertools
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal

from engine.config import EngineConfig
from engine.containers import (
    commit,
    creation,
    ephemeral,
    filters,
    idranges,
    inspection,
    logs,
    networking,
    removal,
    restoring,
    rootview,
    starting,
    stats,
    stopping,
    top,
    updating,
)
from engine.containers.attach import AttachSession
from engine.containers.events import EventBus
from engine.containers.execs import Executions
from engine.containers.exits import Exits
from engine.containers.fileaccess import FileAccess
from engine.containers.health import HealthMonitor
from engine.containers.hostconfig import HostConfig, Limits, RestartPolicy
from engine.containers.idranges import IdRanges
from engine.containers.model import Container, ContainerConfig, EndpointSettings, NetworkingConfig
from engine.containers.move.incoming import Incoming
from engine.containers.move.outgoing import Outgoing
from engine.containers.registry import Registry
from engine.containers.room import Room
from engine.containers.session import Session
from engine.containers.store import ContainerStore
from engine.containers.upkeep import Upkeep
from engine.containers.volumes import Volumes
from engine.errors import Conflict, EngineError, InvalidInput, NotFound
from engine.images.image import Image, ImageUser
from engine.runtime.launcher import Exit

if TYPE_CHECKING:
    from engine.images.store import ImageStore
    from engine.network import Networks
    from engine.runtime.launcher import Launcher

_log = logging.getLogger(__name__)
WaitCondition = Literal["not-running", "next-exit", "removed"]
Filters = Mapping[str, Sequence[str]]
"""Docker's filters: {"status": ["running"], "label": ["a=b"]}."""


class Containers:
    """All containers of one engine. Every `ref` is a full id, a name or an unambiguous prefix of an id.

    All methods run on the engine's loop. They raise NotFound ("No such container: x"), Conflict, InvalidInput
    and SystemFailure.
    """

    def __init__(
        self,
        config: EngineConfig,
        launcher: Launcher,
        images: ImageStore,
        networks: Networks,
        events: EventBus,
        *,
        user_namespaces: bool | None = None,
    ) -> None:
        """`user_namespaces`: whether containers get one of their own; None: where the kernel can do it."""
        store = ContainerStore(config.data_root)
        registry = Registry(store)
        self.volumes = Volumes(config.data_root / "volumes", events, self._users_of_volume)
        self._registry = registry
        self._room = Room(
            config,
            launcher,
            images,
            networks,
            events,
            registry,
            self.volumes,
            IdRanges(config.instance, registry.shifts),
            Upkeep(store),
        )
        self._user_namespaces = user_namespaces
        self._executions = Executions(self._room)
        self._health = HealthMonitor(self._room, self._executions)
        self._exits = Exits(self._room, self._start_locked, self._remove_quietly)
        self._files = FileAccess(self._room)
        self._tasks: set[asyncio.Task[None]] = set()
        self.incoming = Incoming(self._room, self._start_locked, self._remove_moved, lambda: self.user_namespaces)
        self.outgoing = Outgoing(self._room, self._start_again, self._remove_moved)
        registry.load()
        images.users = self._users_of_image
        launcher.on_exit = self._on_exit
        launcher.on_lost = self._on_lost

    async def restore(self) -> None:
        """At the engine's start: learns what happened meanwhile and starts what its policy wants running."""
        if self._user_namespaces is None:
            lack = await idranges.lack(self._room.launcher, self._room.config.data_root)
            if lack:
                _log.warning("containers get no user namespaces of their own, root in them is root here: %s", lack)
            self._user_namespaces = not lack
        self._room.upkeep.begin()
        again = await restoring.reconcile(self._room, self._exits.ended, self._health.resume)
        ephemeral.sweep(self._room.config)
        await self.incoming.restore()
        self.outgoing.restore()
        results = await asyncio.gather(*(self.start(one.id) for one in again), return_exceptions=True)
        for container, result in zip(again, results, strict=True):
            if isinstance(result, EngineError):
                self._room.tell(container, "die", {"exitCode": str(container.state.exit_code)})
            elif isinstance(result, BaseException):
                raise result

    @property
    def ranges(self) -> IdRanges | None:
        """Lends the ids of user namespaces, to build steps too; None where there are none. Known once restored."""
        return self._room.ranges if self._user_namespaces else None

    @property
    def user_namespaces(self) -> bool:
        """Whether new containers get user namespaces of their own. Known once restored."""
        return bool(self._user_namespaces)

    async def close(self) -> None:
        """Stops watching. Containers run on."""
        self._room.launcher.on_exit = self._room.launcher.on_lost = None
        self._room.ooms.close()
        await self.outgoing.close()
        await self.incoming.close()
        tasks = list(self._tasks)
        for container in self._registry:
            live = self._registry.live(container)
            tasks += [task for task in (live.health, live.restarting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._room.upkeep.end()

    def _on_exit(self, container_id: str, exec_id: str | None, end: Exit) -> None:
        if exec_id is not None:
            self._executions.ended(exec_id, end)
            return
        if container_id in self._registry:
            container = self._registry.get(container_id)
            self._executions.container_ended(container)
            self._spawn(self._exits.ended(container, end))

    def _on_lost(self) -> None:
        _log.error("the process that holds the containers has died, and they with it: starting another")
        self._spawn(self._revive())

    async def _revive(self) -> None:
        try:
            await self._room.launcher.revive()
        except (EngineError, OSError):
            _log.exception("no container can be started any more: restart the engine")
        await restoring.mourn(self._room, self._exits.ended, self._executions.container_ended)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_again(self, container: Container) -> None:
        await self.start(container.id)

    async def _remove_moved(self, container: Container) -> None:
        await removal.remove(self._room, container, force=True, volumes=False)

    def _settled(self, ref: str) -> Container:
        """The container. Raises Conflict while a move decides about it."""
        container = self._registry.get(ref)
        if restoring.on_the_way(container):
            raise Conflict(f"container {container.name} is being moved: wait until it is there")
        return container

    def _users_of_volume(self, name: str) -> Sequence[str]:
        return [one.id for one in self._registry if any(point.name == name for point in one.mounts)]

    def _users_of_image(self, image_id: str) -> Sequence[ImageUser]:
        return [ImageUser(one.id, one.state.running) for one in self._registry if one.image == image_id]

    # Being

    async def create(
        self,
        name: str | None,
        config: ContainerConfig,
        host_config: HostConfig | None = None,
        networking: NetworkingConfig | None = None,
    ) -> Container:
        """Makes a container of `config.image`; values not given are the image's. Nothing runs yet."""
        return await creation.create(
            self._room,
            name,
            config,
            host_config or HostConfig(),
            networking or NetworkingConfig(),
            user_namespaces=self.user_namespaces,
        )

    def get(self, ref: str) -> Container:
        return self._registry.get(ref)

    def list(
        self,
        *,
        all: bool = False,  # noqa: A002 - Docker's word for it
        filters: Filters | None = None,
        limit: int = 0,
    ) -> builtins.list[Container]:
        """The newest first. Without `all`, or a filter that says otherwise, only those that run."""
        wanted = dict(filters or {})
        everything = all or limit > 0 or "status" in wanted or "exited" in wanted
        matches = _matcher(wanted, self._registry, self._room.images)
        found = [one for one in self._registry if (everything or one.state.running) and matches(one)]
        found.sort(key=lambda one: one.created, reverse=True)
        return found[:limit] if limit > 0 else found

    def inspect(self, ref: str) -> dict[str, Any]:
        """Docker's container JSON."""
        container = self._registry.get(ref)
        try:
            lower = [str(path) for path in self._room.images.lowerdirs(container.image)]
        except EngineError:
            lower = []
        return inspection.inspect(
            container, self._registry.paths(container), lower=lower, execs=self._executions.of(container)
        )

    async def inspect_size(self, ref: str) -> tuple[int, int]:
        """(SizeRw, SizeRootFs) in bytes."""
        return await self._files.sizes(self._registry.get(ref))

    def summary(self, container: Container) -> dict[str, Any]:
        """One element of Docker's container list."""
        return inspection.summary(container)

    async def rename(self, ref: str, name: str) -> None:
        container = self._settled(ref)
        await updating.rename(self._room, container, name)

    async def update(self, ref: str, limits: Limits, restart_policy: RestartPolicy | None = None) -> Sequence[str]:
        """Live change of limits; what is unset stays. Returns warnings."""
        container = self._settled(ref)
        return await updating.update(self._room, container, limits, restart_policy)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        await removal.remove(self._room, self._settled(ref), force=force, volumes=volumes)

    async def _remove_quietly(self, container: Container) -> None:
        if container.id in self._registry and not self._registry.live(container).restart_started:
            await removal.remove(self._room, container, force=False, volumes=False)

    async def prune(self, filters: Filters | None = None) -> tuple[Sequence[str], int]:
        """(ids removed, bytes freed): all that do not run."""
        matches = _matcher(dict(filters or {}), self._registry, self._room.images)
        removed, freed = [], 0
        unused = [one for one in self._registry if not one.state.running and not restoring.on_the_way(one)]
        for container in filter(matches, unused):
            size, _ = await self._files.sizes(container)
            try:
                await removal.remove(self._room, container, force=False, volumes=False)
            except (Conflict, NotFound):
                continue
            removed.append(container.id)
            freed += size
        return removed, freed

    # Life

    async def start(self, ref: str) -> bool:
        """False when it runs already."""
        container = self._settled(ref)
        live = self._registry.live(container)
        live.cancel_restart()
        async with live.lock:
            if container.id not in self._registry:
                raise NotFound(f"No such container: {ref}")
            if container.state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.state.alive:
                return False
            container.restart_count = live.restarts_in_a_row = 0
            try:
                await self._start_locked(container)
            except Exception:
                # Whatever went wrong: clients wait for the removal.
                if container.host_config.auto_remove:
                    self._spawn(self._remove_quietly(container))
                raise
        return True

    async def _start_locked(self, container: Container) -> None:
        await starting.start(self._room, container, self._registry.live(container))
        self._health.begin(container)

    async def stop(
        self, ref: str, timeout: int | None = None, signal: str | None = None, *, by_user: bool = True
    ) -> bool:
        """False when it did not run. With `by_user` False its restart policy will start it again."""
        container = self._registry.get(ref)
        live = self._registry.live(container)
        return await stopping.stop(self._room, container, live, timeout, signal, by_user=by_user)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        container = self._registry.get(ref)
        await stopping.kill(self._room, container, self._registry.live(container), signal)

    async def restart(self, ref: str, timeout: int | None = None, signal: str | None = None) -> None:
        container = self._registry.get(ref)
        live = self._registry.live(container)
        live.restart_started = True
        try:
            await self.stop(container.id, timeout, signal)
            await self.start(container.id)
        finally:
            live.restart_started = False
        self._room.tell(container, "restart")

    async def pause(self, ref: str) -> None:
        container = self._registry.get(ref)
        async with self._registry.live(container).lock:
            await stopping.freeze(self._room, container)

    async def unpause(self, ref: str) -> None:
        container = self._registry.get(ref)
        async with self._registry.live(container).lock:
            await stopping.unfreeze(self._room, container)

    async def wait(self, ref: str, condition: WaitCondition = "not-running") -> Exit:
        """Registers at the call's first step: an exit that comes after is never missed."""
        container = self._registry.get(ref)
        live = self._registry.live(container)
        state = container.state
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidInput(f"invalid condition: {condition!r}")
        if condition == "not-running" and not state.running:
            return Exit(state.exit_code, state.oom_killed, 0.0, 0.0)
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        waiters = live.removed if condition == "removed" else live.stopped
        waiters.append(future)
        try:
            return await future
        finally:
            if future in waiters:
                waiters.remove(future)

    # Talking

    async def attach(
        self,
        ref: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        logs: bool = False,
        stream: bool = True,
    ) -> Session:
        """Joins the streams of a container, even before its start. With `logs` the log so far comes first; without
        `stream` nothing comes after it."""
        container = self._registry.get(ref)
        live = self._registry.live(container)
        config = container.config
        session = AttachSession(
            container.id,
            tty=config.tty,
            stdin=stdin and config.open_stdin,
            stdout=stdout,
            stderr=stderr,
            stdin_once=config.stdin_once,
        )
        if logs and container.host_config.log_config.type != "none":
            session.log = lambda until: self.logs(container.id, stdout=stdout, stderr=stderr, until=until)
        if not stream:
            session.abandon()
            return session
        async with live.lock:
            if container.state.status == "paused":
                raise Conflict(f"container {container.short_id} is paused, unpause the container before attach")
            if container.state.alive:
                await session.bind(self._room.launcher)
            elif container.state.status == "restarting":
                raise Conflict(f"container {container.short_id} is restarting, wait until it runs")
            else:
                live.pending.append(session)
        self._room.tell(container, "attach")
        return session

    def detached(self, container: Container) -> None:
        """Someone left its terminal by the keys for it, and it goes on."""
        self._room.tell(container, "detach")

    async def resize(self, ref: str, rows: int, cols: int) -> None:
        container = self._registry.get(ref)
        if not container.state.alive:
            raise Conflict(f"container {container.id} is not running")
        if not container.config.tty:
            raise InvalidInput(f"container {container.short_id} has no terminal")
        await self._room.launcher.resize(container.id, rows, cols)
        self._room.tell(container, "resize", {"height": str(rows), "width": str(cols)})

    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> logs.Reading:
        """(stream, time in unix ns, bytes as written, newline included). `since` and `until` in unix ns."""
        container = self._registry.get(ref)
        if container.host_config.log_config.type == "none":
            raise InvalidInput("configured logging driver does not support reading")
        selection = logs.Selection(since, until, tail, stdout, stderr)
        path = self._registry.paths(container).log
        return logs.Reading(path, selection, follow=follow, ended=lambda: not container.state.running)

    # Executions

    async def exec_create(
        self,
        ref: str,
        cmd: Sequence[str],
        *,
        env: Sequence[str] = (),
        user: str = "",
        working_dir: str = "",
        privileged: bool = False,
        tty: bool = False,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: bytes = b"",
        size: tuple[int, int] | None = None,
    ) -> str:
        """The new execution's id. `detach_keys` is only kept for who asks."""
        execution = self._executions.create(
            self._registry.get(ref),
            cmd,
            env=env,
            user=user,
            working_dir=working_dir,
            privileged=privileged,
            tty=tty,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            detach_keys=detach_keys,
            size=size,
        )
        return execution.id

    async def exec_start(
        self, exec_id: str, *, detach: bool = False, tty: bool = False, size: tuple[int, int] | None = None
    ) -> Session | None:
        """Starts it; None when detached. `size` is (rows, columns), as told at its creation where it is None now.
        `tty` adds nothing to what create said."""
        return await self._executions.start(self._executions.get(exec_id), detach=detach, size=size)

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        return self._executions.get(exec_id).json()

    async def exec_resize(self, exec_id: str, rows: int, cols: int) -> None:
        self._executions.resize(self._executions.get(exec_id), rows, cols)

    # Looking in

    async def top(self, ref: str, ps_args: str = "-ef") -> dict[str, Any]:
        """{"Titles": [...], "Processes": [[...]]}."""
        container = self._registry.get(ref)
        if not container.state.alive:
            raise Conflict(f"container {container.id} is not running")
        pids = await self._room.launcher.processes(container.id)
        found = await asyncio.to_thread(
            lambda: top.top(container.state.pid, pids, ps_args, rootview.layered(self._room, container))
        )
        self._room.tell(container, "top")
        return found

    async def stats(self, ref: str, *, one_shot: bool = False) -> dict[str, Any]:
        """One sample as Docker's JSON; unless `one_shot` with the sample before it, a second earlier."""
        container = self._registry.get(ref)
        first = await self._sample(container, None)
        if one_shot or not container.state.alive:
            return first
        await asyncio.sleep(1)
        return await self._sample(container, first)

    async def stats_stream(self, ref: str) -> AsyncIterator[dict[str, Any]]:
        """A sample a second, until the container is removed."""
        container = self._registry.get(ref)
        before: dict[str, Any] | None = None
        for turn in itertools.count():
            if container.id not in self._registry:
                return
            shown = await self._sample(container, before)
            before = shown if container.state.alive else None
            # The first has nothing to compare with: a client would show 0 %.
            if turn or not container.state.alive:
                yield shown
            await asyncio.sleep(1)

    async def strain(self, ref: str) -> tuple[int, dict[str, dict[str, int]]]:
        """How its limits press it: how many of its processes the kernel killed for want of memory, and its pressure."""
        container = self._registry.get(ref)
        try:
            return await self._room.launcher.strain(container.id)
        except NotFound:
            return 0, {}

    async def _sample(self, container: Container, before: dict[str, Any] | None) -> dict[str, Any]:
        if not container.state.alive:
            return stats.stopped(container)
        try:
            return stats.sample(container, await self._room.launcher.stats(container.id), before)
        except NotFound:
            return stats.stopped(container)

    async def changes(self, ref: str) -> Sequence[dict[str, Any]]:
        """[{"Path": "/x", "Kind": 0 changed | 1 added | 2 deleted}]."""
        return await self._files.changes(self._registry.get(ref))

    # Files

    async def archive_stat(self, ref: str, path: str) -> dict[str, Any]:
        """Docker's X-Docker-Container-Path-Stat, as a dictionary."""
        return await self._files.stat(self._registry.get(ref), path)

    async def archive_get(self, ref: str, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """(stat, tar stream) of a file or folder."""
        container = self._registry.get(ref)
        found = await self._files.get(container, path)
        self._room.tell(container, "archive-path")
        return found

    async def archive_put(
        self,
        ref: str,
        path: str,
        tar: IO[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_ids: bool = False,
    ) -> None:
        """Unpacks a tar (gzip and zstd as well) into the folder `path`. `tar.read` is called in a thread."""
        container = self._registry.get(ref)
        await self._files.put(container, path, tar, no_overwrite=no_overwrite_dir_non_dir, copy_ids=copy_ids)
        self._room.tell(container, "extract-to-dir")

    def export(self, ref: str) -> AsyncIterator[bytes]:
        """The whole file system as a tar."""
        container = self._registry.get(ref)
        self._room.tell(container, "export")
        return self._files.export(container)

    async def commit(
        self,
        ref: str,
        *,
        reference: str | None = None,
        changes: Sequence[str] = (),
        author: str = "",
        comment: str = "",
        pause: bool = True,
        config: ContainerConfig | None = None,
    ) -> Image:
        """A new image of the container's files. `changes` are Dockerfile lines; `reference` is name:tag."""
        return await commit.commit(
            self._room,
            self._registry.get(ref),
            reference=reference,
            changes=changes,
            author=author,
            comment=comment,
            pause=pause,
            config=config,
        )

    # Networks

    async def network_connect(self, network: str, ref: str, settings: EndpointSettings | None = None) -> None:
        await networking.connect(self._room, self._settled(ref), network, settings or EndpointSettings())

    async def network_disconnect(self, network: str, ref: str, *, force: bool = False) -> None:
        await networking.disconnect(self._room, self._settled(ref), network, force=force)

    async def unlink(self, ref: str, alias: str) -> None:
        """Undo one `--link`."""
        await networking.unlink(self._room, self._registry.get(ref), alias)


def _matcher(wanted: Filters, registry: Registry, images: ImageStore) -> Any:
    def ids(name: str) -> Sequence[str]:
        found = [images.get(name).id]
        for known in found:
            found += images.catalog.children(known)
        return found

    return filters.matcher(wanted, registry.get, ids)
