"""Who may say it: HMAC over the raw body."""

from __future__ import annotations

import hashlib
import hmac
import re

from starlette.requests import Request

MAX_BODY = 5 << 20
"""GitHub sends at most 25 MB; pushes are far smaller, and we read only a few of their fields."""
_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")


class BodyTooLarge(ValueError):
    """More bytes than a hook may send."""


def sign(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def verify(secret: str, body: bytes, given: str | None) -> bool:
    """Whether `given` (`sha256=…`) is the body's signature; takes as long whatever is wrong with it."""
    match = _SIGNATURE.fullmatch(given or "")
    shown = match[0].lower() if match else "sha256=" + "0" * 64
    return hmac.compare_digest(sign(secret, body), shown) and match is not None


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The raw body. Raises BodyTooLarge as soon as it is."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(f"the body is larger than {limit >> 20} MiB")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(f"the body is larger than {limit >> 20} MiB")
    return bytes(body)
