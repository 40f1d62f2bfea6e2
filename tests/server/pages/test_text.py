"""Values as people read them."""

from __future__ import annotations

import pytest

from pipeline.protocol import HostState, ReleaseState, ReplicaState, RolloutState
from pipeline.run.states import AttemptState, RunState, StageState
from server.pages.templates import environment
from server.pages.text import look, machine_time, moment, plain, plural, short, word
from server.pages.timings import bars
from tests.server.pages.test_graph import stage

STATES = [*RunState, *StageState, *AttemptState, *ReleaseState, *RolloutState, *HostState, *ReplicaState]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[1;31mred\x1b[0m text", "red text"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("10%\r50%\r100%", "100%"),
        ("windows\r", "windows"),
        ("a\tb", "a\tb"),
        ("bell\x07null\x00", "bellnull"),
        ("→ ü \N{SNOWMAN}", "→ ü \N{SNOWMAN}"),
    ],
)
def test_log_lines_lose_what_steers_terminals(line: str, shown: str) -> None:
    assert plain(line) == shown


def test_times_are_utc() -> None:
    assert moment(0) == "1 Jan 00:00:00"
    assert machine_time(1.5) == "1970-01-01T00:00:01+00:00"


def test_commits_and_digests_are_short() -> None:
    assert short("sha256:0123456789abcdef") == short("0123456789abcdef") == "01234567"
    assert short("") == ""


def test_numbers_have_their_nouns() -> None:
    assert [plural(number, "host") for number in (0, 1, 2)] == ["0 hosts", "1 host", "2 hosts"]


@pytest.mark.parametrize("state", sorted({str(state) for state in STATES}))
def test_every_state_has_a_word_a_look_and_a_shape(state: str) -> None:
    assert word(state)
    assert look(state) in ("good", "bad", "busy", "warn", "idle")
    drawn = environment().from_string('{% from "macros.html" import icon %}{{ icon(state) }}').render(state=state)
    assert "<circle" in drawn


def test_states_that_differ_in_kind_differ_in_look() -> None:
    assert look("passed") != look("failed") != look("running") != look("pending")
    assert word("reverted") == "undone"


def test_bars_are_measured_by_the_longest_attempt() -> None:
    from pipeline.views import AttemptView

    def attempt(number: int, **timings: float) -> AttemptView:
        return AttemptView(id=str(number), number=number, state=AttemptState.PASSED, created=0.0, timings=timings)

    view = stage("unit").model_copy(update={"attempts": (attempt(1, run=1.0, queue=1.0), attempt(2, run=4.0))})
    first, second = bars(view)
    assert [(part.phase, part.x, part.width) for part in first.parts] == [("queue", 0, 250), ("run", 250, 250)]
    assert [(part.phase, part.x, part.width) for part in second.parts] == [("run", 0, 1000)]
    assert bars(stage("none")) == ()
