"""Registries to talk to: ours, in this loop, and Debian's docker-registry, a process."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout
from yarl import URL

from engine.registry.server import make_app, start
from tests import needs
from tests.ports import free_port

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Wire:
    """A registry and a session to poke it with."""

    url: str
    http: ClientSession

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    async def put_blob(self, repository: str, data: bytes) -> str:
        digest = digest_of(data)
        url = f"{self.url}/v2/{repository}/blobs/uploads/?digest={digest}"
        async with self.http.post(url, data=io.BytesIO(data)) as answer:
            if answer.status == 201:
                return digest
            location = answer.url.join(URL(answer.headers["Location"], encoded=True))  # Debian's takes two steps
        async with self.http.put(location.update_query(digest=digest), data=io.BytesIO(data)) as answer:
            assert answer.status == 201, await answer.text()
        return digest

    async def put_manifest(self, repository: str, reference: str | None, manifest: dict[str, object]) -> str:
        data = json.dumps(manifest).encode()
        reference = reference or digest_of(data)
        async with self.http.put(
            f"{self.url}/v2/{repository}/manifests/{reference}",
            data=data,
            headers={"Content-Type": str(manifest["mediaType"])},
        ) as answer:
            assert answer.status == 201, await answer.text()
        return digest_of(data)

    async def put_image(self, repository: str, tag: str | None, content: bytes = b"layer", **more: object) -> str:
        """A small image of one layer; returns its manifest's digest."""
        config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}' % (
            digest_of(content).encode()
        )
        return await self.put_manifest(
            repository,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": OCI_CONFIG,
                    "digest": await self.put_blob(repository, config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": OCI_LAYER,
                        "digest": await self.put_blob(repository, content),
                        "size": len(content),
                    }
                ],
                **more,
            },
        )


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
async def ours(tmp_path: Path, http: ClientSession) -> AsyncIterator[Wire]:
    """Our registry without accounts."""
    runner, port = await start(make_app(tmp_path / "registry"), "127.0.0.1", 0)
    yield Wire(f"http://127.0.0.1:{port}", http)
    await runner.cleanup()


@pytest.fixture(scope="session")
def debian_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry, one for the whole session: tests take repositories of their own."""
    binary = needs.program("docker-registry")
    folder = tmp_path_factory.mktemp("docker-registry")
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "tests"},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/v2/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@pytest.fixture
def debian(debian_url: str, http: ClientSession) -> Wire:
    return Wire(debian_url, http)
