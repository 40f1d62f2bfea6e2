"""What is known of each container, on disk: one JSON file each, always whole."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

import msgspec

from engine.containers.model import Container, ContainerPaths
from engine.errors import SystemFailure
from engine.images.spread import spread

_log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9a-f]{64}")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Container)


class ContainerStore:
    """`containers/<id>/config.json` below the data root. Sync; each call is a small file."""

    def __init__(self, data_root: Path) -> None:
        self._data_root = data_root
        self._root = data_root / "containers"

    def paths(self, container_id: str) -> ContainerPaths:
        return ContainerPaths(self._data_root, container_id)

    def create(self, container: Container) -> ContainerPaths:
        """Makes the folders and the first record. `upper` belongs to the container's root."""
        paths = self.paths(container.id)
        spread(self._root)
        paths.root.mkdir(parents=True, mode=0o710)
        shift = container.id_shift
        for folder, mode in ((paths.upper, 0o755), (paths.work, 0o700)):
            folder.mkdir(mode=mode)
            if shift:
                os.chown(folder, shift, shift)
        self.save(container)
        return paths

    def save(self, container: Container) -> None:
        """Written beside and renamed over: a reader sees the old record or the new one.

        Not synced to the disk: after a power cut the newest changes of state may be gone, which is as if they
        had not happened yet; the process they speak of is gone as well.
        """
        paths = self.paths(container.id)
        beside = paths.root / ".config.json"
        try:
            with open(beside, "wb", opener=_private) as file:
                file.write(_encoder.encode(container))
            os.rename(beside, paths.config)
        except OSError as error:
            raise SystemFailure(f"can't save {paths.config}: {error.strerror}", error.errno) from None

    def load(self) -> list[Container]:
        """All of them. What has no readable record was never finished or half removed, and is taken away."""
        found: list[Container] = []
        if not self._root.is_dir():
            return found
        for folder in sorted(self._root.iterdir()):
            if _ID.fullmatch(folder.name) is None:
                continue
            try:
                container = _decoder.decode((folder / "config.json").read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("container %s has no usable record, removing it: %s", folder.name[:12], error)
                self.remove(folder.name)
                continue
            if container.id == folder.name:
                found.append(container)
        return found

    def remove(self, container_id: str) -> None:
        """Everything of the container. Idempotent.

        The record goes first: should we die in between, the next start knows that the rest is rubbish.
        """
        paths = self.paths(container_id)
        paths.config.unlink(missing_ok=True)
        shutil.rmtree(paths.root, ignore_errors=True)
        if paths.root.exists():
            _log.warning("some files of the removed container %s could not be deleted", container_id[:12])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
