"""ADD of a URL: a file of mode 0600 with the server's time, its bytes checked where a checksum is given.

https://docs.docker.com/reference/dockerfile/#adding-files-from-a-url
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp

from engine.build.addresses import AddressPolicy, CheckedResolver
from engine.build.problems import DockerfileError
from engine.build.selection import Picked
from engine.build.steps.copy import Source
from engine.build.steps.logins import Logins
from engine.build.trees import FILE, FolderTree
from engine.errors import Unavailable

_MAX_BYTES = 16 << 30
_MAX_REDIRECTS = 10
_CHUNK = 1 << 20


class Hasher(Protocol):
    """One of hashlib's."""

    def update(self, data: bytes, /) -> None: ...


_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def file_name(url: str, *, needed: bool) -> str:
    """The last part of the URL's path. Raises DockerfileError where one is `needed` and there is none."""
    name = posixpath.basename(unquote(urlsplit(url).path))
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        if needed:
            raise DockerfileError(f"cannot determine a file name from {url}: name the destination file")
        return "__unnamed__"
    return name


async def download(url: str, folder: Path, name: str, checksum: str, policy: AddressPolicy, logins: Logins) -> Source:
    """Fetches `url` into the empty `folder`. Raises DockerfileError, Forbidden, Unavailable."""
    algorithm = checksum.partition(":")[0] or "sha256"
    hasher = hashlib.new(algorithm)
    path = folder / name
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    connector = aiohttp.TCPConnector(resolver=CheckedResolver(policy), use_dns_cache=False)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            response = await _follow(session, url, policy, logins)
            async with response:
                size = 0
                with path.open("xb") as file:
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        size += len(chunk)
                        if size > _MAX_BYTES:
                            raise DockerfileError(f"{url}: more than {_MAX_BYTES} bytes")
                        await asyncio.to_thread(_take, file, hasher, chunk)
                modified = response.headers.get("Last-Modified", "")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"download of {url} failed: {str(error) or type(error).__name__}") from error
    found = f"{algorithm}:{hasher.hexdigest()}"
    if checksum and found != checksum:
        raise DockerfileError(f"{url}: digest mismatch {found}: expected {checksum}")
    path.chmod(0o600)
    if seconds := _seconds(modified):
        os.utime(path, (seconds, seconds))
    tree = FolderTree.at(folder, own_root=True)
    entry = tree.entry(name)
    assert entry is not None
    assert entry.kind == FILE
    return Source(tree, Picked(name, name, entry))


async def _follow(
    session: aiohttp.ClientSession, url: str, policy: AddressPolicy, logins: Logins
) -> aiohttp.ClientResponse:
    """The answer at the end of the redirects, each step checked as the first one was. None but the first host is told
    who asks."""
    first = urlsplit(url)
    for _ in range(_MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DockerfileError(f"{url}: only http and https can be downloaded")
        # aiohttp does not ask its resolver about an address that is written as one.
        await policy.resolve(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        headers = {"Accept-Encoding": "identity"}
        if (parts.scheme, parts.netloc) == (first.scheme, first.netloc) and (login := logins.for_http(parts.hostname)):
            headers["Authorization"] = login
        response = await session.get(url, allow_redirects=False, headers=headers)
        if response.status in _REDIRECTS and "Location" in response.headers:
            url = urljoin(url, response.headers["Location"])
            response.release()
            continue
        if response.status != 200:
            response.release()
            raise Unavailable(f"download of {url} failed: {response.status} {response.reason}")
        return response
    raise Unavailable(f"download of {url} failed: more than {_MAX_REDIRECTS} redirects")


def _take(file: BinaryIO, hasher: Hasher, chunk: bytes) -> None:
    hasher.update(chunk)
    file.write(chunk)


def _seconds(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0
    except (ValueError, OverflowError):
        return 0
