"""Accounts before a registry: basic, or a token service as distribution's token.md and oauth.md have it."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

USER, PASSWORD = "ann", "geheim:mit:Doppelpunkten"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
IDENTITY = "refresh-me"
SERVICE = "tests"


@dataclass
class TokenService:
    """`/token`: issues tokens for what was asked and is allowed; also the guard that the registry has before it."""

    public: str = "public/"
    """Repositories that begin so may be pulled by everyone; all else is ann's alone."""
    realm: str = ""
    seconds: int | None = 300
    storage: str = ""
    """Where blobs are fetched from when not here: a URL with `{hex}` for the digest."""
    issued: dict[str, set[str]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, list[str]], str]] = field(default_factory=list)
    """(method, query or form, Authorization) of each request."""
    presented: list[str] = field(default_factory=list)
    """The `Authorization` of each request to the registry."""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/token", self._answer)
        return app

    def expire(self) -> None:
        """All tokens end now, whatever was said when they were issued."""
        self.issued.clear()

    async def _answer(self, request: web.Request) -> web.Response:
        fields = await request.post() if request.method == "POST" else request.query
        given = {key: [str(value) for value in fields.getall(key)] for key in fields}
        authorization = request.headers.get("Authorization", "")
        self.asked.append((request.method, given, authorization))
        if request.method == "POST":
            known = given.get("grant_type") == ["refresh_token"] and given.get("refresh_token") == [IDENTITY]
            if not known:
                return web.json_response({"details": "unknown refresh token"}, status=401)
        else:
            known = authorization == BASIC
            if authorization and not known:
                return web.json_response({"details": "incorrect username or password"}, status=401)
        if given.get("service") != [SERVICE]:
            return web.json_response({"details": "no such service"}, status=400)
        granted: set[str] = set()
        for scope in " ".join(given.get("scope", [])).split():
            kind, _, rest = scope.partition(":")
            repository, _, actions = rest.rpartition(":")
            allowed = {"pull", "push"} if known else {"pull"} if repository.startswith(self.public) else set()
            granted |= {
                f"{repository}:{action}" for action in set(actions.split(",")) & allowed if kind == "repository"
            }
        token = secrets.token_urlsafe(200)
        self.issued[token] = granted
        answer: dict[str, object] = {"token" if request.method == "GET" else "access_token": token}
        if self.seconds is not None:
            answer["expires_in"] = self.seconds
        return web.json_response(answer)

    @property
    def guard(self) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            authorization = request.headers.get("Authorization", "")
            self.presented.append(authorization)
            found = re.match(r"/v2/(.+)/(?:blobs|manifests|tags)/", request.path)
            needed = set()
            if found:
                needed = {f"{found[1]}:pull"} if request.method in ("GET", "HEAD") else {f"{found[1]}:push"}
            granted = self.issued.get(authorization.removeprefix("Bearer "))
            if granted is not None and needed <= granted:
                if self.storage and request.method == "GET" and "/blobs/sha256:" in request.path:
                    location = self.storage.format(hex=request.path.rpartition(":")[2])
                    return web.Response(status=307, headers={"Location": location})
                return await handler(request)
            scope = ",".join(f"repository:{item}" for item in sorted(needed))
            challenge = f'Bearer realm="{self.realm}",service="{SERVICE}"' + (f',scope="{scope}"' if scope else "")
            if granted is not None:
                challenge += ',error="insufficient_scope"'
            return refused(challenge)

        return check


@web.middleware
async def basic(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Ann alone may enter."""
    if request.headers.get("Authorization") == BASIC:
        return await handler(request)
    return refused('Basic realm="tests", charset="UTF-8"')


def refused(challenge: str) -> web.Response:
    errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
    return web.Response(status=401, body=json.dumps(errors).encode(), headers={"WWW-Authenticate": challenge})
