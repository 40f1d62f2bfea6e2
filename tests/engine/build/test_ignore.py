from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.build.ignore import IgnoreRules, _Automaton, _tokens, read_patterns
from engine.build.problems import DockerfileError


def test_reading() -> None:
    source = b"\xef\xbb\xbf# comment\n\n  /a/b/ \n!/c/../d\n ! x \n./e//f\n #odd\n/\r\n"
    assert read_patterns(source) == ("a/b", "!d", "!x", "e/f", "#odd", "/")


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        (["**"], "file", True),
        (["**/"], "dir/file", True),
        (["**/**"], "dir/file", True),
        (["dir/**"], "dir/dir2/file", True),
        (["dir/**"], "dir", False),
        (["**/file"], "file", True),
        (["**/file"], "dir/dir/file", True),
        (["**/file"], "dir/dir/xfile", False),
        (["**file"], "dir/xfile", True),
        (["**/dir2/*"], "dir/dir2/file", True),
        (["**/dir2/*"], "dir/dir2/dir2/f", True),
        (["**/dir2/**"], "dir/dir2/dir2/f", True),
        (["a**b"], "ab", True),
        (["a**b"], "ax/b", True),
        (["a**b"], "axb", False),
        (["*.txt"], "dir/a.txt", False),
        (["*/*.txt"], "dir/a.txt", True),
        (["a?c"], "abc", True),
        (["a?c"], "a/c", False),
        (["a[b-d]e"], "ace", True),
        (["a[^b-d]e"], "aze", True),
        (["a[^b-d]e"], "ace", False),
        (["a[]-]e"], "a", None),
        (["[a"], "a", None),
        (["a\\"], "a", None),
        (["!"], "a", None),
        ([r"a\*b"], "a*b", True),
        ([r"a\*b"], "axb", False),
        (["a.b"], "axb", False),
        (["a+b(c)|{d}$"], "a+b(c)|{d}$", True),
        (["dir"], "dir/sub/file", True),
        (["dir", "!dir/sub"], "dir/sub/file", False),
        (["dir", "!dir/sub"], "dir/other", True),
        (["*", "!keep", "keep/not"], "keep/not/x", True),
        (["*", "!**/*.go"], "a/b/c.go", False),
        (["*", "!a"], "b", True),
        (["a", "!a", "a"], "a", True),
        (["", " "], "a", False),
    ],
)
def test_verdicts(patterns: list[str], path: str, ignored: bool | None) -> None:
    if ignored is None:
        with pytest.raises(DockerfileError, match=r"\.dockerignore"):
            IgnoreRules(patterns)
        return
    assert IgnoreRules(patterns).matches(path) is ignored


PIECES = st.text(alphabet="ab/*?!.", min_size=1, max_size=8)
PATHS = st.lists(
    st.text(alphabet="ab.", min_size=1, max_size=3).filter(lambda part: part not in (".", "..")),
    min_size=1,
    max_size=4,
)


@given(PIECES, PATHS)
def test_walking_down_agrees_with_asking_at_once(pattern: str, parts: list[str]) -> None:
    try:
        rules = IgnoreRules([pattern])
    except DockerfileError:
        return
    state: tuple[bool, ...] = ()
    for depth in range(1, len(parts) + 1):
        verdict, state = rules.verdict("/".join(parts[:depth]), state)
        assert verdict == rules.matches("/".join(parts[:depth]))


@given(st.text(alphabet="ab/*?", min_size=1, max_size=6), st.text(alphabet="ab/", max_size=8))
def test_both_ways_of_matching_agree(pattern: str, path: str) -> None:
    tokens = _tokens(pattern)
    assert _Automaton(tokens)(path) == bool(re.fullmatch("".join(tokens), path))


def test_hostile_patterns_cost_little() -> None:
    started = time.perf_counter()
    assert not IgnoreRules(["a*" * 30 + "b", "**/a*" * 20 + "b"]).matches("/".join(["a" * 60] * 4))
    assert time.perf_counter() - started < 1
