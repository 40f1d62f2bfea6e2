"""Logs: all there is, and as they come."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.plan.models import Plan, PlannedStage, TestSpec
from pipeline.protocol import Claim
from pipeline.views import RunView
from tests.server.running import Running
from tests.server.story import WEB, Clock, Story, digest_of, plan_of


@pytest.fixture(scope="module")
def story(server: Running) -> Story:
    story = Story(server.store, Clock(1_800_000_000.0))
    story.host("build1")
    return story


@pytest.fixture(autouse=True)
def _only_news_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.api.logs._PATIENCE", 600.0)


@pytest.fixture
def started(story: Story) -> tuple[RunView, Claim]:
    run = story.push(plan_of(WEB), "Talk")
    return run, story.claim(run, "image")


def path_of(run: RunView, stage: str = "image") -> str:
    return f"/api/v1/runs/{run.id}/stages/{quote(stage, safe='')}/logs"


def test_text_is_the_lines_alone(server: Running, story: Story, started: tuple[RunView, Claim]) -> None:
    run, claim = started
    story.say(claim, "one", "  zwei → ü", "")
    answer = server.get(path_of(run), params={"format": "text"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "one\n  zwei → ü\n\n"


def test_json_is_one_line_a_line(server: Running, story: Story, started: tuple[RunView, Claim]) -> None:
    run, claim = started
    story.say(claim, "one", stream="stderr")
    (line,) = map(json.loads, server.get(path_of(run)).text.splitlines())
    assert (line["stream"], line["text"], line["attempt"], line["seq"]) == ("stderr", "one", claim.attempt, 0)


def test_the_last_lines_and_those_after_one(server: Running, story: Story, started: tuple[RunView, Claim]) -> None:
    run, claim = started
    story.say(claim, *map(str, range(10)))
    assert server.get(path_of(run), params={"format": "text", "tail": 2}).text == "8\n9\n"
    third = [json.loads(line) for line in server.get(path_of(run)).text.splitlines()][2]
    after = server.get(path_of(run), params={"format": "text", "after": third["id"]}).text
    assert after.splitlines() == [str(number) for number in range(3, 10)]


def test_a_long_log_comes_whole(server: Running, story: Story, started: tuple[RunView, Claim]) -> None:
    run, claim = started
    for batch in range(3):
        story.say(claim, *(f"{batch}.{number}" for number in range(1000)), first=1000 * batch)
    lines = server.get(path_of(run), params={"format": "text"}).text.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (3000, "0.0", "2.999")


def test_one_attempt_of_several(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Twice")
    story.finish(story.claim(run, "image"), 1.0, image=digest_of("image"))
    for words in ("first try", "second try"):
        claim = story.claim(run, "unit")
        story.say(claim, words)
        story.finish(claim, 1.0, error="exit code 1", code=1)
    assert server.get(path_of(run, "unit"), params={"format": "text"}).text == "first try\nsecond try\n"
    assert server.get(path_of(run, "unit"), params={"format": "text", "attempt": 2}).text == "second try\n"


@pytest.mark.parametrize("name", ["unit (python=3.11)", "unit (image=a/b:c)", "unit (what=100%?#&)"])
def test_a_stage_of_a_matrix_is_named_as_it_is(server: Running, story: Story, name: str) -> None:
    stage = PlannedStage(name=name, base="unit", spec=TestSpec(image="busybox", run=("true",)))
    run = story.push(Plan(pipeline="odd", stages=(stage,)), "Odd names")
    story.say(story.claim(run, name), "here")
    assert server.get(path_of(run, name), params={"format": "text"}).text == "here\n"


@pytest.mark.parametrize(
    ("query", "status"),
    [("format=html", 400), ("tail=x", 400), ("after=-1", 400), ("tail=100001", 400), ("attempt=one", 400)],
)
def test_a_query_that_makes_no_sense_is_refused(
    server: Running, started: tuple[RunView, Claim], query: str, status: int
) -> None:
    run, _ = started
    assert server.get(f"{path_of(run)}?{query}").status_code == status


def test_what_is_not_there_is_told_before_the_first_line(server: Running, started: tuple[RunView, Claim]) -> None:
    run, _ = started
    for path in (path_of(run, "nobody"), "/api/v1/runs/4711/stages/image/logs"):
        answer = server.get(path, params={"format": "text", "follow": 1})
        assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")


def test_following_goes_on_until_the_stage_has_ended(
    server: Running, story: Story, started: tuple[RunView, Claim]
) -> None:
    run, claim = started
    story.say(claim, "before")
    answer = server.get(path_of(run), params={"format": "text", "follow": 1}, stream=True)
    lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
    assert next(lines) == "before"
    _told(server, story, claim, "while it runs", 1)
    assert next(lines) == "while it runs"
    story.say(claim, "last words", first=2)
    story.finish(claim, 1.0)
    server.conductor.feed.touch()
    assert list(lines) == ["last words"]


def test_events_say_where_to_go_on(server: Running, story: Story, started: tuple[RunView, Claim]) -> None:
    run, claim = started
    story.say(claim, "one", "two")
    with server.events(f"{path_of(run)}?format=sse&follow=1") as events:
        first, second = next(events), next(events)
    assert [json.loads(event.data)["text"] for event in (first, second)] == ["one", "two"]
    story.say(claim, "three", first=2)
    story.finish(claim, 1.0)
    with server.events(f"{path_of(run)}?format=sse&follow=1", {"Last-Event-ID": second.id}) as events:
        rest = list(events)
    assert [event.name for event in rest] == ["line", "end"]
    assert json.loads(rest[0].data)["text"] == "three"


def test_a_stage_that_has_not_begun_is_waited_for(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Early")
    got: list[Any] = []

    def follow() -> Iterator[str]:
        answer = server.get(path_of(run), params={"format": "text", "follow": 1}, stream=True)
        yield from answer.iter_lines(chunk_size=1, decode_unicode=True)

    reader = threading.Thread(target=lambda: got.extend(follow()))
    reader.start()
    claim = story.claim(run, "image")
    story.say(claim, "hello")
    story.finish(claim, 1.0)
    server.conductor.feed.touch()
    reader.join(20)
    assert not reader.is_alive()
    assert got == ["hello"]


def _told(server: Running, story: Story, claim: Claim, line: str, seq: int) -> None:
    story.say(claim, line, first=seq)
    server.conductor.feed.touch()
