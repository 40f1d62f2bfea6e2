"""What registries answer when they refuse → the engine's kinds of error, one line each."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

import msgspec
from aiohttp import ClientError, ClientResponse

from engine.errors import EngineError, Forbidden, InvalidInput, NotFound, Unauthorized, Unavailable
from engine.images.descriptor import MALFORMED

_MOST = 64 << 10
_LINE = 400
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


class Transient(Unavailable):
    """Worth another try, after `wait` seconds if the registry said so."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []
    details: str = ""


async def read_bounded(response: ClientResponse, limit: int, what: str) -> bytes:
    """A small body whole. Raises InvalidInput beyond `limit` bytes, having read no more than that."""
    length = response.content_length
    if length is not None and length > limit:
        raise InvalidInput(f"{what} has {length} bytes: the most allowed is {limit}")
    data = bytearray()
    while chunk := await response.content.readany():
        data += chunk
        if len(data) > limit:
            raise InvalidInput(f"{what} has more than {limit} bytes, the most allowed")
    return bytes(data)


async def explain(response: ClientResponse) -> str:
    """The registry's own words, as one line of bounded length."""
    try:
        data = await read_bounded(response, _MOST, "error")
        errors = msgspec.json.decode(data, type=_Errors)
    except (InvalidInput, *MALFORMED, ClientError, TimeoutError):
        return one_line(response.reason or "no reason given")
    parts = [": ".join(filter(None, (e.code.lower().replace("_", " "), e.message))) for e in errors.errors]
    return one_line("; ".join(parts) or errors.details or response.reason or "no reason given")


def one_line(text: str) -> str:
    """Printable, on one line, not too long: what a stranger sent ends up in logs and terminals."""
    return _UNPRINTABLE.sub(" ", text).strip()[:_LINE]


def retry_after(text: str) -> float | None:
    """Seconds to wait, as a `Retry-After` says them: a number, or a date (RFC 9110, 10.2.3)."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 7:
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def failure(status: int, what: str, why: str, wait: float | None = None) -> EngineError:
    """The error for an answer that is not what was hoped for. `what` names what we were doing."""
    line = f"{what}: {why}"
    if status == 401:
        return Unauthorized(f"{line}: authentication is needed, or the credentials are wrong")
    if status == 403:
        return Forbidden(line)
    if status == 404:
        return NotFound(line)
    if status == 429:
        hint = f", it asks for {wait:.0f} s of patience" if wait else ""
        return Transient(f"{line}: the registry limits its rate{hint}; log in or try again later", wait)
    if status in RETRIED:
        return Transient(f"{line} (HTTP {status})", wait)
    if 400 <= status < 500:
        return InvalidInput(f"{line} (HTTP {status})")
    return Unavailable(f"{line} (HTTP {status})")
