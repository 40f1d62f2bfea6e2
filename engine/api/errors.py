"""The one place that turns an error into an HTTP answer."""

from __future__ import annotations

import logging

from engine.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidInput,
    NotFound,
    SystemFailure,
    Unauthorized,
    Unavailable,
)

_log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[EngineError], int], ...] = (
    (InvalidInput, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (SystemFailure, 500),
    (Unavailable, 503),
)


class NotModified(EngineError):
    """What is asked for is so already: HTTP 304, without a body."""


class NotImplementedHere(EngineError):
    """A part of Docker's API that this engine does not have (swarm, plugins): HTTP 501."""


class VersionTooOld(EngineError):
    """The client wants an API version that is not spoken here: HTTP 400."""


def status_of(error: BaseException) -> int:
    """The HTTP status for an error, whoever raised it."""
    if isinstance(error, NotModified):
        return 304
    if isinstance(error, NotImplementedHere):
        return 501
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 400 if isinstance(error, VersionTooOld) else 500


def message_of(error: BaseException) -> str:
    """One line for a person. What is no EngineError is a fault of ours, and goes to the log in full."""
    if isinstance(error, EngineError):
        return str(error)
    _log.error("unexpected error", exc_info=error)
    return f"internal error: {type(error).__name__}: {error}"
