"""Content digests, `ALGORITHM:HEX` (OCI image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from engine.errors import InvalidInput

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")


class Hasher(Protocol):
    """What hashlib's objects offer and we need."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def validate(text: str) -> str:
    """`text` itself when it is a digest that we can check, InvalidInput otherwise.

    Only what passes here may become part of a path: it holds no separator and no dot.
    """
    algorithm, _, encoded = text.partition(":")
    length = _LENGTHS.get(algorithm)
    if length is None:
        raise InvalidInput(f"invalid digest {text[:200]!r}: the algorithm must be sha256 or sha512")
    if len(encoded) != length or not _HEX.match(encoded):
        raise InvalidInput(f"invalid digest {text[:200]!r}: {algorithm} takes {length} lower-case hexadecimal digits")
    return text


def is_digest(text: str) -> bool:
    """Whether `validate` would let `text` pass."""
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == _LENGTHS.get(algorithm) and _HEX.match(encoded) is not None


def sha256(data: bytes | memoryview) -> str:
    """The canonical digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hasher(digest: str) -> Hasher:
    """A fresh hash object of the algorithm that `digest` names."""
    return hashlib.new(digest.partition(":")[0])


def encoded(digest: str) -> str:
    """The hexadecimal part alone."""
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """The twelve digits that people are shown."""
    return encoded(digest)[:12]


def chain_id(parent: str | None, diff_id: str) -> str:
    """The name of a stack of layers (OCI image-spec, config.md, "Layer ChainID")."""
    return diff_id if parent is None else sha256(f"{parent} {diff_id}".encode())


def chain_ids(diff_ids: tuple[str, ...] | list[str]) -> list[str]:
    """The chain ID of each prefix of `diff_ids`, the lowest layer first."""
    chains: list[str] = []
    parent: str | None = None
    for diff_id in diff_ids:
        parent = chain_id(parent, diff_id)
        chains.append(parent)
    return chains
