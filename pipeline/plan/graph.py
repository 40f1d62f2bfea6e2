"""Stages and what they need, as a graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

Needs = Mapping[str, Iterable[str]]


def find_cycle(needs: Needs) -> tuple[str, ...]:
    """One cycle, in the order of needing; () when there is none. Names that are not keys are passed over."""
    state: dict[str, int] = {}
    for root in needs:
        stack: list[tuple[str, list[str]]] = [(root, [])]
        trail: list[str] = []
        if root in state:
            continue
        state[root] = 1
        trail.append(root)
        stack = [(root, [need for need in needs[root] if need in needs])]
        while stack:
            name, rest = stack[-1]
            if not rest:
                state[name] = 2
                stack.pop()
                trail.pop()
                continue
            need = rest.pop(0)
            if state.get(need) == 1:
                return tuple(trail[trail.index(need) :])
            if need not in state:
                state[need] = 1
                trail.append(need)
                stack.append((need, [each for each in needs[need] if each in needs]))
    return ()


def ancestors(name: str, needs: Needs) -> dict[str, int]:
    """All stages that come before one, with their distance."""
    found: dict[str, int] = {}
    queue = deque((need, 1) for need in needs.get(name, ()))
    while queue:
        each, distance = queue.popleft()
        if each in found or each not in needs:
            continue
        found[each] = distance
        queue.extend((need, distance + 1) for need in needs[each])
    return found


def descendants(name: str, needs: Needs) -> set[str]:
    """All stages that come after one."""
    return {each for each in needs if name in ancestors(each, needs)}


def in_order(needs: Needs) -> list[str]:
    """Each after what it needs; otherwise as they stand. The graph has no cycle."""
    done: dict[str, None] = {}
    waiting = list(needs)
    while waiting:
        left = [name for name in waiting if not all(need in done for need in needs[name] if need in needs)]
        done.update(dict.fromkeys(name for name in waiting if name not in left))
        if len(left) == len(waiting):
            raise ValueError("the graph has a cycle")
        waiting = left
    return list(done)
