"""Restart policies. Pure."""

from __future__ import annotations

from engine.containers.hostconfig import RestartPolicy

_FIRST, _LONGEST = 0.1, 60.0
_STEADY = 10.0
"""A container that ran this many seconds counts as started well: its delay begins anew."""


def wanted(policy: RestartPolicy, exit_code: int, restarts: int, *, stopped_by_user: bool) -> bool:
    """Whether a container that just ended is to be started again."""
    if stopped_by_user:
        return False
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure":
        return exit_code != 0 and (not policy.maximum_retry_count or restarts < policy.maximum_retry_count)
    return False


def wanted_at_boot(policy: RestartPolicy, exit_code: int, restarts: int, *, stopped_by_user: bool) -> bool:
    """Whether a container that does not run is to be started with the engine. `always` forgives a stop."""
    if policy.name == "always":
        return True
    return wanted(policy, exit_code, restarts, stopped_by_user=stopped_by_user)


def delay(in_a_row: int) -> float:
    """Seconds to wait before the next start: doubled each time, from a tenth of a second to a minute."""
    return float(min(_FIRST * 2 ** min(in_a_row, 32), _LONGEST))


def in_a_row(before: int, ran_for: float) -> int:
    """How many starts have failed in a row, now that one more has ended after `ran_for` seconds."""
    return 0 if ran_for >= _STEADY else before + 1
