"""`shipway lint`, `plan` and `schema`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.definition.schema import json_schema
from tests.cli.conftest import Shipway

EXAMPLE = Path(__file__).resolve().parents[2] / "pipelines.example.yaml"
GOOD = """
services: {web: {port: 8000}}
pipelines:
  web:
    on: {push: {branches: [main], paths: ["app/**"]}, schedule: "0 3 * * *"}
    params: {slow: false}
    stages:
      image: {build: {context: app}}
      unit: {needs: image, matrix: {v: [1, 2]}, test: "pytest -q", runs_on: {role: build}, allow_failure: true}
      slow: {needs: unit, when: params.slow, test: pytest -m slow}
      publish: {needs: unit, push: localhost:7750/web}
      live: {needs: publish, deploy: {service: web, environment: eu, approval: required}}
      sorry: {needs: live, when: failure, run: {image: a, run: tell}}
"""
BAD = """
pipelines:
  web:
    stages:
      image: {biuld: .}
      unit: {needs: imaeg, test: pytest, retries: many}
"""


def write(text: str, name: str = "pipelines.yaml") -> None:
    Path(name).write_text(text)


def test_lint_is_happy(shipway: Shipway) -> None:
    write(GOOD)
    answer = shipway("lint")
    assert (answer.code, answer.out, answer.err) == (0, "pipelines.yaml: 1 pipeline, 1 service: good\n", "")


def test_lint_names_every_problem_at_once(shipway: Shipway) -> None:
    write(BAD, "mine.yaml")
    answer = shipway("lint", "mine.yaml")
    assert answer.code == 2
    assert answer.out == ""
    places = [line.split(": ")[0] for line in answer.err.splitlines()]
    assert places == ["mine.yaml:5:15", "mine.yaml:6:21", "mine.yaml:6:51"]
    assert 'unknown key "biuld": did you mean "build"?' in answer.err


def test_lint_tells_what_only_this_checkout_can_tell_for_all_pipelines(shipway: Shipway) -> None:
    stages = 'stages: {a: {build: .}, b: {needs: a, push: {to: "localhost:1/${git.repository}"}}}'
    write(f"pipelines: {{one: {{{stages}}}, two: {{{stages}}}}}")
    answer = shipway("lint")
    assert answer.code == 2
    assert [line.split(": ")[1] for line in answer.err.splitlines()] == ["pipeline one", "pipeline two"]


def test_lint_for_programs(shipway: Shipway) -> None:
    write(GOOD)
    answer = shipway("lint", "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == {"file": "pipelines.yaml", "good": True, "problems": []}
    write(BAD)
    answer = shipway("lint", "--json")
    found = json.loads(answer.out)
    assert (answer.code, answer.err, found["good"]) == (2, "", False)
    assert found["problems"][0] == {
        "file": "pipelines.yaml", "line": 5, "column": 15,
        "what": 'unknown key "biuld"', "remedy": 'did you mean "build"?',
    }  # fmt: skip


@pytest.mark.parametrize("command", [("lint",), ("plan", "-f"), ("run", "-f")])
def test_files_that_can_not_be_read(shipway: Shipway, command: tuple[str, ...]) -> None:
    Path("folder").mkdir()
    Path("binary").write_bytes(b"\xff\xfe\0")
    Path("huge").write_bytes(b"#" * (2 << 20))
    for name, error in {
        "none": "shipway: none: no such file or directory: name the file, or make it\n",
        "folder": "shipway: folder: is a directory: name the file, or make it\n",
        "binary": "shipway: binary: this is not UTF-8 text\n",
        "huge": "huge:1:1: the file is larger than 1 MiB: split it\n",
        "/dev/zero": "/dev/zero:1:1: the file is larger than 1 MiB: split it\n",
    }.items():
        answer = shipway(*command, name)
        assert (answer.code, answer.err) == (2, error)


def test_the_example_lints_and_plans(shipway: Shipway) -> None:
    assert shipway("lint", str(EXAMPLE)).code == 0
    answer = shipway("plan", "-f", str(EXAMPLE))
    assert answer.code == 0
    assert "web: starts with a push of main, release/**" in answer.out
    assert "worker: starts with a push of any branch" in answer.out


def test_plan_tells_what_would_run_and_why(shipway: Shipway) -> None:
    write(GOOD)
    answer = shipway("plan")
    assert answer.code == 0
    first, _, *lines = answer.out.splitlines()
    assert first == "web: starts with a push of main that changes app/**, or the schedule 0 3 * * *"
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert rows == [
        ["image", "build", "app/Dockerfile"],
        ["unit (v=1)", "test", "pytest -q", "image", "role=build", "may fail"],
        ["unit (v=2)", "test", "pytest -q", "image", "role=build", "may fail"],
        ["slow", "test", "pytest -m slow", "unit", "skipped: its condition is false: params.slow"],
        ["publish", "push", "localhost:7750/web", "unit"],
        ["live", "deploy", "web (eu)", "publish", "waits for approval"],
        ["sorry", "run", "tell", "live", "only after a failure"],
    ]


def test_plan_with_parameters_for_programs(shipway: Shipway) -> None:
    write(GOOD)
    answer = shipway("plan", "web", "--set", "slow=true", "--json")
    (plan,) = json.loads(answer.out)["plans"]
    stages = {stage["name"]: stage for stage in plan["stages"]}
    assert stages["slow"]["skip"] is None
    assert stages["unit (v=2)"]["matrix"] == {"v": 2}
    assert len(json.loads(shipway("plan", "--json", "-f", str(EXAMPLE)).out)["plans"]) == 2


def test_plan_of_a_git_checkout_knows_its_commit(shipway: Shipway) -> None:
    write('pipelines: {web: [{build: .}, {push: "localhost:1/web:${git.branch}-${git.sha}"}]}')
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=next"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=x"], check=True)
    sha = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (plan,) = json.loads(shipway("plan", "--json").out)["plans"]
    assert plan["stages"][1]["spec"]["tags"] == [f"next-{sha}"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["wbe"], 'shipway: there is no pipeline "wbe": did you mean "web"?'),
        (["web", "--set", "slow"], "shipway: --set slow: write KEY=VALUE"),
        (
            ["web", "--set", "slow=1"],
            'pipelines.yaml:1:1: pipeline web: the parameter "slow" can\'t be "1": its default is False',
        ),
        (["web", "--set", "fast=1"], 'pipelines.yaml:1:1: pipeline web: there is no parameter "fast": use "slow"'),
    ],
)
def test_questions_that_are_wrong(shipway: Shipway, arguments: list[str], error: str) -> None:
    write(GOOD)
    for command in ("plan", "run"):
        answer = shipway(command, *arguments)
        assert (answer.code, answer.out, answer.err) == (2, "", error + "\n")


def test_a_parameter_of_one_of_several_pipelines(shipway: Shipway) -> None:
    answer = shipway("plan", "--set", "slow=true", "-f", str(EXAMPLE))
    assert (answer.code, answer.err) == (2, "shipway: there are several pipelines: name one of web, worker\n")


def test_schema_is_json(shipway: Shipway) -> None:
    answer = shipway("schema")
    assert answer.code == 0
    assert json.loads(answer.out) == json_schema()
