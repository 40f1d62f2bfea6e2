"""Snapshots: what a container wrote becomes the topmost layer of a new image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.images.changes import apply_changes
from engine.images.config import ContainerConfig, History
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore


def commit(
    store: ImageStore,
    *,
    upper: Path,
    parent: Image,
    config: ContainerConfig | None = None,
    changes: Sequence[str] = (),
    author: str = "",
    comment: str = "",
    created_by: str = "",
    id_shift: int = 0,
    donate: bool = False,
    lend: bool = False,
    ref: Reference | None = None,
    epoch: int | None = None,
) -> Image:
    """Makes an image of `parent` with `upper`, a container's upper folder, on top.

    `config` is the container's own (the parent's when None), `changes` are applied to it. A finished
    container's folder can be given away with `donate`: it is moved, not copied, and gone from its place; or left where
    it is with `lend`, for the store's `loans` to be told of its end. A running container must be paused by the
    caller. With `epoch` (unix seconds, SOURCE_DATE_EPOCH) neither
    image nor files are younger than that: the same content gives the same image ID.
    """
    changed = apply_changes(parent.config.config if config is None else config, changes)
    chains = parent.config.chain_ids
    with store.lease(parent.id, *chains) as lease:
        below = chains[-1] if chains else None
        if lend:
            layer = store.lend_layer(below, upper, id_shift=id_shift, clamp=epoch)
        else:
            layer = store.add_layer_from_dir(below, upper, id_shift=id_shift, donate=donate, clamp=epoch)
        lease.add(layer.chain_id)
        created = rfc3339(epoch)
        step = History(created=created, created_by=created_by, author=author, comment=comment)
        base = msgspec.structs.replace(parent.config, created=created, author=author, config=changed)
        return store.create_image(
            base.with_layers([layer.diff_id], step), [layer], ref, parent=parent.id, comment=comment
        )


def rfc3339(epoch: int | None = None) -> str:
    """That second, or now to the nanosecond, as image configs write times."""
    nanoseconds = time.time_ns() if epoch is None else epoch * 1_000_000_000
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{rest:09d}Z" if rest else f"{stamp}Z"
