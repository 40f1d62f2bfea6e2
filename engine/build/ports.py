"""What the build needs from the rooms below, as they offer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.containers.ephemeral import Step
from engine.containers.session import Stream

if TYPE_CHECKING:
    from engine.build.sharedcache import SharedCache
    from engine.build.stepcache import Result
    from engine.images.descriptor import Platform
    from engine.images.image import Image
    from engine.images.reference import Reference
    from engine.runtime.launcher import Exit


class RunStep(Protocol):
    """`run_ephemeral` with its launcher, networks and configuration given."""

    def __call__(
        self,
        *,
        lower: tuple[Path, ...],
        upper: Path,
        work: Path,
        step: Step,
        output: Callable[[Stream, bytes], None],
    ) -> Awaitable[Exit]: ...


class Caches(Protocol):
    """Where engines share what they have built: `RegistryCaches`."""

    async def fetch(self, name: str) -> SharedCache: ...

    async def publish(self, name: str, results: Mapping[str, Result]) -> None: ...


class Pull(Protocol):
    """Brings an image from its registry."""

    def __call__(self, reference: Reference, platform: Platform | None) -> Awaitable[Image]: ...
