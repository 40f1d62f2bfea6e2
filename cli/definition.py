"""`shipway lint`, `plan`, `schema`: what a pipeline file says, without running it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from cli.checkout import DEFAULT_FILE, local_event, read_definition
from cli.errors import UsageError
from cli.output import json_option, print_json, print_table
from pipeline.definition.models import Definition, PipelineDef
from pipeline.definition.problems import DefinitionErrors, Problem
from pipeline.errors import NotFound
from pipeline.plan.compile import PlanContext, compile_plan
from pipeline.plan.models import BuildSpec, Condition, ContainerSpec, DeploySpec, Plan, PlannedStage, PushSpec, Scalar

file_option = click.option(
    "--file", "-f", type=click.Path(path_type=Path), default=DEFAULT_FILE, show_default=True, help="The pipeline file."
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another value for a parameter of the pipeline."
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_FILE)
@json_option
def lint(file: Path, as_json: bool) -> int:
    """Check a pipeline file, and name every problem with its line and column.

    \b
    Exit code 2: it has problems.
    Example: shipway lint
    """
    problems: list[Problem] = []
    definition: Definition | None = None
    try:
        definition = read_definition(file)
    except DefinitionErrors as errors:
        problems += errors.problems
    if definition is not None:
        problems += _unplannable(definition, file)
    if as_json:
        print_json({"file": str(file), "good": not problems, "problems": [asdict(problem) for problem in problems]})
        return 2 if problems else 0
    if problems or definition is None:
        raise DefinitionErrors(problems)
    pipelines, services = len(definition.pipelines), len(definition.services)
    click.echo(f"{file}: {pipelines} pipeline{'s' * (pipelines != 1)}, {services} service{'s' * (services != 1)}: good")
    return 0


@click.command()
@click.argument("pipeline", required=False)
@file_option
@set_option
@json_option
def plan(pipeline: str | None, file: Path, settings: tuple[str, ...], as_json: bool) -> None:
    """Tell what would run for this checkout, in which order, and why not; without a name, for each pipeline.

    Example: shipway plan web
    """
    definition = read_definition(file)
    # A parameter belongs to one pipeline: with one, the others are not asked about it.
    names = [pipeline] if pipeline is not None else [chosen(definition, None)] if settings else definition.pipelines
    params = parameters(settings)
    plans = [planned(definition, name, params, file) for name in names]
    if as_json:
        print_json({"plans": [each.model_dump(mode="json") for each in plans]})
        return
    for number, each in enumerate(plans):
        if number:
            click.echo()
        click.echo(f"{each.pipeline}: {_starts(definition.pipelines[each.pipeline])}")
        print_table(
            ["STAGE", "KIND", "WHAT", "AFTER", "ON", "NOTE"],
            [
                (
                    stage.name,
                    stage.kind.value,
                    _what(stage),
                    ", ".join(_shortened(each, stage)),
                    ", ".join(f"{key}={value}" for key, value in stage.runs_on.items()),
                    _note(stage),
                )
                for stage in each.stages
            ],
        )


@click.command()
def schema() -> None:
    """Print the JSON Schema of pipeline files, for editors.

    Example: shipway schema > pipelines.schema.json
    """
    from pipeline.definition.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _unplannable(definition: Definition, file: Path) -> list[Problem]:
    """What only this checkout can tell."""
    problems: list[Problem] = []
    for name in definition.pipelines:
        try:
            planned(definition, name, {}, file)
        except DefinitionErrors as errors:
            problems += errors.problems
    return problems


def chosen(definition: Definition, name: str | None) -> str:
    """The named pipeline, or the only one there is. Raises UsageError."""
    if name is not None:
        return name
    if len(definition.pipelines) == 1:
        return next(iter(definition.pipelines))
    raise UsageError(f"there are several pipelines: name one of {', '.join(definition.pipelines)}")


def planned(definition: Definition, name: str, params: dict[str, Scalar], file: Path) -> Plan:
    """The plan for this checkout. Raises DefinitionErrors with every problem, UsageError for an unknown name."""
    context = PlanContext(event=local_event(Path.cwd()), params=params, filename=str(file))
    try:
        return compile_plan(definition, name, context)
    except NotFound as error:
        raise UsageError(str(error)) from None


def parameters(settings: tuple[str, ...]) -> dict[str, Scalar]:
    """`--set k=v` as a mapping. Raises UsageError for what has no `=`."""
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"--set {setting}: write KEY=VALUE")
    pairs = (setting.partition("=") for setting in settings)
    return {key: value for key, _, value in pairs}


def _starts(pipeline: PipelineDef) -> str:
    """What starts it, as a person would say it."""
    ways = []
    push = pipeline.on.push
    if push is not None:
        if push.branches or not push.tags:
            branches = ", ".join(push.branches) or "any branch"
            ways.append(f"a push of {branches}" + (f" that changes {', '.join(push.paths)}" if push.paths else ""))
        if push.tags:
            ways.append(f"a tag {', '.join(push.tags)}")
    if pipeline.on.schedule:
        ways.append(f"the schedule {pipeline.on.schedule}")
    return "starts with " + ", or ".join(ways) if ways else "starts by hand only"


def _what(stage: PlannedStage) -> str:
    match stage.spec:
        case BuildSpec(context=context, dockerfile=dockerfile):
            return dockerfile if context == "." else f"{context}/{dockerfile}"
        case ContainerSpec(run=lines):
            return lines[0].partition("\n")[0][:40]
        case PushSpec(to=to):
            return to
        case DeploySpec(service=service, environment=environment):
            return f"{service.name} ({environment})"


def _shortened(plan: Plan, stage: PlannedStage) -> list[str]:
    """What it needs; all cells of a matrix as the one stage that they are in the file."""
    return list(dict.fromkeys(plan.stage(need).base for need in stage.needs))


def _note(stage: PlannedStage) -> str:
    notes = [f"skipped: {stage.skip}"] if stage.skip else []
    if stage.condition is Condition.FAILURE:
        notes.append("only after a failure")
    if stage.condition is Condition.ALWAYS:
        notes.append("whatever happens before")
    if stage.approval:
        notes.append("waits for approval")
    if stage.allow_failure:
        notes.append("may fail")
    return ", ".join(notes)
