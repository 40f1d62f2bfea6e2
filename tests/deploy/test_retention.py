from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.retention import TaggedImage, expired


def image(number: int, created: float | None = None, parts: frozenset[str] = frozenset()) -> TaggedImage:
    return TaggedImage(f"sha256:{number}", (f"v{number}",), float(number) if created is None else created, parts)


def gone(*images: TaggedImage, keep: int = 1, held: frozenset[str] = frozenset()) -> list[str]:
    return [each.tags[0] for each in expired(images, keep=keep, held=held)]


def test_the_oldest_go_first():
    assert gone(image(3), image(1), image(2)) == ["v1", "v2"]
    assert gone(image(3), image(1), image(2), keep=2) == ["v1"]
    assert gone(image(3), image(1), image(2), keep=3) == []


def test_what_is_held_stays_and_does_not_count_as_new():
    assert gone(image(1), image(2), image(3), held=frozenset({"sha256:1"})) == ["v2"]


def test_an_image_of_unknown_age_stays():
    unknown = TaggedImage("sha256:9", ("v9",))
    assert gone(unknown, image(1), image(2)) == ["v1"]


def test_what_an_index_that_stays_is_made_of_stays():
    part, inner = image(1), image(2, parts=frozenset({"sha256:1"}))
    assert gone(part, inner, image(3, parts=frozenset({"sha256:2"}))) == []
    assert gone(part, inner, image(3)) == ["v1", "v2"]


def test_keeping_nothing_is_refused():
    with pytest.raises(ValueError, match="at least the newest"):
        expired([], keep=0, held=frozenset())


@given(
    ages=st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=9),
    parts=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=9),
    held=st.sets(st.integers(0, 8)),
    keep=st.integers(1, 4),
)
def test_nothing_that_is_needed_goes(ages: list[int | None], parts: set[tuple[int, int]], held: set[int], keep: int):
    images = [
        TaggedImage(str(n), (str(n),), age, frozenset(str(part) for whole, part in parts if whole == n))
        for n, age in enumerate(ages)
    ]
    names = {str(n) for n in held}
    old = expired(images, keep=keep, held=names)
    stay = [each for each in images if each not in old]
    assert not names & {each.digest for each in old}
    assert not {part for each in stay for part in each.parts} & {each.digest for each in old}
    assert all(each.created is not None for each in old)
    dated = sorted(each.created for each in images if each.created is not None)
    assert not old or len(dated) > keep
    assert all(each.created <= dated[-keep] for each in old)
