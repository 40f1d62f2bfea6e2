"""The engine behind the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import time_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.api.metrics import Metrics
    from engine.build.builder import Builder
    from engine.config import EngineConfig
    from engine.containers.events import EventBus
    from engine.containers.lifecycle import Containers
    from engine.containers.volumes import Volumes
    from engine.images.store import ImageStore
    from engine.network import Networks
    from engine.registry.client import RegistryClient
    from engine.runtime.launcher import Launcher


@dataclass(frozen=True)
class Rooms:
    """Everything that handlers need. `started` in unix nanoseconds."""

    config: EngineConfig
    launcher: Launcher
    images: ImageStore
    registry: RegistryClient
    networks: Networks
    containers: Containers
    builder: Builder
    volumes: Volumes
    events: EventBus
    metrics: Metrics
    started: int = field(default_factory=time_ns)
