"""Compressed layers: gzip through isal, zstd, or none at all."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

import zstandard

from engine.errors import InvalidInput
from engine.images import descriptor as types

_gzip: ModuleType
try:
    from isal import isal_zlib as _gzip
except ImportError:  # no wheel for this machine: ten times slower, and just as right
    _gzip = zlib

crc32: Callable[..., int] = _gzip.crc32
"""Of bytes, after the CRC-32 of those before them: many times faster than a digest."""

_GZIP_ERRORS = (_gzip.error, zlib.error)

CHUNK = 1 << 20
_GZIP_WBITS = 31
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BZIP2_MAGIC, _XZ_MAGIC = b"BZh", b"\xfd7zXZ\0"
_ZSTD_MAX_WINDOW = 1 << 27  # 128 MiB, what zstd itself accepts without being asked


class Compressor(Protocol):
    """Turns bytes into fewer bytes."""

    def compress(self, data: Any, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Readable(Protocol):
    """Where bytes come from: at most `count` at a time, none at the end."""

    def read(self, count: int = -1, /) -> bytes: ...


class _Stored:
    def compress(self, data: Any, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


def compressor(media_type: str) -> Compressor:
    """For a layer's media type. The same bytes in give the same bytes out: no time, no name in the header."""
    if media_type in (types.OCI_LAYER_GZIP, types.DOCKER_LAYER_GZIP):
        if _gzip is zlib:
            return zlib.compressobj(1, zlib.DEFLATED, _GZIP_WBITS)
        made: Compressor = _gzip.compressobj(1, zlib.DEFLATED, _GZIP_WBITS)
        return made
    if media_type in (types.OCI_LAYER_ZSTD, types.DOCKER_LAYER_ZSTD):
        return zstandard.ZstdCompressor(level=3).compressobj()
    if media_type in (types.OCI_LAYER, types.DOCKER_LAYER):
        return _Stored()
    raise InvalidInput(f"unknown layer type {media_type!r}")


def sniff(head: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz` or `none`, by the first bytes."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    if head.startswith(_ZSTD_MAGIC):
        return "zstd"
    if head.startswith(_BZIP2_MAGIC):
        return "bzip2"
    return "xz" if head.startswith(_XZ_MAGIC) else "none"


def decompressed(stream: Readable) -> Iterator[bytes]:
    """The bytes of `stream`, of whichever kind its first bytes say it is, in chunks of bounded size.

    Registries and archives are wrong about compression often enough that everyone looks at the bytes.
    Raises InvalidInput for damaged data.
    """
    first = stream.read(CHUNK)
    kind = sniff(first)
    if kind == "none":
        yield from _plain(first, stream)
    elif kind == "gzip":
        yield from _members(first, stream)
    elif kind == "zstd":
        yield from _zstd(first, stream)
    else:
        yield from _rare(kind, first, stream)


def beginning(stream: Readable, count: int) -> bytes:
    """The first `count` bytes of what `decompressed` gives, whatever comes after them; fewer where it can't be had."""
    first = stream.read(CHUNK)
    kind = sniff(first)
    try:
        if kind == "none":
            return first[:count]
        if kind == "gzip":
            return bytes(_gzip.decompressobj(_GZIP_WBITS).decompress(first, count))
        if kind == "zstd":
            decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
            with decompressor.stream_reader(first) as reader:
                return reader.read(count)
        rare = bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor()
        return rare.decompress(first, count)
    except (*_GZIP_ERRORS, zstandard.ZstdError, OSError, EOFError, lzma.LZMAError):
        return b""


def _plain(first: bytes, stream: Readable) -> Iterator[bytes]:
    while first:
        yield first
        first = stream.read(CHUNK)


def _members(data: bytes, stream: Readable) -> Iterator[bytes]:
    """gzip allows several members one after the other (RFC 1952, 2.2), and pigz-like tools write them."""
    inflater = _gzip.decompressobj(_GZIP_WBITS)
    while True:
        try:
            out = inflater.decompress(data, CHUNK)
        except _GZIP_ERRORS as error:
            raise InvalidInput(f"damaged gzip data: {error}") from None
        if out:
            yield out
        if inflater.eof:
            data = inflater.unused_data.lstrip(b"\0")  # members may be padded
            while not data:
                if not (data := stream.read(CHUNK)):
                    return
                data = data.lstrip(b"\0")
            inflater = _gzip.decompressobj(_GZIP_WBITS)
            continue
        data = inflater.unconsumed_tail
        # A full chunk may leave more inside even when all of the input was taken.
        if not data and len(out) < CHUNK and not (data := stream.read(CHUNK)):
            raise InvalidInput("damaged gzip data: it ends too early")


def _zstd(first: bytes, stream: Readable) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    source: Any = _Prefixed(first, stream)
    try:
        with decompressor.stream_reader(source, read_size=CHUNK, read_across_frames=True) as reader:
            while data := reader.read(CHUNK):
                yield data
    except zstandard.ZstdError as error:
        raise InvalidInput(f"damaged zstd data: {error}") from None


def _rare(kind: str, first: bytes, stream: Readable) -> Iterator[bytes]:
    """What ADD of a local archive and `docker import` take beside what layers may be."""
    source: Any = _Prefixed(first, stream)
    try:
        with bz2.BZ2File(source) if kind == "bzip2" else lzma.LZMAFile(source) as opened:
            while data := opened.read(CHUNK):
                yield data
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InvalidInput(f"damaged {kind} data: {error}") from None


class _Prefixed:
    """A stream whose first bytes were already read."""

    def __init__(self, first: bytes, stream: Readable) -> None:
        self._first = first
        self._stream = stream

    def read(self, count: int = -1) -> bytes:
        if self._first:
            if count < 0:
                data, self._first = self._first + self._stream.read(), b""
                return data
            data, self._first = self._first[:count], self._first[count:]
            return data
        return self._stream.read(count)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return False
