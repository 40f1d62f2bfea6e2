"""A whole root file system as one tar: `docker import` and `docker export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from engine.images.changes import apply_changes
from engine.images.config import ContainerConfig, History, ImageConfig, RootFS
from engine.images.descriptor import Platform
from engine.images.diff import DiffOptions, diff
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.snapshot import rfc3339
from engine.images.store import ImageStore


def import_tar(
    store: ImageStore,
    stream: BinaryIO,
    ref: Reference | None = None,
    *,
    changes: Sequence[str] = (),
    message: str = "",
    source: str = "-",
    platform: Platform | None = None,
    epoch: int | None = None,
) -> Image:
    """Makes an image of one layer out of a tar, compressed or not. Raises InvalidInput if it is none."""
    platform = platform or Platform.host()
    created = rfc3339(epoch)
    with store.lease() as lease:
        layer = store.add_layer_from_tar(None, stream)
        lease.add(layer.chain_id)
        config = ImageConfig(
            architecture=platform.architecture,
            os=platform.os,
            variant=platform.variant,
            created=created,
            config=apply_changes(ContainerConfig(), changes),
            rootfs=RootFS((layer.diff_id,)),
            history=(History(created=created, comment=message or f"Imported from {source}"),),
        )
        return store.create_image(config, [layer], ref, comment=message)


def export_folder(
    folder: Path, write: Callable[[bytes | bytearray | memoryview], object], *, id_shift: int = 0
) -> None:
    """Writes the tar of a container's merged root, as it is. Whoever mounted it sees to it that it holds still."""
    diff(folder, write, DiffOptions(id_shift=id_shift, overlay=False))
