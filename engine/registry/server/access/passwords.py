"""Passwords as they are kept: salted and slow to guess (RFC 7914)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

_N, _R, _P = 1 << 14, 8, 1
_BYTES = 32


def hashed(password: str) -> str:
    """`scrypt$SALT$HASH`."""
    salt = secrets.token_bytes(16)
    return f"scrypt${_text(salt)}${_text(_derive(password, salt))}"


def matches(password: str, kept: str) -> bool:
    """Whether `kept` was made of `password`. Takes some 50 ms of one core, by design: call it in a thread."""
    try:
        kind, salt, digest = kept.split("$")
        wanted = base64.b64decode(digest, validate=True)
        found = _derive(password, base64.b64decode(salt, validate=True))
    except (ValueError, binascii.Error):
        return False
    return kind == "scrypt" and hmac.compare_digest(found, wanted)


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=_BYTES)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


NOBODY = f"scrypt${_text(bytes(16))}${_text(bytes(_BYTES))}"
"""To compare with when there is no such user: the time taken must not tell. No password has this hash."""
