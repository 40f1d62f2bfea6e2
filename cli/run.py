"""`shipway run`: a pipeline from this checkout, here and now, without a server."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from cli.checkout import local_event, read_definition
from cli.definition import chosen, file_option, parameters, planned, set_option
from cli.errors import CommandError, UsageError
from cli.output import json_option, print_json
from cli.selection import Selection, here, select
from pipeline.plan.models import DeploySpec
from pipeline.run.states import RunState
from pipeline.settings import Settings, load_settings
from pipeline.values import format_duration
from pipeline.views import RunView


@click.command()
@click.argument("pipeline", required=False)
@file_option
@set_option
@click.option("--from", "start", metavar="STAGE", help="Begin here; what comes before is taken from an earlier run.")
@click.option("--only", metavar="STAGE", help="Run this stage alone, after what an earlier run made.")
@click.option("--yes", "-y", is_flag=True, help="Approve every stage that waits for approval.")
@json_option
def run(
    pipeline: str | None,
    file: Path,
    settings: tuple[str, ...],
    start: str | None,
    only: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Run PIPELINE on this machine with the files as they are, uncommitted changes and all.

    \b
    It needs no server, and starts an engine if there is none. Labels of workers are left aside.
    Exit code 0: it passed. 1: it failed. 2: the pipeline file or the question is wrong.
    Example: shipway run web --from unit
    """
    definition = read_definition(file)
    name = chosen(definition, pipeline)
    plan = planned(definition, name, parameters(settings), file)
    selection = select(here(plan), start=start, only=only)
    view = _run(selection, yes=yes, quiet=as_json)
    if as_json:
        print_json(view.model_dump(mode="json"))
        return 0 if view.state is RunState.PASSED else 1
    return _conclude(view)


def _run(selection: Selection, *, yes: bool, quiet: bool) -> RunView:
    from cli.local import open_checkout
    from cli.progress import Progress

    # What the worker's parts log is for a worker's log; here each stage tells why it failed.
    logging.getLogger().addHandler(logging.NullHandler())
    settings, folder = load_settings(), Path.cwd()
    console = Console(quiet=quiet, soft_wrap=True, highlight=False)
    with _engine(settings, selection) as engine, open_checkout(folder, settings, engine) as checkout:
        checkout.check_services(selection)
        begun = checkout.begin(selection, local_event(folder))
        with Progress(console, [stage.name for stage in begun.stages]) as progress:
            return checkout.drive(begun.id, progress, lambda stage: yes or _asked(stage, quiet))


def _asked(stage: str, quiet: bool) -> bool:
    if quiet or not sys.stdin.isatty():
        click.echo(f"shipway: {stage} waits for approval: run again with --yes", err=True)
        return False
    try:
        return click.confirm(f"{stage} waits for approval. Go on?")
    except click.Abort:
        return False


@contextmanager
def _engine(settings: Settings, selection: Selection) -> Iterator[str]:
    """The address of the engine of the settings, or of one that lives as long as this run. Raises CommandError."""
    if _answers(settings.engine):
        yield settings.engine
        return
    if "engine" in settings.model_fields_set or os.geteuid() != 0:
        raise CommandError(f"no engine answers at {settings.engine}: start one with `shipway engine`, as root")
    if any(isinstance(stage.spec, DeploySpec) and not stage.skip for stage in selection.plan.stages):
        raise UsageError(
            f"a deploy needs an engine that stays, and none answers at {settings.engine}:"
            " start one with `shipway engine`, or leave the stage out with --only"
        )
    with _own_engine(settings) as address:
        yield address


def _answers(url: str) -> bool:
    from docker.errors import DockerException

    from cli.system import answers_on_socket
    from workers.engine import connect

    if url.startswith("unix://"):
        return answers_on_socket(Path(url.removeprefix("unix://")), "/_ping")
    try:
        connect(url).close()
    except DockerException:
        return False
    return True


@contextmanager
def _own_engine(settings: Settings) -> Iterator[str]:
    from cli.layout import Layout
    from cli.preflight import kernel_problems
    from cli.supervise import Supervisor
    from cli.system import engine_part

    found = list(kernel_problems())
    if found:
        raise CommandError("no engine can run here:\n  " + "\n  ".join(found))
    layout = Layout.of(settings.data)
    supervisor = Supervisor(lambda line: click.echo(line, err=True))
    try:
        supervisor.start(engine_part(layout, os.environ))
        yield f"unix://{layout.engine_socket}"
    finally:
        supervisor.stop()


def _conclude(view: RunView) -> int:
    """Says how it ended, and what it left. Raises CommandError when it did not pass."""
    for stage in view.stages:
        for artifact in stage.outputs.artifacts if stage.attempts else ():
            click.echo(f"{stage.name} kept {artifact.name}: {artifact.path}")
    took = format_duration(view.duration or 0.0)
    if view.state is RunState.PASSED:
        click.echo(f"{view.pipeline} passed in {took}")
        return 0
    if view.state is RunState.CANCELLED:
        click.echo(f"shipway: {view.pipeline} was cancelled after {took}: {view.reason}", err=True)
        return 130 if view.reason == "interrupted" else 1
    failed = next((stage.base for stage in view.stages if stage.state == "failed" and not stage.allow_failure), "")
    remedy = f": mend it, and go on with `shipway run {view.pipeline} --from {failed}`" if failed else ""
    raise CommandError(f"{view.pipeline} {view.state} after {took}: {view.reason}{remedy}")
