"""`docker ps` and `docker container prune`: the containers that filters choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.containers import filters, removal, restoring
from engine.containers.fileaccess import FileAccess
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import Conflict, NotFound


def find(room: Room, wanted: filters.Filters, *, everything: bool, limit: int) -> list[Container]:
    """The newest first. Without `everything`, or a filter that says otherwise, only those that run."""
    everything = everything or limit > 0 or "status" in wanted or "exited" in wanted
    matches = _matcher(room, wanted)
    found = [one for one in room.registry if (everything or one.state.running) and matches(one)]
    found.sort(key=lambda one: one.created, reverse=True)
    return found[:limit] if limit > 0 else found


async def prune(room: Room, files: FileAccess, wanted: filters.Filters) -> tuple[Sequence[str], int]:
    """(ids removed, bytes freed): all that do not run."""
    matches = _matcher(room, wanted)
    removed, freed = [], 0
    unused = [one for one in room.registry if not one.state.running and not restoring.on_the_way(one)]
    for container in filter(matches, unused):
        size, _ = await files.sizes(container)
        try:
            await removal.remove(room, container, force=False, volumes=False)
        except (Conflict, NotFound):
            continue
        removed.append(container.id)
        freed += size
    return removed, freed


def _matcher(room: Room, wanted: filters.Filters) -> Callable[[Container], bool]:
    def ids(name: str) -> Sequence[str]:
        found = [room.images.get(name).id]
        for known in found:
            found += room.images.catalog.children(known)
        return found

    return filters.matcher(wanted, room.registry.get, ids)
