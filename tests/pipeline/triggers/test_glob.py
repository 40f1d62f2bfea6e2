"""Patterns of branches and paths."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.triggers.glob import glob


@pytest.mark.parametrize(
    ("pattern", "fits", "not_so"),
    [
        ("main", ["main"], ["mainline", "Main", "", "x/main"]),
        ("*", ["main", "a.b", ""], ["a/b"]),
        ("**", ["main", "a/b/c", ""], []),
        ("release-*", ["release-1", "release-"], ["release", "release-1/2", "my-release-1"]),
        ("feature/*", ["feature/x"], ["feature", "feature/x/y"]),
        ("feature/**", ["feature/x", "feature/x/y"], ["feature", "features/x"]),
        ("**/*.py", ["a.py", "a/b.py", "a/b/c.py"], ["a.pyc", "a/py"]),
        ("app/**/test_*.py", ["app/test_a.py", "app/x/y/test_a.py"], ["test_a.py", "apptest_a.py", "app/x/a.py"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["yx", "a/yx", "x/y"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["a/xb", "ab", "a/x"]),
        ("**.js", ["a.js", "a/b.js"], ["a.jsx"]),
        ("a**b", ["ab", "a/b", "axxb", "a/x/b"], ["a/bc"]),
        ("v?.?", ["v1.2"], ["v1.", "v/.2", "v12.3"]),
        ("v[0-9]*", ["v1", "v1.2"], ["vx"]),
        ("[!.]*", ["a"], [".a", "/"]),
        ("[a-cx]", ["b", "x"], ["d", "-"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[z-a]", [], ["z", "a", "m"]),
        ("[x", ["[x"], ["x"]),
        ("a.b+c(d)|e^$", ["a.b+c(d)|e^$"], ["aXb+c(d)|e^$"]),
        ("", [""], ["a"]),
        ("ü*", ["ü", "über"], ["u"]),
        ("a\nb", ["a\nb"], ["a"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], not_so: list[str]) -> None:
    assert [name for name in [*fits, *not_so] if glob(pattern).fits(name)] == fits


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("*a" * 40 + "b", "a" * 4000), ("**/" * 60 + "x", "/".join("a" * 200)), ("**/a/" * 30 + "b", "a/" * 500)],
)
def test_no_pattern_takes_for_ever(pattern: str, name: str) -> None:
    began = time.monotonic()
    assert not glob(pattern).fits(name)
    assert time.monotonic() - began < 10


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_without_a_slash_it_is_as_in_the_shell(pattern: str, name: str) -> None:
    assert glob(pattern).fits(name) == fnmatch.fnmatchcase(name, pattern)


@given(st.text(alphabet="a/*?[]!-", max_size=10), st.text(alphabet="a/", max_size=8))
def test_any_pattern_answers(pattern: str, name: str) -> None:
    assert glob(pattern).fits(name) in (True, False)
    assert glob("**").fits(name)
