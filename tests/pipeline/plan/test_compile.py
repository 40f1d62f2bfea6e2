"""From a file and an event to the stages that will run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.definition.load import load
from pipeline.definition.problems import DefinitionErrors
from pipeline.errors import NotFound
from pipeline.plan.compile import MAX_STAGES, PlanContext, compile_plan
from pipeline.plan.models import Plan
from pipeline.triggers.event import Event

CASES = Path(__file__).with_name("plans.txt")


def cases() -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Name, file, event and expected plan of each case."""
    for block in CASES.read_text().split("\n== ")[1:]:
        name, _, rest = block.partition("\n")
        text, _, expected = rest.partition("-->\n")
        text, _, happened = text.partition("\n@ ")
        yield name, text, json.loads(happened), expected.strip("\n")


def planned(text: str, pipeline: str = "web", *, params: dict[str, Any] | None = None, **event: Any) -> Plan:
    happened = {"kind": "push", "repository": "r", "ref": "refs/heads/main", "sha": "0123456789" * 4, **event}
    context = PlanContext(event=Event(**happened), params=params or {}, filename="p.yaml")
    return compile_plan(load(text, "p.yaml"), pipeline, context)


def shown(plan: Plan) -> str:
    """A line a stage: what it does, and all that is not as usual."""
    lines = [f"group {plan.concurrency.group}, cancel {plan.concurrency.cancel}"] if plan.concurrency else []
    for stage in plan.stages:
        facts = stage.model_dump(mode="json", exclude_defaults=True, exclude={"name", "spec"})
        spec = stage.spec.model_dump(mode="json", exclude_defaults=True)
        lines.append(f"{stage.name}: {stage.kind} {json.dumps(spec)} {json.dumps(facts)}")
    return "\n".join(lines)


@pytest.mark.parametrize(("text", "event", "expected"), [pytest.param(*case[1:], id=case[0]) for case in cases()])
def test_what_a_file_plans(text: str, event: dict[str, Any], expected: str) -> None:
    assert shown(planned(text, **event)) == expected


def refused(text: str, **event: Any) -> list[str]:
    with pytest.raises(DefinitionErrors) as caught:
        planned(text, **event)
    return str(caught.value).splitlines()


RUN = "{image: x, run: y}"


def test_a_pipeline_that_is_not_there() -> None:
    with pytest.raises(NotFound, match=r'there is no pipeline "wbe": did you mean "web"\?'):
        planned(f"pipelines: {{web: [{{run: {RUN}}}]}}", "wbe")


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"cuont": "1"}, 'there is no parameter "cuont": did you mean "count"?'),
        ({"count": "many"}, 'the parameter "count" can\'t be "many": its default is 3'),
        ({"deep": "1"}, 'the parameter "deep" can\'t be "1": its default is False'),
    ],
)
def test_parameters_that_do_not_fit(params: dict[str, Any], error: str) -> None:
    text = f"pipelines: {{web: {{params: {{count: 3, deep: false}}, stages: {{a: {{run: {RUN}}}}}}}}}"
    assert refused(text, params=params) == [f"p.yaml:1:1: pipeline web: {error}"]


def test_all_that_only_the_event_can_tell_is_told_at_once() -> None:
    text = """
pipelines:
  web:
    params: {n: 1}
    stages:
      image: {build: .}
      a: {needs: image, push: {to: "localhost:1/${git.branch}", tags: "${git.branch}"}}
      b: {needs: image, when: git.branch < 3, test: a}
"""
    errors = refused(text, ref="refs/heads/feature/X", params={"n": "x"})
    assert [error.removeprefix("p.yaml:1:1: pipeline web: ").split(": ")[:3] for error in errors] == [
        ["stage a", "tags.0", '"feature/X" is not a tag'],
        ["stage a", "to", '"feature/X" is not a repository\'s name'],
        ["stage b", '"feature/X" and "3" are of different types', "put quotes around both, or around none"],
        ['the parameter "n" can\'t be "x"', "its default is 1"],
    ]


@pytest.mark.parametrize("values", ["a, a", '1, "1"', '1, true, "true"'])
def test_cells_that_have_one_name(values: str) -> None:
    text = f"pipelines: {{web: {{stages: {{a: {{matrix: {{v: [{values}]}}, run: {RUN}}}}}}}}}"
    (error,) = refused(text)
    assert "the matrix of stage a gives " in error
    assert error.endswith("twice: make its values differ as text")


def test_a_matrix_has_its_size() -> None:
    cells = ", ".join(map(str, range(24)))
    text = f"pipelines: {{web: {{stages: {{a: {{matrix: {{x: [{cells}], y: [{cells}]}}, run: {RUN}}}}}}}}}"
    assert refused(text) == [
        f"p.yaml:1:1: pipeline web: the matrices open to more than {MAX_STAGES} stages: make them smaller"
    ]
    axes = ", ".join(f"a{i}: [{', '.join(map(str, range(60)))}]" for i in range(60))
    assert len(refused(f"pipelines: {{web: {{stages: {{a: {{matrix: {{{axes}}}, run: {RUN}}}}}}}}}")) == 1


def test_a_plan_is_the_same_each_time() -> None:
    for _, text, event, _ in cases():
        assert planned(text, **event) == planned(text, **event)
