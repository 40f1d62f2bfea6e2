from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deploy.plan import (
    Await,
    Condition,
    Discard,
    HostView,
    ReplicaView,
    Retire,
    Route,
    Start,
    Wanted,
    next_step,
    succeed,
    waves,
    whole_plan,
)


def old(count: int, *, routed: bool = True) -> tuple[ReplicaView, ...]:
    return tuple(ReplicaView(f"web-1-{n}", "web-1", Condition.RUNNING, routed) for n in range(1, count + 1))


def wanted(count: int, surge: int = 1, unavailable: int = 0) -> Wanted:
    return Wanted("web-2", tuple(f"web-2-{n}" for n in range(1, count + 1)), surge, unavailable)


def test_the_first_release_starts_all_at_once():
    names = ("web-2-1", "web-2-2")
    assert whole_plan(HostView(), wanted(2)) == [Start(names), Route(names)]


def test_one_comes_before_one_goes():
    assert whole_plan(HostView(old(2)), wanted(2)) == [
        Start(("web-2-1",)),
        Route(("web-2-1", "web-1-2")),
        Retire(("web-1-1",)),
        Start(("web-2-2",)),
        Route(("web-2-1", "web-2-2")),
        Retire(("web-1-2",)),
    ]


def test_without_surge_one_goes_first():
    assert whole_plan(HostView(old(2)), wanted(2, surge=0, unavailable=1)) == [
        Route(("web-1-2",)),
        Retire(("web-1-1",)),
        Start(("web-2-1",)),
        Route(("web-2-1",)),
        Retire(("web-1-2",)),
        Start(("web-2-2",)),
        Route(("web-2-1", "web-2-2")),
    ]


def test_a_host_that_is_there_has_nothing_to_do():
    there = tuple(ReplicaView(name, "web-2", Condition.HEALTHY, routed=True) for name in wanted(2).names)
    assert next_step(HostView(there), wanted(2)) is None


def test_a_replica_that_ended_is_unrouted_and_removed_first():
    dead = ReplicaView("web-1-1", "web-1", Condition.STOPPED, routed=True)
    steps = whole_plan(HostView((dead, *old(2)[1:])), wanted(2))
    assert steps[:2] == [Route(("web-1-2",)), Discard(("web-1-1",))]


def test_what_was_started_before_a_crash_is_waited_for():
    started = ReplicaView("web-2-1", "web-2", Condition.RUNNING)
    assert next_step(HostView((*old(1), started)), wanted(1)) == Await(("web-2-1",))


def test_a_service_without_a_port_is_never_routed():
    steps = whole_plan(HostView(old(2, routed=False), switched=False), wanted(2))
    assert not any(isinstance(step, Route) for step in steps)


def test_nothing_wanted_leads_nobody_and_retires_all():
    assert whole_plan(HostView(old(2)), Wanted()) == [Route(()), Retire(("web-1-1", "web-1-2"))]


def test_one_host_goes_first():
    assert waves(["a", "b", "c"]) == [("a",), ("b", "c")]
    assert waves(["a"]) == [("a",)]


@given(
    before=st.integers(0, 6),
    after=st.integers(1, 6),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    crashes=st.lists(st.integers(0, 30), max_size=4),
)
def test_the_bounds_hold_at_every_step(before: int, after: int, surge: int, unavailable: int, crashes: list[int]):
    if surge == 0 and unavailable == 0:
        surge = 1
    goal = wanted(after, surge, unavailable)
    view = HostView(old(before))
    floor = min(before, max(0, after - unavailable))
    ceiling = max(before, after + max(surge, 1))
    for turn in range(200):
        if turn in crashes:
            # A new host process knows nothing of health any more.
            view = HostView(tuple(ReplicaView(r.name, r.release, Condition.RUNNING, r.routed) for r in view.replicas))
        step = next_step(view, goal)
        if step is None:
            break
        if isinstance(step, Retire | Discard):
            assert not set(step.names) & view.routed, "removed while users were led to it"
        view = succeed(view, goal, step)
        assert len(view.routed) >= floor
        assert len(view.replicas) <= ceiling
    else:
        raise AssertionError("it does not end")
    assert view.routed == set(goal.names) == {r.name for r in view.replicas}
