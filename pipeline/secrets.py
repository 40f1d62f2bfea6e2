"""Secrets: a file each in one folder on the server, given to an attempt with its claim and to nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
MAX_SECRET = 64 * 1024
MASK = "•••"
_SHORTEST_MASKED = 4
"""Masking shorter values would blot out half of a log."""


class MissingSecret(Exception):
    """Its text names the secret and the remedy."""


class SecretFolder:
    """`folder/NAME` holds the value of NAME; one newline at its end does not belong to it."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """The values. Raises MissingSecret for the first that is not there."""
        return {name: self._one(name) for name in names}

    def known(self, names: Iterable[str]) -> list[str]:
        """The values of those that are there."""
        values = []
        for name in names:
            try:
                values.append(self._one(name))
            except MissingSecret:
                continue
        return values

    def _one(self, name: str) -> str:
        if self.folder is None:
            raise MissingSecret(f"there is no secret {name}: no folder of secrets is set")
        if not _NAME.fullmatch(name):
            raise MissingSecret(f"{name[:80]!r} is not a secret's name: use letters, digits and _")
        path = self.folder / name
        try:
            with path.open("rb") as file:
                value = file.read(MAX_SECRET + 1)
            if len(value) > MAX_SECRET:
                raise MissingSecret(f"the secret {name} is larger than {MAX_SECRET >> 10} KiB: store less in {path}")
            return value.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise MissingSecret(f"the secret {name} is not UTF-8 text: write text into {path}") from None
        except OSError:
            raise MissingSecret(f"there is no secret {name}: write its value into {path} on the server") from None


def mask(text: str, values: Iterable[str]) -> str:
    """The text without the values, nor their single lines."""
    parts = {part for value in values for part in (value, *value.splitlines()) if len(part) >= _SHORTEST_MASKED}
    # The longest first: a secret may hold another one.
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, MASK)
    return text


def names_of(stage_secrets: Iterable[str], spec: object) -> tuple[str, ...]:
    """All the secrets that a stage reads: its own, and those of the service that it deploys."""
    service: Mapping[str, object] | object = getattr(spec, "service", None)
    return tuple(dict.fromkeys((*stage_secrets, *getattr(service, "secrets", ()))))
