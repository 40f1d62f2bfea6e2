from __future__ import annotations

import pytest

from engine.build.filematch import PatternError, clean, has_wildcards, match, unescape


# The table of Go's own path/filepath tests.
@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("abc", "abc", True), ("*", "abc", True), ("*c", "abc", True), ("a*", "a", True), ("a*", "abc", True),
        ("a*", "ab/c", False), ("a*/b", "abc/b", True), ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", True), ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False), ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True), ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True), ("ab[b-d]", "abc", True), ("ab[e-g]", "abc", False), ("ab[^c]", "abc", False),
        ("ab[^b-d]", "abc", False), ("ab[^e-g]", "abc", True), (r"a\*b", "a*b", True), (r"a\*b", "ab", False),
        ("a?b", "a☺b", True), ("a[^a]b", "a☺b", True), ("a???b", "a☺b", False),
        ("a[^a][^a][^a]b", "a☺b", False), ("[a-ζ]*", "β", True), ("*[a-ζ]", "A", False),
        ("a?b", "a/b", False), ("a*b", "a/b", False),
        (r"[\]a]", "]", True), (r"[\-]", "-", True), (r"[x\-]", "x", True), (r"[x\-]", "z", False),
        (r"[\-x]", "a", False), ("*x", "xxx", True),
        ("[]a]", "]", None), ("[-]", "-", None), ("[x-]", "x", None), ("[-x]", "x", None), ("\\", "a", None),
        ("[a-b-c]", "a", None), ("[", "a", None), ("[^", "a", None), ("[^bc", "a", None), ("a[", "a", None),
        ("a[", "ab", None), ("a[", "x", None), ("a/b[", "x", None),
    ],
)  # fmt: skip
def test_go_table(pattern: str, name: str, wanted: bool | None) -> None:
    if wanted is None:
        with pytest.raises(PatternError):
            match(pattern, name)
    else:
        assert match(pattern, name) is wanted


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("", "."), ("abc", "abc"), ("abc/", "abc"), ("/", "/"), ("//abc", "/abc"), ("../../abc", "../../abc"),
        ("abc//def", "abc/def"), ("./abc", "abc"), ("/.", "/"), ("abc/def/..", "abc"), ("abc/../..", ".."),
        ("/abc/../../..", "/"), ("abc/../../../def", "../../def"),
    ],
)  # fmt: skip
def test_clean(path: str, wanted: str) -> None:
    assert clean(path) == wanted


def test_wildcards() -> None:
    assert [has_wildcards(path) for path in ("a", "a*", r"a\*", "[a", "a?")] == [
        False,
        True,
        False,
        True,
        True,
    ]
    assert unescape(r"a\*\[b") == "a*[b"
