"""What happened in a repository, in our own words, whichever forge said it."""

from __future__ import annotations

from typing import Literal

from pipeline.values import Frozen

ZERO_SHA = "0" * 40


class Event(Frozen):
    """A push of a branch or a tag, a moment of a schedule, or somebody's wish. Only what a run wants to know."""

    kind: Literal["push", "tag", "manual", "schedule"]
    repository: str
    """Its name in the settings, or for a manual event the path of the checkout."""
    url: str = ""
    ref: str = ""
    """refs/heads/main, refs/tags/v1"""
    before: str = ""
    """The commit that the ref had; empty or zeros when it is new."""
    sha: str = ""
    """The commit that it has; zeros when the ref was deleted."""
    message: str = ""
    author: str = ""
    pusher: str = ""
    committed: float | None = None
    """Unix seconds: when the commit was made."""
    files: tuple[str, ...] | None = None
    """Changed paths, if the forge lists all of them; None: ask git."""
    schedule: str = ""
    """Which schedule it was, as the file writes it."""
    local: str | None = None
    """Folder of a checkout to use as it is, uncommitted changes included; never from a hook."""

    @property
    def branch(self) -> str:
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else ""

    @property
    def tag(self) -> str:
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else ""

    @property
    def deleted(self) -> bool:
        return not self.sha.strip("0")

    @property
    def created(self) -> bool:
        return not self.before.strip("0")
