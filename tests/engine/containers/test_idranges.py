from __future__ import annotations

import pytest

from engine.containers.idranges import SIZE, IdRanges, mappings
from engine.errors import SystemFailure
from engine.runtime.spec import IDMapping


def test_ranges_do_not_overlap_and_stay_below_2_31() -> None:
    ranges = IdRanges("fffffffe", set)
    taken = [ranges.take() for _ in range(100)]
    assert len(set(taken)) == 100
    assert all(first % SIZE == 0 and 0 < first < 2**31 - 2 * SIZE for first in taken)


def test_what_a_container_holds_is_not_given_again() -> None:
    held: set[int] = set()
    ranges = IdRanges("0", lambda: held)
    first = ranges.take()
    held.add(first)
    ranges.give_back(first)
    assert first not in {ranges.take() for _ in range(4093)}
    with pytest.raises(SystemFailure, match="userns=host"):
        ranges.take()


def test_what_is_given_back_is_given_again() -> None:
    ranges = IdRanges("0", set)
    taken = [ranges.take() for _ in range(4094)]
    ranges.give_back(taken[7])
    ranges.give_back(taken[7])
    ranges.give_back(0)
    assert ranges.take() == taken[7]


def test_mappings() -> None:
    assert mappings(0) == []
    assert mappings(1 << 30) == [IDMapping(container_id=0, host_id=1 << 30, size=65536)]
