"""What is being made for a container that comes, noted before it is made: should we die before its record is there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec
from msgspec import Struct

_log = logging.getLogger(__name__)


class Note(Struct, kw_only=True):
    """Volumes, networks, and the image with its layers, that were not there before; the lease on the latter."""

    volumes: list[str] = []
    networks: list[str] = []
    layers: list[str] = []
    lease: str = ""


class Journal:
    """`moves/MOVE.json` below the data root. Sync; each call is a small file."""

    def __init__(self, data_root: Path) -> None:
        self._root = data_root / "moves"

    def write(self, move: str, note: Note) -> None:
        self._root.mkdir(mode=0o700, exist_ok=True)
        beside = self._root / f".{move}"
        try:
            beside.write_bytes(msgspec.json.encode(note))
            os.rename(beside, self._root / f"{move}.json")
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def drop(self, move: str) -> None:
        (self._root / f"{move}.json").unlink(missing_ok=True)

    def left(self) -> dict[str, Note]:
        """What a former life of the engine left unfinished, by move."""
        found: dict[str, Note] = {}
        for path in sorted(self._root.glob("*.json")):
            try:
                found[path.stem] = msgspec.json.decode(path.read_bytes(), type=Note)
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("%s can't be read: %s", path, error)
        for path in self._root.glob(".*"):
            path.unlink(missing_ok=True)
        return found
