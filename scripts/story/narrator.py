"""Tells the story, each line with its time, and keeps count of what did not happen as it should."""

from __future__ import annotations

import time


class StoryFailedError(Exception):
    """Something did not happen as the story says; `str(error)` says what."""


class Narrator:
    """Prints chapters and lines. `clock` is seconds since the story began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def clock(self) -> float:
        return time.monotonic() - self._began

    def chapter(self, title: str) -> None:
        print(f"\n{title}", flush=True)

    def say(self, text: str) -> None:
        print(f"  {self.clock:6.2f} s  {text}", flush=True)

    def quote(self, text: str) -> None:
        """Shows somebody else's output, set apart."""
        for line in text.rstrip().splitlines():
            print(f"            | {line}", flush=True)

    def expect(self, happened: bool, what: str) -> None:
        """Says `what`, or ends the story when it did not happen."""
        if not happened:
            raise StoryFailedError(f"this did not happen: {what}")
        self.say(what)
