"""The guard of a registry with accounts: Docker's tokens, and plain basic credentials for all who send them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
import time
from dataclasses import dataclass
from urllib.parse import parse_qs

from aiohttp import web

from engine.registry.server import errors
from engine.registry.server import names as grammar
from engine.registry.server.access import passwords, policy
from engine.registry.server.access.accounts import Accounts, User
from engine.registry.server.access.tokens import MAX_ACCESS, SECONDS, Grant, Signer
from engine.registry.server.guard import Action
from engine.registry.server.receive import read_bounded
from engine.registry.server.storage.store import Storage

_REMEMBERED_SECONDS = 300.0
_MOST_REMEMBERED = 1000
_MOST_WAITING = 64
_AT_ONCE = 2
_MOST_FORM = 64 << 10
_SERVICE = "shipway-registry"


@dataclass(frozen=True)
class Identity:
    """Who asks. `name` is empty for everybody; `grant` is what a token allows, None where a password was sent."""

    name: str = ""
    user: User | None = None
    grant: Grant | None = None


class Members:
    """See `engine.registry.server.access`. Without any accounts everyone may do everything."""

    def __init__(self, accounts: Accounts, storage: Storage, *, realm: str | None = None) -> None:
        self._accounts = accounts
        self._storage = storage
        self._realm = realm
        self._signer = Signer()
        self._salt = secrets.token_bytes(16)
        self._remembered: dict[bytes, tuple[User, float]] = {}
        self._hashing = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    # -- the guard's face

    async def login(self, request: web.Request) -> None:
        if self._accounts.closed:
            await self._identify(request)

    async def sign_in(self, request: web.Request) -> None:
        if self._accounts.closed:
            await self._identify(request, browser=True)

    async def require(self, request: web.Request, repository: str, *actions: Action) -> None:
        if not self._accounts.closed:
            return
        identity = await self._identify(request, repository, actions)
        may = self._allowed(identity, repository)
        missing = set(actions) - may
        if not missing:
            granted = identity.grant.access.get(repository, ()) if identity.grant is not None else actions
            if set(actions) <= set(granted):
                return
            raise self._challenge(request, repository, actions, "insufficient_scope")
        if not identity.name:
            raise self._challenge(request, repository, actions)
        if "pull" in missing and set(actions) == {"pull"}:
            raise errors.name_unknown(repository)
        raise errors.denied(f"{identity.name} may not {' or '.join(sorted(missing))} here")

    async def visible(self, request: web.Request, names: list[str]) -> list[str]:
        if not self._accounts.closed:
            return names
        identity = await self._identify(request, optional=True, browser=True)
        return [name for name in names if "pull" in self._allowed(identity, name)]

    async def administer(self, request: web.Request) -> None:
        if not self._accounts.closed:
            return
        identity = await self._identify(request, browser=True)
        if identity.user is None:
            raise self._basic_challenge()
        if not identity.user.admin:
            raise errors.denied(f"{identity.name} is no administrator")

    async def own(self, request: web.Request, repository: str) -> None:
        """Passes for members of the repository's group."""
        if not self._accounts.closed:
            return
        identity = await self._identify(request, browser=True)
        if identity.user is None:
            raise self._basic_challenge()
        if "push" not in self._allowed(identity, repository):
            if "pull" in self._allowed(identity, repository):
                raise errors.denied(f"{identity.name} is not of {policy.group_of(repository)}")
            raise errors.name_unknown(repository)

    # -- tokens

    async def token(self, request: web.Request) -> web.Response:
        """`/v2/token`: GET with basic credentials or none (token.md), POST with a password (oauth.md)."""
        if request.method == "POST":
            too_big = errors.RegistryError(413, "SIZE_INVALID", f"at most {_MOST_FORM} bytes")
            fields = parse_qs((await read_bounded(request, _MOST_FORM, too_big)).decode("utf-8", "replace"))
            if fields.get("grant_type", [""])[0] != "password":
                raise errors.RegistryError(400, "UNSUPPORTED", "of grants only password is known here")
            name, password = (fields.get(key, [""])[0] for key in ("username", "password"))
            identity = Identity(name, await self._check(name, password))
        else:
            fields = {key: request.query.getall(key) for key in request.query}
            identity = await self._identify(request, browser=True, optional=True)
        access: dict[str, tuple[str, ...]] = {}
        for scope in " ".join(fields.get("scope", [])).split()[:MAX_ACCESS]:
            kind, _, rest = scope.partition(":")
            repository, _, wanted = rest.rpartition(":")
            if kind == "repository" and grammar.is_repository(repository):
                asked = set(policy.ACTIONS) if wanted == "*" else set(wanted.split(","))
                may = self._allowed(identity, repository) & asked
                access[repository] = tuple(sorted({*access.get(repository, ()), *may}))
        token = self._signer.sign(identity.name, access)
        answer = {"token": token, "access_token": token, "expires_in": SECONDS}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    # -- who asks

    async def _identify(
        self,
        request: web.Request,
        repository: str = "",
        actions: tuple[Action, ...] = (),
        *,
        optional: bool = False,
        browser: bool = False,
    ) -> Identity:
        """From the `Authorization`. Without one: 401, unless `optional`; or one for browsers."""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            name, password = _basic(value)
            return Identity(name, await self._check(name, password, browser=browser))
        if scheme.lower() == "bearer":
            grant = self._signer.read(value.strip())
            user = self._accounts.get(grant.user) if grant is not None else None
            if grant is None or (grant.user and user is None):
                raise self._challenge(request, repository, actions, "invalid_token")
            return Identity(grant.user, user, grant)
        if optional:
            return Identity()
        raise self._basic_challenge() if browser else self._challenge(request, repository, actions)

    async def _check(self, name: str, password: str, *, browser: bool = False) -> User:
        """The user, if the password is right. Right ones are remembered for a while: hashing is slow by design."""
        user = self._accounts.get(name)
        kept = user.password if user is not None else passwords.NOBODY
        key = hashlib.blake2b(f"{name}\0{password}\0{kept}".encode(), key=self._salt).digest()
        now = time.monotonic()
        found = self._remembered.get(key)
        if found is not None and found[1] > now and user is not None:
            return user
        if self._waiting >= _MOST_WAITING:
            raise errors.RegistryError(
                429, "TOOMANYREQUESTS", "too many are logging in at once", headers={"Retry-After": "1"}
            )
        self._waiting += 1
        try:
            async with self._hashing:
                right = await asyncio.to_thread(passwords.matches, password, kept)
        finally:
            self._waiting -= 1
        if user is None or not right:
            headers = {"WWW-Authenticate": _basic_header()} if browser else {}
            raise errors.RegistryError(401, "UNAUTHORIZED", "incorrect username or password", headers=headers)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered = {key: kept for key, kept in self._remembered.items() if kept[1] > now}
        if len(self._remembered) < _MOST_REMEMBERED:
            self._remembered[key] = (user, now + _REMEMBERED_SECONDS)
        return user

    def _allowed(self, identity: Identity, repository: str) -> frozenset[Action]:
        public = self._storage.is_public(repository)
        return policy.allowed(identity.name, identity.user, repository, public=public)

    def _challenge(
        self, request: web.Request, repository: str, actions: tuple[Action, ...], error: str = ""
    ) -> errors.RegistryError:
        realm = self._realm or f"{request.scheme}://{request.host}/v2/token"
        parts = [f'realm="{realm}"', f'service="{_SERVICE}"']
        if repository:
            parts.append(f'scope="repository:{repository}:{",".join(actions)}"')
        if error:
            parts.append(f'error="{error}"')
        return errors.RegistryError(
            401,
            "UNAUTHORIZED",
            "authentication required",
            headers={"WWW-Authenticate": f"Bearer {','.join(parts)}"},
        )

    def _basic_challenge(self) -> errors.RegistryError:
        headers = {"WWW-Authenticate": _basic_header()}
        return errors.RegistryError(401, "UNAUTHORIZED", "authentication required", headers=headers)


def _basic_header() -> str:
    return f'Basic realm="{_SERVICE}", charset="UTF-8"'


def _basic(value: str) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name, colon, password = "", "", ""
    if not colon:
        raise errors.RegistryError(401, "UNAUTHORIZED", "malformed basic credentials")
    return name, password
