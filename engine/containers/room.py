"""What the parts of this room share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.config import EngineConfig
from engine.containers.events import EventBus
from engine.containers.idranges import IdRanges
from engine.containers.model import Container
from engine.containers.oomwatch import OomWatch
from engine.containers.registry import Registry
from engine.containers.upkeep import Upkeep
from engine.containers.volumes import Volumes
from engine.kernel.cgroup.host import cgroup

if TYPE_CHECKING:
    from engine.images.store import ImageStore
    from engine.network import Networks
    from engine.runtime.launcher import Launcher


@dataclass(frozen=True)
class Room:
    config: EngineConfig
    launcher: Launcher
    images: ImageStore
    networks: Networks
    events: EventBus
    registry: Registry
    volumes: Volumes
    ranges: IdRanges
    upkeep: Upkeep
    ooms: OomWatch = field(default_factory=OomWatch)
    working_dirs: set[tuple[str, str]] = field(default_factory=set)
    """(image, path) of those that the image has, as far as somebody looked."""

    def tell(self, container: Container, action: str, extra: Mapping[str, str] | None = None) -> None:
        """Publishes an event of the container, with Docker's attributes."""
        attributes = {
            **container.config.labels,
            "image": container.config.image,
            "name": container.name,
            **(extra or {}),
        }
        self.events.publish("container", action, container.id, attributes)

    def tell_of_volumes(self, container: Container, action: str) -> None:
        """`action` is mount or unmount: of each of the container's volumes."""
        for point in container.mounts:
            if point.type == "volume":
                attributes = {"driver": point.driver, "container": container.id}
                if action == "mount":
                    attributes |= {"destination": point.destination, "propagation": point.propagation}
                    attributes["read/write"] = "true" if point.rw else "false"
                self.events.publish("volume", action, point.name, attributes)

    def watch_memory(self, container: Container, group: str) -> None:
        """Has it told when the kernel kills one of its processes; `group` is its control group's path."""

        def killed() -> None:
            container.state.oom_killed = True
            self.registry.save(container)
            self.tell(container, "oom")

        here = cgroup(group)
        self.ooms.watch(container.id, here, killed, seen=here.oom_kills() if container.state.oom_killed else 0)
