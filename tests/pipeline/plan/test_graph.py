from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.graph import ancestors, descendants, find_cycle, in_order

NEEDS = st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefx"), max_size=3))


def test_no_cycle() -> None:
    assert find_cycle({"a": [], "b": ["a"], "c": ["a", "b"]}) == ()


def test_a_cycle_is_told_in_the_order_of_needing() -> None:
    assert find_cycle({"start": ["a"], "a": ["b"], "b": ["c"], "c": ["a"]}) == ("a", "b", "c")


def test_ancestors_know_their_distance() -> None:
    assert ancestors("d", {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "gone"]}) == {"b": 1, "c": 1, "a": 2}


def test_descendants() -> None:
    assert descendants("a", {"a": [], "b": ["a"], "c": ["b"], "d": []}) == {"b", "c"}


def test_order_keeps_what_it_can() -> None:
    assert in_order({"c": ["a"], "b": [], "a": ["b"]}) == ["b", "a", "c"]
    with pytest.raises(ValueError, match="cycle"):
        in_order({"a": ["b"], "b": ["a"]})


def test_a_long_chain() -> None:
    needs = {str(i): [str(i - 1)] for i in range(5000)}
    assert find_cycle(needs) == ()
    assert len(ancestors("4999", needs)) == 4999
    assert len(find_cycle(needs | {"0": ["4999"]})) == 5000


@given(NEEDS)
def test_a_graph_has_a_cycle_or_an_order(needs: dict[str, list[str]]) -> None:
    cycle = find_cycle(needs)
    if cycle:
        assert all(after in needs[name] for name, after in zip(cycle, cycle[1:] + cycle[:1], strict=True))
        with pytest.raises(ValueError, match="cycle"):
            in_order(needs)
        return
    order = in_order(needs)
    assert sorted(order) == sorted(needs)
    place = {name: index for index, name in enumerate(order)}
    assert all(place[need] < place[name] for name in needs for need in needs[name] if need in needs)
    assert all(name in ancestors(other, needs) for name in needs for other in descendants(name, needs))
