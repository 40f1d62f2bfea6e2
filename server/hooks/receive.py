"""What all hooks share: read, find the repository, verify, understand, store, answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline.settings import Repository, Settings
from pipeline.triggers.event import Event
from server.conductor import Conductor
from server.hooks.signature import BodyTooLarge, read_body, verify
from server.metrics import WEBHOOKS

_NOBODY = Repository(url="", secret=secrets.token_hex(32))  # type: ignore[arg-type]
"""Stands for an unknown repository, so that it is refused no faster than a wrong signature."""


@dataclass(frozen=True)
class Delivery:
    event: Event
    id: str | None


@dataclass(frozen=True)
class Ping:
    pass


@dataclass(frozen=True)
class Unwanted:
    why: str


class Hook(Protocol):
    """A module such as `server.hooks.github`."""

    KIND: str
    SIGNATURE: str
    PATIENCE: float
    """Seconds that its sender is glad to wait for the runs' numbers."""

    def repository_of(self, document: object) -> str | tuple[str, ...] | None: ...

    def read(self, document: object, headers: Mapping[str, str], repository: str) -> Delivery | Ping | Unwanted: ...


async def receive(request: Request, hook: Hook) -> Response:
    """Answers one delivery. Nothing is stored, and nothing told, before the signature is right."""
    conductor: Conductor = request.app.state.conductor
    kind = hook.KIND

    def answer(status: int, outcome: str, **body: Any) -> Response:
        WEBHOOKS.labels(kind, outcome).inc()
        return JSONResponse(body, status)

    try:
        body = await read_body(request)
    except BodyTooLarge as error:
        return answer(413, "refused", error=str(error))
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    named = hook.repository_of(document)
    name, repository = find_repository(conductor.settings, (named,) if isinstance(named, str) else named or ())
    if not verify(repository.secret.get_secret_value(), body, request.headers.get(hook.SIGNATURE)):
        return answer(401, "refused", error="the signature is wrong, or the repository is not known here")
    try:
        read = hook.read(document, request.headers, name)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(422, "invalid", error=f"{where}: {first['msg']}")
    if isinstance(read, Ping):
        return answer(200, "ping", ok=True)
    if isinstance(read, Unwanted):
        return answer(200, "ignored", ok=True, ignored=read.why)
    accepted = await run_in_threadpool(
        conductor.accept_and_plan, read.event, hook=kind, delivery=read.id, patience=hook.PATIENCE
    )
    if accepted is None:
        return answer(200, "duplicate", ok=True, duplicate=True)
    number, runs = accepted
    return answer(202, "accepted", ok=True, event=number, runs=[run.id for run in runs])


def find_repository(settings: Settings, names: tuple[str, ...]) -> tuple[str, Repository]:
    """The repository of the settings that one of these names or addresses means."""
    for name in names:
        if name in settings.repositories:
            return name, settings.repositories[name]
    wanted = {_address(name) for name in names}
    for name, repository in settings.repositories.items():
        if _address(repository.url) in wanted:
            return name, repository
    return "", _NOBODY


def _address(url: str) -> str:
    return url.removeprefix("file://").rstrip("/").removesuffix(".git").rstrip("/")
