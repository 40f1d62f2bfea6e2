"""Schedules. All times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.triggers.cron import check_cron, next_time, parse


def after(text: str, moment: str, times: int = 1) -> list[str]:
    """The next moments, as `Thu 2026-01-01 03:00`."""
    now, found = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp(), []
    for _ in range(times):
        then = next_time(text, now)
        assert then is not None
        assert then > now
        now = then
        found.append(datetime.fromtimestamp(now, UTC).strftime("%a %Y-%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("text", "moments"),
    [
        ("0 3 * * *", ["Thu 2026-01-01 03:00", "Fri 2026-01-02 03:00"]),
        ("* * * * *", ["Thu 2026-01-01 00:01", "Thu 2026-01-01 00:02"]),
        ("*/20 * * * *", ["Thu 2026-01-01 00:20", "Thu 2026-01-01 00:40", "Thu 2026-01-01 01:00"]),
        (
            "10-12,30 8 * * *",
            ["Thu 2026-01-01 08:10", "Thu 2026-01-01 08:11", "Thu 2026-01-01 08:12", "Thu 2026-01-01 08:30"],
        ),
        ("5/25 0 * * *", ["Thu 2026-01-01 00:05", "Thu 2026-01-01 00:30", "Thu 2026-01-01 00:55"]),
        ("0 9 * * mon-fri", ["Thu 2026-01-01 09:00", "Fri 2026-01-02 09:00", "Mon 2026-01-05 09:00"]),
        ("0 0 * * 0", ["Sun 2026-01-04 00:00"]),
        ("0 0 * * 7", ["Sun 2026-01-04 00:00"]),
        ("0 0 1 * *", ["Sun 2026-02-01 00:00", "Sun 2026-03-01 00:00"]),
        ("0 0 31 * *", ["Sat 2026-01-31 00:00", "Tue 2026-03-31 00:00"]),
        ("0 0 29 2 *", ["Tue 2028-02-29 00:00"]),
        ("0 0 1 JAN,jul *", ["Wed 2026-07-01 00:00", "Fri 2027-01-01 00:00"]),
        ("0 0 1 * mon", ["Mon 2026-01-05 00:00", "Mon 2026-01-12 00:00"]),
        ("0 0 */10 * mon", ["Mon 2026-05-11 00:00"]),
        ("59 23 31 12 *", ["Thu 2026-12-31 23:59", "Fri 2027-12-31 23:59"]),
    ],
)
def test_the_next_times(text: str, moments: list[str]) -> None:
    assert after(text, "2026-01-01T00:00", len(moments)) == moments


def test_a_moment_is_not_its_own_next() -> None:
    assert after("0 3 * * *", "2026-01-01T03:00") == ["Fri 2026-01-02 03:00"]
    assert after("0 3 * * *", "2026-01-01T02:59:59.5") == ["Thu 2026-01-01 03:00"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "is not five fields"),
        ("0 3 * *", "is not five fields"),
        ("0 3 * * * *", "is not five fields"),
        ("@daily", "is not five fields"),
        ("60 * * * *", '"60" does not fit as minute: use 0 to 59'),
        ("* 24 * * *", '"24" does not fit as hour'),
        ("* * 0 * *", '"0" does not fit as day'),
        ("* * * 13 *", '"13" does not fit as month'),
        ("* * * * 8", '"8" does not fit as weekday'),
        ("* * * mon *", '"mon" does not fit as month'),
        ("jan * * * *", '"jan" does not fit as minute'),
        ("5-1 * * * *", '"5-1" does not fit as minute'),
        ("*/0 * * * *", r'"\*/0" does not fit'),
        ("*/99999999999 * * * *", "does not fit"),
        ("1,,2 * * * *", '"" does not fit'),
        ("-1 * * * *", '"-1" does not fit'),
        ("\N{ARABIC-INDIC DIGIT ONE} * * * *", "does not fit"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
    ],
)
def test_what_is_no_schedule(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        check_cron(text)


def test_a_leap_day_comes_even_after_a_century_without_one() -> None:
    assert after("0 0 29 2 *", "2096-03-01T00:00") == ["Fri 2104-02-29 00:00"]


FIELDS = st.tuples(
    st.sampled_from(["*", "*/7", "3", "1-5", "0,59"]),
    st.sampled_from(["*", "*/5", "0", "22-23"]),
    st.sampled_from(["*", "1", "28-31", "*/9"]),
    st.sampled_from(["*", "2", "1,12"]),
    st.sampled_from(["*", "0", "mon-wed", "7"]),
)


@given(FIELDS, st.integers(0, 4_000_000_000))
@settings(max_examples=60, deadline=None)
def test_nothing_that_fits_is_passed_over(fields: tuple[str, ...], now: int) -> None:
    text = " ".join(fields)
    schedule, then = parse(text), next_time(text, float(now))
    assert then is not None
    moment = datetime.fromtimestamp(now, UTC).replace(second=0) + timedelta(minutes=1)
    found = datetime.fromtimestamp(then, UTC)
    for _ in range(3000):
        fits = schedule.on(moment) and moment.hour in schedule.hours and moment.minute in schedule.minutes
        assert fits == (moment == found)
        if fits:
            break
        moment += timedelta(minutes=1)
