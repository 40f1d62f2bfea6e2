"""Whether a stage is tried again, and when a hint is sent again. Pure."""

from __future__ import annotations

HINT_FIRST = 1.5
HINT_LONGEST = 15.0


def tries_again(*, failures: int, retries: int, retryable: bool) -> bool:
    """`failures` counts the one that has just happened."""
    return retryable and failures <= retries


def hint_delay(sent: int) -> float:
    """Seconds to wait for a claim after so many hints, before the next one.

    A hint can be lost with the broker, or wait behind others in its queue: the first repeats quickly, and a
    long queue is not flooded.
    """
    doublings = min(max(0, sent - 1), 16)  # a stage may wait for days, and be hinted at thousands of times
    return float(min(HINT_FIRST * 2**doublings, HINT_LONGEST))
