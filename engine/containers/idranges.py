"""Host ids for user namespaces: each container its own 65,536, out of a part of the id space no one else uses."""

from __future__ import annotations

from collections.abc import Callable, Collection

from engine.errors import SystemFailure

SIZE = 65_536
_FIRST = 0x7000_0000
_COUNT = 0x0FFE
"""Above distributions' subordinate ids (100,000 up) and systemd-nspawn's (to 0x6FFF0000); the last range below
2**31 is left out, since some programs keep ids in signed numbers."""


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
