"""The engine's closed set of error kinds.

    EngineError
    ├── InvalidInput       the request makes no sense                   HTTP 400
    ├── Unauthorized       credentials are missing or wrong             HTTP 401
    ├── Forbidden          understood, and refused                      HTTP 403
    ├── NotFound           no such container, image, network, ...       HTTP 404
    ├── Conflict           the thing's state or name stands in the way  HTTP 409
    ├── Unavailable        something outside did not answer             HTTP 503
    └── SystemFailure      the kernel or the disk said no               HTTP 500

Each message names the thing, what is wrong with it and what to do. `engine.api.errors` is the one place that
maps a kind to a status.
"""

from __future__ import annotations


class EngineError(Exception):
    """Whatever the engine refuses or fails to do. `str(error)` is one line for a person."""


class InvalidInput(EngineError):
    """The request makes no sense as it stands."""


class Unauthorized(EngineError):
    """Credentials are missing or wrong."""


class Forbidden(EngineError):
    """Understood, and refused."""


class NotFound(EngineError):
    """The named thing does not exist."""


class Conflict(EngineError):
    """The thing's present state, or a name already taken, stands in the way."""


class Unavailable(EngineError):
    """A registry, a resolver or another outside party did not answer well enough."""


class SystemFailure(EngineError):
    """The kernel or the disk refused. Carries the `errno` where there was one."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno
