"""The pages over real HTTP: they say what somebody woken at night must know, and nothing runs in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from pipeline.plan.models import Plan, PlannedStage, TestSpec
from pipeline.protocol import Replica, ReplicaState
from pipeline.settings import Settings
from tests.server.conftest import night
from tests.server.running import Running
from tests.server.story import FAILURE, UNHEALTHY, WEB, Clock, Story, plan_of, replicas

HOSTILE = """</title><script>alert("x")</script><img src=x onerror='alert(1)'> {{ 7*7 }} ${x} "'`\u202e"""
_VOID = {"meta", "link", "input", "path", "circle", "rect", "br"}


class Page(HTMLParser):
    """The page as a browser's parser sees it: its text, its tags, its links. Asserts that tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"never closed: {self._open}"
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self._open, f"</{tag}> closes nothing"
            assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a" and "href" in attrs]

    def scripts(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "script"]


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Running]:
    with night(settings) as server:
        yield server


@pytest.fixture
def story(server: Running) -> Story:
    """With hosts that were heard of just now."""
    story = Story(server.store, Clock(0.0))
    story.holds("web1", *replicas("web", "web-2"))
    story.holds("web2", *replicas("web", "web-2"))
    story.holds("build1", *replicas("mail", "mail-1", 1))
    server.conductor.feed.touch()
    return story


def page(server: Running, path: str) -> Page:
    answer = server.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    return Page(answer.text)


def test_home_tells_what_runs_where_why_it_stopped_and_how_to_go_back(server: Running, story: Story) -> None:
    home = page(server, "/")
    assert "web-3 was undone: web-2 serves" in home.text
    assert UNHEALTHY in home.text
    assert "shipway rollback web" in home.text
    assert "back to web-1" in home.text
    assert home.text.count("2/2 healthy") == 2
    assert "1/1 healthy" in home.text
    assert {"/services/web", "/services/mail"} <= set(home.links())
    assert {f"/runs/{number}" for number in server.runs.values()} <= set(home.links())
    assert 'unknown key "need": did you mean "needs"?' in home.text


def test_home_says_which_hosts_there_are(server: Running, story: Story) -> None:
    home = page(server, "/")
    for words in ("web1", "web2", "build1", "role=web", "Shipway Engine 0.1.0", "online"):
        assert words in home.text


def test_a_replica_that_is_ill_is_the_first_thing_said(server: Running, story: Story) -> None:
    ill = Replica(
        service="web", release="web-2", name="web-2-2", state=ReplicaState.UNHEALTHY, detail="GET /healthz: 503"
    )
    story.holds("web1", replicas("web", "web-2")[0], ill)
    server.conductor.feed.touch()
    home = page(server, "/")
    assert home.text.index("web-2-2 on web1 is unhealthy") < home.text.index("web-3 was undone")
    assert "GET /healthz: 503" in home.text
    assert "1/2 healthy" in home.text


def test_an_empty_system_says_what_to_do_next(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.server.running import running

    fresh = settings.model_copy(update={"data": tmp_path_factory.mktemp("fresh")})
    with running(fresh) as server:
        home = page(server, "/")
    for words in ("No service has been deployed yet", "Nothing has run yet", "shipway worker"):
        assert words in home.text


def test_a_failed_run_shows_its_failure_and_its_log(server: Running) -> None:
    number = server.runs["failed"]
    run = page(server, f"/runs/{number}")
    assert "unit: exit code 1: pytest -q" in run.text
    assert f"shipway retry {number}" in run.text
    assert FAILURE[-1] in run.text
    assert "attempt 2" in run.text
    assert "1 failed, 31 passed" in run.text
    for stage in ("image", "unit", "publish", "production"):
        assert f"/runs/{number}?stage={stage}" in run.links()
    assert any("chosen" in (attrs.get("class") or "") for tag, attrs in run.tags if tag == "a")


def test_a_run_that_goes_on_can_be_stopped_and_is_live(server: Running) -> None:
    number = server.runs["running"]
    run = page(server, f"/runs/{number}")
    assert f"shipway cancel {number}" in run.text
    (body,) = [attrs for tag, attrs in run.tags if tag == "body"]
    assert (body["sse-connect"] or "").startswith(f"/live/runs/{number}?")
    assert "tests/test_greeting.py ........" in run.text
    swaps = {attrs["sse-swap"] for _, attrs in run.tags if "sse-swap" in attrs}
    assert swaps == {"head", "graph", "stage", "log"}


def test_a_run_that_has_ended_holds_no_connection(server: Running) -> None:
    run = page(server, f"/runs/{server.runs['live']}")
    (body,) = [attrs for tag, attrs in run.tags if tag == "body"]
    assert "sse-connect" not in body


def test_a_stage_can_be_chosen(server: Running) -> None:
    number = server.runs["live"]
    assert "Step 1/6 : FROM python:3.12-slim" in page(server, f"/runs/{number}?stage=image").text
    assert "32 passed" in page(server, f"/runs/{number}?stage=unit").text
    assert server.get(f"/runs/{number}?stage=nobody").status_code == 404


def test_a_refused_run_tells_every_error_of_its_file(server: Running) -> None:
    run = page(server, f"/runs/{server.runs['refused']}")
    assert "pipelines.yaml:12:5: unknown key" in run.text
    assert 'pipelines.yaml:19:15: the stage "unit" is not there' in run.text


def test_a_run_that_waits_says_who_can_let_it_go_on(server: Running, story: Story) -> None:
    run = story.push(plan_of(WEB, approval=True), "Wait for me")
    story.until_published(run)
    server.conductor.advance(run.id)
    for path in ("/", f"/runs/{run.id}"):
        assert f"shipway approve {run.id}/production" in page(server, path).text
    story.store.cancel(run.id)


def test_a_deploy_leads_to_its_service(server: Running) -> None:
    assert "/services/web" in page(server, f"/runs/{server.runs['undone']}").links()


def test_a_service_tells_its_hosts_its_rollout_and_its_releases(server: Running, story: Story) -> None:
    service = page(server, "/services/web")
    assert "web-2 went live" in service.text
    assert "web-3 was undone: web-2 serves" in service.text
    assert UNHEALTHY in service.text
    assert "shipway rollback web" in service.text
    assert "shipway rollback web web-1" in service.text
    for name in ("web1", "web2", "web-2-1", "web-2-2", "web-1", "superseded", "failed"):
        assert name in service.text
    assert {f"/runs/{server.runs[name]}" for name in ("first", "live", "undone")} <= set(service.links())


def test_a_service_without_an_earlier_release_says_so(server: Running, story: Story) -> None:
    service = page(server, "/services/mail")
    assert "no earlier release" in service.text
    assert "shipway rollback" not in service.text


def test_a_host_that_has_gone_silent_is_said_where_it_matters(server: Running, story: Story) -> None:
    context = server.store._context
    now = context.clock()
    object.__setattr__(context, "clock", lambda: now + 3600)
    try:
        server.conductor.feed.touch()
        home, service = page(server, "/"), page(server, "/services/web")
    finally:
        object.__setattr__(context, "clock", type(context)().clock)
        server.conductor.feed.touch()
    assert "web1 is silent" in home.text
    assert "silent" in service.text
    assert "2/2 healthy" not in home.text


def test_what_strangers_write_is_text(server: Running, story: Story) -> None:
    stage = PlannedStage(name=f"unit (x={HOSTILE[:40]})", base="unit", spec=TestSpec(image="busybox", run=("true",)))
    run = story.push(Plan(pipeline="odd", stages=(stage,)), HOSTILE, author=HOSTILE, branch=HOSTILE)
    claim = story.claim(run, stage.name)
    story.say(claim, HOSTILE, "\x1b[31mred\x1b[0m", "50%\r100%", "</pre></span>")
    story.finish(claim, 1.0, error=HOSTILE, code=1, retryable=False)
    server.conductor.feed.touch()
    for path in ("/", f"/runs/{run.id}"):
        html = server.get(path).text
        shown = Page(html)
        assert [attrs.get("src", "")[:8] for attrs in shown.scripts()] == ["/static/"] * 3  # type: ignore[index]
        assert not [tag for tag, _ in shown.tags if tag == "img"]
        assert not [name for _, attrs in shown.tags for name in attrs if name.startswith("on")]
        assert '<script>alert("x")</script>' in shown.text
        assert "{{ 7*7 }}" in shown.text
    assert "\x1b" not in html
    assert "100%" in shown.text
    assert "50%" not in shown.text


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(server: Running) -> None:
    for path in ("/", f"/runs/{server.runs['running']}", "/services/web"):
        shown = page(server, path)
        assert not [attrs for _, attrs in shown.tags if "style" in attrs]
        assert not [tag for tag, _ in shown.tags if tag == "style"]
        sources = [attrs.get("src") or attrs.get("href") for tag, attrs in shown.tags if tag in ("script", "link")]
        assert all((source or "").startswith("/static/") for source in sources)
        for source in sources:
            answer = server.get(source or "")
            assert answer.status_code == 200, source
            assert "immutable" in answer.headers["cache-control"]


def test_static_files_are_only_the_static_files(server: Running) -> None:
    assert server.get("/static/htmx.min.js").headers["cache-control"] == "no-cache"
    for path in ("/static/", "/static/nothing.js", "/static/%2e%2e/app.py", "/static/../app.py"):
        assert server.get(path).status_code == 404, path


def test_it_can_be_read_without_scripts(server: Running) -> None:
    html = server.get("/").text
    times = re.findall(r"<time[^>]*>([^<]*)</time>", html)
    assert times
    assert all(re.search(r"\d{1,2} [A-Z][a-z]{2} \d\d:\d\d:\d\d", text) for text in times)
    assert '<noscript><meta http-equiv="refresh"' in html
