"""Follows a run on the server until it ends: a line a stage, its error, and the run's exit code."""

from __future__ import annotations

import time
from typing import Any

import click

from cli.api import Api
from cli.errors import CommandError
from pipeline.values import format_duration

ENDED = frozenset({"passed", "failed", "cancelled", "lost"})
_STAGE_ENDED = ENDED | {"skipped"}
_POLL = 0.2


def follow_run(api: Api, run: int, *, quiet: bool = False) -> dict[str, Any]:
    """Prints each stage as it begins and ends. Raises CommandError when the run did not pass."""
    told: dict[str, str] = {}
    while True:
        state: dict[str, Any] = api.get(f"/runs/{run}")
        if not quiet:
            for stage in state["stages"]:
                _tell(stage, told)
        if state["state"] in ENDED:
            break
        time.sleep(_POLL)
    if state["state"] != "passed":
        raise CommandError(f"run {run} {state['state']}: `shipway run-show {run}` tells more")
    return state


def _tell(stage: dict[str, Any], told: dict[str, str]) -> None:
    name, state = stage["name"], stage["state"]
    if told.get(name) == state or state not in _STAGE_ENDED | {"running", "waiting"}:
        return
    told[name] = state
    took = stage.get("duration")
    suffix = f" in {format_duration(took)}" if took is not None and state in ENDED else ""
    click.echo(f"{name:<16} {state}{suffix}")
    if stage["reason"]:
        click.echo(f"{'':<16} {stage['reason']}")
