from __future__ import annotations

import pytest

from deploy.plan import Await, Condition, Discard, HostView, ReplicaView, Retire, Route, Start, Step, Wanted, whole_plan
from deploy.strategies.rolling import next_step
from tests.deploy.test_plan import wanted


def replica(name: str, condition: Condition = Condition.RUNNING, *, routed: bool = True) -> ReplicaView:
    return ReplicaView(name, name.rpartition("-")[0], condition, routed)


def view(*replicas: ReplicaView) -> HostView:
    return HostView(replicas)


def shortened(steps: list[Step]) -> list[str]:
    return [f"{type(step).__name__} {' '.join(name.removeprefix('web-') for name in step.names)}" for step in steps]


def olds(count: int) -> tuple[ReplicaView, ...]:
    return tuple(replica(f"web-1-{n}") for n in range(1, count + 1))


@pytest.mark.parametrize(
    ("before", "goal", "steps"),
    [
        (olds(1), wanted(1), ["Start 2-1", "Route 2-1", "Retire 1-1"]),
        (olds(3), wanted(3, surge=3), ["Start 2-1 2-2 2-3", "Route 2-1 2-2 2-3", "Retire 1-1 1-2 1-3"]),
        (
                olds(3),
                wanted(1),
                ["Route 1-3", "Retire 1-1 1-2", "Start 2-1", "Route 2-1", "Retire 1-3"],
            ),
        (olds(1), wanted(3), ["Start 2-1 2-2 2-3", "Route 2-1 2-2 2-3", "Retire 1-1"]),
        (
            olds(3),
            wanted(3, surge=0, unavailable=2),
            [
                "Route 1-3", "Retire 1-1 1-2", "Start 2-1 2-2",
                "Route 2-1 2-2", "Retire 1-3", "Start 2-3", "Route 2-1 2-2 2-3",
            ],
        ),
    ],
    ids=["one", "all at once", "fewer", "more", "room is made first"],
)  # fmt: skip
def test_the_way_from_one_release_to_the_next(before: tuple[ReplicaView, ...], goal: Wanted, steps: list[str]):
    assert shortened(whole_plan(view(*before), goal)) == steps


def test_an_unhealthy_old_replica_is_unrouted_and_goes_before_anything_starts():
    sick = replica("web-1-1", Condition.UNHEALTHY)
    assert next_step(view(sick, replica("web-1-2")), wanted(2)) == Route(("web-1-2",))
    unrouted = replica("web-1-1", Condition.UNHEALTHY, routed=False)
    assert next_step(view(unrouted, replica("web-1-2")), wanted(2)) == Discard(("web-1-1",))


def test_a_new_replica_that_is_not_healthy_yet_is_waited_for():
    for condition in (Condition.RUNNING, Condition.UNHEALTHY):
        new = replica("web-2-1", condition, routed=False)
        assert next_step(view(*olds(1), new), wanted(1)) == Await(("web-2-1",))


def test_a_new_replica_that_ended_makes_place_for_another_try():
    ended = replica("web-2-1", Condition.STOPPED, routed=False)
    assert shortened(whole_plan(view(*olds(1), ended), wanted(1))) == [
        "Discard 2-1", "Start 2-1", "Route 2-1", "Retire 1-1"
    ]  # fmt: skip


def test_old_ones_that_nobody_is_led_to_are_retired_first():
    """A host that was killed between a switch and the stop."""
    left = replica("web-1-1", routed=False)
    new = replica("web-2-1", Condition.HEALTHY)
    assert next_step(view(left, new), wanted(1)) == Retire(("web-1-1",))


def test_a_replica_of_the_release_beyond_the_number_wanted_goes():
    three = tuple(replica(f"web-2-{n}", Condition.HEALTHY) for n in (1, 2, 3))
    assert shortened(whole_plan(view(*three), wanted(2))) == ["Route 2-1 2-2", "Retire 2-3"]


def test_the_new_release_is_named_first_and_each_group_by_name():
    """So that equal sets give equal firewall rules."""
    step = next_step(view(replica("web-1-2"), replica("web-1-1"), replica("web-2-1", Condition.HEALTHY)), wanted(3, 3))
    assert step == Start(("web-2-2", "web-2-3"))
    new = replica("web-2-1", Condition.HEALTHY, routed=False)
    assert next_step(view(replica("web-1-2"), new, replica("web-1-1")), wanted(3, 3)) == Route(
        ("web-2-1", "web-1-1", "web-1-2")
    )
