"""What is known of each container, on disk: one record each, always whole."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from pathlib import Path

import msgspec

from engine.containers.model import Container, ContainerPaths
from engine.containers.records import Records
from engine.errors import SystemFailure
from engine.images.spread import spread

_log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9a-f]{64}")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Container)


class ContainerStore:
    """`containers/<id>/` below the data root. Sync; each call is a small file."""

    def __init__(self, data_root: Path) -> None:
        self._data_root = data_root
        self._root = data_root / "containers"
        self._bin = self._root / ".removed"
        self._records = Records()
        self._paths: dict[str, ContainerPaths] = {}

    def paths(self, container_id: str) -> ContainerPaths:
        known = self._paths.get(container_id)
        if known is None:
            known = self._paths[container_id] = ContainerPaths(self._data_root, container_id)
        return known

    def create(self, container: Container) -> ContainerPaths:
        """Makes the folders and the first record. `upper` belongs to the container's root."""
        paths = self.paths(container.id)
        paths.root.mkdir(parents=True, mode=0o710)
        shift = container.id_shift
        for folder, mode in ((paths.upper, 0o755), (paths.work, 0o700)):
            folder.mkdir(mode=mode)
            if shift:
                os.chown(folder, shift, shift)
        # By this file programs know that they are in a container.
        mark = os.open(paths.upper / ".dockerenv", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o755)
        if shift:
            os.fchown(mark, shift, shift)
        os.close(mark)
        self.save(container)
        return paths

    def save(self, container: Container) -> None:
        """A reader sees the old record or the new one. Durable after the next `settle`: until then a power cut may
        undo it, which is as if it had not happened yet; the process that it speaks of is gone as well."""
        paths = self.paths(container.id)
        try:
            self._records.write(paths.root, _encoder.encode(container))
        except OSError as error:
            raise SystemFailure(f"can't save {paths.root}: {error.strerror}", error.errno) from None

    @property
    def unsettled(self) -> bool:
        """Whether there is something that is not durable yet."""
        return self._records.unsettled

    def settle(self, *, now: bool = False) -> None:
        """Makes durable what was saved a while ago, and with `now` everything. Blocking; may run beside all else."""
        self._records.settle(now=now)

    def load(self) -> list[Container]:
        """All of them. What has no readable record was never finished or half removed, and is taken away."""
        found: list[Container] = []
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._bin.mkdir(exist_ok=True, mode=0o700)
        spread(self._root)
        for folder in sorted(self._root.iterdir()):
            if _ID.fullmatch(folder.name) is None:
                continue
            container = self._read(folder)
            if container is None:
                _log.warning("container %s has no usable record: removed", folder.name[:12])
                self.remove(folder.name)
            elif container.id == folder.name:
                found.append(container)
        return found

    def _read(self, folder: Path) -> Container | None:
        for raw in self._records.read(folder):
            with contextlib.suppress(msgspec.DecodeError):
                return _decoder.decode(raw)
        return None

    def remove(self, container_id: str) -> None:
        """Out of sight, in one step and at once; `sweep` deletes it."""
        paths = self.paths(container_id)
        try:
            os.rename(paths.root, self._bin / container_id)
        except FileNotFoundError:
            pass
        except OSError:
            # A full disk has no room for that either.
            shutil.rmtree(paths.root, ignore_errors=True)
        self._records.forget(paths.root)
        self._paths.pop(container_id, None)

    def sweep(self) -> None:
        """Deletes the files of what was removed, now or by an engine that ended before it could. Blocking."""
        for folder in self._bin.iterdir() if self._bin.is_dir() else ():
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                _log.warning("some files of the removed container %s could not be deleted", folder.name[:12])
