"""Stages as columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.models import Kind
from pipeline.run.states import StageState
from pipeline.views import StageView
from server.pages.graph import GAP_X, GAP_Y, NODE_HEIGHT, NODE_WIDTH, lay_out


def stage(name: str, *needs: str) -> StageView:
    return StageView(name=name, base=name, kind=Kind.TEST, position=0, state=StageState.PENDING, needs=needs)


def names(stages: list[StageView]) -> list[list[str]]:
    return [[each.name for each in column] for column in lay_out(stages).columns]


def test_a_chain_is_a_row() -> None:
    stages = [stage("a"), stage("b", "a"), stage("c", "b")]
    assert names(stages) == [["a"], ["b"], ["c"]]
    graph = lay_out(stages)
    assert (graph.width, graph.height) == (3 * NODE_WIDTH + 2 * GAP_X, NODE_HEIGHT)
    assert [edge[1:] for edge in graph.edges] == [("a", "b"), ("b", "c")]


def test_what_needs_several_is_right_of_the_furthest() -> None:
    stages = [stage("a"), stage("b", "a"), stage("lint"), stage("ship", "b", "lint")]
    assert names(stages) == [["a", "lint"], ["b"], ["ship"]]
    assert lay_out(stages).height == 2 * NODE_HEIGHT + GAP_Y


def test_an_edge_leads_from_the_middle_of_one_to_the_middle_of_the_other() -> None:
    graph = lay_out([stage("a"), stage("b", "a"), stage("c", "a")])
    middle = NODE_HEIGHT + GAP_Y / 2
    (first, _, _), (second, _, _) = graph.edges
    assert first.startswith(f"M{NODE_WIDTH} {middle:g} ")
    assert first.endswith(f" {NODE_WIDTH + GAP_X} {NODE_HEIGHT / 2:g}")
    assert second.endswith(f" {NODE_WIDTH + GAP_X} {NODE_HEIGHT + GAP_Y + NODE_HEIGHT / 2:g}")


def test_nothing_is_nothing() -> None:
    graph = lay_out([])
    assert (graph.columns, graph.edges, graph.width, graph.height) == ((), (), 0, 0)


def test_the_style_sheet_has_the_same_sizes() -> None:
    from server.pages.templates import STATIC

    css = (STATIC / "shipway.css").read_text()
    assert f".node {{ width: {NODE_WIDTH}px; height: {NODE_HEIGHT}px;" in css
    assert f"display: flex; gap: {GAP_X}px; align-items: center;" in css
    assert f".column {{ display: grid; gap: {GAP_Y}px;" in css


@given(st.lists(st.sets(st.integers(0, 11), max_size=4), max_size=12))
def test_every_stage_once_and_after_what_it_needs(needs: list[set[int]]) -> None:
    stages = [stage(str(n), *(str(m) for m in sorted(wanted) if m < n)) for n, wanted in enumerate(needs)]
    columns = names(stages)
    at = {name: number for number, column in enumerate(columns) for name in column}
    assert sorted(at) == sorted(each.name for each in stages)
    assert all(at[need] < at[each.name] for each in stages for need in each.needs)
    assert all(columns)
