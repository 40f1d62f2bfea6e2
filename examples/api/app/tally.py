"""Counts words."""

from collections import Counter


def tally(text: str) -> dict[str, int]:
    """How often each word stands in `text`, without regard to case."""
    return dict(Counter(text.lower().split()))
