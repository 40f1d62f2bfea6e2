"""The server's REST API, as the commands use it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from typing import Any

import requests

from cli.errors import CommandError, UsageError
from pipeline.settings import Settings, load_settings


class Api:
    """One server. Each method is one request; what the server refuses is a CommandError with its words."""

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or load_settings()
        self._base = settings.server_url.rstrip("/")
        self._session = requests.Session()
        # A loopback server is never behind the proxy of the environment.
        self._session.trust_env = False
        if settings.api_token is not None:
            self._session.headers["Authorization"] = f"Bearer {settings.api_token.get_secret_value()}"

    def get(self, path: str, **query: Any) -> Any:
        return self._ask("GET", path, params=query).json()

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask("POST", path, json=body or {}).json()

    def delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def lines(self, path: str, **query: Any) -> Iterator[str]:
        """The lines of a text answer as they come."""
        with self._ask("GET", path, params=query, stream=True) as response:
            response.encoding = "utf-8"
            try:
                yield from response.iter_lines(chunk_size=1, decode_unicode=True)
            except requests.RequestException:
                raise CommandError(f"the server at {self._base} went away while it was answering") from None

    def _ask(self, method: str, path: str, *, stream: bool = False, **rest: Any) -> requests.Response:
        url = f"{self._base}/api/v1{path}"
        try:
            timeout = (5, None) if stream else (5, 60)
            response = self._session.request(method, url, timeout=timeout, stream=stream, **rest)
        except requests.RequestException:
            raise CommandError(
                f"no server answers at {self._base}: start one with `shipway up`, or set SHIPWAY_SERVER_URL"
            ) from None
        if response.status_code >= 400:
            kind = UsageError if response.status_code in (400, 422) else CommandError
            raise kind(_reason(response))
        return response


def me() -> str:
    """The login name of whoever gives the command, behind sudo too; '' where the system knows none."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


def _reason(response: requests.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return f"the server answered {response.status_code} {response.reason}"
    return str(body.get("error") or body.get("detail") or body.get("message") or body)
