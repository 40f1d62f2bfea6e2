"""What a file means when it is right, and what it may cost when it is hostile."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline.definition.load import MAX_PROBLEMS, load
from pipeline.definition.models import Definition, PipelineDef, PushTrigger, StageDef, TestDef
from pipeline.definition.problems import DefinitionErrors
from pipeline.definition.tree import MAX_BYTES, MAX_DEPTH, MAX_NODES

LONG = """
pipelines:
  web:
    stages:
      build: {build: {context: .}}
      test: {needs: [build], test: {run: [pytest -q]}}
      push: {needs: [test], push: {to: "localhost:7750/web", tags: [v1]}}
      deploy: {needs: [push], deploy: {service: web}}
services:
  web: {port: 8000}
"""
SHORT = """
pipelines:
  web:
    - build: .
    - test: pytest -q
    - push: localhost:7750/web:v1
    - deploy: web
services:
  web: {port: 8000}
"""


def stage_of(text: str) -> StageDef:
    """The only stage of a pipeline, given as the flow mapping in it."""
    definition = load(f"pipelines:\n  web:\n    stages:\n      it: {text}\n", "p.yaml")
    return definition.pipelines["web"].stages["it"]


def errors_of(text: str) -> list[str]:
    with pytest.raises(DefinitionErrors) as caught:
        load(text, "p.yaml")
    return str(caught.value).splitlines()


def test_the_short_form_means_the_long_one() -> None:
    assert load(SHORT, "p.yaml") == load(LONG, "p.yaml")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("{build: web}", "{build: {context: web}}"),
        ("{build: }", "{build: {}}"),
        ("{run: {image: a, run: b}}", "{run: {image: a, run: [b]}}"),
        ("{run: {image: a, run: b, matrix: {v: [1, 2]}}}", "{run: {image: a, run: b}, matrix: {v: [1, 2]}}"),
        ("{push: {to: localhost:1/a, image: b, tags: c}}", "{push: {to: localhost:1/a, image: b, tags: [c]}}"),
    ],
)
def test_short_forms_of_a_stage(short: str, long: str) -> None:
    assert stage_of(short) == stage_of(long)


@pytest.mark.parametrize(
    ("written", "to", "tags"),
    [
        ("localhost:7750/web", "localhost:7750/web", ()),
        ("localhost:7750/web:v1", "localhost:7750/web", ("v1",)),
        ('"localhost:7750/web:${git.sha}"', "localhost:7750/web", ("${git.sha}",)),
        ('"${params.host}:7750/web"', "${params.host}:7750/web", ()),
        ("registry.example.com/team/web:1.2", "registry.example.com/team/web", ("1.2",)),
    ],
)
def test_a_tag_in_the_short_form_of_push(written: str, to: str, tags: tuple[str, ...]) -> None:
    stages = f"{{a: {{build: .}}, push: {{needs: a, push: {written}}}}}"
    definition = load(f"pipelines: {{web: {{params: {{host: a}}, stages: {stages}}}}}", "p.yaml")
    push = definition.pipelines["web"].stages["push"].push
    assert push is not None
    assert (push.to, push.tags) == (to, tags)


def test_steps_of_one_kind_are_numbered_around_the_names_given() -> None:
    text = "pipelines: {web: [{build: .}, {test: a}, {test: b}, {name: test-2, test: c}, {name: e2e, test: d}]}"
    stages = load(text, "p.yaml").pipelines["web"].stages
    assert list(stages) == ["build", "test", "test-3", "test-2", "e2e"]
    assert [stage.needs for stage in stages.values()] == [(), ("build",), ("test",), ("test-3",), ("test-2",)]


def test_a_step_may_say_what_it_needs() -> None:
    text = "pipelines: {web: [{build: .}, {test: a}, {name: b, test: b, needs: build}]}"
    assert load(text, "p.yaml").pipelines["web"].stages["b"].needs == ("build",)


def test_on_is_a_key_and_not_true() -> None:
    definition = load('pipelines: {web: {on: {schedule: "0 3 * * *"}, stages: {a: {build: .}}}}', "p.yaml")
    assert definition.pipelines["web"].on.schedule == "0 3 * * *"
    assert definition.pipelines["web"].on.push is None


def test_a_pipeline_that_says_nothing_runs_at_every_push() -> None:
    assert load("pipelines: {web: [{build: .}]}", "p.yaml").pipelines["web"].on.push == PushTrigger()


def test_push_with_nothing_behind_it_is_every_push() -> None:
    text = 'pipelines:\n  web:\n    on:\n      push:\n      schedule: "0 3 * * *"\n    stages: {a: {build: .}}'
    assert load(text, "p.yaml").pipelines["web"].on.push == PushTrigger()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1.10", "1.10"),
        ("3.11", 3.11),
        ("3", 3),
        ('"3"', "3"),
        ("0x1F", "0x1F"),
        ("017", "017"),
        ("1_000", "1_000"),
        ("1e3", "1e3"),
        (".inf", ".inf"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("true", True),
        ('"true"', "true"),
        ("yes", "yes"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("9" * 15, int("9" * 15)),
        ("9" * 30, "9" * 30),
    ],
)
def test_a_parameter_keeps_its_type_and_its_spelling(written: str, value: Any) -> None:
    text = f"pipelines: {{web: {{params: {{x: {written}}}, stages: {{a: {{build: .}}}}}}}}"
    found = load(text, "p.yaml").pipelines["web"].params["x"]
    assert found == value
    assert type(found) is type(value)


def test_text_stays_as_it_is_written() -> None:
    stage = stage_of(
        '{run: {image: a, run: "true"}, env: {A: 1.10, B: yes, C: 0x1F, D: 2024-01-01, E: "null", F: off}}'
    )
    assert stage.env == {"A": "1.10", "B": "yes", "C": "0x1F", "D": "2024-01-01", "E": "null", "F": "off"}


def test_anchors_and_merges() -> None:
    text = """
