"""Which images of a repository may go. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True)
class TaggedImage:
    """A manifest and all the tags that name it. `created` is Unix seconds, None when nothing tells it;
    `parts` are the manifests that an index is made of, by digest."""

    digest: str
    tags: tuple[str, ...]
    created: float | None = None
    parts: frozenset[str] = frozenset()


def expired(images: Sequence[TaggedImage], *, keep: int, held: AbstractSet[str]) -> list[TaggedImage]:
    """Those beyond the newest `keep`, the oldest first.

    Never what `held` names by digest, never what an index that stays is made of, and never an image of unknown
    age: it could be the newest. Tags of one image count as one. Raises ValueError when `keep` is not positive.
    """
    if keep < 1:
        raise ValueError("at least the newest image is kept")
    dated = sorted((image.created, image.digest, image) for image in images if image.created is not None)
    old = {digest: image for _, digest, image in dated[: max(0, len(dated) - keep)] if digest not in held}
    # An index may be a part of another one: until nothing more is needed.
    while needed := {part for image in images if image.digest not in old for part in image.parts} & old.keys():
        old = {digest: image for digest, image in old.items() if digest not in needed}
    return list(old.values())
