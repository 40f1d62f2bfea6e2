"""What the build needs from the rooms below, as they offer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.containers.ephemeral import Step
from engine.containers.session import Stream

if TYPE_CHECKING:
    from engine.images.config import ImageConfig
    from engine.images.descriptor import Descriptor, Platform
    from engine.images.image import Image, Layer
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


class Pull(Protocol):
    """Brings an image from its registry."""

    def __call__(self, reference: Reference, platform: Platform | None) -> Awaitable[Image]: ...


class Images(Protocol):
    """The part of ImageStore that builds use."""

    @property
    def layers_root(self) -> Path: ...

    def get(self, name_or_id: str) -> Image: ...

    def lowerdirs(self, image_id: str) -> tuple[Path, ...]: ...

    def layers_of(self, image_id: str) -> tuple[Layer, ...]: ...

    def layer(self, chain_id: str) -> Layer | None: ...

    def layer_folder(self, chain_id: str) -> Path: ...

    def add_layer_from_dir(
        self, parent_chain: str | None, directory: Path, *, id_shift: int = 0, donate: bool = True
    ) -> Layer: ...

    def create_image(
        self, config: ImageConfig, layers: Sequence[Layer | Descriptor], ref: Reference | None
    ) -> Image: ...

    def tag(self, image_id: str, ref: Reference) -> None: ...
