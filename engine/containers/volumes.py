"""Named volumes of the local driver: folders below the data root that outlive their containers."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.containers import names, times, volumemounts
from engine.containers.events import EventBus
from engine.containers.filters import boolean, matches_labels
from engine.errors import Conflict, InvalidInput, NotFound

_log = logging.getLogger(__name__)
Filters = Mapping[str, Sequence[str]]
_ANONYMOUS = "com.docker.volume.anonymous"


class Volume(Struct, rename="pascal", kw_only=True):
    """`mountpoint` is where its files are on the host. `created` in RFC 3339.

    `fresh` until something was put into it: the first container that mounts it fills it from its image.
    """

    name: str
    driver: str = "local"
    mountpoint: str
    created: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    fresh: bool = True

    @property
    def path(self) -> Path:
        return Path(self.mountpoint)


class Volumes:
    """All volumes of one engine. Sync: each call is a few small files. Thread-safe."""

    def __init__(self, root: Path, events: EventBus, users: Callable[[str], Sequence[str]]) -> None:
        """`users(name)` gives the ids of the containers that refer to a volume."""
        self._root = root
        self._events = events
        self._users = users
        self._lock = threading.Lock()
        self._mounts = volumemounts.VolumeMounts()
        self._volumes: dict[str, Volume] = {}
        self._load()

    def _load(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o701)
        for folder in self._root.iterdir():
            try:
                volume = msgspec.json.decode((folder / "volume.json").read_bytes(), type=Volume)
            except (OSError, msgspec.DecodeError):
                # Without a record it was never handed to anyone, or its removal had begun.
                self._delete(folder)
                continue
            if volume.name == folder.name:
                self._volumes[volume.name] = volume

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> Volume:
        """The volume of that name, made if it is not there. Without a name it gets a random one.

        `options` make it a mount, see `volumemounts`. Raises InvalidInput for a bad name or options, NotFound for
        another driver.
        """
        if driver not in ("", "local"):
            raise NotFound(f"error looking up volume plugin {driver}: plugin not found")
        volumemounts.check(options or {})
        name = names.validate(name, "volume") if name else names.new_id()
        if name.startswith("/"):
            raise InvalidInput(f"invalid volume name {name!r}")
        with self._lock:
            if name in self._volumes:
                return self._volumes[name]
            folder = self._root / name
            folder.mkdir(mode=0o701, exist_ok=True)
            (folder / "_data").mkdir(mode=0o755, exist_ok=True)
            volume = Volume(
                name=name,
                mountpoint=str(folder / "_data"),
                created=times.rfc3339(times.now()),
                labels={**(labels or {}), **({_ANONYMOUS: ""} if anonymous else {})},
                options=dict(options or {}),
                anonymous=anonymous,
            )
            self._save(volume)
            self._volumes[name] = volume
        self._events.publish("volume", "create", name, {"driver": "local"})
        return volume

    def hold(self, volume: Volume, container_id: str) -> None:
        """Mount one that is a mount, before its container starts. Blocks. Raises SystemFailure."""
        self._mounts.hold(volume.path, volume.options, container_id)

    def release(self, volume: Volume, container_id: str, *, used: bool) -> None:
        """Its container has ended; `used` says that another one which has it lives. Idempotent."""
        self._mounts.release(volume.path, container_id, used=used)

    def used(self, volume: Volume) -> None:
        """It has been mounted: its content is its user's business from now on."""
        if volume.fresh:
            volume.fresh = False
            self._save(volume)

    def _save(self, volume: Volume) -> None:
        folder = self._root / volume.name
        beside = folder / ".volume.json"
        beside.write_bytes(msgspec.json.encode(volume))
        os.rename(beside, folder / "volume.json")

    def __contains__(self, name: str) -> bool:
        return name in self._volumes

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def list(self, filters: Filters | None = None) -> Sequence[Volume]:
        """Filters: name, label, driver, dangling."""
        filters = filters or {}
        unknown = set(filters) - {"name", "label", "driver", "dangling", "all", "label!"}
        if unknown:
            raise InvalidInput(f"invalid filter {min(unknown)!r}")
        found = [volume for volume in self._volumes.values() if self._wanted(volume, filters)]
        return sorted(found, key=lambda volume: volume.name)

    def _wanted(self, volume: Volume, filters: Filters) -> bool:
        wanted = filters.get("name")
        if wanted and not any(part in volume.name for part in wanted):
            return False
        if filters.get("driver") and volume.driver not in filters["driver"]:
            return False
        dangling = boolean(filters, "dangling")
        if dangling is not None and dangling == bool(self._users(volume.name)):
            return False
        return matches_labels(volume.labels, filters)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises Conflict while a container refers to it, NotFound unless `force`."""
        with self._lock:
            volume = self._volumes.get(name)
            if volume is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            users = self._users(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            folder = self._root / name
            # What is mounted on it is not deleted. The record goes next: by its absence the rest is known for rubbish.
            volumemounts.unmount(folder / "_data")
            (folder / "volume.json").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            del self._volumes[name]
        self._events.publish("volume", "destroy", name, {"driver": "local"})

    @staticmethod
    def _delete(folder: Path) -> None:
        with contextlib.suppress(OSError):
            volumemounts.unmount(folder / "_data")
            shutil.rmtree(folder, ignore_errors=True)

    def prune(self, filters: Filters | None = None) -> tuple[Sequence[str], int]:
        """(names, bytes). Anonymous volumes only, unless the filters say `all=true`."""
        filters = dict(filters or {})
        every = boolean(filters, "all")
        removed, freed = [], 0
        for volume in self.list(filters):
            if (every or volume.anonymous) and not self._users(volume.name):
                size = disk_usage(volume.path)
                try:
                    self.remove(volume.name)
                except (Conflict, NotFound):
                    continue
                removed.append(volume.name)
                freed += size
        return removed, freed

    def json(self, volume: Volume) -> dict[str, Any]:
        """Docker's volume JSON."""
        return {
            "CreatedAt": volume.created,
            "Driver": volume.driver,
            "Labels": volume.labels or None,
            "Mountpoint": volume.mountpoint,
            "Name": volume.name,
            "Options": volume.options or None,
            "Scope": "local",
        }


def disk_usage(folder: Path) -> int:
    """Bytes of the files below, hard links counted once. Links are not followed."""
    total, seen = 0, set()
    for _, _, files, dir_fd in os.fwalk(folder, follow_symlinks=False):
        for name in files:
            try:
                status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            except OSError:
                continue
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total
