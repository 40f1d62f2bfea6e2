"""The rolling strategy on one host: a few new replicas come, as many old ones go, until none are left. Pure.

At every moment at least `wanted - unavailable` replicas that can serve are routed, and at most
`wanted + surge` run; where the host is short of both from the start, new ones come first.
"""

from __future__ import annotations

from deploy.plan import Await, Condition, Discard, HostView, ReplicaView, Retire, Route, Start, Step, Wanted


def next_step(view: HostView, wanted: Wanted) -> Step | None:
    """See deploy.plan."""
    new = [r for r in view.replicas if r.name in wanted.names and r.release == wanted.release]
    old = [r for r in view.replicas if r not in new]

    # What can't serve leaves first: it must not count, and must not be routed.
    sick = _names([r for r in view.replicas if _sick(r, new)])
    if sick:
        if view.switched and view.routed & set(sick):
            return Route(_order(view.routed - set(sick), wanted))
        return Discard(sick)
    # Old ones that nobody reaches any more may still be busy with the connections they had.
    idle = _names([r for r in old if view.switched and not r.routed])
    if idle:
        return Retire(idle)

    waiting = [r for r in new if r.condition is not Condition.HEALTHY]
    if waiting:
        return Await(_names(waiting))

    leaving = _names(old[: _may_leave(new, old, wanted)])
    if view.switched:
        routed = _order({r.name for r in (*new, *old)} - set(leaving), wanted)
        if set(routed) != view.routed:
            return Route(routed)
    if leaving:
        return Retire(leaving)

    missing = [name for name in wanted.names if name not in _names(new)]
    if missing:
        room = len(wanted.names) + wanted.surge - len(new) - len(old)
        return Start(tuple(missing[: max(1, room)]))
    return None


def _sick(replica: ReplicaView, new: list[ReplicaView]) -> bool:
    """Whether it serves nobody. A new one that is not healthy yet, or no longer, is waited for instead."""
    if replica in new:
        return replica.condition is Condition.STOPPED
    return replica.condition in (Condition.STOPPED, Condition.UNHEALTHY)


def _may_leave(new: list[ReplicaView], old: list[ReplicaView], wanted: Wanted) -> int:
    """How many of the old ones can go now."""
    if not wanted.names:
        return len(old)
    floor = max(0, len(wanted.names) - wanted.unavailable)
    missing = len(wanted.names) - len(new)
    if missing == 0:
        return len(old)
    spare = max(0, len(new) + len(old) - floor)
    # Those above the ceiling make room for the next batch; with no surge that is what `unavailable` is for.
    ceiling = len(wanted.names) + wanted.surge - min(missing, wanted.surge or wanted.unavailable or 1)
    return min(spare, len(old), max(0, len(new) + len(old) - ceiling))


def _names(replicas: list[ReplicaView]) -> tuple[str, ...]:
    return tuple(r.name for r in replicas)


def _order(names: set[str] | frozenset[str], wanted: Wanted) -> tuple[str, ...]:
    """The new release's replicas first, each group by name: equal sets give equal rules."""
    return tuple(sorted(names, key=lambda name: (name not in wanted.names, name)))
