"""A run's stages laid out as columns, each stage to the right of all that it needs. Pure; sizes in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.views import StageView

NODE_WIDTH = 196
NODE_HEIGHT = 60
GAP_X = 44
GAP_Y = 14
"""The style sheet has the same four."""


@dataclass(frozen=True)
class Graph:
    columns: tuple[tuple[StageView, ...], ...]
    edges: tuple[tuple[str, str, str], ...]
    """(path of the SVG line, from, to)"""
    width: int
    height: int


def lay_out(stages: Sequence[StageView]) -> Graph:
    """Columns in order; each is centred, and stages keep the file's order in it."""
    depth: dict[str, int] = {}
    for stage in stages:  # a stage comes after what it needs
        depth[stage.name] = 1 + max((depth[need] for need in stage.needs if need in depth), default=-1)
    columns = tuple(
        tuple(stage for stage in stages if depth[stage.name] == level)
        for level in range(max(depth.values(), default=-1) + 1)
    )
    tallest = max((len(column) for column in columns), default=0)
    height = _height(tallest)
    middles = {
        stage.name: (height - _height(len(column))) / 2 + row * (NODE_HEIGHT + GAP_Y) + NODE_HEIGHT / 2
        for column in columns
        for row, stage in enumerate(column)
    }
    edges = tuple(
        (_path(depth[need], middles[need], depth[stage.name], middles[stage.name]), need, stage.name)
        for stage in stages
        for need in stage.needs
        if need in depth
    )
    width = len(columns) * (NODE_WIDTH + GAP_X) - GAP_X if columns else 0
    return Graph(columns, edges, width, height)


def _height(nodes: int) -> int:
    return nodes * (NODE_HEIGHT + GAP_Y) - GAP_Y if nodes else 0


def _path(from_column: int, from_y: float, to_column: int, to_y: float) -> str:
    x1 = from_column * (NODE_WIDTH + GAP_X) + NODE_WIDTH
    x2 = to_column * (NODE_WIDTH + GAP_X)
    bend = x2 - GAP_X / 2
    return f"M{x1} {from_y:g} H{x2 - GAP_X:g} C{bend:g} {from_y:g} {bend:g} {to_y:g} {x2} {to_y:g}"
