"""Layers on disk: a folder for each chain of layers, ready to be an overlay's lower folder.

A folder under its final name is complete: it is filled elsewhere on the same file system and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInput, NotFound, SystemFailure
from engine.images import descriptor as types
from engine.images import digest as digests
from engine.images.arrival import Arrival
from engine.images.blobs import BlobStore
from engine.images.catalog import Catalog, LayerRow
from engine.images.compression import Readable, decompressed
from engine.images.descriptor import Descriptor
from engine.images.diff import DiffOptions
from engine.images.donate import make_real
from engine.images.image import Layer
from engine.images.scratch import Scratch, discard
from engine.images.settle import settle
from engine.images.tars import Tars
from engine.images.unpack import Limits, Unpacked, is_opaque, unpack

_EMPTY = "empty"


@dataclass(frozen=True)
class UnpackedLayer:
    """A layer whose files lie apart, verified, and that is not part of the store yet."""

    folder: Path
    done: Unpacked


class LayerStore:
    """Every layer of every image below `root/layers`, each once. Safe for threads."""

    def __init__(self, root: Path, blobs: BlobStore, catalog: Catalog, limits: Limits | None = None) -> None:
        self.root = root / "layers"
        self._blobs = blobs
        self._catalog = catalog
        self._limits = limits or Limits()
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.root / _EMPTY).mkdir(exist_ok=True, mode=0o755)
        self.tars = Tars(blobs, catalog, self._limits.bytes)
        self._scratch = Scratch(root / "unpacking")
        self._busy: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        self._scratch.close()

    def folder(self, chain: str) -> Path:
        """Where the layer on top of `chain` is unpacked, when it is.

        Half of the chain ID's digits name it: overlay's mount options have room for a page of names only.
        """
        return self.root / digests.encoded(digests.validate(chain))[:32]

    @property
    def empty(self) -> Path:
        """The lower folder of an image without layers."""
        return self.root / _EMPTY

    def has(self, chain: str) -> bool:
        """Whether the layer is unpacked."""
        return self.folder(chain).is_dir()

    def import_blob(self, blob: Descriptor | str, diff_id: str, parent: str | None) -> Layer:
        """Unpacks a layer's blob on top of `parent`, unless it is there.

        Raises InvalidInput if the blob is no good layer or does not have this diff ID.
        """
        digests.validate(diff_id)
        digest = blob if isinstance(blob, str) else blob.digest
        chain = digests.chain_id(parent, diff_id)
        with self._alone(chain):
            if (layer := self._here(chain)) is not None:
                return layer
            if parent is not None and not self.has(parent):
                raise NotFound(f"layer {digests.short(parent)} is not unpacked: unpack it first")
            with self._blobs.stream(digest) as stream:
                unpacked = self.unpack(stream, digest, diff_id, self._blobs.size(digest))
            return self._adopt(unpacked, parent, blob if isinstance(blob, Descriptor) else None)

    def here(self, chain: str) -> Layer | None:
        """The layer if it is unpacked; it is young again then: someone is about to use it."""
        with self._alone(chain):
            return self._here(chain)

    def _here(self, chain: str) -> Layer | None:
        row = self._catalog.layer(chain)
        if row is None or not self.has(chain):
            return None
        self._catalog.touch_layer(chain)
        return Layer(chain, row.diff_id, row.size, self.tars.known(row.diff_id))

    def unpack(self, stream: Readable, digest: str, diff_id: str, size: int) -> UnpackedLayer:
        """Unpacks the blob in `stream`, of `size` bytes, apart from the store: the layers below need not be there.

        `digest` is only for the words of errors. Raises InvalidInput if it does not have this diff ID. What comes
        back must be given to `adopt` or `drop`.
        """
        scratch = self._scratch.new()
        try:
            done = unpack(decompressed(stream), scratch, limits=self._limits, compressed_size=size)
            if done.diff_id != diff_id:
                raise InvalidInput(f"layer {digest} unpacks to {done.diff_id} instead of {diff_id}")
        except BaseException:
            discard(scratch)
            raise
        return UnpackedLayer(scratch, done)

    def adopt(self, unpacked: UnpackedLayer, parent: str | None, blob: Descriptor) -> Layer:
        """Makes the layer part of the store. The caller has verified that it was unpacked from `blob`."""
        with self._alone(digests.chain_id(parent, unpacked.done.diff_id)):
            return self._adopt(unpacked, parent, blob)

    def _adopt(self, unpacked: UnpackedLayer, parent: str | None, blob: Descriptor | None) -> Layer:
        done = unpacked.done
        row = LayerRow(digests.chain_id(parent, done.diff_id), parent, done.diff_id, done.size, None)
        try:
            settle(unpacked.folder, done, self.lowerdirs(parent))
            if blob is not None:
                self._catalog.add_tar(done.diff_id, blob)
            self._publish(unpacked.folder, row)
        finally:
            discard(unpacked.folder)
        return Layer(row.chain, done.diff_id, row.size, self.tars.known(done.diff_id))

    def drop(self, unpacked: UnpackedLayer) -> None:
        """Removes what nobody wants any more."""
        discard(unpacked.folder)

    def add_folder(
        self,
        parent: str | None,
        folder: Path,
        *,
        id_shift: int = 0,
        donate: bool = True,
        compress: bool = False,
        clamp: int | None = None,
        media_type: str = types.OCI_LAYER_GZIP,
    ) -> Layer:
        """Makes an overlay's upper folder a layer on top of `parent`.

        With `donate` the folder itself becomes the layer (it is gone afterwards) and its bytes are packed
        when somebody needs them, or at once with `compress`. Otherwise the folder stays as it is, and its
        packed bytes are unpacked when somebody needs the files. `id_shift` is subtracted from the owners' ids.
        """
        options = DiffOptions(id_shift=id_shift, clamp=clamp)
        tar, blob = self.tars.pack(folder, options, media_type if compress or not donate else None)
        diff_id, size = tar.diff_id, tar.size
        chain = digests.chain_id(parent, diff_id)
        with self._alone(chain):
            row = self._catalog.layer(chain)
            if row is None or (donate and not self.has(chain)):
                row = LayerRow(chain, parent, diff_id, size, clamp, tar.crc)
                if donate:
                    self._donate(folder, row, id_shift)
                else:
                    self._catalog.add_layer(row)
            else:
                self._catalog.touch_layer(chain)
                if donate:
                    discard(folder)
        return Layer(chain, diff_id, row.size, blob or self.tars.known(diff_id))

    def measure(self, parent: str | None, folder: Path, *, id_shift: int = 0, clamp: int | None = None) -> LayerRow:
        """What layer on top of `parent` an overlay's upper folder would be. Writes nothing."""
        tar, _ = self.tars.pack(folder, DiffOptions(id_shift=id_shift, clamp=clamp), None)
        return LayerRow(digests.chain_id(parent, tar.diff_id), parent, tar.diff_id, tar.size, clamp, tar.crc)

    def give(self, chain: str, folder: Path, id_shift: int) -> None:
        """The folder, whose tar is the layer's, becomes the layer's own: it is gone afterwards, if it was needed."""
        with self._alone(chain):
            row = self._catalog.layer(chain)
            if row is not None and not self.has(chain):
                self._donate(folder, row, id_shift)

    def can_be_had(self, chain: str, diff_id: str) -> bool:
        """Whether the layer's files or bytes are somewhere here."""
        return self.has(chain) or self.tars.known(diff_id) is not None or self._catalog.loan(chain) is not None

    def _donate(self, folder: Path, row: LayerRow, id_shift: int) -> None:
        make_real(folder, id_shift)
        try:
            self._publish(folder, row)
        except OSError as error:
            if error.errno == errno.EXDEV:
                message = f"{folder} can't become a layer: it is on another file system than the images"
                raise SystemFailure(message, error.errno) from error
            raise

    def pack(
        self,
        chain: str,
        media_type: str = types.OCI_LAYER_GZIP,
        *,
        follow: Callable[[Arrival], object] | None = None,
    ) -> Descriptor:
        """The layer as a blob; made from its folder when there is none yet. Raises NotFound.

        While it is made, `follow` gets the bytes as they come.
        """
        row = self._catalog.layer(chain)
        known = self.tars.known(row.diff_id) if row is not None else None
        if known is not None:
            return known
        with self._alone(chain):
            if row is not None and (known := self.tars.known(row.diff_id)):
                return known
            loan = self._catalog.loan(chain)
            if row is None or (loan is None and not self.has(chain)):
                raise NotFound(f"No such layer: {chain}")
            folder, options = self.folder(chain), DiffOptions(clamp=row.clamp)
            if loan is not None and not self.has(chain):
                folder, options = Path(loan.folder), DiffOptions(clamp=row.clamp, id_shift=loan.shift)
            _, blob = self.tars.pack(folder, options, media_type, row, follow)
        assert blob is not None
        return blob

    def lowerdirs(self, chain: str | None) -> tuple[Path, ...]:
        """The folders of a chain whose layers are all unpacked, topmost first. Raises NotFound."""
        folders = []
        while chain is not None:
            row = self._catalog.layer(chain)
            folder = self.folder(chain)
            if row is None or not folder.is_dir():
                raise NotFound(f"No such layer: {chain}")
            folders.append(folder)
            if is_opaque(folder):  # overlayfs merges the roots of all lower folders, opaque or not: the chain ends here
                break
            chain = row.parent
        return tuple(folders)

    def detach(self, chain: str) -> tuple[int, Path]:
        """Takes a layer out of the store at once: (size of its files, what to `discard` at leisure)."""
        row = self._catalog.layer(chain)
        away = self._scratch.new()
        with contextlib.suppress(FileNotFoundError):
            self.folder(chain).rename(away / "layer")
        self._catalog.delete_layer(chain)
        return (row.size if row else 0), away

    def folders(self) -> Iterator[Path]:
        """Everything that is unpacked, whether the catalogue knows it or not."""
        for entry in os.scandir(self.root):
            if entry.name != _EMPTY:
                yield Path(entry.path)

    def discard_folder(self, folder: Path) -> None:
        """Removes a folder that no layer claims."""
        away = self._scratch.new()
        with contextlib.suppress(FileNotFoundError):
            folder.rename(away / "layer")
        discard(away)

    def discard(self, away: Path) -> None:
        """Removes what `detach` took out."""
        discard(away)

    # -- helpers

    def _publish(self, folder: Path, row: LayerRow) -> None:
        """The row comes first: a row without its folder is only a layer that is not unpacked."""
        self._catalog.add_layer(row)
        target = self.folder(row.chain)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            discard(folder)  # another process was faster

    @contextlib.contextmanager
    def _alone(self, chain: str) -> Iterator[None]:
        """Only one thread at a time works on a chain."""
        with self._guard:
            lock, users = self._busy.get(chain, (threading.Lock(), 0))
            self._busy[chain] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._busy[chain]
                if users == 1:
                    del self._busy[chain]
                else:
                    self._busy[chain] = (lock, users - 1)
