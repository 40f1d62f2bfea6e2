from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.build.expand import ExpansionError, Rules, expand, read, split

VARIABLES = {"file": "a.tar.gz", "path": "/usr/local/lib", "empty": "", "star": "x*y", "words": "one two"}


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("${file%.*}", "a.tar"),
        ("${file%%.*}", "a"),
        ("${file#*.}", "tar.gz"),
        ("${file##*.}", "gz"),
        ("${path##*/}", "lib"),
        ("${path%/*}", "/usr/local"),
        ("${path#/usr}", "/local/lib"),
        ("${file%nothing}", "a.tar.gz"),
        (r"${star%\*y}", "x"),
        (r"${star#?\*}", "y"),
        ("${file/a/b}", "b.tar.gz"),
        ("${path/l/L}", "/usr/Local/lib"),
        ("${path//l/L}", "/usr/LocaL/Lib"),
        (r"${path//\//-}", "-usr-local-lib"),
        ("${file//*/x}", "x"),
        ("${file//t?r/X}", "a.X.gz"),
        ("${none/a/b}", ""),
        ("${empty-default}", ""),
        ("${empty:-default}", "default"),
        ("${none-default}", "default"),
        ("${empty+set}", "set"),
        ("${empty:+set}", ""),
        ("${file:-${none}}", "a.tar.gz"),
        ("$file$empty$", "a.tar.gz$"),
        ("'$file'", "$file"),
        ('"a\\"b\\c"', 'a"b\\c'),
    ],
)
def test_forms(word: str, wanted: str) -> None:
    assert expand(word, VARIABLES) == wanted


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${none?}", "none: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${none:?say why}", "none: say why"),
        ("${file!x}", "unsupported modifier (!)"),
        ("${file:#x}", "unsupported modifier (:#)"),
        ("${file/x}", "missing '/'"),
        ("${file%\\x}", "invalid escape"),
        ("${file", "missing '}'"),
        ("${" * 200, "unsupported modifier ({)"),
        ("${a:-" * 200, "nested more than"),
    ],
)
def test_refusals(word: str, message: str) -> None:
    with pytest.raises(ExpansionError) as refused:
        expand(word, VARIABLES)
    assert message in str(refused.value)


def test_dollars_in_a_replacement_of_every_match_name_groups() -> None:
    variables = {"file": "a.b.c", "name": "$x", "two": "$$"}
    assert expand("${file//./$name}", variables) == "abc"
    assert expand("${file//./$two}", variables) == "a$b$c"
    assert expand("${file/./$name}", variables) == "a$xb.c"


def test_words_are_split_after_expansion_unless_quoted() -> None:
    assert split('a $words "$words" ${none} ""', VARIABLES) == ("a", "one", "two", "one two")


def test_backtick_as_escape_leaves_backslashes_alone() -> None:
    assert expand("c:\\a`$file", VARIABLES, Rules(escape="`")) == "c:\\a$file"


def test_heredoc_bodies_keep_quotes() -> None:
    assert expand("'$file' \"x\"", VARIABLES, Rules(plain_quotes=True)) == "'a.tar.gz' \"x\""


def test_names_used_and_unknown_are_told() -> None:
    found = read("$file ${none:-x} $empty", VARIABLES)
    assert found.used == {"file", "empty"}
    assert found.unknown == {"none"}


@given(st.text(max_size=60), st.dictionaries(st.sampled_from(["a", "b", "C_1"]), st.text(max_size=8)))
def test_any_word_expands_or_is_refused(word: str, variables: dict[str, str]) -> None:
    with contextlib.suppress(ExpansionError):
        expand(word, variables)
        split(word, variables)


@given(st.text(alphabet="ab$ {}:-+?#%/\\'\"*", max_size=40))
def test_any_word_of_signs_expands_or_is_refused(word: str) -> None:
    with contextlib.suppress(ExpansionError):
        expand(word, {"a": "ab/a", "b": ""})


@given(st.text(alphabet=st.characters(blacklist_characters="$'\"\\<", blacklist_categories=["Cs"])))
def test_plain_text_stays(word: str) -> None:
    assert expand(word, {}) == word
