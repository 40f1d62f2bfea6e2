"""Which part of a plan is run."""

from __future__ import annotations

import pytest

from cli.errors import UsageError
from cli.selection import here, select
from pipeline.plan.models import Concurrency, Condition, DeploySpec, Plan, PlannedStage, RunSpec
from pipeline.services import NamedService

SPEC = RunSpec(image="a", run=("b",))


def stage(name: str, *needs: str, **options: object) -> PlannedStage:
    return PlannedStage.model_validate({"name": name, "base": name, "needs": needs, "spec": SPEC, **options})


PLAN = Plan(
    pipeline="web",
    stages=(
        stage("image"),
        stage("lint"),
        stage("unit (v=1)", "image", base="unit"),
        stage("unit (v=2)", "image", base="unit"),
        stage("extra", "image", allow_failure=True),
        stage("never", "image", skip="no"),
        stage("publish", "unit (v=1)", "unit (v=2)", "extra", "never"),
        stage("tell", "publish", condition=Condition.FAILURE),
        stage("live", "publish", "tell"),
    ),
)


def names(plan: Plan) -> list[str]:
    return [each.name for each in plan.stages]


def test_all() -> None:
    selection = select(PLAN)
    assert selection.plan == PLAN
    assert selection.earlier == frozenset()


def test_from_a_stage_on() -> None:
    selection = select(PLAN, start="publish")
    assert names(selection.plan) == [name for name in names(PLAN) if name != "lint"]
    assert selection.earlier == {"image", "unit (v=1)", "unit (v=2)", "extra"}
    assert selection.optional == {"extra"}


def test_one_cell_and_what_follows_it() -> None:
    selection = select(PLAN, start="unit (v=1)")
    assert selection.earlier == {"image", "unit (v=2)", "extra"}


def test_all_cells() -> None:
    selection = select(PLAN, only="unit")
    assert names(selection.plan) == ["image", "unit (v=1)", "unit (v=2)"]
    assert selection.earlier == {"image"}


def test_the_last_alone() -> None:
    selection = select(PLAN, only="live")
    assert selection.earlier == {"image", "unit (v=1)", "unit (v=2)", "extra", "publish", "tell"}
    assert selection.optional == {"extra", "tell"}


def test_the_first_alone() -> None:
    assert names(select(PLAN, only="lint").plan) == ["lint"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"start": "unit", "only": "unit"}, "--from and --only exclude each other"),
        ({"start": "untit"}, 'the pipeline web has no stage "untit": did you mean "unit"?'),
        ({"only": "unit (v=3)"}, 'has no stage "unit \\(v=3\\)": '),
    ],
)
def test_what_is_not_there(options: dict[str, str], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        select(PLAN, **options)


def test_everything_is_done_on_this_machine() -> None:
    deploy = DeploySpec(service=NamedService(name="web", hosts={"role": "web"}), image="a")
    plan = Plan(
        pipeline="web",
        concurrency=Concurrency(group="g"),
        stages=(stage("a", runs_on={"zone": "x"}), stage("b", "a", spec=deploy, near="a", lock="deploy:web")),
    )
    local = here(plan)
    assert local.concurrency is None
    assert [each.runs_on for each in local.stages] == [{}, {}]
    assert [each.near for each in local.stages] == [None, None]
    assert local.stages[1].spec == deploy.model_copy(update={"service": NamedService(name="web")})
    assert local.stages[1].lock == "deploy:web"
