"""Definition + event → plan."""

from __future__ import annotations

from pydantic import Field

from pipeline.definition.models import Definition
from pipeline.plan.models import Plan, Scalar
from pipeline.triggers.event import Event
from pipeline.values import Frozen


class PlanContext(Frozen):
    """What `${git.…}`, `${params.…}` and `when` can read."""

    event: Event
    params: dict[str, Scalar] = Field(default_factory=dict)
    """`--set k=v`"""


def compile_plan(definition: Definition, pipeline: str, context: PlanContext) -> Plan:
    """The plan. Raises DefinitionErrors for what only the context can tell (a parameter that is not there)."""
    raise NotImplementedError
