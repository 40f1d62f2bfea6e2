"""Host ids for user namespaces: each container its own 65,536, out of a part of the id space no one else uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from engine.containers.users import ResolvedUser
from engine.errors import InvalidInput, SystemFailure
from engine.runtime.launcher import Overlay
from engine.runtime.spec import IDMapping

if TYPE_CHECKING:
    from engine.runtime.launcher import Launcher

SIZE = 65_536
_FIRST = 0x7000_0000
_COUNT = 0x0FFE
"""Above distributions' subordinate ids (100,000 up) and systemd-nspawn's (to 0x6FFF0000); the last range below
2**31 is left out, since some programs keep ids in signed numbers."""


def mappings(first: int) -> list[IDMapping]:
    """Of a user namespace whose range begins there; none for 0, which is no namespace."""
    return [IDMapping(container_id=0, host_id=first, size=SIZE)] if first else []


def wide_mappings(first: int) -> list[IDMapping]:
    """Like `mappings`, and the ids that the range has no place for are the host's own, up to where ranges begin.

    For build steps: images have files of any owner, and a step may give them away.
    """
    if not first:
        return []
    return [*mappings(first), IDMapping(container_id=SIZE, host_id=SIZE, size=min(first, _FIRST) - SIZE)]


def check(user: ResolvedUser, first: int) -> None:
    """Raises InvalidInput for ids that the range has no place for."""
    for number in (user.uid, user.gid, *user.groups):
        if first and number >= SIZE:
            raise InvalidInput(f"id {number} is not one of the {SIZE:,} ids of the container: use --userns=host")


async def lack(launcher: Launcher, data_root: Path) -> str:
    """Why containers can't have user namespaces of their own here, tried out in `data_root`; "" where they can."""
    scratch = data_root / ".users"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for name in ("lower", "upper", "work"):
            (scratch / name).mkdir(parents=True)
        overlay = Overlay((scratch / "lower",), scratch / "upper", scratch / "work")
        os.close(await launcher.mount(overlay, mappings(_FIRST)))
    except SystemFailure as error:
        return str(error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ""


class IdRanges:
    """Hands out ranges. Where it begins depends on the engine, so that two on one host seldom meet."""

    def __init__(self, instance: str, taken: Callable[[], Collection[int]]) -> None:
        """`instance` is hexadecimal; `taken()` gives the first ids of the ranges that containers hold."""
        self._next = int(instance, 16) % _COUNT
        self._taken = taken
        self._lent: set[int] = set()

    def take(self) -> int:
        """The first id of a free range. Raises SystemFailure when 4,094 containers have one."""
        taken = self._taken()
        for _ in range(_COUNT):
            first = _FIRST + self._next * SIZE
            self._next = (self._next + 1) % _COUNT
            if first not in taken and first not in self._lent:
                self._lent.add(first)
                return first
        raise SystemFailure(f"all {_COUNT} ranges of user ids are taken: remove containers, or use --userns=host")

    def give_back(self, first: int) -> None:
        """Idempotent; 0 is nobody's."""
        self._lent.discard(first)
