"""`shipway lint`, `plan`, `schema`: what a pipeline file says, without running it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli.checkout import DEFAULT_FILE, local_event, read_definition
from cli.errors import UsageError
from cli.output import json_option, print_json, print_table
from pipeline.definition.models import Definition
from pipeline.plan.compile import PlanContext, compile_plan
from pipeline.plan.models import Plan, Scalar


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_FILE)
def lint(file: Path) -> None:
    """Check a pipeline file, and name every problem with its line and column.

    \b
    Exit code 2: it has problems.
    Example: shipway lint
    """
    definition = read_definition(file)
    for name in definition.pipelines:
        planned(definition, name, {}, file)
    pipelines, services = len(definition.pipelines), len(definition.services)
    click.echo(f"{file}: {pipelines} pipeline{'s' * (pipelines != 1)}, {services} service{'s' * (services != 1)}: good")


@click.command()
@click.argument("pipeline", required=False)
@click.option("--file", "-f", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the pipeline.")
@json_option
def plan(pipeline: str | None, file: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Tell what would run for this checkout, in which order, and why not.

    Example: shipway plan web
    """
    definition = read_definition(file)
    compiled = planned(definition, chosen(definition, pipeline), parameters(settings), file)
    if as_json:
        print_json(compiled.model_dump(mode="json"))
        return
    print_table(
        ["STAGE", "KIND", "AFTER", "ON", "NOTE"],
        [
            (
                stage.name,
                stage.kind.value,
                ", ".join(stage.needs),
                ", ".join(f"{key}={value}" for key, value in stage.runs_on.items()),
                stage.skip or ("waits for approval" if stage.approval else ""),
            )
            for stage in compiled.stages
        ],
    )


@click.command()
def schema() -> None:
    """Print the JSON Schema of pipeline files, for editors.

    Example: shipway schema > pipelines.schema.json
    """
    from pipeline.definition.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def chosen(definition: Definition, name: str | None) -> str:
    """The named pipeline, or the only one there is."""
    if name is not None:
        return name
    if len(definition.pipelines) == 1:
        return next(iter(definition.pipelines))
    raise UsageError(f"there are several pipelines: name one of {', '.join(definition.pipelines)}")


def planned(definition: Definition, name: str, params: dict[str, Scalar], file: Path) -> Plan:
    """The plan for this checkout. Raises DefinitionErrors with every problem."""
    context = PlanContext(event=local_event(Path.cwd()), params=params, filename=str(file))
    return compile_plan(definition, name, context)


def parameters(settings: tuple[str, ...]) -> dict[str, Scalar]:
    """`--set k=v` as a mapping. Raises UsageError for what has no `=`."""
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"--set {setting}: write KEY=VALUE")
    pairs = (setting.partition("=") for setting in settings)
    return {key: value for key, _, value in pairs}
