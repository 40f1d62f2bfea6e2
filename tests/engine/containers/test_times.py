from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.containers.times import ZERO, duration, go_duration, parse_rfc3339, parse_since, rfc3339
from engine.errors import InvalidInput


@given(st.integers(1, 253402300799 * 10**9))
def test_what_is_written_is_read_back(nanoseconds: int) -> None:
    assert parse_rfc3339(rfc3339(nanoseconds)) == nanoseconds


@given(st.lists(st.integers(1, 2**62), min_size=2, max_size=2))
def test_they_sort_as_times_do(pair: list[int]) -> None:
    first, second = pair
    assert (rfc3339(first) < rfc3339(second)) == (first < second)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-05-01T10:00:00Z", 1714557600),
        ("2024-05-01T10:00:00+02:00", 1714550400),
        ("2024-05-01T10:00", 1714557600),
        ("2024-05-01", 1714521600),
        (ZERO, 0),
        ("1960-01-01T00:00:00Z", 0),
    ],
)
def test_dates(text: str, seconds: int) -> None:
    assert parse_rfc3339(text) == seconds * 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 0),
        ("0", 0),
        ("1700000000", 1700000000 * 10**9),
        ("1700000000.000000001", 1700000000 * 10**9 + 1),
        ("10m", (10**6 - 600) * 10**9),
        ("1h1.5s", 10**15 - 3_601_500_000_000),
    ],
)
def test_since(text: str | None, expected: int) -> None:
    assert parse_since(text, at=10**15) == expected


@pytest.mark.parametrize("text", ["yesterday", "-5m", "5 m", "2024-13-01", "99999-01-01", "1e5", "१२", "5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_rfc3339(text)
    if text != "5":
        with pytest.raises(InvalidInput):
            parse_since(text)


def test_durations() -> None:
    assert duration("1m30s") == 90 * 10**9
    assert duration("2ms3us4ns") == 2_003_004
    with pytest.raises(InvalidInput, match="1m30s"):
        duration("1 minute")


@pytest.mark.parametrize("text", ["5ns", "1.5µs", "50ms", "999.999999ms", "1.5s", "30s", "1m30s", "1h0m0s", "2h1m0.5s"])
def test_durations_as_go_writes_them(text: str) -> None:
    assert go_duration(duration(text)) == text
