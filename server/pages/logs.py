"""The log of the stage that a run's page shows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from pipeline.store import Store
from pipeline.views import RunView, StageView, StoredLine
from server.pages.stream import event
from server.pages.text import plain

SHOWN = 500
"""Lines that a page begins with; the whole log is a link away."""
_BATCH = 1000


@dataclass(frozen=True)
class Line:
    """A line of a log on a page. `attempt` is the attempt's number."""

    id: int
    attempt: int
    stream: str
    time: float
    text: str


def lines_of(stage: StageView, lines: list[StoredLine]) -> list[Line]:
    numbers = {attempt.id: attempt.number for attempt in stage.attempts}
    return [Line(line.id, numbers.get(line.attempt, 0), line.stream, line.time, plain(line.text)) for line in lines]


def last_lines(store: Store, run: RunView, stage: StageView | None) -> list[Line]:
    """What the page begins with."""
    if stage is None:
        return []
    return lines_of(stage, store.read_logs(run.id, stage.name, tail=SHOWN))


@dataclass
class Tail:
    """How far one reader has read. `stage` changes when the page shows another one."""

    store: Store
    run: int
    stage: str = ""
    after: int = 0

    @classmethod
    def resumed(cls, store: Store, run: int, stage: str, after: int, last_event: str) -> Tail:
        """`last_event` is the browser's word on where it was cut off: `ID STAGE`."""
        number, _, name = last_event.partition(" ")
        return cls(store, run, name, int(number)) if number.isdigit() and name else cls(store, run, stage, after)

    async def news(self, stage: StageView | None) -> AsyncIterator[str]:
        """Events with all lines that came since."""
        if stage is None:
            return
        tail = None
        if stage.name != self.stage:
            self.stage, self.after, tail = stage.name, 0, SHOWN
            yield event("log", json.dumps({"stage": stage.name, "lines": []}), number=f"0 {stage.name}")
        while found := await run_in_threadpool(
            self.store.read_logs, self.run, stage.name, after=self.after, limit=_BATCH, tail=tail
        ):
            self.after, tail = found[-1].id, None
            lines = [[line.id, line.attempt, line.stream, line.text] for line in lines_of(stage, found)]
            data = json.dumps({"stage": stage.name, "lines": lines}, ensure_ascii=False)
            yield event("log", data, number=f"{self.after} {stage.name}")
            if len(found) < _BATCH:
                break
