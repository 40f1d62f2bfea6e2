"""Getting in: basic credentials, or tokens from the realm that a registry names.

distribution's token.md and oauth.md. Three rules keep secrets where they belong: a password goes only to the
registry itself or to a realm of its own domain; never over plain HTTP to another host; and a token only to the
origin that it was asked for.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import msgspec
from yarl import URL

from engine.errors import Forbidden, Unauthorized
from engine.registry.client.challenge import Challenge
from engine.registry.client.endpoint import check_reach, is_loopback

_CLIENT_ID = "shipway"
_LEAST_SECONDS = 60.0
_Key = tuple[str, str, tuple[str, ...]]
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})


@dataclass(frozen=True)
class Auth:
    """What a user gave for one registry. `identity_token` stands in for a password."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str | None:
        """The value of an `Authorization` header, None without a password."""
        if not self.username or not self.password:
            return None
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


@dataclass(frozen=True)
class TokenRequest:
    """How to ask a realm for a token. `form` is None for a GET."""

    url: URL
    headers: dict[str, str]
    form: dict[str, str] | None = None


class Token(msgspec.Struct):
    """A realm's answer."""

    token: str = ""
    access_token: str = ""
    expires_in: float = _LEAST_SECONDS
    refresh_token: str = ""

    @property
    def header(self) -> str:
        value = self.token or self.access_token
        if not value or any(not 0x20 < ord(letter) < 0x7F for letter in value):
            raise Unauthorized("the token service answered without a usable token")
        return f"Bearer {value}"


class Tokens:
    """Tokens by registry, credentials and scope, each until shortly before it ends."""

    def __init__(self) -> None:
        self._tokens: dict[_Key, tuple[str, float]] = {}
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    def get(self, origin: str, auth: Auth | None, scopes: Sequence[str]) -> str | None:
        kept = self._tokens.get(self._key(origin, auth, scopes))
        return kept[0] if kept is not None and kept[1] > time.monotonic() else None

    def put(self, origin: str, auth: Auth | None, scopes: Sequence[str], token: Token) -> str:
        seconds = max(token.expires_in, _LEAST_SECONDS) * 0.9
        now = time.monotonic()
        if len(self._tokens) > 1000:
            self._tokens = {key: kept for key, kept in self._tokens.items() if kept[1] > now}
        self._tokens[self._key(origin, auth, scopes)] = (token.header, now + seconds)
        return token.header

    def drop(self, origin: str, auth: Auth | None, scopes: Sequence[str], refused: str | None) -> None:
        """Forgets the token that a registry has refused, unless there is a newer one already."""
        key = self._key(origin, auth, scopes)
        if key in self._tokens and self._tokens[key][0] == refused:
            del self._tokens[key]

    def asking(self, origin: str, auth: Auth | None, scopes: Sequence[str]) -> asyncio.Lock:
        """Held while a token is asked for: requests side by side need only one."""
        return self._locks.setdefault(self._key(origin, auth, scopes), asyncio.Lock())

    @staticmethod
    def _key(origin: str, auth: Auth | None, scopes: Sequence[str]) -> _Key:
        who = repr((auth.username, auth.password, auth.identity_token)) if auth is not None else ""
        return origin, who, tuple(sorted(scopes))


def token_request(
    challenge: Challenge,
    registry: URL,
    auth: Auth | None,
    scopes: Sequence[str],
    trusted: Sequence[str] = (),
) -> TokenRequest:
    """What to send to the realm of a bearer challenge. Raises Forbidden for a realm that must not be asked.

    `trusted` names hosts that may receive passwords meant for this registry.
    """
    realm = URL(challenge.parameters.get("realm", ""))
    if realm.scheme not in ("http", "https") or not realm.host:
        raise Unauthorized(f"{registry.authority} asks for a token and names no realm to get it from")
    check_reach(realm, registry)
    query = {"service": challenge.parameters.get("service", "")}
    secret = auth is not None and bool(auth.identity_token or auth.basic)
    if secret and not may_know_password(realm, registry, trusted):
        raise Forbidden(
            f"{registry.authority} wants the password sent to {realm.scheme}://{realm.authority}, "
            "which is not its own: nothing was sent; trust that realm by name if it is right"
        )
    if auth is not None and auth.identity_token:
        form = {
            "grant_type": "refresh_token",
            "client_id": _CLIENT_ID,
            "refresh_token": auth.identity_token,
            "scope": " ".join(scopes),
            **query,
        }
        return TokenRequest(realm, {}, form)
    url = realm.update_query(query)
    url = url.extend_query([("scope", scope) for scope in scopes])
    headers = {}
    if auth is not None and auth.basic is not None:
        url = url.update_query({"account": auth.username})
        headers["Authorization"] = auth.basic
    return TokenRequest(url, headers)


def may_know_password(realm: URL, registry: URL, trusted: Sequence[str] = ()) -> bool:
    """Whether a password for `registry` may be sent to `realm`."""
    ours, theirs = registry.host or "", realm.host or ""
    if realm.scheme == "http" and registry.scheme != "http" and not is_loopback(theirs):
        return False
    if theirs in trusted or realm.authority in trusted or ours == theirs:
        return True
    if realm.scheme == "http":
        return False
    parent = _registrable(ours)
    return parent is not None and parent == _registrable(theirs)


def _registrable(host: str) -> str | None:
    """`example.com` of `registry.example.com`; None for addresses and bare names. Errs towards longer."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.lower().rstrip(".").split(".")
    else:
        return None
    count = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-count:]) if len(labels) >= count else None
