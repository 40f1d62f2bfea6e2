"""What the image store hands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.images.config import ImageConfig
from engine.images.descriptor import Descriptor


@dataclass(frozen=True)
class Layer:
    """One folder of files on top of others.

    `descriptor` is its tar as a blob, or None as long as nobody needed the bytes. `size` is the sum of its
    regular files' sizes.
    """

    chain_id: str
    diff_id: str
    size: int
    descriptor: Descriptor | None = None


@dataclass(frozen=True)
class Image:
    """An image that is here. `id` is the digest of its config.

    `tags` are familiar names (`busybox:latest`), `digests` are `repository@digest` as registries know it.
    `created` is RFC 3339. `manifest` is None until the image was pulled, pushed or saved.
    """

    id: str
    config: ImageConfig
    manifest: Descriptor | None
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    parent: str | None = None
    comment: str = ""

    @property
    def created(self) -> str:
        return self.config.created or "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Deleted:
    """One line of what a removal did: exactly one of the two is set, as in Docker's answer.

    `image` is the one that was untagged, as it was before.
    """

    untagged: str | None = None
    deleted: str | None = None
    image: Image | None = None


@dataclass(frozen=True)
class ImageUser:
    """A container that was made from an image."""

    container_id: str
    running: bool


class Users(Protocol):
    """Tells which containers use the image with this ID."""

    def __call__(self, image_id: str) -> Sequence[ImageUser]: ...
