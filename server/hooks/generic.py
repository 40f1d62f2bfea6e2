"""The hook of a bare repository: a small JSON body of our own.

    {"repository": NAME-OR-URL, "ref": "refs/heads/main", "before": SHA, "after": SHA, "pusher": NAME}

Headers: `X-Shipway-Signature-256: sha256=HMAC` and `X-Shipway-Delivery: ID`. Without an ID the push itself
(repository, ref, before, after) is the delivery.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from pipeline.triggers.event import Event
from server.hooks.receive import Delivery, Ping, Unwanted

KIND = "generic"
SIGNATURE = "x-shipway-signature-256"
PATIENCE = 2.0
"""Somebody has just pushed and looks at the terminal."""
_SHA = r"^[0-9a-f]{40}([0-9a-f]{24})?$"


class Push(BaseModel):
    """Unknown keys are passed over: a hook may say more than we read."""

    model_config = ConfigDict(extra="ignore")

    repository: str = Field(min_length=1, max_length=2000)
    ref: str = Field(pattern=r"^refs/(heads|tags)/\S+$", max_length=1000)
    before: str = Field(default="0" * 40, pattern=_SHA)
    after: str = Field(pattern=_SHA)
    pusher: str = Field(default="", max_length=200)


def repository_of(document: object) -> str | None:
    named = document.get("repository") if isinstance(document, Mapping) else None
    return named if isinstance(named, str) else None


def read(document: object, headers: Mapping[str, str], repository: str) -> Delivery | Ping | Unwanted:
    """Raises pydantic's ValidationError."""
    if headers.get("x-shipway-event") == "ping":
        return Ping()
    push = Push.model_validate(document)
    event = Event(
        kind="tag" if push.ref.startswith("refs/tags/") else "push",
        repository=repository,
        ref=push.ref,
        before=push.before,
        sha=push.after,
        pusher=push.pusher,
    )
    given = headers.get("x-shipway-delivery", "")[:200]
    return Delivery(event, given or f"{repository} {push.ref} {push.before[:40]} {push.after[:40]}"[:200])
