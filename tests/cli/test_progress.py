"""What a run looks like while it goes."""

from __future__ import annotations

import io

from rich.console import Console

from cli.progress import Progress
from pipeline.plan.models import Kind
from pipeline.run.states import RunState, StageState
from pipeline.views import RunView, StageView, StoredLine


def view(**states: StageState | StageView) -> RunView:
    stages = [
        state
        if isinstance(state, StageView)
        else StageView(name=name, base=name, kind=Kind.RUN, position=0, state=state)
        for name, state in states.items()
    ]
    return RunView(id=1, pipeline="web", state=RunState.RUNNING, created=0.0, stages=tuple(stages))


def line(text: str, stream: str = "stdout") -> StoredLine:
    return StoredLine(id=1, attempt="a", seq=0, stream=stream, time=0.0, text=text)


def told(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return [each.rstrip() for each in console.file.getvalue().splitlines()]


def test_in_a_pipe_it_is_plain_lines() -> None:
    console = Console(file=io.StringIO(), width=40)
    failed = StageView(
        name="unit",
        base="unit",
        kind=Kind.TEST,
        position=1,
        state=StageState.FAILED,
        reason="exit code 1",
        duration=1.25,
    )
    with Progress(console, ["image", "unit"]) as progress:
        progress.show(view(image=StageState.RUNNING, unit=StageState.PENDING))
        progress.log("image", [line("x" * 100), line("[bold]no markup[/bold] \x1b[31mred\x1b[0m"), line("", "system")])
        for _ in range(2):
            progress.show(view(image=StageState.PASSED, unit=StageState.RUNNING))
        progress.show(view(image=StageState.PASSED, unit=failed))
    assert told(console) == [
        "image  running",
        "image  | " + "x" * 100,
        "image  | [bold]no markup[/bold] red",
        "image  |",
        "image  passed",
        "unit   running",
        "unit   failed in 1.2 s: exit code 1",
    ]


def test_a_stage_that_is_tried_again_begins_again() -> None:
    console = Console(file=io.StringIO())
    with Progress(console, ["a"]) as progress:
        for state in (
            StageState.RUNNING,
            StageState.READY,
            StageState.DISPATCHED,
            StageState.RUNNING,
            StageState.PASSED,
        ):
            progress.show(view(a=state))
    assert told(console) == ["a  running", "a  running", "a  passed"]


def test_a_long_name_is_cut_in_front_of_lines() -> None:
    console = Console(file=io.StringIO())
    name = "unit (python=3.11, database=postgres)"
    with Progress(console, [name]) as progress:
        progress.log(name, [line("x")])
    assert told(console) == [f"{name[:24]}  | x"]


def test_on_a_terminal_what_is_under_way_is_shown_and_taken_away() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    with Progress(console, ["image"]) as progress:
        progress.show(view(image=StageState.RUNNING))
        progress.pause()
        progress.show(view(image=StageState.PASSED))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "image  running" in text
    assert "image  passed" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0, "the cursor comes back"
