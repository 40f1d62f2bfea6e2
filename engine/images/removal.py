"""`docker rmi` and `docker image prune`: what may go, in which order, and in which words that is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import Conflict, NotFound
from engine.images import digest as digests
from engine.images.image import Deleted, Image
from engine.images.reference import Reference

if TYPE_CHECKING:
    from engine.images.store import ImageStore


class Remover:
    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def remove(self, name_or_id: str, *, force: bool, prune: bool) -> list[Deleted]:
        """See `ImageStore.remove`. The rules are those of Docker's daemon/images/image_delete.go."""
        done: list[Deleted] = []
        loose: list[str] = []
        with self._store.catalog.transaction():
            image, reference = self._store.resolve(name_or_id)
            if reference is not None:
                self._remove_by_name(image, reference, force, prune, done, loose)
            else:
                self._remove_by_id(image, force, prune, done, loose)
        self._store.drop_loose(loose)
        return done

    def prune(self, *, dangling: bool, keep: Callable[[Image], bool] | None) -> tuple[list[Deleted], int]:
        """See `ImageStore.prune`."""
        done: list[Deleted] = []
        loose: list[str] = []
        with self._store.catalog.transaction():
            for row in self._store.catalog.images():
                try:
                    image = self._store.get(row.id)
                except NotFound:
                    continue  # went with a child
                if (
                    (dangling and (image.tags or image.digests))
                    or self._store.catalog.children(image.id)
                    or self._store.users(image.id)
                    or (keep is not None and keep(image))
                    or image.id in self._store.catalog.leased()
                ):
                    continue
                self._unname(image, done)
                self._delete(image.id, True, done, loose)
        freed = self._store.drop_loose(loose)
        return done, freed + self._store.collect()

    def _remove_by_name(
        self, image: Image, reference: Reference, force: bool, prune: bool, done: list[Deleted], loose: list[str]
    ) -> None:
        others = [tag for tag in image.tags if tag != reference.familiar]
        named_by_digest = reference.digest is not None
        rest = [
            name
            for name in image.digests
            if name != f"{reference.familiar_repository}@{reference.digest}"
            and (named_by_digest or name.partition("@")[0] != reference.familiar_repository)
        ]
        last = not (image.tags if named_by_digest else others) and not rest
        users = self._store.users(image.id)
        if last and users and not force:
            raise Conflict(
                f'conflict: unable to remove repository reference "{reference.familiar}" (must force) - container '
                f"{users[0].container_id[:12]} is using its referenced image {digests.short(image.id)}"
            )
        self._drop_name(image, reference, done)
        repositories = {Reference.parse(tag).repository for tag in others}
        if reference.repository not in repositories and not named_by_digest:
            for repository, digest in self._store.catalog.origins(image.id):
                if repository == reference.repository:
                    self._drop_name(image, Reference.parse(f"{repository}@{digest}"), done)
        still_running = any(user.running for user in users)
        if last and not still_running and not self._store.catalog.children(image.id) and not (users and not force):
            self._delete(image.id, prune, done, loose)

    def _remove_by_id(self, image: Image, force: bool, prune: bool, done: list[Deleted], loose: list[str]) -> None:
        users = self._store.users(image.id)
        short = digests.short(image.id)
        if self._store.catalog.children(image.id):
            raise Conflict(f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images")
        for user in users:
            if user.running:
                raise Conflict(
                    f"conflict: unable to delete {short} (cannot be forced) - image is being used by running "
                    f"container {user.container_id[:12]}"
                )
        if not force:
            repositories = {Reference.parse(tag).repository for tag in image.tags}
            if len(repositories) > 1:
                raise Conflict(
                    f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple "
                    "repositories"
                )
            if users:
                raise Conflict(
                    f"conflict: unable to delete {short} (must be forced) - image is being used by stopped "
                    f"container {users[0].container_id[:12]}"
                )
        self._unname(image, done)
        self._delete(image.id, prune, done, loose)

    def _unname(self, image: Image, done: list[Deleted]) -> None:
        for name in (*image.tags, *image.digests):
            self._drop_name(image, Reference.parse(name), done)

    def _drop_name(self, image: Image, reference: Reference, done: list[Deleted]) -> None:
        catalog = self._store.catalog
        if reference.digest is None:
            gone = catalog.delete_tag(str(reference))
        else:
            gone = catalog.delete_origin(reference.repository, reference.digest)
        if gone:
            done.append(Deleted(untagged=reference.familiar, image=image))

    def _delete(self, image_id: str, prune: bool, done: list[Deleted], loose: list[str]) -> None:
        """Removes a nameless image, and then its parents as long as nobody else wants them."""
        catalog = self._store.catalog
        current: str | None = image_id
        while current is not None:
            row = catalog.image(current)
            if row is None:
                return
            loose += self._store.held_by(current)
            catalog.delete_image(current)
            done.append(Deleted(deleted=current))
            parent = row.parent
            if (
                not prune
                or parent is None
                or catalog.tags(parent)
                or catalog.origins(parent)
                or catalog.children(parent)
                or self._store.users(parent)
            ):
                return
            current = parent
