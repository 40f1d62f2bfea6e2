"""What is in a registry, and what of it may go: catalogue, tags, deletions, retention."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.registryclient import DIGEST, NAME, TAG, HousekeepingError, Refused, RegistryClient, Unsupported
from deploy.retention import TaggedImage, expired

_DEPTH = 3
"""How deep indexes of indexes are followed."""


@dataclass(frozen=True)
class Tag:
    """A tag, and the digest of the manifest that it names."""

    name: str
    digest: str


@dataclass(frozen=True)
class Pruned:
    """What became of a repository's images. `refused` says of a digest why the registry keeps it."""

    deleted: tuple[TaggedImage, ...]
    refused: dict[str, str]


class Housekeeping:
    """Keeps one registry in order. Every method raises HousekeepingError."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def repositories(self) -> list[str]:
        """All repositories' names, sorted. Names that can't be one's are left out."""
        names = self._client.catalogue()
        if names is None:
            raise HousekeepingError(f"{self._client.url}: this registry has no catalogue: name the repositories")
        return sorted(name for name in names if NAME.fullmatch(name))

    def names(self, repository: str) -> list[str]:
        """The names of a repository's tags, in the registry's order; none when there is no such repository."""
        return [name for name in self._client.tags(repository) or () if TAG.fullmatch(name)]

    def digest(self, repository: str, tag: str) -> str | None:
        """What a tag names now; None when there is no such tag."""
        return self._client.digest(repository, tag)

    def tags(self, repository: str) -> list[Tag]:
        """A repository's tags, each with its digest: a request for each."""
        found = [(name, self.digest(repository, name)) for name in self.names(repository)]
        return [Tag(name, digest) for name, digest in found if digest is not None]

    def images(self, repository: str) -> list[TaggedImage]:
        """A repository's tagged images, with their age and parts. Takes a few requests for each."""
        tags: dict[str, list[str]] = {}
        for tag in self.tags(repository):
            tags.setdefault(tag.digest, []).append(tag.name)
        return [self._image(repository, digest, tuple(names)) for digest, names in tags.items()]

    def untag(self, repository: str, tag: str, *, held: AbstractSet[str] = frozenset()) -> bool:
        """Takes a tag away, and with its last tag the image. False: there is no such tag.

        An image's other tags stay. Not every registry can do that: then this says so, and changes nothing. Nor
        does it take the last tag of an image that `held` names by digest.
        """
        tags = {each.name: each.digest for each in self.tags(repository)}
        digest = tags.pop(tag, None)
        if digest is None:
            return False
        others = ", ".join(name for name, named in tags.items() if named == digest)
        if not others:
            return self.delete(repository, digest, held=held)
        try:
            return self._client.delete(repository, tag)
        except Unsupported as error:
            raise HousekeepingError(
                f"{repository}:{tag} is tagged {others} too, and this registry can't take one tag away: "
                f"delete {repository}@{digest} to be rid of the image with all its tags"
            ) from error

    def delete(self, repository: str, digest: str, *, held: AbstractSet[str] = frozenset()) -> bool:
        """Deletes a manifest, and every tag that names it. False: it is not there. Raises Refused if it is `held`."""
        if digest in held:
            raise Refused(f"{repository}@{digest} is in use: a release or an unfinished run refers to it")
        return self._client.delete(repository, digest)

    def publish(self, repository: str, *, public: bool) -> None:
        """Shows a repository of the embedded registry to everyone, or to its group alone."""
        if not NAME.fullmatch(repository):
            raise HousekeepingError(f"{repository!r} is no name of a repository")
        try:
            shown = self._client.manage("PUT", f"/api/v1/repositories/{repository}", {"public": public})
        except Unsupported as error:
            raise HousekeepingError(
                f"{self._client.url}: only the embedded registry can show a repository to everyone, or hide it"
            ) from error
        if shown is None:
            raise HousekeepingError(f"{self._client.url}: {repository}: there is no such repository")

    def hold(self, holder: str, digests: AbstractSet[str]) -> bool:
        """Has the embedded registry keep these, instead of what `holder` held before. False: it is another one."""
        try:
            return self._client.manage("PUT", f"/api/v1/holds/{holder}", sorted(digests)) is not None
        except Unsupported:
            return False

    def let_go(self, holder: str, digest: str) -> None:
        """Has the embedded registry keep a digest no longer for the sake of `holder`."""
        try:
            held = (self._client.manage("GET", "/api/v1/holds") or {}).get(holder, ())
        except HousekeepingError:
            return  # another registry, which holds nothing
        if digest in held:
            self.hold(holder, frozenset(held) - {digest})

    def prune(
        self,
        repository: str,
        images: Sequence[TaggedImage],
        *,
        keep: int,
        keep_digests: AbstractSet[str],
        dry_run: bool = False,
    ) -> Pruned:
        """Deletes those of `images`, as the method of that name gave them, that are beyond the newest `keep`.

        Never what `keep_digests` names or an index among them is made of; see deploy.retention. With `dry_run`
        it only tells. Look at the images first and collect `keep_digests` then: a release that is recorded
        meanwhile is safe that way.
        """
        old = expired(images, keep=keep, held=keep_digests)
        if old:
            tagged = {image.digest for image in images}
            untagged = [TaggedImage(each, (), None, self._parts(repository, each)) for each in keep_digests - tagged]
            old = expired([*images, *untagged], keep=keep, held=keep_digests)
        if dry_run:
            return Pruned(tuple(old), {})
        deleted, refused = [], {}
        for image in old:
            try:
                if self.delete(repository, image.digest):
                    deleted.append(image)
            except Refused as error:
                refused[image.digest] = str(error)
        return Pruned(tuple(deleted), refused)

    def _image(self, repository: str, digest: str, tags: tuple[str, ...]) -> TaggedImage:
        manifest = self._client.manifest(repository, digest) or {}
        created = self._created(repository, manifest, _DEPTH)
        return TaggedImage(digest, tags, created, _parts_of(manifest))

    def _parts(self, repository: str, digest: str) -> frozenset[str]:
        return _parts_of(self._client.manifest(repository, digest) or {})

    def _created(self, repository: str, manifest: dict[str, Any], depth: int) -> float | None:
        """The annotation's word, else the configuration's; of an index the youngest part's."""
        said = _time(_dig(manifest, "annotations", "org.opencontainers.image.created"))
        if said is not None or depth == 0:
            return said
        if parts := _parts_of(manifest):
            inner = [self._client.manifest(repository, part) or {} for part in parts]
            ages = [self._created(repository, each, depth - 1) for each in inner]
            return max((age for age in ages if age is not None), default=None)
        config = _dig(manifest, "config", "digest")
        if not isinstance(config, str) or not DIGEST.fullmatch(config):
            return None
        return _time((self._client.blob(repository, config) or {}).get("created"))


def _parts_of(manifest: dict[str, Any]) -> frozenset[str]:
    entries = manifest.get("manifests")
    found = [_dig(entry, "digest") for entry in entries] if isinstance(entries, list) else []
    return frozenset(digest for digest in found if isinstance(digest, str) and DIGEST.fullmatch(digest))


def _dig(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _time(text: Any) -> float | None:
    """Unix seconds of an RFC 3339 time. None too for the dates that reproducible builds set."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if seconds > 0 else None
