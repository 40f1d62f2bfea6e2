"""Small things about Linux processes."""

from __future__ import annotations

import ctypes

_PR_SET_PDEATHSIG = 1


def end_with_parent(signal_number: int) -> None:
    """The kernel sends this process the signal when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
