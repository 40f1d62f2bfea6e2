"""A run as it goes: its log, a line for each stage that begins or ends, and on a terminal what is under way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from cli.output import state_text
from pipeline.run.states import STAGE_ENDED, StageState
from pipeline.values import format_duration
from pipeline.views import RunView, StageView, StoredLine

_WIDEST = 24
_COLOURS = ("cyan", "magenta", "blue", "green", "yellow")


class Progress:
    """Prints to `console`; a context manager. On anything but a terminal, plain lines that only grow."""

    def __init__(self, console: Console, stages: Iterable[str]) -> None:
        names = list(stages)
        self._console = console
        self._width = min(_WIDEST, max(map(len, names), default=0))
        self._colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
        self._told: dict[str, tuple[StageState, int]] = {}
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()

    def pause(self) -> None:
        """Leaves the terminal to somebody else, until the next `show`."""
        if self._live is not None:
            self._live.stop()

    def show(self, run: RunView) -> None:
        """Tells which stages began or ended since the last time."""
        for stage in run.stages:
            state = (stage.state, len(stage.attempts))
            if self._told.get(stage.name) != state and stage.state in (*STAGE_ENDED, StageState.RUNNING):
                self._say(stage.name, _ending(stage))
            self._told[stage.name] = state
        if self._live is not None:
            now = time.time()
            under_way = [stage for stage in run.stages if stage.state is StageState.RUNNING]
            self._live.update(Group(*(self._spinner(stage, now) for stage in under_way)))
            self._live.start()

    def log(self, stage: str, lines: Sequence[StoredLine]) -> None:
        """What a stage says; the worker's own words are dimmed."""
        texts = []
        for line in lines:
            text = Text("| ", style="bright_black" if line.stream == "system" else "")
            texts.append(text.append_text(Text.from_ansi(line.text) if "\x1b" in line.text else Text(line.text)))
        self._say(stage, *texts)

    def _say(self, stage: str, *texts: Text) -> None:
        head = stage[: self._width].ljust(self._width) + "  "
        if self._console.quiet:
            return
        if self._live is None:
            # Ten times as fast, and a stage may say a million lines.
            self._console.file.write("".join(f"{head}{text.plain}\n" for text in texts))
            self._console.file.flush()
            return
        style = self._colours.get(stage, "")
        for text in texts:
            # Output of programs is not ours to fold or to colour.
            self._console.print(
                Text(head, style=style).append_text(text), soft_wrap=True, highlight=False, markup=False
            )

    def _spinner(self, stage: StageView, now: float) -> Spinner:
        took = format_duration(max(0.0, now - (stage.started or now)))
        return Spinner("dots", Text(f"{stage.name}  {took}", style=self._colours.get(stage.name, "")))


def _ending(stage: StageView) -> Text:
    text = state_text(stage.state.value)
    if stage.state in (StageState.PASSED, StageState.FAILED, StageState.CANCELLED) and stage.duration is not None:
        text.append(f" in {format_duration(stage.duration)}", style="default")
    if stage.reason:
        text.append(f": {stage.reason}", style="default")
    return text
