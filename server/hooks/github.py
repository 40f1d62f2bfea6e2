"""GitHub's webhooks: `push` (branches and tags) and `ping`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.triggers.event import Event
from server.hooks.receive import Delivery, Ping, Unwanted

KIND = "github"
SIGNATURE = "x-hub-signature-256"
PATIENCE = 0.0


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Commit(_Read):
    id: str
    message: str = ""
    timestamp: str | None = None
    author: dict[str, Any] = Field(default_factory=dict)


class Push(_Read):
    ref: str = Field(pattern=r"^refs/(heads|tags)/.+$", max_length=1000)
    before: str = Field(pattern=r"^[0-9a-f]{40}$")
    after: str = Field(pattern=r"^[0-9a-f]{40}$")
    head_commit: Commit | None = None
    pusher: dict[str, Any] = Field(default_factory=dict)


def repository_of(document: object) -> tuple[str, ...]:
    """The names and addresses by which the settings may know the repository."""
    repository = document.get("repository") if isinstance(document, Mapping) else None
    if not isinstance(repository, Mapping):
        return ()
    keys = ("full_name", "name", "clone_url", "ssh_url", "git_url", "html_url")
    return tuple(str(repository[key]) for key in keys if isinstance(repository.get(key), str))


def read(document: object, headers: Mapping[str, str], repository: str) -> Delivery | Ping | Unwanted:
    """Raises pydantic's ValidationError."""
    name = headers.get("x-github-event", "")
    if name == "ping":
        return Ping()
    if name != "push":
        return Unwanted(f"the event {name or 'without a name'} starts nothing here")
    push = Push.model_validate(document)
    head = push.head_commit
    event = Event(
        kind="tag" if push.ref.startswith("refs/tags/") else "push",
        repository=repository,
        ref=push.ref,
        before=push.before,
        sha=push.after,
        message=head.message[:10_000] if head else "",
        author=str(head.author.get("name") or "")[:200] if head else "",
        pusher=str(push.pusher.get("name") or "")[:200],
        committed=_time(head.timestamp) if head else None,
    )
    return Delivery(event, headers.get("x-github-delivery", "")[:200] or None)


def _time(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
