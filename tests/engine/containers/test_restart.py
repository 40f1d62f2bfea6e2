from __future__ import annotations

import pytest

from engine.containers.hostconfig import RestartPolicy
from engine.containers.restart import delay, in_a_row, wanted, wanted_at_boot


@pytest.mark.parametrize(
    ("policy", "count", "code", "restarts", "by_user", "expected"),
    [
        ("", 0, 1, 0, False, False),
        ("no", 0, 1, 0, False, False),
        ("always", 0, 0, 99, False, True),
        ("always", 0, 0, 0, True, False),
        ("unless-stopped", 0, 0, 5, False, True),
        ("unless-stopped", 0, 1, 5, True, False),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 0, 1, 1000, False, True),
        ("on-failure", 3, 1, 2, False, True),
        ("on-failure", 3, 1, 3, False, False),
        ("on-failure", 3, 137, 0, True, False),
    ],
)
def test_after_an_end(policy: str, count: int, code: int, restarts: int, by_user: bool, expected: bool) -> None:
    assert wanted(RestartPolicy(policy, count), code, restarts, stopped_by_user=by_user) is expected


@pytest.mark.parametrize(
    ("policy", "by_user", "expected"),
    [("always", True, True), ("unless-stopped", True, False), ("unless-stopped", False, True), ("", False, False)],
)
def test_with_the_engine(policy: str, by_user: bool, expected: bool) -> None:
    assert wanted_at_boot(RestartPolicy(policy), 0, 0, stopped_by_user=by_user) is expected


def test_the_delay_doubles_to_a_minute_and_a_steady_run_resets_it() -> None:
    assert [delay(turn) for turn in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert delay(10) == 60
    assert delay(10**6) == 60
    assert in_a_row(3, 0.5) == 4
    assert in_a_row(3, 10) == 0
