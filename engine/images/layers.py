"""Layers on disk: a folder for each chain of layers, ready to be an overlay's lower folder.

A folder under its final name is complete: it is filled elsewhere on the same file system and renamed. What a
killed engine left half-filled is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.errors import InvalidInput, NotFound, SystemFailure
from engine.images import descriptor as types
from engine.images import digest as digests
from engine.images.arrival import Arrival
from engine.images.blobs import BlobStore
from engine.images.catalog import Catalog, LayerRow
from engine.images.compression import Readable, compressor, crc32, decompressed, sniff
from engine.images.descriptor import Descriptor
from engine.images.diff import DiffOptions, diff
from engine.images.donate import make_real
from engine.images.image import Layer
from engine.images.pipeline import Sink, ahead
from engine.images.settle import settle
from engine.images.spread import spread
from engine.images.unpack import Limits, Unpacked, is_opaque, remove_tree, unpack

_EMPTY = "empty"


@dataclass(frozen=True)
class UnpackedLayer:
    """A layer whose files lie apart, verified, and that is not part of the store yet."""

    folder: Path
    done: Unpacked


@dataclass(frozen=True)
class _Tar:
    """What the tar of a folder turned out to be. `size` is the sum of its files'."""

    diff_id: str
    size: int
    crc: int


class _Check:
    """Looks at a tar as it passes."""

    def __init__(self, sha: digests.Hasher | None) -> None:
        self._sha = sha
        self.crc = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.crc = crc32(data, self.crc)
        if self._sha is not None:
            self._sha.update(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._sha.hexdigest()}" if self._sha is not None else ""


