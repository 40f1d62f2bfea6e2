"""Whatever it is given, `load` gives a definition that can be planned, or says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipeline.definition.load import load
from pipeline.definition.models import Definition
from pipeline.definition.problems import DefinitionErrors
from pipeline.definition.schema import json_schema
from pipeline.plan.compile import PlanContext, compile_plan
from pipeline.triggers.event import Event

EVENT = Event(kind="push", repository="r", ref="refs/heads/main", sha="a" * 40)


def keys(schema: Any) -> set[str]:
    """All keys that the file knows."""
    if isinstance(schema, list):
        return set().union(*map(keys, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})).union(*map(keys, schema.values()))


KEYS = sorted(keys(json_schema()))
WORDS = [
    "web", "image", "a", ".", "..", "/", "", "true", "1.10", "5s", "256M", "main", "*", "rolling", "required",
    "failure", "0 3 * * *", "localhost:1/a", "localhost:1/a:b", "${git.branch}", "${stages.a.image}", "${params.a}",
    "${", "$${",
    'git.branch == "a"', "not git.tag", "[" * 40, "\n", "\0", "é", "-1", "99999999999999999999", "1e999", "nan",
]  # fmt: skip
SCALARS = st.one_of(st.sampled_from(WORDS), st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
NAMES = st.one_of(st.sampled_from(["web", "image", "a", "b"]), st.sampled_from(KEYS), st.text(max_size=4))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
SHELL = st.sampled_from(["true", "echo ${git.sha}", "echo $${HOME}", "echo ${matrix.a}"])
GOOD = st.fixed_dictionaries(
    {"run": st.fixed_dictionaries({"image": st.sampled_from(["a", "${git.branch}", "é"]), "run": SHELL})},
    optional={
        "needs": st.sampled_from(["a", "b"]),
        "when": st.sampled_from(
            ["always", "git.tag", 'matrix.a in ["1"]', 'git.branch matches "m*"', "event.kind < 1"]
        ),
        "matrix": st.dictionaries(st.sampled_from("ab"), st.lists(SCALARS, min_size=1, max_size=3)),
        "env": st.dictionaries(st.sampled_from("AB"), st.sampled_from(WORDS)),
        "timeout": st.sampled_from(["5s", "1h", 3]),
    },
)
STAGES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "web"]),
    st.dictionaries(
        st.sampled_from(["build", "test", "push", "deploy", "run", "needs", "when", "matrix", "env"]), VALUES
    ),
    max_size=4,
)
FILES = st.fixed_dictionaries(
    {"pipelines": st.dictionaries(NAMES, st.one_of(VALUES, st.fixed_dictionaries({"stages": STAGES})), max_size=2)},
    optional={"services": st.dictionaries(NAMES, VALUES, max_size=2)},
)
SYNTAX = st.text(alphabet=st.sampled_from("pipelines:{}[]&*<!'\"|>-?%@#, \n\tab0~"), max_size=60)


def try_it(text: str) -> None:
    try:
        definition = load(text, "p.yaml")
    except DefinitionErrors as error:
        event("refused")
        check(error)
        return
    assert isinstance(definition, Definition)
    # What was read can be stored and read again, and be planned or refused with a reason.
    assert Definition.model_validate_json(definition.model_dump_json()) == definition
    for name in definition.pipelines:
        try:
            plan = compile_plan(definition, name, PlanContext(event=EVENT))
        except DefinitionErrors as error:
            event("not planned")
            check(error)
        else:
            event("planned")
            assert type(plan).model_validate_json(plan.model_dump_json()) == plan


def check(errors: DefinitionErrors) -> None:
    assert errors.problems
    for problem in errors.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert str(problem).isprintable()


@given(st.one_of(st.text(max_size=200), SYNTAX))
@settings(max_examples=150, deadline=None)
def test_any_text(text: str) -> None:
    try_it(text)


@given(FILES)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_file_made_of_our_words(value: dict[str, Any]) -> None:
    try_it(yaml.safe_dump(value, allow_unicode=True))


@given(st.dictionaries(st.sampled_from("abc"), GOOD, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_any_nearly_good_file(stages: dict[str, Any]) -> None:
    try_it(yaml.safe_dump({"pipelines": {"web": {"stages": stages}}}, allow_unicode=True))


@given(FILES, st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_file_with_a_piece_torn_out(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value, indent=1)
    start = data.draw(st.integers(0, len(text)))
    try_it(text[:start] + text[start + data.draw(st.integers(0, 10)) :])
