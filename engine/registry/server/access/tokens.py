"""Bearer tokens: what one user may do in which repositories, for some minutes, signed by us for ourselves."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time

import msgspec

SECONDS = 300
MAX_ACCESS = 100
"""Repositories in one token."""


class Grant(msgspec.Struct, frozen=True):
    """`user` is empty for everybody."""

    user: str
    access: dict[str, tuple[str, ...]]
    ends: float


class Signer:
    """Signs with a secret that dies with the process: a client whose token is refused asks for another."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, user: str, access: dict[str, tuple[str, ...]]) -> str:
        payload = msgspec.json.encode(Grant(user, access, time.time() + SECONDS))
        return f"{_text(payload)}.{_text(self._mac(payload))}"

    def read(self, token: str) -> Grant | None:
        """None for what we did not sign, and for what has ended."""
        try:
            payload, mac = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
        except (ValueError, binascii.Error):
            return None
        if not hmac.compare_digest(mac, self._mac(payload)):
            return None
        grant = msgspec.json.decode(payload, type=Grant)
        return grant if grant.ends > time.time() else None

    def _mac(self, payload: bytes) -> bytes:
        return hmac.new(self._secret, payload, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
