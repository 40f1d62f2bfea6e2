"""News: whoever waits is woken, from any thread, and a page's stream sees a change."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from pipeline.settings import Settings
from server.live import Feed
from tests.server.conftest import night
from tests.server.running import Event, Running
from tests.server.story import MAIL, WEB, Clock, Story, digest_of, plan_of


async def test_a_waiter_is_woken_from_another_thread() -> None:
    feed = Feed()
    feed.attach()
    waiting = asyncio.create_task(feed.wait(feed.version, 60))
    await asyncio.sleep(0)
    thread = threading.Thread(target=feed.touch)
    thread.start()
    assert await asyncio.wait_for(waiting, 20) == 1
    thread.join()


async def test_news_between_look_and_wait_are_not_missed() -> None:
    feed = Feed()
    feed.attach()
    seen = feed.version
    feed.touch()
    await asyncio.sleep(0)
    assert await asyncio.wait_for(feed.wait(seen, 60), 20) == seen + 1


async def test_patience_ends_without_news() -> None:
    feed = Feed()
    feed.attach()
    assert await feed.wait(feed.version, 0.01) == 0


async def test_a_closed_feed_keeps_nobody() -> None:
    feed = Feed()
    feed.attach()
    waiting = [asyncio.create_task(feed.wait(feed.version, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    feed.close()
    await asyncio.wait_for(asyncio.gather(*waiting), 20)
    await asyncio.wait_for(feed.wait(feed.version, 60), 20)


def test_touching_before_the_server_runs_is_no_error() -> None:
    Feed().touch()


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Running]:
    """Its sweeps, which are news now and then, are too rare to help."""
    with night(settings.model_copy(update={"sweep_seconds": 60.0})) as server:
        yield server


@pytest.fixture(autouse=True)
def _only_news_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks just because time has passed: a change that is not told of is not seen."""
    monkeypatch.setattr("server.pages.stream._OLDEST", 600.0)


@pytest.fixture
def story(server: Running) -> Story:
    return Story(server.store, Clock(0.0))


def until(events: Iterator[Event], name: str, fits: Callable[[str], bool]) -> str:
    """The data of the first event of that name that fits. The connection's own timeout is the deadline."""
    return next(event.data for event in events if event.name == name and fits(event.data))


def test_all_sections_come_first(server: Running) -> None:
    with server.events("/live") as events:
        assert [next(events).name for _ in range(4)] == ["attention", "services", "runs", "hosts"]


def test_a_push_appears_on_the_open_page(server: Running, story: Story) -> None:
    with server.events("/live") as events:
        until(events, "runs", lambda html: "reader" in html)
        run = story.push(plan_of(WEB), "Appear while somebody looks")
        server.conductor.advance(run.id)
        html = until(events, "runs", lambda html: "Appear while somebody looks" in html)
    assert f'href="/runs/{run.id}"' in html


def test_what_a_worker_says_over_the_wire_is_news(server: Running, story: Story) -> None:
    run = story.push(plan_of(MAIL), "Claimed by a worker")
    token = (server.settings.data / "worker-token").read_text().strip()
    with server.events(f"/live/runs/{run.id}") as events:
        until(events, "stage", lambda html: "queued" in html)
        attempt = server.api(f"/runs/{run.id}")["stages"][0]["attempts"][0]["id"]
        body = {"attempt": attempt, "worker": "build1"}
        claim = server.post("/api/v1/worker/claim", body, headers={"Authorization": f"Bearer {token}"})
        assert claim.status_code == 200
        html = until(events, "stage", lambda html: "running" in html)
    assert "build1" in html


def test_only_what_changed_is_sent_again(server: Running, story: Story) -> None:
    with server.events("/live") as events:
        for _ in range(4):
            next(events)
        run = story.push(plan_of(WEB), "Changes the runs only")
        server.conductor.advance(run.id)
        assert next(events).name == "runs"


def test_a_run_goes_from_stage_to_stage_with_its_log_and_ends(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Followed")
    claim = story.claim(run, "image")
    with server.events(f"/live/runs/{run.id}?shown=image&after=0") as events:
        story.say(claim, "Step 1/2", "<b>bold</b>\u2028")
        server.conductor.feed.touch()
        said = json.loads(until(events, "log", lambda data: "Step 1/2" in data))
        assert said["stage"] == "image"
        assert [line[3] for line in said["lines"]] == ["Step 1/2", "<b>bold</b>\u2028"]
        story.finish(claim, 1.0, image=digest_of("followed"))
        unit = story.claim(run, "unit")
        story.say(unit, "1 failed")
        server.conductor.feed.touch()
        begun = json.loads(until(events, "log", lambda data: '"unit"' in data))
        assert begun == {"stage": "unit", "lines": []}
        assert json.loads(until(events, "log", lambda data: "1 failed" in data))["stage"] == "unit"
        for _ in range(2):
            story.finish(unit, 1.0, error="exit code 1: pytest -q", code=1)
            unit = story.claim(run, "unit") if server.store.get_run(run.id).state == "running" else unit
        server.conductor.feed.touch()
        assert "exit code 1: pytest -q" in until(events, "head", lambda html: "failed" in html)
        rest = [event.name for event in events]
    assert rest[-1] == "end"


def test_a_reader_that_was_cut_off_goes_on_where_it_was(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Cut off")
    claim = story.claim(run, "image")
    story.say(claim, "one", "two")
    with server.events(f"/live/runs/{run.id}?shown=image&after=0") as events:
        first = next(event for event in events if event.name == "log")
    story.say(claim, "three", first=2)
    with server.events(f"/live/runs/{run.id}?shown=image&after=0", {"Last-Event-ID": first.id}) as events:
        said = json.loads(until(events, "log", bool))
    assert [line[3] for line in said["lines"]] == ["three"]


def test_a_stage_that_was_asked_for_stays(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB), "Pinned")
    with server.events(f"/live/runs/{run.id}?stage=production") as events:
        assert "<h2>production</h2>" in until(events, "stage", bool)


def test_a_stream_of_what_is_not_there_is_not_found(server: Running) -> None:
    for path in ("/live/runs/4711", "/live/services/nobody", f"/live/runs/{server.runs['live']}?stage=nobody"):
        assert server.get(path).status_code == 404, path


def test_the_stream_of_an_ended_run_ends_at_once(server: Running) -> None:
    with server.events(f"/live/runs/{server.runs['live']}") as events:
        names = [event.name for event in events]
    assert names[-1] == "end"
    assert "head" in names


def test_many_readers_of_one_page_cost_one_making(server: Running, story: Story) -> None:
    made = 0
    load = server.store.list_services

    def counted() -> object:
        nonlocal made
        made += 1
        return load()

    server.store.list_services = counted  # type: ignore[method-assign, assignment]
    try:
        streams = [server.events("/live") for _ in range(8)]
        opened = [stream.__enter__() for stream in streams]
        for events in opened:
            next(events)
        assert made <= 3
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
        server.store.list_services = load  # type: ignore[method-assign]
