from __future__ import annotations

import pytest

from engine.containers.health import command, judge, wanted
from engine.containers.model import Health, HealthConfig, HealthResult


@pytest.mark.parametrize(
    ("test", "shell", "expected"),
    [
        (["CMD", "a", "b c"], None, ["a", "b c"]),
        (["CMD-SHELL", "a && b"], None, ["/bin/sh", "-c", "a && b"]),
        (["CMD-SHELL", "a"], ["/bin/bash", "-ec"], ["/bin/bash", "-ec", "a"]),
    ],
)
def test_commands(test: list[str], shell: list[str] | None, expected: list[str]) -> None:
    assert command(HealthConfig(test=test), shell) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, False),
        (HealthConfig(), False),
        (HealthConfig(test=["NONE"]), False),
        (HealthConfig(test=["CMD", "x"]), True),
    ],
)
def test_who_is_asked(config: HealthConfig | None, expected: bool) -> None:
    assert wanted(config) is expected


def judged(health: Health, codes: str, *, starting: bool = False) -> str:
    """The status after each code, by its first letter."""
    statuses = ""
    for code in codes:
        result = HealthResult(start="", end="", exit_code=int(code), output=code)
        statuses += judge(health, result, 2, starting=starting)[0]
    return statuses


@pytest.mark.parametrize(
    ("codes", "statuses"), [("1", "s"), ("11", "su"), ("110", "suh"), ("0101", "hhhh"), ("011011", "hhuhhu")]
)
def test_so_many_failures_in_a_row(codes: str, statuses: str) -> None:
    assert judged(Health(), codes) == statuses


def test_failures_while_starting_do_not_count_but_success_does() -> None:
    health = Health()
    assert judged(health, "1111", starting=True) == "ssss"
    assert health.failing_streak == 0
    assert judged(health, "011", starting=True) == "hhu"


def test_the_last_five_results_are_kept() -> None:
    health = Health()
    judged(health, "0101010")
    assert [result.output for result in health.log] == list("01010")
