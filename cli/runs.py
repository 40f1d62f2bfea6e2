"""`shipway runs`, `run-show`, `logs`, `retry`, `cancel`, `approve`."""

from __future__ import annotations

from typing import Any

import click

from cli.api import Api, me
from cli.errors import UsageError
from cli.follow import follow_run
from cli.options import stage_of
from cli.output import ago, json_option, print_json, print_table, span
from pipeline.values import format_duration


@click.command()
@click.option("--limit", "-n", default=20, show_default=True, type=click.IntRange(1, 500))
@json_option
def runs(limit: int, as_json: bool) -> None:
    """The newest runs.

    Example: shipway runs -n 5
    """
    answer = Api().get("/runs", limit=limit)
    if as_json:
        print_json(answer)
        return
    print_table(
        ["RUN", "PIPELINE", "STATE", "BRANCH", "COMMIT", "TOOK", "CREATED", "MESSAGE"],
        [
            (
                run["id"],
                run["pipeline"],
                run["state"],
                run["branch"],
                run["sha"][:12],
                span(run["started"], run["finished"]),
                ago(run["created"]),
                (run["message"] or run["title"]).partition("\n")[0][:60],
            )
            for run in answer["runs"]
        ],
    )


@click.command("run-show")
@click.argument("run", type=int)
@json_option
def run_show(run: int, as_json: bool) -> None:
    """The stages of a run: state, time, attempts and why one failed.

    Example: shipway run-show 12
    """
    state = Api().get(f"/runs/{run}")
    if as_json:
        print_json(state)
        return
    click.echo(f"run {run} of {state['pipeline']}: {state['state']}  {state['sha'][:12]}  {state['message']}")
    print_table(
        ["STAGE", "KIND", "STATE", "TOOK", "ATTEMPTS", "WORKER", "WHY"],
        [
            (
                stage["name"],
                stage["kind"],
                stage["state"],
                format_duration(stage["duration"]) if stage["duration"] is not None else "",
                len(stage["attempts"]),
                stage["attempts"][-1]["worker"] if stage["attempts"] else "",
                _why(stage),
            )
            for stage in state["stages"]
        ],
    )


def _why(stage: dict[str, Any]) -> str:
    """Why it failed or waits; else by whose leave it went on."""
    if stage["reason"] or not stage["approved"]:
        return str(stage["reason"])
    return f"approved by {stage['approver']}" if stage["approver"] else "approved"


@click.command()
@click.argument("target", metavar="RUN[/STAGE]")
@click.option("--follow", "-f", is_flag=True, help="Keep printing until the stage has ended.")
@click.option("--tail", "-n", type=click.IntRange(0), help="Only the last lines.")
def logs(target: str, follow: bool, tail: int | None) -> None:
    """The log of a run's stages, or of one stage.

    Example: shipway logs -f 12/unit
    """
    run, _, wanted = target.partition("/")
    if not run.isdigit():
        raise UsageError(f"{target!r} names no run: write RUN or RUN/STAGE, such as 12/unit")
    api = Api()
    stages = [wanted] if wanted else [stage["name"] for stage in api.get(f"/runs/{run}")["stages"]]
    query = {"follow": int(follow)} | ({"tail": tail} if tail is not None else {})
    for stage in stages:
        for line in api.lines(f"/runs/{run}/stages/{stage}/logs", format="text", **query):
            click.echo(line if wanted else f"{stage}: {line}")


@click.command()
@click.argument("run", type=int)
@click.option("--from", "stage", help="Run this stage and all after it again, even those that passed.")
@click.option("--detach", "-d", is_flag=True, help="Do not wait for the run.")
def retry(run: int, stage: str | None, detach: bool) -> None:
    """Take up a run that failed, where it failed.

    Example: shipway retry 12 --from unit
    """
    api = Api()
    api.post(f"/runs/{run}/retry", {"from_stage": stage} if stage else {})
    if not detach:
        follow_run(api, run)


@click.command()
@click.argument("run", type=int)
def cancel(run: int) -> None:
    """Stop a run: its containers end at once, and what it rolled out is undone.

    Example: shipway cancel 12
    """
    Api().post(f"/runs/{run}/cancel")
    click.echo(f"run {run} is being cancelled")


@click.command()
@click.argument("target", metavar="RUN/STAGE")
def approve(target: str) -> None:
    """Let a stage that waits for approval go on.

    Example: shipway approve 12/production
    """
    run, stage = stage_of(target, "12/production")
    Api().post(f"/runs/{run}/stages/{stage}/approve", {"who": me()})
    click.echo(f"{stage} of run {run} goes on")
