"""`${…}` in text, and conditions."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.expressions import (
    MAX_EXPRESSION,
    ExpressionError,
    Value,
    escape,
    evaluate,
    names_in,
    parse_when,
    references,
    substitute,
    unescape,
)

VALUES: dict[tuple[str, ...], Value] = {
    ("git", "branch"): "main",
    ("git", "tag"): "",
    ("params", "count"): 3,
    ("params", "ratio"): 0.5,
    ("params", "deep"): True,
    ("params", "none"): None,
}


def value_of(text: str) -> Any:
    return evaluate(parse_when(text), lambda path, _: VALUES[path])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('git.branch == "main"', True),
        ("git.branch == 'main'", True),
        ('git.branch != "main"', False),
        ("git.tag", False),
        ("not git.tag", True),
        ("not not git.branch", True),
        ("git.branch and git.tag", False),
        ("git.branch or git.tag", True),
        ('git.tag or git.branch == "next" or git.branch == "main"', True),
        ('not (git.branch == "main" and git.tag)', True),
        ('not git.branch == "next"', True),
        ('git.branch in ["main", "next"]', True),
        ("git.branch in []", False),
        ('git.branch in ["next",]', False),
        ('git.branch matches "m*"', True),
        ('git.branch matches "[!m]*"', False),
        ('params.count matches "3"', True),
        ("params.count == 3", True),
        ("params.count == 3.0", True),
        ("params.count >= 3 and params.count < 4", True),
        ("params.ratio > 0.4", True),
        ("params.ratio <= -1", False),
        ("params.deep == true", True),
        ("params.deep == false", False),
        ("params.none == ''", True),
        ('"b" > "a"', True),
        ("[1, 2] == [1, 2]", True),
        ("1 in [1]", True),
        ("[1] in [[1]]", True),
        ("true", True),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    assert bool(value_of(text)) is expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('git.branch == "1" and params.count == "3"', '"3" and "3" are of different types'),
        ("git.branch < 3", '"main" and "3" are of different types'),
        ("params.deep == 1", '"true" and "1" are of different types'),
        ("[1] < [2]", "a list is neither smaller nor larger"),
        ("[1] == 1", 'a list and "1" are of different types'),
        ("git.branch in 3", "in needs a list"),
        ('git.branch in "main"', "in needs a list"),
        ("git.branch matches 3", "matches needs a pattern"),
        ('[1] matches "1"', "matches needs a pattern"),
    ],
)
def test_what_can_not_be_compared(text: str, error: str) -> None:
    VALUES[("git", "branch")] = "1" if error.startswith('"3" and') else "main"
    try:
        with pytest.raises(ExpressionError, match=error):
            value_of(text)
    finally:
        VALUES[("git", "branch")] = "main"


def test_the_second_half_of_a_condition_is_not_looked_at_in_vain() -> None:
    asked = []

    def lookup(path: tuple[str, ...], _: int) -> Value:
        asked.append(path[0])
        return path[0] == "yes"

    assert evaluate(parse_when("no.x and yes.x"), lookup) is False
    assert evaluate(parse_when("yes.x or no.x"), lookup) is True
    assert asked == ["no", "yes"]


@pytest.mark.parametrize(
    ("text", "offset"),
    [("", 0), ("a.b ==", 6), ("a.b = 1", 4), ("(a.b", 4), ("a.b b.c", 4), ("and", 0), ("a.b in [1 2]", 10), ("[", 1)],
)
def test_what_is_no_condition_says_where(text: str, offset: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_when(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    "text", ["(" * 500, "[" * 1900, "not " * 400, "(" * 40 + "a.b" + ")" * 40, "[[" * 20 + "]]" * 20]
)
def test_a_condition_has_its_depth(text: str) -> None:
    with pytest.raises(ExpressionError, match="nested too deeply"):
        parse_when(text)


def test_a_condition_has_its_length() -> None:
    long = "or ".join(["a.b "] * (MAX_EXPRESSION // 7))
    assert evaluate(parse_when(long), lambda *_: False) is False
    assert len(list(names_in(parse_when(long)))) == MAX_EXPRESSION // 7
    with pytest.raises(ExpressionError, match="too long"):
        parse_when(long + "or a.b" * 10)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nothing", []),
        ("${a.b}", ["a.b"]),
        ("x${a.b}y${c.d-e_f.1}", ["a.b", "c.d-e_f.1"]),
        ("${ a.b }", ["a.b"]),
        ("$${a.b} $ {a.b} $$ $a", []),
        ("$$${a.b}", []),
        ("$${${a.b}", ["a.b"]),
    ],
)
def test_references(text: str, found: list[str]) -> None:
    assert [".".join(each.path) for each in references(text)] == found


@pytest.mark.parametrize(
    "text", ["${", "${a.b", "${}", "${a}", "${a..b}", "${.a}", "${a.b.}", "${a b.c}", "${a.b:-c}", "${a.${b.c}}"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ExpressionError):
        list(references(text))


TEXT = st.text(alphabet=st.sampled_from("ab.${}$ -\n"), max_size=40)


@given(st.lists(TEXT, max_size=3))
@settings(deadline=None)
def test_a_value_is_never_read_again(values: list[str]) -> None:
    """Whatever values hold, and whatever stands beside them, they come out as they are after both passes."""
    texts = iter(values)
    once = substitute("${a.b}".join(["{", *["{c.d}"] * len(values)]), lambda _: escape(next(texts)))
    assert list(references(once)) == []
    assert unescape(substitute(once, lambda _: "never")) == "{" + "".join(value + "{c.d}" for value in values)


@given(st.text(alphabet=st.sampled_from("abn.t=!<>()[],\"' 0123orid"), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_condition_is_read_or_refused(text: str) -> None:
    with suppress(ExpressionError):
        bool(evaluate(parse_when(text), lambda *_: "x"))
