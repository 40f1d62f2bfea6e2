from __future__ import annotations

import pytest

from engine.api import filters
from engine.errors import InvalidInput


def test_both_forms() -> None:
    assert filters.parse('{"status":["running","exited"]}') == {"status": ["running", "exited"]}
    assert filters.parse('{"label":{"a=b":true,"c":false}}') == {"label": ["a=b"]}
    assert filters.parse("") == {}
    for wrong in ("[]", "{", '{"a":1}', '{"a":[1]}'):
        with pytest.raises(InvalidInput):
            filters.parse(wrong)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidInput, match="invalid filter 'colour'"):
        filters.check({"colour": ["red"]}, {"label"})


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("busybox", "busybox", True),
        ("busy*", "busybox", True),
        ("*", "team/app", False),
        ("team/*", "team/app", True),
        ("b?sybox:[0-9]", "busybox:1", True),
        ("a.b", "axb", False),
        ("[", "[", True),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert filters.path_match(pattern, name) is fits