class LayerStore:
    """Every layer of every image below `root/layers`, each once. Safe for threads."""

    def __init__(self, root: Path, blobs: BlobStore, catalog: Catalog, limits: Limits | None = None) -> None:
        self.root = root / "layers"
        self._blobs = blobs
        self._catalog = catalog
        self._limits = limits or Limits()
        self._scratch_root = root / "unpacking"
        for folder in (self.root, self._scratch_root):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.root / _EMPTY).mkdir(exist_ok=True, mode=0o755)
        self._sweep()
        self._scratch = self._scratch_root / secrets.token_hex(8)
        self._scratch.mkdir(mode=0o700)
        spread(self._scratch)
        # As long as this descriptor lives, so do we: whoever can lock the folder may remove it.
        self._alive = os.open(self._scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._busy: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        if self._alive >= 0:
            shutil.rmtree(self._scratch, ignore_errors=True)
            os.close(self._alive)
            self._alive = -1

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
        return Layer(chain, row.diff_id, row.size, self.known_blob(row.diff_id))

    def unpack(self, stream: Readable, digest: str, diff_id: str, size: int) -> UnpackedLayer:
        """Unpacks the blob in `stream`, of `size` bytes, apart from the store: the layers below need not be there.

        `digest` is only for the words of errors. Raises InvalidInput if it does not have this diff ID. What comes
        back must be given to `adopt` or `drop`.
        """
        scratch = self._new_scratch()
        try:
            done = unpack(decompressed(stream), scratch, limits=self._limits, compressed_size=size)
            if done.diff_id != diff_id:
                raise InvalidInput(f"layer {digest} unpacks to {done.diff_id} instead of {diff_id}")
        except BaseException:
            _discard(scratch)
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
            _discard(unpacked.folder)
        return Layer(row.chain, done.diff_id, row.size, self.known_blob(done.diff_id))

    def drop(self, unpacked: UnpackedLayer) -> None:
        """Removes what nobody wants any more."""
        _discard(unpacked.folder)

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
        tar, blob = self._pack(folder, options, media_type if compress or not donate else None)
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
                    _discard(folder)
        return Layer(chain, diff_id, row.size, blob or self.known_blob(diff_id))

    def measure(self, parent: str | None, folder: Path, *, id_shift: int = 0, clamp: int | None = None) -> LayerRow:
        """What layer on top of `parent` an overlay's upper folder would be. Writes nothing."""
        tar, _ = self._pack(folder, DiffOptions(id_shift=id_shift, clamp=clamp), None)
        return LayerRow(digests.chain_id(parent, tar.diff_id), parent, tar.diff_id, tar.size, clamp, tar.crc)

    def give(self, chain: str, folder: Path, id_shift: int) -> None:
        """The folder, whose tar is the layer's, becomes the layer's own: it is gone afterwards, if it was needed."""
        with self._alone(chain):
            row = self._catalog.layer(chain)
            if row is not None and not self.has(chain):
                self._donate(folder, row, id_shift)

    def can_be_had(self, chain: str, diff_id: str) -> bool:
        """Whether the layer's files or bytes are somewhere here."""
        return self.has(chain) or self.known_blob(diff_id) is not None or self._catalog.loan(chain) is not None

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
        known = self.known_blob(row.diff_id) if row is not None else None
        if known is not None:
            return known
        with self._alone(chain):
            if row is not None and (known := self.known_blob(row.diff_id)):
                return known
            loan = self._catalog.loan(chain)
            if row is None or (loan is None and not self.has(chain)):
                raise NotFound(f"No such layer: {chain}")
            folder, options = self.folder(chain), DiffOptions(clamp=row.clamp)
            if loan is not None and not self.has(chain):
                folder, options = Path(loan.folder), DiffOptions(clamp=row.clamp, id_shift=loan.shift)
            _, blob = self._pack(folder, options, media_type, row, follow)
        assert blob is not None
        return blob

    def repack(self, stream: BinaryIO, expected: str | None = None) -> tuple[str, Descriptor]:
        """Turns a tar, compressed in whichever way, into a gzip blob: (diff ID, blob).

        Raises InvalidInput for damaged data, and where its diff ID is not `expected`.
        """
        sha = hashlib.sha256()
        packer = compressor(types.OCI_LAYER_GZIP)
        hashing: Sink[bytes] = Sink(sha.update, "layer-hash")
        size = 0
        with contextlib.ExitStack() as stack:
            stack.callback(hashing.stop)
            writer = stack.enter_context(self._blobs.writer())
            read = stack.enter_context(contextlib.closing(ahead(decompressed(stream), "layer-read")))
            for chunk in read:
                size += len(chunk)
                if size > self._limits.bytes:
                    raise InvalidInput(f"layer unpacks to more than {self._limits.bytes} bytes")
                hashing.put(chunk)
                writer.write(packer.compress(chunk))
            writer.write(packer.flush())
            hashing.close()
            diff_id = "sha256:" + sha.hexdigest()
            if expected is not None and diff_id != expected:
                raise InvalidInput(f"layer has the diff ID {diff_id} instead of {expected}")
            blob = Descriptor(types.OCI_LAYER_GZIP, writer.commit(), writer.offset)
        self._catalog.add_tar(diff_id, blob)
        return diff_id, blob

    def describe(self, digest: str) -> Descriptor:
        """A layer's blob with the media type that its first bytes tell."""
        with self._blobs.open(digest) as blob:
            kind = sniff(blob.read(16))
        media_types = {"gzip": types.OCI_LAYER_GZIP, "zstd": types.OCI_LAYER_ZSTD, "none": types.OCI_LAYER}
        if kind not in media_types:
            raise InvalidInput(f"layer {digest} is compressed with {kind}, which layers can't be")
        return Descriptor(media_types[kind], digest, self._blobs.size(digest))

    def known_blob(self, diff_id: str) -> Descriptor | None:
        """A blob that is here and unpacks to `diff_id`."""
        return next((blob for blob in self._catalog.tars(diff_id) if self._blobs.has(blob.digest)), None)

    def _pack(
        self,
        folder: Path,
        options: DiffOptions,
        media_type: str | None,
        expected: LayerRow | None = None,
        follow: Callable[[Arrival], object] | None = None,
    ) -> tuple[_Tar, Descriptor | None]:
        """Walks, hashes and compresses at once; with the blob if one was asked for.

        A layer that was `expected` must still have the tar that it had. A CRC tells that as well as a second digest
        and at no cost: whoever pulls the layer verifies its digest anyway.
        """
        known = expected is not None and expected.crc is not None
        check = _Check(None if known else hashlib.sha256())
        with contextlib.ExitStack() as stack:
            sinks = [Sink(check.update, "layer-hash")]
            stack.callback(sinks[0].stop)
            if media_type is not None:
                writer = stack.enter_context(self._blobs.writer())
                if follow is not None:
                    follow(writer.follow())
                packer = compressor(media_type)
                out = Sink(writer.write, "layer-write")
                stack.callback(out.stop)
                sinks.append(Sink(lambda data: out.put(packer.compress(data)), "layer-compress"))
                stack.callback(sinks[1].stop)

            def write(data: bytes | bytearray | memoryview) -> None:
                for sink in sinks:
                    sink.put(data)

            size = diff(folder, write, options)
            for sink in sinks:
                sink.close()
            tar = _Tar(expected.diff_id if known and expected is not None else check.digest, size, check.crc)
            if expected is not None and (tar.diff_id, tar.crc) != (expected.diff_id, expected.crc or tar.crc):
                raise SystemFailure(f"layer {digests.short(expected.diff_id)} was changed on disk: {folder}")
            if media_type is None:
                return tar, None
            out.put(packer.flush())
            out.close()
            blob = Descriptor(media_type, writer.commit(), writer.offset)
            self._catalog.add_tar(tar.diff_id, blob)
            return tar, blob

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
        away = self._new_scratch()
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
        away = self._new_scratch()
        with contextlib.suppress(FileNotFoundError):
            folder.rename(away / "layer")
        _discard(away)

    def discard(self, away: Path) -> None:
        """Removes what `detach` took out."""
        _discard(away)

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
            _discard(folder)  # another process was faster

    def _new_scratch(self) -> Path:
        scratch = self._scratch / secrets.token_hex(8)
        scratch.mkdir(mode=0o755)
        return scratch

    def _sweep(self) -> None:
        for entry in os.scandir(self._scratch_root):
            with contextlib.suppress(OSError):
                fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _discard(Path(entry.path))
                finally:
                    os.close(fd)

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


def _discard(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, os.fsencode(folder.name))
        finally:
            os.close(fd)