pipelines:
  web:
    stages:
      a: &stage {run: &run {image: a, run: echo}, timeout: 5s, retries: 1}
      b: {<<: *stage, retries: 2}
      c: {run: {<<: *run, run: [more]}, needs: [a, b]}
      d: {<<: [*stage, {allow_failure: true}]}
"""
    stages = load(text, "p.yaml").pipelines["web"].stages
    assert stages["b"] == stages["a"].model_copy(update={"retries": 2})
    assert stages["c"].run == stages["a"].run.model_copy(update={"run": ("more",)})  # type: ignore[union-attr]
    assert stages["d"] == stages["a"].model_copy(update={"allow_failure": True})


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert isinstance(load("\ufeffpipelines: {web: [{build: .}]}", "p.yaml"), Definition)


@pytest.mark.parametrize(
    ("text", "place"),
    [("a: \0", "1:4"), ("a: é\nb: \x01", "2:4"), ("a: b\nc: é\ud800", "2:5"), ("\x07", "1:1")],
)
def test_characters_that_no_text_file_has(text: str, place: str) -> None:
    (error,) = errors_of(text)
    assert error.startswith(f"p.yaml:{place}: unreadable text: the character ")


def test_a_file_has_its_size() -> None:
    assert errors_of("#" * (MAX_BYTES + 1)) == ["p.yaml:1:1: the file is larger than 1 MiB: split it"]
    assert errors_of("é" * (MAX_BYTES // 2 + 1)) == ["p.yaml:1:1: the file is larger than 1 MiB: split it"]


def nested(inner: str, depth: int) -> str:
    return "[" * depth + inner + "]" * depth


@pytest.mark.parametrize(
    "value",
    [
        nested("", MAX_DEPTH + 1),
        nested("", 100_000),
        "{a: " * 100_000,
        # Each is flat enough; one in the other they are not.
        f"[&a {nested('x', 30)}, &b {nested('*a', 30)}, {nested('*b', 30)}]",
    ],
    ids=["a little", "much", "mappings", "through anchors"],
)
def test_a_file_has_its_depth(value: str) -> None:
    errors = errors_of(f"pipelines: {{web: {{params: {{x: {value}}}}}}}")
    assert len(errors) == 1
    assert "nested deeper than 40 levels" in errors[0]


def test_anchors_that_multiply() -> None:
    levels = ["&a0 [x]", *(f"&a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30))]
    began = time.monotonic()
    errors = errors_of(f"pipelines: {{web: {{params: {{x: [{', '.join(levels)}]}}}}}}")
    assert errors[-1].endswith(f"anchors expand to more than {MAX_NODES} values: write less of it")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "text",
    [
        "pipelines: {web: {" + ", ".join(f"k{i}: 1" for i in range(40_000)) + "}}",
        "pipelines: {web: [{build: {" + ", ".join(f"k{i}: 1" for i in range(40_000)) + "}}]}",
        "services: {" + ", ".join(f"S{i}: {{x: 1}}" for i in range(10_000)) + "}\npipelines: {web: [{build: .}]}",
        "pipelines: {web: {stages: {a: {run: {image: a, run: ['" + "${a.b}" * 20_000 + "']}}}}}",
        "pipelines: {web: {stages: {a: {build: ., needs: [" + ", ".join(["b"] * 40_000) + "]}}}}",
    ],
    ids=["keys", "keys in a stage", "services", "references", "needs"],
)
def test_many_errors_are_not_all_told(text: str) -> None:
    began = time.monotonic()
    assert 0 < len(errors_of(text)) <= MAX_PROBLEMS + 2
    assert time.monotonic() - began < 20


def test_as_many_stages_and_pipelines_as_there_may_be() -> None:
    chain = "pipelines: {web: [" + ", ".join(["{build: .}"] * 200) + "]}"
    assert len(load(chain, "p.yaml").pipelines["web"].stages) == 200
    assert "has too many items" in errors_of(chain.replace("]}", ", {build: .}]}"))[0]
    many = "pipelines: {" + ", ".join(f"p{i}: [{{build: .}}]" for i in range(101)) + "}"
    assert errors_of(many) == ["p.yaml:1:1: there are more than 100 pipelines: split the file"]


def test_a_line_of_an_error_has_its_length() -> None:
    (error,) = errors_of(f"pipelines: {{web: [{{build: .}}]}}\n{'x' * 1000}: 1")
    assert len(error) < 600


def test_models_refuse_what_they_do_not_know() -> None:
    for model in (Definition, PipelineDef, StageDef, TestDef):
        assert model.model_config["extra"] == "forbid"
