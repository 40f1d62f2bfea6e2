"""From how a host is to how it should be, one step at a time. Pure: nothing here touches a host.

The host looks at itself, asks for the next step, does it, and looks again. So a host that was killed at any
point just goes on: there is no progress to remember but what the engine and the traffic switch show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Condition(StrEnum):
    """What is known of a replica."""

    STOPPED = "stopped"
    """Created, exited or dead: serves nobody."""
    RUNNING = "running"
    """Its process lives; whether it can serve has not been seen in this look."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class ReplicaView:
    """One container of the service, as seen now."""

    name: str
    release: str
    condition: Condition
    routed: bool = False


@dataclass(frozen=True)
class HostView:
    """All of a service's containers on one host. `switched` says whether the service has a published port."""

    replicas: tuple[ReplicaView, ...] = ()
    switched: bool = True

    @property
    def routed(self) -> frozenset[str]:
        return frozenset(replica.name for replica in self.replicas if replica.routed)


@dataclass(frozen=True)
class Wanted:
    """What the host shall run: these replicas of this release. No names: nothing."""

    release: str = ""
    names: tuple[str, ...] = ()
    surge: int = 1
    unavailable: int = 0


@dataclass(frozen=True)
class Start:
    """Create and start these replicas, and wait until all are healthy."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Await:
    """Wait until these running replicas are healthy."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """New connections go to exactly these replicas. None: the port is given up."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Retire:
    """Let these replicas finish their connections, stop and remove them."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Discard:
    """Remove these at once: they serve nobody."""

    names: tuple[str, ...]


Step = Start | Await | Route | Retire | Discard


def next_step(view: HostView, wanted: Wanted) -> Step | None:
    """The next step towards `wanted`, or None when there is nothing left to do."""
    from deploy.strategies.rolling import next_step as rolling

    return rolling(view, wanted)


def whole_plan(view: HostView, wanted: Wanted, *, limit: int = 10_000) -> list[Step]:
    """All steps, as they would be if each one succeeds."""
    steps: list[Step] = []
    while (step := next_step(view, wanted)) is not None:
        steps.append(step)
        view = succeed(view, wanted, step)
        if len(steps) > limit:
            raise AssertionError("the plan does not end")
    return steps


def succeed(view: HostView, wanted: Wanted, step: Step) -> HostView:
    """How the host looks after `step` has been done."""
    match step:
        case Start(names):
            started = (ReplicaView(name, wanted.release, Condition.HEALTHY) for name in names)
            kept = (replica for replica in view.replicas if replica.name not in names)
            replicas = (*kept, *started)
        case Await(names):
            replicas = tuple(replace(r, condition=Condition.HEALTHY) if r.name in names else r for r in view.replicas)
        case Route(names):
            replicas = tuple(replace(r, routed=r.name in names) for r in view.replicas)
        case Retire(names) | Discard(names):
            replicas = tuple(r for r in view.replicas if r.name not in names)
    return replace(view, replicas=replicas)


def waves(hosts: Sequence[str]) -> list[tuple[str, ...]]:
    """In which order hosts are updated: one alone, so that a bad release meets one host only, then the rest
    side by side."""
    ordered = tuple(dict.fromkeys(hosts))
    return [wave for wave in (ordered[:1], ordered[1:]) if wave]
