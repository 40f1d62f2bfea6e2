"""The credentials that clients send along: X-Registry-Auth for one registry, X-Registry-Config for many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.api.call import Call
from engine.errors import InvalidInput
from engine.registry.client import Auth, domain_of


def _auth(raw: Mapping[str, Any]) -> Auth | None:
    username, token = raw.get("username") or "", raw.get("identitytoken") or ""
    if not username and not token:
        return None
    return Auth(username, raw.get("password") or "", token)


def auth_from(call: Call) -> Auth | None:
    """What X-Registry-Auth says; None for nobody."""
    return _auth(_said(call, "X-Registry-Auth"))


def auths_from(call: Call) -> dict[str, Auth]:
    """What X-Registry-Config says: credentials by a registry's domain."""
    found: dict[str, Auth] = {}
    for name, raw in _said(call, "X-Registry-Config").items():
        auth = _auth(raw) if isinstance(raw, dict) else None
        if auth is not None:
            found[domain_of(name)] = auth
    return found


def _said(call: Call, name: str) -> dict[str, Any]:
    """Of a header that can't be read nothing, as in Docker: clients without credentials send any word there."""
    try:
        return call.header_json(name)
    except InvalidInput:
        return {}
