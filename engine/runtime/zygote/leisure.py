"""What the zygote does when nobody wants anything of it. Standard library only."""

from __future__ import annotations

import os
import sys

from engine.runtime.zygote.pool import Pool

_QUIET_SECONDS = 0.01
"""After this long without anything to do there is time to take down what has ended, and to fill the pool."""
_IDLE_SECONDS = 60
"""After this long the pool is sent away, which is a few megabytes."""
_MOST_ENDED = 32


class Leisure:
    """Keeps the pool full and lets go of the mounts of containers that have ended, both when there is time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._ended: dict[str, int] = {}

    @property
    def patience(self) -> float | None:
        """Seconds of quiet after which to call `use`; None if there is nothing to do."""
        if self._ended or not self._pool.full:
            return _QUIET_SECONDS
        return _IDLE_SECONDS if self._pool.waits else None

    def use(self) -> None:
        if self._ended or not self._pool.full:
            self._take_down(0)
            self._fill()
        else:
            # Nobody starts anything: then nobody need be ready for it.
            self._pool.close()

    def ended(self, name: str, mounts: int) -> None:
        """Of a container, by the descriptor of its mount namespace."""
        self._ended[name] = mounts
        self._take_down(_MOST_ENDED)

    def begun(self, name: str) -> None:
        """A container of this name is about to begin: its upper folder must not be in two mounts at once."""
        if name in self._ended:
            os.close(self._ended.pop(name))

    def close(self) -> None:
        self._take_down(0)
        self._pool.close()

    def _take_down(self, most: int) -> None:
        while len(self._ended) > most:
            os.close(self._ended.pop(next(iter(self._ended))))

    def _fill(self) -> None:
        if self._pool.full:
            return
        try:
            self._pool.fill()
        except OSError as error:
            # Containers are born without it then.
            print(f"nobody waits for containers: {error}", file=sys.stderr, flush=True)
            self._pool.give_up()
