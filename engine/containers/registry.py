"""All containers by id and by name. One loop's; changes are on disk before anyone is told."""

from __future__ import annotations

from collections.abc import Iterator

from engine.containers import links, names
from engine.containers.live import Live
from engine.containers.model import Container, ContainerPaths
from engine.containers.store import ContainerStore
from engine.errors import Conflict, InvalidInput, NotFound


class Registry:
    """The index over the store, and each container's `Live`."""

    def __init__(self, store: ContainerStore) -> None:
        self._store = store
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._live: dict[str, Live] = {}
        self._linking: dict[str, Container] = {}

    def load(self) -> None:
        """What the store has. Where two records claim one name, the later container gets a new one."""
        for container in sorted(self._store.load(), key=lambda container: container.created):
            if container.name in self._names:
                container.name = names.random_name(self._names)
                self._store.save(container)
            self._index(container)

    def _index(self, container: Container) -> None:
        self._containers[container.id] = container
        self._names[container.name] = container.id
        if container.host_config.links:
            self._linking[container.id] = container

    @property
    def linking(self) -> list[Container]:
        """Those that were made with links."""
        return list(self._linking.values())

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._containers.values()))

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._containers

    def get(self, ref: str) -> Container:
        """By id, name or the beginning of an id, in that order, or by another's link to it: `NAME/ALIAS`.

        Raises NotFound or InvalidInput.
        """
        bare = ref.removeprefix("/")
        if "/" in bare:
            return self._linked(bare)
        if bare in self._containers:
            return self._containers[bare]
        if self._names.get(bare) in self._containers:
            return self._containers[self._names[bare]]
        found = [known for known in self._containers if bare and known.startswith(bare)]
        if len(found) == 1:
            return self._containers[found[0]]
        if found:
            raise InvalidInput(f"Multiple IDs found with provided prefix: {bare}")
        raise NotFound(f"No such container: {bare}")

    def _linked(self, path: str) -> Container:
        name, _, alias = path.partition("/")
        owner = self._containers.get(self._names.get(name, ""))
        for known, other in links.named(owner, self) if owner else ():
            if known == alias:
                return other
        raise NotFound(f"No such container: {path}")

    def live(self, container: Container) -> Live:
        live = self._live.get(container.id)
        if live is None:
            live = self._live[container.id] = Live()
        return live

    def paths(self, container: Container) -> ContainerPaths:
        return self._store.paths(container.id)

    def free_name(self, wanted: str | None, container_id: str) -> str:
        """Takes the name for this id, at once. Raises Conflict or InvalidInput."""
        name = names.validate(wanted) if wanted else names.random_name(self._names)
        owner = self._names.get(name)
        if owner is not None and owner != container_id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._names[name] = container_id
        return name

    def give_up_name(self, name: str, container_id: str) -> None:
        if self._names.get(name) == container_id:
            del self._names[name]

    def add(self, container: Container) -> ContainerPaths:
        """Of a container whose name was taken with `free_name`."""
        paths = self._store.create(container)
        self._index(container)
        return paths

    def save(self, container: Container) -> None:
        """Unless it was removed meanwhile."""
        if container.id in self._containers:
            self._store.save(container)

    def hide(self, container: Container) -> None:
        """Takes it out of the index; the files stay for `discard`."""
        self._containers.pop(container.id, None)
        self._linking.pop(container.id, None)
        self.give_up_name(container.name, container.id)
        self._live.pop(container.id, None)

    def discard(self, container: Container) -> None:
        """Its files are out of sight; they are deleted later."""
        self._store.remove(container.id)

    def shifts(self) -> set[int]:
        return {container.id_shift for container in self._containers.values()}
