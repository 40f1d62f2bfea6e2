"""Layers as tars: the blobs that are here, and how they are made of folders or of tars that are packed otherwise."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.errors import InvalidInput, SystemFailure
from engine.images import descriptor as types
from engine.images import digest as digests
from engine.images.arrival import Arrival
from engine.images.blobs import BlobStore
from engine.images.catalog import Catalog, LayerRow
from engine.images.compression import compressor, crc32, decompressed, sniff
from engine.images.descriptor import Descriptor
from engine.images.diff import DiffOptions, diff
from engine.images.pipeline import Sink, ahead


@dataclass(frozen=True)
class Tar:
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


class Tars:
    """Of all layers of a store. Safe for threads. `limit`: bytes that one may unpack to."""

    def __init__(self, blobs: BlobStore, catalog: Catalog, limit: int) -> None:
        self._blobs, self._catalog, self._limit = blobs, catalog, limit

    def known(self, diff_id: str) -> Descriptor | None:
        """A blob that is here and unpacks to `diff_id`."""
        return next((blob for blob in self._catalog.tars(diff_id) if self._blobs.has(blob.digest)), None)

    def pack(
        self,
        folder: Path,
        options: DiffOptions,
        media_type: str | None,
        expected: LayerRow | None = None,
        follow: Callable[[Arrival], object] | None = None,
    ) -> tuple[Tar, Descriptor | None]:
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
            tar = Tar(expected.diff_id if known and expected is not None else check.digest, size, check.crc)
            if expected is not None and (tar.diff_id, tar.crc) != (expected.diff_id, expected.crc or tar.crc):
                raise SystemFailure(f"layer {digests.short(expected.diff_id)} was changed on disk: {folder}")
            if media_type is None:
                return tar, None
            out.put(packer.flush())
            out.close()
            blob = Descriptor(media_type, writer.commit(), writer.offset)
            self._catalog.add_tar(tar.diff_id, blob)
            return tar, blob

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
                if size > self._limit:
                    raise InvalidInput(f"layer unpacks to more than {self._limit} bytes")
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
