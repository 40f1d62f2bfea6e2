"""The engine's containers, their life and the parts that do the rest with them: what the API asks."""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.config import EngineConfig
from engine.containers import (
    creation,
    ephemeral,
    idranges,
    inspection,
    links,
    listing,
    networking,
    removal,
    restoring,
    starting,
    stopping,
    updating,
    waiting,
)
from engine.containers.events import EventBus
from engine.containers.execs import Executions
from engine.containers.exits import Exits
from engine.containers.fileaccess import FileAccess
from engine.containers.filters import Filters
from engine.containers.health import HealthMonitor
from engine.containers.hostconfig import HostConfig, Limits, RestartPolicy
from engine.containers.idranges import IdRanges
from engine.containers.model import Container, ContainerConfig, EndpointSettings, NetworkingConfig
from engine.containers.move.incoming import Incoming
from engine.containers.move.outgoing import Outgoing
from engine.containers.registry import Registry
from engine.containers.room import Room
from engine.containers.store import ContainerStore
from engine.containers.streams import Streams
from engine.containers.upkeep import Upkeep
from engine.containers.usage import Usage
from engine.containers.volumes import Volumes
from engine.containers.waiting import WaitCondition
from engine.errors import Conflict, EngineError, NotFound
from engine.images.image import ImageUser
from engine.runtime.launcher import Exit

if TYPE_CHECKING:
    from engine.images.store import ImageStore
    from engine.network import Networks
    from engine.runtime.launcher import Launcher

_log = logging.getLogger(__name__)


class Containers:
    """All containers of one engine: their life. Every `ref` is a full id, a name or an unambiguous prefix of an id.

    What else is done with a container that `get` gave: `streams` talks with it, `execs` runs further processes in it,
    `files` reads and writes its file system, `usage` shows what it takes; `outgoing` and `incoming` move it.

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
        self.streams = Streams(self._room)
        self.execs = Executions(self._room)
        self.files = FileAccess(self._room)
        self.usage = Usage(self._room)
        self.incoming = Incoming(self._room, self._start_locked, self._remove_moved, lambda: self.user_namespaces)
        self.outgoing = Outgoing(self._room, self._start_again, self._remove_moved)
        self._health = HealthMonitor(self._room, self.execs)
        self._exits = Exits(self._room, self.execs, self._start_locked, self._remove_quietly)
        registry.load()
        images.users = self._users_of_image
        launcher.on_exit = self._exits.heard
        launcher.on_lost = self._exits.lost

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
        await self._exits.close()
        await self._room.upkeep.end()

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
        return listing.find(self._room, filters or {}, everything=all, limit=limit)

    def inspect(self, ref: str) -> dict[str, Any]:
        """Docker's container JSON."""
        container = self._registry.get(ref)
        try:
            lower = [str(path) for path in self._room.images.lowerdirs(container.image)]
        except EngineError:
            lower = []
        return inspection.inspect(
            container,
            self._registry.paths(container),
            lower=lower,
            execs=self.execs.of(container),
            links=links.shown(container, self._registry),
        )

    def summary(self, container: Container) -> dict[str, Any]:
        """One element of Docker's container list."""
        return inspection.summary(container, links.names_of(container, self._registry))

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
        return await listing.prune(self._room, self.files, filters or {})

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
                    self._exits.follow(self._remove_quietly(container))
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
        return await waiting.wait(container, self._registry.live(container), condition)

    # Networks

    async def network_connect(self, network: str, ref: str, settings: EndpointSettings | None = None) -> None:
        await networking.connect(self._room, self._settled(ref), network, settings or EndpointSettings())

    async def network_disconnect(self, network: str, ref: str, *, force: bool = False) -> None:
        await networking.disconnect(self._room, self._settled(ref), network, force=force)

    async def unlink(self, ref: str, alias: str) -> None:
        """Undo one `--link`."""
        await networking.unlink(self._room, self._registry.get(ref), alias)
