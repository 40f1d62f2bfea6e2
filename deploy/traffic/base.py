"""What a host's traffic switch does: published ports lead to replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


class TrafficError(Exception):
    """The switch can't be made; one line, with the remedy where there is one. Nothing was changed."""


@dataclass(frozen=True, order=True)
class Backend:
    """Where one replica listens. `network` is its subnet (`172.20.0.0/16`), for clients that share it."""

    address: str
    port: int
    network: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Route:
    """A port of this host, on all its addresses, and the replicas that serve it in turn."""

    service: str
    port: int
    backends: tuple[Backend, ...]


class Traffic(Protocol):
    """One implementation a kind of switch. All methods can be repeated, and survive a kill at any moment."""

    def switch(self, route: Route) -> None:
        """From now on new connections to the port go to exactly these replicas, with no moment between old
        and new; established ones stay where they are. No backends: new connections are refused."""
        ...

    def remove(self, service: str) -> None:
        """The service's ports lead nowhere any more."""
        ...

    def routes(self) -> Sequence[Route]:
        """What is in force, read back from the system itself."""
        ...

    def clear(self) -> None:
        """Removes every trace."""
        ...
