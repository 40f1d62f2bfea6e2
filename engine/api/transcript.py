"""A build's events as the lines that Docker's classic builder prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from prometheus_client import Histogram

from engine.build.progress import (
    BuildEvent,
    Built,
    Notice,
    Pulling,
    StepCached,
    StepFinished,
    StepOutput,
    StepStarted,
)
from engine.images.reference import Reference


class Transcript:
    """Says the steps in their order, though stages are built side by side.

    What belongs to a later step waits until those before it are done.
    """

    def __init__(self, say: Callable[[dict[str, Any]], None], seconds: Histogram, *, quiet: bool) -> None:
        self._say = (lambda _: None) if quiet else say
        self._seconds = seconds
        self._step = 1
        self._waiting: defaultdict[int, list[BuildEvent]] = defaultdict(list)
        self._cached: set[int] = set()

    def __call__(self, event: BuildEvent) -> None:
        if isinstance(event, StepCached):
            self._cached.add(event.number)
        elif isinstance(event, StepFinished):
            cached = "true" if event.number in self._cached else "false"
            self._seconds.labels(cached).observe(event.seconds)
        if isinstance(event, (Notice, Pulling, Built)):
            self._show(event)
            return
        self._waiting[event.number].append(event)
        self._advance()

    def finish(self) -> None:
        """Say what still waits: the build has failed, and it is the last that will be heard of it."""
        for number in sorted(self._waiting):
            for event in self._waiting.pop(number):
                self._show(event)

    def _advance(self) -> None:
        while events := self._waiting.pop(self._step, None):
            for event in events:
                self._show(event)
                if isinstance(event, StepFinished):
                    self._step += 1

    def _line(self, text: str) -> None:
        self._say({"stream": text})

    def _show(self, event: BuildEvent) -> None:
        match event:
            case StepStarted():
                self._line(f"Step {event.number}/{event.total} : {event.text}\n")
            case StepCached():
                self._line(" ---> Using cache\n")
            case StepOutput():
                self._line(event.data.decode(errors="replace"))
            case StepFinished():
                taken = "" if event.number in self._cached else f" ({event.seconds:.2f} s)"
                self._line(f" ---> {event.id}{taken}\n")
            case Pulling():
                self._say({"status": f"Pulling {event.name}"})
            case Notice():
                where = f"line {event.line}: " if event.line else ""
                self._line(f"[Warning] {where}{event.text}\n")
            case Built():
                # Before the words: clients take the last line for the success.
                self._say({"aux": {"ID": event.image_id}})
                self._line(f"Successfully built {event.image_id.removeprefix('sha256:')[:12]}\n")
                for tag in event.tags:
                    self._line(f"Successfully tagged {Reference.parse(tag).familiar}\n")
