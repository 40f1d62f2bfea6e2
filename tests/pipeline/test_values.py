"""The small values that files, settings and messages share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline.values import (
    Labels,
    Name,
    did_you_mean,
    format_duration,
    matches_labels,
    parse_duration,
    parse_flag,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("1.5", 1.5), (90, 90), (0.25, 0.25), ("0s", 0), ("1.5s", 1.5), ("250ms", 0.25), ("5m", 300),
        ("2m30s", 150), ("1h", 3600), ("7d", 604800), ("1d2h3m4s5ms", 93784.005), (" 5s ", 5), ("366d", 366 * 86400),
    ],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "5 s",
        "5S",
        "5sec",
        "-5s",
        "5s5m",
        "1e3",
        "inf",
        "nan",
        "367d",
        "9" * 400 + "s",
        True,
        None,
        [],
        "5s\n5s",
        "\N{ARABIC-INDIC DIGIT FIVE}s",
    ],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (4.21, "4.2 s"),
        (59.96, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20), (1048576, 1 << 20), ("64k", 64 << 10), ("256M", 256 << 20), ("256m", 256 << 20),
        ("256MB", 256 << 20), ("256MiB", 256 << 20), ("1.5GiB", 3 << 29), ("1T", 1 << 40), ("10 G", 10 << 30), ("0", 0),
    ],
)  # fmt: skip
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "1e9", "1P", "lots", "9" * 400, 1 << 60, True, None])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_flag):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert value >= 0


def test_flags() -> None:
    assert [parse_flag(value) for value in (True, False, "true", "false")] == [True, False, True, False]
    for value in ("yes", "no", "on", "off", "True", 1, 0, "", None):
        with pytest.raises(ValueError, match="neither true nor false"):
            parse_flag(value)


@pytest.mark.parametrize("name", ["a", "web", "web-1", "a.b_c", "0", "a" * 63])
def test_names(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "a/b", "ü", "a\n", "a" * 64])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


def test_labels() -> None:
    assert TypeAdapter(Labels).validate_python({"role": "web", "Zone/x": "eu_1.a"})
    assert matches_labels({}, {})
    assert matches_labels({"a": "1"}, {"a": "1", "b": "2"})
    assert not matches_labels({"a": "1"}, {"a": "2"})
    assert not matches_labels({"a": "1"}, {})
    for wrong in ({"a b": "c"}, {"a": ""}, {"a": "${b}"}, {"a": 1}):
        with pytest.raises(ValidationError):
            TypeAdapter(Labels).validate_python(wrong)


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("need", ["needs", "run"], 'did you mean "needs"?'),
        ("zzz", ["needs", "run"], "use one of: needs, run"),
        ("zzz", ["needs"], 'use "needs"'),
        ("zzz", [], ""),
    ],
)
def test_near_misses(word: str, known: list[str], said: str) -> None:
    assert did_you_mean(word, known) == said
