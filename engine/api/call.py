"""One request, as the handlers see it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from engine.api import filters
from engine.containers.gojson import Body
from engine.errors import InvalidInput

if TYPE_CHECKING:
    from engine.api.negotiate import Version
    from engine.api.rooms import Rooms
    from engine.containers.model import Container

MAX_JSON = 8 << 20
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TRUE = frozenset({"1", "true", "True", "TRUE", "t", "T", "yes", "on"})


@dataclass(frozen=True)
class Call:
    """`params` are the path's placeholders, `rooms` the engine behind the API."""

    request: web.BaseRequest
    rooms: Rooms
    version: Version
    params: dict[str, str]

    def container(self) -> Container:
        """The one that the path's {ref} stands for. Raises NotFound or InvalidInput."""
        return self.rooms.containers.get(self.params["ref"])

    # Query

    def text(self, name: str, default: str = "") -> str:
        return self.request.query.get(name, default)

    def texts(self, name: str) -> list[str]:
        return list(self.request.query.getall(name, []))

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.request.query.get(name)
        return default if value is None or value == "" else value in _TRUE

    def number(self, name: str) -> int | None:
        """A whole number of the query, None where it is not given. Raises InvalidInput."""
        value = self.request.query.get(name)
        if value is None or value == "":
            return None
        try:
            return int(value)
        except ValueError:
            raise InvalidInput(f'{name}="{value}" is not a number') from None

    def json_query(self, name: str) -> Any:
        """A JSON value of the query, None where it is not given. Raises InvalidInput."""
        value = self.request.query.get(name)
        if not value:
            return None
        try:
            return msgspec.json.decode(value)
        except _NOT_JSON as error:
            raise InvalidInput(f"{name} is no JSON: {error}") from None

    def filters(self) -> dict[str, list[str]]:
        return filters.parse(self.text("filters"))

    # Body

    async def body(self, limit: int = MAX_JSON) -> bytes:
        """The whole body. Raises InvalidInput when it is larger than `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise InvalidInput(f"the request's body is larger than {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def json(self) -> Body:
        """The body's JSON object; empty where there is no body. Raises InvalidInput."""
        data = await self.body()
        if not data.strip():
            return Body()
        kind = self.request.headers.get("Content-Type", "")
        # A page of another site can have a browser post text here, but none that calls itself JSON. Without a type
        # it is taken for JSON, as many clients leave it out; a page can do that as well, so this is no wall by itself.
        if kind and kind.partition(";")[0].strip().lower() != "application/json":
            raise InvalidInput(f"unsupported Content-Type header ({kind}): must be 'application/json'")
        try:
            value = msgspec.json.decode(data)
        except _NOT_JSON as error:
            trailing = "trailing characters" in str(error)
            raise InvalidInput("unexpected content after JSON" if trailing else f"invalid JSON: {error}") from None
        if value is None:
            return Body()
        if not isinstance(value, dict):
            raise InvalidInput("invalid JSON: an object is expected")
        return Body(value)

    def file(self) -> BodyFile:
        """The body as a file that is read in another thread."""
        return BodyFile(self.request.content, asyncio.get_running_loop())

    # Headers

    def header_json(self, name: str) -> dict[str, Any]:
        """A header that holds base64 of JSON, as X-Registry-Auth does. Raises InvalidInput."""
        value = self.request.headers.get(name, "")
        if not value:
            return {}
        try:
            padded = value + "=" * (-len(value) % 4)
            decoded = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_"))
        except (binascii.Error, ValueError, *_NOT_JSON):
            raise InvalidInput(f"header {name} is no base64 of JSON") from None
        return decoded if isinstance(decoded, dict) else {}


class BodyFile:
    """A request's body for code that reads a file, in a thread other than the loop's."""

    def __init__(self, content: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._content = content
        self._loop = loop
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all of them unless the body ends before; empty at its end."""
        if size == 0:
            return b""
        parts = [self._rest]
        have = len(self._rest)
        while not self._ended and (size < 0 or have < size):
            chunk = asyncio.run_coroutine_threadsafe(self._content.readany(), self._loop).result()
            if not chunk:
                self._ended = True
                break
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        if size < 0:
            self._rest = b""
            return data
        self._rest = data[size:]
        return data[:size]
