from __future__ import annotations

import pytest

from pipeline.run.retries import HINT_FIRST, HINT_LONGEST, hint_delay, tries_again


@pytest.mark.parametrize(
    ("failures", "retries", "retryable", "again"),
    [(1, 0, True, False), (1, 1, True, True), (2, 1, True, False), (1, 5, False, False)],
)
def test_tries(failures: int, retries: int, retryable: bool, again: bool) -> None:
    assert tries_again(failures=failures, retries=retries, retryable=retryable) is again


def test_hints_become_rarer_but_never_end() -> None:
    delays = [hint_delay(sent) for sent in range(2000)]
    assert delays[:2] == [HINT_FIRST, HINT_FIRST]
    assert delays == sorted(delays)
    assert delays[-1] == HINT_LONGEST
