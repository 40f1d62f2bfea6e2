"""Names of the queues that hints travel in, and which of them a worker listens to.

- `any`: stages that ask for no label;
- `label.role.web`: stages that ask for that label; for several, all in one name: `label.arch.arm+role.web`.
  A worker listens to every combination of its own labels, so a hint never reaches a worker that can't do it;
- `host.<name>`: stages bound to one worker, because an image is only there;
- `steps.<name>`: host steps of rollouts, taken by the host's agent beside the stages, so that a coordinator
  that fills its worker's last slot never waits for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

ANY = "any"
MAX_ASKED = 4
"""Labels that one stage can ask for at once."""
_MAX_QUEUES = 256


class QueueError(ValueError):
    """More labels than queues can be made for."""


def host_queue(worker: str) -> str:
    return f"host.{worker}"


def steps_queue(worker: str) -> str:
    return f"steps.{worker}"


def stage_queue(labels: Mapping[str, str], near: str | None = None) -> str:
    """Where the hint for a stage goes: to the worker `near` if given, else to any that has all `labels`."""
    if near is not None:
        return host_queue(near)
    if not labels:
        return ANY
    if len(labels) > MAX_ASKED:
        raise QueueError(f"a stage can ask for at most {MAX_ASKED} labels, not {len(labels)}")
    return "label." + "+".join(f"{key}.{labels[key]}" for key in sorted(labels))


def stage_queues(worker: str, labels: Mapping[str, str]) -> list[str]:
    """The queues a worker takes stages from, the most special first."""
    names = [host_queue(worker)]
    for count in range(min(MAX_ASKED, len(labels)), 0, -1):
        names += [stage_queue(dict(chosen)) for chosen in combinations(sorted(labels.items()), count)]
    if len(names) > _MAX_QUEUES:
        raise QueueError(f"{len(labels)} labels make {len(names)} queues: give the worker fewer labels")
    return [*names, ANY]
