"""What docs/pipelines.md and the README tell people to write is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.definition.load import load
from pipeline.definition.models import StageDef
from pipeline.definition.scope import EVENT, GIT
from pipeline.plan.compile import PlanContext, compile_plan
from pipeline.plan.expressions import names_in, parse_when
from pipeline.plan.models import Kind
from pipeline.triggers.event import Event

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/pipelines.md").read_text()
EVENT_OF_A_PUSH = Event(kind="push", repository="r", ref="refs/heads/main", sha="a" * 40)


def blocks(text: str) -> list[str]:
    """The YAML blocks that are pipeline files. Those without services get the service that they name."""
    found = re.findall(r"^ *```yaml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [block for block in found if "pipelines:" in block]


@pytest.mark.parametrize("block", blocks(PAGE) + blocks((ROOT / "README.md").read_text()))
def test_files_in_the_documentation_are_right(block: str) -> None:
    indent = len(block) - len(block.lstrip(" "))
    text = "\n".join(line[indent:] for line in block.splitlines())
    definition = load(text if "services:\n" in text else f"services: {{web: {{}}}}\n{text}", "docs")
    for name in definition.pipelines:
        assert compile_plan(definition, name, PlanContext(event=EVENT_OF_A_PUSH)).stages


def test_conditions_in_the_documentation_are_right() -> None:
    block = PAGE.partition("## Conditions")[2].split("```")[1]
    lines = block.strip().splitlines()
    assert len(lines) == 4
    assert all(list(names_in(parse_when(line))) for line in lines)


def test_the_page_names_every_value_kind_and_common_key() -> None:
    for name in GIT:
        assert f"`git.{name}`" in PAGE
    for name in EVENT:
        assert f"`event.{name}`" in PAGE
    kinds = {kind.value for kind in Kind}
    assert all(f"| `{kind}` |" in PAGE for kind in kinds)
    assert all(f"`{key}`" in PAGE for key in set(StageDef.model_fields) - kinds)
