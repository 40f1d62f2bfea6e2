"""Blobs out: the kernel moves a file's bytes to the socket (sendfile), whole or a range of them (RFC 9110, 14)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from aiohttp import ETag, web
from prometheus_client import Counter

from engine.registry.server import errors

log = logging.getLogger(__name__)

_SMALL = 64 << 10
"""Bytes up to which a file goes out together with its headers."""


async def send(
    request: web.Request, path: Path, digest: str, headers: Mapping[str, str], sent: Counter
) -> web.StreamResponse:
    """Answers GET or HEAD with the file, which never changes: its digest is its ETag. Raises BLOB_UNKNOWN."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        raise errors.blob_unknown(digest) from None
    with file:
        size = os.fstat(file.fileno()).st_size
        said = {**headers, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if _names(request.if_none_match, digest):
            return web.Response(status=304, headers=said)
        span = _range(request, size)
        if span is None:
            return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        start, end = span
        status = 200
        if "Range" in request.headers:
            status = 206
            said["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        said["Content-Length"] = str(end - start)
        if request.method == "HEAD":
            return web.Response(status=status, headers=said)
        sent.inc(end - start)
        if end - start <= _SMALL:
            return web.Response(status=status, headers=said, body=os.pread(file.fileno(), end - start, start))
        response = web.StreamResponse(status=status, headers=said)
        await response.prepare(request)
        try:
            await _move(request, file, start, end - start)
        except OSError as error:
            # Too late for another answer: a client that is still there sees that this one ends too early.
            if not isinstance(error, ConnectionError):
                log.error("%s can't be read: %s", path, error.strerror)
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write_eof()
        return response


async def _move(request: web.Request, file: IO[bytes], start: int, count: int) -> None:
    if request.transport is None:
        raise ConnectionResetError
    try:
        # With TLS, where the kernel can't, asyncio itself reads and writes.
        await asyncio.get_running_loop().sendfile(request.transport, file, start, count)
    except RuntimeError as error:  # what asyncio calls a connection that is closing
        raise ConnectionResetError from error


def _names(asked: tuple[ETag, ...] | None, digest: str) -> bool:
    return any(tag.value in ("*", digest) for tag in asked or ())


def _range(request: web.Request, size: int) -> tuple[int, int] | None:
    """From where to where; None for what the file hasn't got. `If-Range` needs no look: a digest stays true."""
    if "Range" not in request.headers:
        return 0, size
    try:
        asked = request.http_range
    except ValueError:
        return None
    start, end, _ = asked.indices(size)
    return (start, end) if start < end else None
