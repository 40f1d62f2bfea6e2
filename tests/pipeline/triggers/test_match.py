"""Which pipelines an event starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pipeline.definition.load import load
from pipeline.triggers.event import Event
from pipeline.triggers.match import matches, pipelines_for


def started(on: str, *, files: Iterable[str] | None = (), **event: Any) -> bool:
    definition = load(f"pipelines: {{web: {{{on} stages: {{a: {{build: .}}}}}}}}", "p.yaml")
    happened = Event(**{"kind": "push", "repository": "r", "ref": "refs/heads/main", "sha": "a" * 40, **event})
    return pipelines_for(definition, happened, lambda: files) == ["web"]


NEXT = {"ref": "refs/heads/next"}
TAG = {"kind": "tag", "ref": "refs/tags/v1.2"}
DELETED = {"sha": "0" * 40}
HAND = {"kind": "manual"}


@pytest.mark.parametrize(
    ("on", "event", "expected"),
    [
        ("", {}, True),
        ("", NEXT, True),
        ("", TAG, False),
        ("", DELETED, False),
        ("", HAND, False),
        ("on: {push: {}},", {}, True),
        ("on: {},", {}, False),
        ('on: {schedule: "0 3 * * *"},', {}, False),
        ("on: {push: {branches: main}},", {}, True),
        ("on: {push: {branches: main}},", NEXT, False),
        ("on: {push: {branches: main}},", TAG, False),
        ("on: {push: {branches: main}},", DELETED, False),
        ("on: {push: {branches: ['*', '!next']}},", NEXT, False),
        ("on: {push: {branches: ['*', '!next']}},", {}, True),
        ("on: {push: {branches: '!main'}},", NEXT, True),
        ("on: {push: {branches: '!main'}},", {}, False),
        ("on: {push: {tags: 'v*'}},", TAG, True),
        ("on: {push: {tags: 'v*'}},", {}, False),
        ("on: {push: {tags: 'x*'}},", TAG, False),
        ("on: {push: {tags: 'v*', branches: main}},", {}, True),
        ("on: {push: {tags: 'v*', branches: main}},", TAG, True),
        ("on: {push: {tags: 'v*', paths: 'app/**'}},", TAG, True),
    ],
)
def test_triggers(on: str, event: dict[str, Any], expected: bool) -> None:
    assert started(on, **event) is expected


@pytest.mark.parametrize(
    ("paths", "files", "expected"),
    [
        ("'app/**'", ["app/x/y"], True),
        ("'app/**'", ["docs/x"], False),
        ("'app/**'", [], False),
        ("'app/**'", None, True),
        ("['**', '!docs/**']", ["docs/x"], False),
        ("['**', '!docs/**']", ["docs/x", "app/y"], True),
        ("['!docs/**']", ["README"], True),
    ],
)
def test_paths(paths: str, files: list[str] | None, expected: bool) -> None:
    assert started(f"on: {{push: {{paths: {paths}}}}},", files=files) is expected


def test_a_schedule_starts_its_own_pipelines() -> None:
    text = """
pipelines:
  nightly: {on: {schedule: "0 3 * * *"}, stages: {a: {build: .}}}
  weekly: {on: {schedule: "0 3 * * 0"}, stages: {a: {build: .}}}
  both: {on: {push: {}, schedule: "0 3 * * *"}, stages: {a: {build: .}}}
  pushed: [{build: .}]
"""
    event = Event(kind="schedule", repository="r", schedule="0 3 * * *", sha="a" * 40, ref="refs/heads/main")
    assert pipelines_for(load(text, "p.yaml"), event, lambda: None) == ["nightly", "both"]


def test_git_is_asked_for_the_changes_once_and_only_when_they_matter() -> None:
    asked = []

    def changed() -> list[str]:
        asked.append(1)
        return ["docs/x"]

    event = Event(kind="push", repository="r", ref="refs/heads/main", sha="a" * 40)
    plain = load("pipelines: {a: [{build: .}], b: [{build: .}]}", "p.yaml")
    assert pipelines_for(plain, event, changed) == ["a", "b"]
    assert asked == []
    on = "on: {push: {paths: 'docs/**'}}, stages: {a: {build: .}}"
    assert pipelines_for(load(f"pipelines: {{a: {{{on}}}, b: {{{on}}}}}", "p.yaml"), event, changed) == ["a", "b"]
    assert asked == [1]


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("a", [], False),
        ("a", ["a"], True),
        ("a", ["!a"], False),
        ("b", ["!a"], True),
        ("a", ["*", "!a", "a"], True),
        ("b", ["a", "!b"], False),
    ],
)
def test_the_last_pattern_that_speaks_of_a_name_decides(name: str, patterns: list[str], expected: bool) -> None:
    assert matches(name, patterns) is expected
