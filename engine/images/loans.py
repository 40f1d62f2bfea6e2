"""Layers on loan: a finished container's folder is its snapshot's layer, as long as the container leaves it alone.

Nothing is copied when the snapshot is made. When the container goes its folder is given away and becomes the layer's
own; when it is about to be written to the layer is packed first.
"""

from __future__ import annotations

from pathlib import Path

from engine.images.catalog import Catalog, LayerRow, Loan
from engine.images.layers import LayerStore


class Loans:
    """Safe for threads. What a dead engine had on loan still is."""

    def __init__(self, layers: LayerStore, catalog: Catalog) -> None:
        self._layers = layers
        self._catalog = catalog
        self._folders: set[str] = set()
        for loan in catalog.loans():
            if Path(loan.folder).is_dir():
                self._folders.add(loan.folder)
            else:
                catalog.end_loan(loan.chain)  # given away already, or gone with its container

    def lend(self, row: LayerRow, folder: Path, shift: int) -> None:
        """`row` tells what the tar of `folder` is. The layer is there from now on."""
        with self._catalog.transaction():
            if self._catalog.layer(row.chain) is None:
                self._catalog.add_layer(row)
            else:
                self._catalog.touch_layer(row.chain)
            self._catalog.add_loan(Loan(row.chain, str(folder), shift))
        self._folders.add(str(folder))

    def has(self, folder: Path) -> bool:
        """Whether a layer stands on that folder. Does not block."""
        return str(folder) in self._folders

    def recall(self, folder: Path) -> None:
        """The folder is about to change. Raises SystemFailure where the layers can't be packed."""
        if not self.has(folder):
            return
        for loan in self._catalog.loans(str(folder)):
            self._settle(loan)
        self._folders.discard(str(folder))

    def take(self, folder: Path) -> None:
        """The folder's owner does not need it any more: it may be gone afterwards."""
        if not self.has(folder):
            return
        loans = self._catalog.loans(str(folder))
        for loan in loans[1:]:
            self._settle(loan)
        for loan in loans[:1]:
            self._layers.give(loan.chain, Path(loan.folder), loan.shift)
            self._catalog.end_loan(loan.chain)
        self._folders.discard(str(folder))

    def _settle(self, loan: Loan) -> None:
        if self._catalog.layer(loan.chain) is not None:
            self._layers.pack(loan.chain)
        self._catalog.end_loan(loan.chain)
