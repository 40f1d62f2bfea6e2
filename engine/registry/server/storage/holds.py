"""Digests that somebody outside still needs: releases, runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from engine.images import digest as digests
from engine.registry.server import errors
from engine.registry.server.storage import files
from engine.registry.server.storage.layout import Layout

_HOLDER = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")


class Holds:
    """A holder names the digests that it needs; nothing below them is deleted until it lets them go."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def put(self, holder: str, held: Iterable[str]) -> None:
        """Replaces all that `holder` held; with nothing, the holder goes."""
        path = self._path(holder)
        wanted = sorted(set(held))
        for digest in wanted:
            if not digests.is_digest(digest):
                raise errors.digest_invalid(f"{digest[:200]!r} is not a sha256 or sha512 digest")
        if wanted:
            files.write_atomic(path, "\n".join(wanted).encode(), self._layout.holds)
        else:
            files.remove(path)

    def get(self, holder: str) -> tuple[str, ...]:
        return tuple((files.read_text(self._path(holder)) or "").split())

    def all(self) -> dict[str, tuple[str, ...]]:
        """Every holder and what it holds."""
        holders = (name for name in os.listdir(self._layout.holds) if not name.startswith("."))
        return {holder: self.get(holder) for holder in sorted(holders)}

    def holder_of(self, digest: str) -> str | None:
        """Somebody who holds this very digest."""
        return next((holder for holder, held in self.all().items() if digest in held), None)

    def _path(self, holder: str) -> Path:
        if not _HOLDER.match(holder):
            raise errors.RegistryError(400, "NAME_INVALID", f"invalid name of a holder: {holder[:200]!r}")
        return self._layout.holds / holder
