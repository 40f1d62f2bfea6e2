"""What a stage has become so far: layers, history and the files as a tree."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.build.overlayroot import merged
from engine.build.trees import EmptyTree, FolderTree, Tree
from engine.images.config import History
from engine.images.descriptor import Descriptor
from engine.images.image import Layer

_COMMENT = "shipway"


@dataclass(frozen=True)
class Standing:
    """Between two steps. `chain` names the layers (empty for none), `lower` are their folders, topmost first.

    `before` names all that was done, configuration included.
    """

    chain: str = ""
    lower: tuple[Path, ...] = ()
    layers: tuple[Layer | Descriptor, ...] = ()
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    before: str = "scratch"

    def with_change(self, created_by: str, created: str, key: str) -> Standing:
        """After a step that changed no file."""
        entry = History(created=created, created_by=created_by, comment=_COMMENT, empty_layer=True)
        return replace(self, history=(*self.history, entry), before=key)

    def with_layer(self, layer: Layer, lower: tuple[Path, ...], created_by: str, created: str) -> Standing:
        """After a step that left a layer, over which `lower` are the folders now."""
        entry = History(created=created, created_by=created_by, comment=_COMMENT)
        return Standing(
            layer.chain_id,
            lower,
            (*self.layers, layer),
            (*self.diff_ids, layer.diff_id),
            (*self.history, entry),
            f"{layer.chain_id} {created}",
        )

    @contextlib.contextmanager
    def tree(self) -> Iterator[Tree]:
        """The files as they stand, while the block lasts."""
        if not self.lower:
            yield EmptyTree()
            return
        with merged(self.lower) as root:
            tree = FolderTree(os.dup(root))
            try:
                yield tree
            finally:
                tree.close()
