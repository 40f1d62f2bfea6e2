"""Blobs in and out: streamed, hashed as they pass, taken up again where they broke off."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from weakref import WeakValueDictionary

from yarl import URL

from engine.errors import Conflict, InvalidInput, NotFound, Unavailable
from engine.images import digest as digests
from engine.images.arrival import Arrival
from engine.images.blobs import BlobStore, BlobWriter
from engine.images.descriptor import Descriptor
from engine.registry.client.failures import Transient
from engine.registry.client.progress import Meter
from engine.registry.client.remote import Remote
from engine.registry.client.transport import Reply, join

_STEP = 1 << 20
_SLOWEST = 10 << 20
"""Bytes a second at which a registry at least makes a finished upload durable."""
_locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()


async def exists(remote: Remote, blob: Descriptor) -> bool:
    """Whether the repository has it."""
    reply = await remote.fetch("HEAD", remote.url(f"blobs/{blob.digest}"), what=_what(remote, blob), allow=(404,))
    return reply.status == 200


async def download(
    remote: Remote,
    blob: Descriptor,
    store: BlobStore,
    meter: Meter | None = None,
    follow: Callable[[Arrival], None] | None = None,
) -> bool:
    """Brings a blob into the store; False when it was there. Two downloads of one blob become one.

    Broken transfers go on where they stopped, also those of an earlier process. `follow` gets the bytes as they
    come, before they are verified. Raises InvalidInput when the registry sends other bytes than the descriptor
    says, Unavailable when it doesn't send them.
    """
    path = store.path(blob.digest)
    lock = _locks.setdefault(path, asyncio.Lock())
    async with lock:
        if await asyncio.to_thread(store.has, blob.digest):
            return False
        try:
            writer = await asyncio.to_thread(store.writer, blob.digest, blob.size, resume=True)
        except Conflict:  # another process is at it; ours is the copy that we can vouch for
            writer = await asyncio.to_thread(store.writer, blob.digest, blob.size)
        with writer:
            old = writer.offset
            if follow is not None:
                follow(writer.follow())
            try:
                await _fill(remote, blob, writer, meter)
                await asyncio.to_thread(writer.commit)
            except InvalidInput:
                writer.abort()
                if not old:
                    raise
                # What an earlier process left behind may be what was wrong.
                with await asyncio.to_thread(store.writer, blob.digest, blob.size) as fresh:
                    await _fill(remote, blob, fresh, meter)
                    await asyncio.to_thread(fresh.commit)
        return True


async def _fill(remote: Remote, blob: Descriptor, writer: BlobWriter, meter: Meter | None) -> None:
    """Tries until all bytes are there. Only tries that bring nothing use up patience."""
    while writer.offset < blob.size:
        before = writer.offset

        async def once(before: int = before) -> None:
            try:
                await _stream(remote, blob, writer, meter)
            except Transient:
                if writer.offset <= before:
                    raise

        await remote.client.retried(once)


async def _stream(remote: Remote, blob: Descriptor, writer: BlobWriter, meter: Meter | None) -> None:
    headers = {"Range": f"bytes={writer.offset}-"} if writer.offset else {}
    what = _what(remote, blob)
    url = remote.url(f"blobs/{blob.digest}")
    async with remote.request("GET", url, what=what, headers=headers, allow=(416,)) as response:
        if writer.offset and not _continues(response.status, response.headers.get("Content-Range"), writer.offset):
            writer.restart()
            if response.status != 200:
                raise Transient(f"{what}: the registry can't go on in the middle of it")
        length = response.content_length
        if length is not None and writer.offset + length > blob.size:
            raise InvalidInput(f"{what}: the registry sends {writer.offset + length} bytes instead of {blob.size}")
        writing: asyncio.Future[int] | None = None
        buffer = bytearray()
        try:
            while chunk := await response.content.readany():
                buffer += chunk
                if len(buffer) >= _STEP:
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(asyncio.to_thread(writer.write, buffer))
                    buffer = bytearray()
                    if meter is not None:
                        meter.at(writer.offset)
        finally:
            # What arrived is kept, whatever ended the transfer: it is where the next try begins.
            if writing is not None:
                await asyncio.shield(writing)
            if buffer:
                writer.write(buffer)
    if writer.offset < blob.size:
        raise Transient(f"{what}: it ended after {writer.offset} of {blob.size} bytes")


def _continues(status: int, span: str | None, offset: int) -> bool:
    return status == 206 and (span or "").strip().startswith(f"bytes {offset}-")


async def mount(remote: Remote, blob: Descriptor, source: str) -> URL | None:
    """Asks the registry to take the blob from repository `source`. None: done; else where to upload it."""
    query = {"mount": blob.digest, "from": source}
    reply = await remote.fetch(
        "POST",
        remote.url("blobs/uploads/").with_query(query),
        what=_what(remote, blob),
        headers={"Content-Length": "0"},
    )
    return None if reply.status == 201 else _location(reply, _what(remote, blob))


async def upload(
    remote: Remote, blob: Descriptor, path: Path, meter: Meter | None = None, at: URL | None = None
) -> None:
    """Sends a blob from a file. One request when all goes well; after a break it goes on where the registry is.

    `at` is an upload already begun.
    """
    what = _what(remote, blob)
    size = await asyncio.to_thread(lambda: path.stat().st_size)
    if size != blob.size:
        raise InvalidInput(f"{what}: the file has {size} bytes instead of {blob.size}")
    location = at
    offset = 0
    best = -1

    async def once() -> None:
        nonlocal location, offset, best
        if location is None:
            location, offset = await _begin(remote, what), 0
        elif best >= 0:
            location, offset = await _where(remote, blob, location)
            if location is None:
                location, offset = await _begin(remote, what), 0
        best = max(best, offset)
        try:
            await _send(remote, blob, path, offset, location, meter)
        except NotFound as error:  # an upload that it has just begun: one of its other servers may know it
            location = None
            raise Transient(str(error)) from None

    while True:
        known = best
        try:
            await remote.client.retried(once)
        except Transient:
            if best <= max(known, 0):
                raise  # a whole round of tries, and the registry has no byte more
            continue
        return


async def _begin(remote: Remote, what: str) -> URL:
    reply = await remote.fetch("POST", remote.url("blobs/uploads/"), what=what, headers={"Content-Length": "0"})
    if reply.status != 202:
        raise Unavailable(f"{what}: the registry answered HTTP {reply.status} to a new upload")
    return _location(reply, what)


async def stream(remote: Remote, what: str, source: Arrival, meter: Meter) -> URL:
    """Sends bytes that are still being made, in one go; returns where to `complete` the upload.

    There is no second try: the bytes pass once. Raises Unavailable and what registries refuse with.
    """
    location = await _begin(remote, what)
    loop = asyncio.get_running_loop()
    passed = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal passed
        if passed:
            raise Transient(f"{what}: the registry wants from the start what passes only once")
        while True:
            if source.waits:
                data = await loop.run_in_executor(remote.client.unpackers, source.read, _STEP)
            else:
                data = source.read(_STEP)  # from the page cache: a thread would cost more
            if not data:
                break
            passed += len(data)
            deadline.reschedule(loop.time() + stall)
            yield data
            meter.at(passed)
        deadline.reschedule(loop.time() + stall + passed / _SLOWEST)

    stall = remote.client.patience.stall
    try:
        async with asyncio.timeout(stall) as deadline:
            headers = {"Content-Type": "application/octet-stream"}
            async with remote.request("PATCH", location, what=what, headers=headers, body=body) as response:
                await response.read()
                return join(response.url, response.headers.get("Location", ""), what)
    except TimeoutError:
        raise Transient(f"{what}: the registry stopped taking bytes") from None


async def complete(remote: Remote, blob: Descriptor, location: URL) -> None:
    """Makes a blob of an upload that has all of its bytes."""
    what = _what(remote, blob)
    reply = await remote.fetch("PUT", _with_digest(location, blob), what=what, headers={"Content-Length": "0"})
    _check_stored(reply.header("Docker-Content-Digest"), blob, what)


async def _where(remote: Remote, blob: Descriptor, location: URL) -> tuple[URL | None, int]:
    """How far an interrupted upload came; None when the registry has forgotten it."""
    reply = await remote.fetch("GET", location, what=_what(remote, blob), allow=(400, 404, 405, 416))
    if reply.status not in (200, 202, 204):
        return None, 0
    end = reply.header("Range").rpartition("-")[2]
    if not end.isascii() or not end.isdigit():
        return None, 0
    # `0-0` is what registries say of one byte and of none; the first byte is cheap to send again, but it
    # can't be sent twice: begin anew.
    offset = int(end) + 1 if int(end) > 0 else 0
    if not offset or offset > blob.size:
        return None, 0
    return _location(reply, _what(remote, blob)), offset


async def _send(remote: Remote, blob: Descriptor, path: Path, offset: int, location: URL, meter: Meter | None) -> None:
    what = _what(remote, blob)
    rest = blob.size - offset
    target = _with_digest(location, blob)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(rest)}
    if offset:
        headers["Content-Range"] = f"{offset}-{blob.size - 1}"
    stall = remote.client.patience.stall
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(stall) as deadline:

            async def body() -> AsyncIterator[bytes]:
                position = offset
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.posix_fadvise(fd, offset, rest, os.POSIX_FADV_SEQUENTIAL)
                    while position < blob.size:
                        block = os.pread(fd, min(_STEP, blob.size - position), position)
                        if not block:
                            raise InvalidInput(f"{what}: the file became shorter")
                        position += len(block)
                        deadline.reschedule(loop.time() + stall)
                        yield block
                        if meter is not None:
                            meter.at(position)
                finally:
                    os.close(fd)
                deadline.reschedule(loop.time() + stall + blob.size / _SLOWEST)

            sender = body if rest else (lambda: b"")
            async with remote.request("PUT", target, what=what, headers=headers, body=sender) as response:
                _check_stored(response.headers.get("Docker-Content-Digest", ""), blob, what)
                with contextlib.suppress(TimeoutError):
                    await response.read()
    except TimeoutError:
        raise Transient(f"{what}: the registry stopped taking bytes") from None


def _with_digest(location: URL, blob: Descriptor) -> URL:
    """What a registry put into the query stays byte for byte as it is."""
    if not location.raw_query_string:
        return location.update_query({"digest": blob.digest})
    return URL(f"{location}&digest={blob.digest}", encoded=True)


def _check_stored(announced: str, blob: Descriptor, what: str) -> None:
    if digests.is_digest(announced) and announced != blob.digest:
        raise InvalidInput(f"{what}: the registry stored {announced}")


def _location(reply: Reply, what: str) -> URL:
    return join(reply.url, reply.header("Location"), what)


def _what(remote: Remote, blob: Descriptor) -> str:
    return f"blob {digests.short(blob.digest)} of {remote.name}"
