"""Containers whose processes the kernel kills for want of memory, while they run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from dataclasses import dataclass

from engine.kernel.cgroup.base import Cgroup

_SOON = 0.05
_LATER = (0.01, 0.05, 0.2, 1.0)
"""The kernel rings before it counts (v1): seconds until it is looked again."""


@dataclass
class _Watched:
    name: str
    group: Cgroup
    killed: Callable[[], None]
    seen: int


class OomWatch:
    """One epoll descriptor for all of them, which the loop watches. Only for the loop's thread."""

    def __init__(self) -> None:
        self._poll: select.epoll | None = None
        self._watched: dict[int, _Watched] = {}
        self._of: dict[str, int] = {}
        self._coming: dict[str, asyncio.TimerHandle] = {}

    def watch(self, name: str, group: Cgroup, killed: Callable[[], None], *, seen: int = 0) -> None:
        """Calls `killed` whenever more than `seen` in the group were. Where the kernel can't tell, never.

        Begins a moment later: most containers of a pipeline have ended by then, and none need wait for it.
        """
        self.forget(name)
        later = asyncio.get_running_loop().call_later(_SOON, self._begin, _Watched(name, group, killed, seen))
        self._coming[name] = later

    def _begin(self, watched: _Watched) -> None:
        del self._coming[watched.name]
        try:
            bell, events = watched.group.oom_bell()
        except OSError:
            return
        if self._poll is None:
            self._poll = select.epoll()
            asyncio.get_running_loop().add_reader(self._poll.fileno(), self._ring)
        self._watched[bell] = watched
        self._of[watched.name] = bell
        self._poll.register(bell, events)
        self._look(bell, watched, ())

    def forget(self, name: str) -> None:
        """Idempotent."""
        coming = self._coming.pop(name, None)
        if coming is not None:
            coming.cancel()
        bell = self._of.pop(name, None)
        if bell is not None and self._poll is not None:
            self._watched.pop(bell)
            with contextlib.suppress(OSError):
                self._poll.unregister(bell)
            os.close(bell)

    def close(self) -> None:
        for name in [*self._of, *self._coming]:
            self.forget(name)
        if self._poll is not None:
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def _ring(self) -> None:
        assert self._poll is not None
        for bell, _ in self._poll.poll(0):
            with contextlib.suppress(OSError):
                # Heard: the next one rings anew.
                os.lseek(bell, 0, os.SEEK_SET)
            with contextlib.suppress(OSError):
                os.read(bell, 4096)
            self._look(bell, self._watched.get(bell), _LATER)

    def _look(self, bell: int, watched: _Watched | None, later: tuple[float, ...]) -> None:
        if watched is None or self._watched.get(bell) is not watched:
            return
        count = watched.group.oom_kills()
        if count > watched.seen:
            watched.seen = count
            watched.killed()
        elif later:
            asyncio.get_running_loop().call_later(later[0], self._look, bell, watched, later[1:])
