"""Who may change something through the API: whoever shows the token; without one in the settings, this machine.

A browser on this machine is not its owner's word: a page from elsewhere may make it send a request here. So a
request that a browser sends for another site is refused, and one that came under a strange name too.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.settings import Settings

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class ChangesNeedLeave:
    """Middleware: lets reads through, and changes only by leave."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _READS:
            refused = refusal(Request(scope), self.settings)
            if refused is not None:
                status, why = refused
                await JSONResponse({"error": why, "kind": "access"}, status)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def refusal(request: Request, settings: Settings) -> tuple[int, str] | None:
    """The status and the reason when this request may not change anything, else None."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return 403, f"a page of {origin} may not change anything here"
    if settings.api_token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = settings.api_token.get_secret_value()
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), known.encode()):
            return None
        return 401, "the API token is missing or wrong: set SHIPWAY_API_TOKEN"
    if not _same_machine(request):
        return 403, "only this machine may change something: set SHIPWAY_API_TOKEN on the server and on the client"
    if not _plain_name(request, settings):
        return 403, "reach the server by its address or the name in SHIPWAY_SERVER_URL to change something"
    return None


def _same_machine(request: Request) -> bool:
    """A connection over the loopback address, or from one of this machine's addresses to the same one."""
    if request.client is None:
        return False
    server: tuple[str, int | None] | None = request.scope.get("server")
    if server is not None and request.client.host == server[0]:
        return True
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _plain_name(request: Request, settings: Settings) -> bool:
    """Whether the name in the request can't be one that a stranger's name server made lead here."""
    name = urlsplit("//" + request.headers.get("host", "")).hostname or ""
    if name in ("localhost", urlsplit(settings.server_url).hostname):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
