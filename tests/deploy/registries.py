"""Registries as processes, ours and Debian's, and small images put into them."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests import needs
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@contextmanager
def ours(folder: Path) -> Iterator[str]:
    """The embedded registry; gives its URL."""
    port = free_port()
    argv = (sys.executable, "-m", "engine.registry.server", "--port", str(port), "--root", str(folder / "data"))
    with _running(argv, folder / "log"):
        yield _answering(f"http://127.0.0.1:{port}")


@contextmanager
def debian(folder: Path, **more: Any) -> Iterator[str]:
    """Debian's docker-registry; gives its URL. `more` goes into its configuration, `http` into that section."""
    binary = needs.program("docker-registry")
    port = free_port()
    http = {"addr": f"127.0.0.1:{port}", "secret": "tests", **more.pop("http", {})}
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": http,
        **more,
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with _running((binary, "serve", str(folder / "config.yml")), folder / "log"):
        yield _answering(f"{'https' if 'tls' in http else 'http'}://127.0.0.1:{port}")


@contextmanager
def _running(argv: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _answering(url: str) -> str:
    host, _, port = url.partition("://")[2].rpartition(":")
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((host, int(port)), 2).close()
            return url
        except OSError:
            assert time.monotonic() < deadline, f"no registry at {url}"
            time.sleep(0.02)


class Pusher:
    """Puts images into one repository."""

    def __init__(self, url: str, repository: str) -> None:
        self._base = f"{url}/v2/{repository}"

    def image(self, *tags: str, created: str | None = None, annotations: Mapping[str, str] | None = None) -> str:
        """An image of one layer, under these tags, else by digest only; returns its digest."""
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "for": tags}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(json.dumps(config | ({"created": created} if created else {})).encode()),
            "layers": [self._blob(b"layer")],
            **({"annotations": annotations} if annotations else {}),
        }
        return self._manifest(manifest, tags)

    def index(self, *tags: str, parts: Sequence[str]) -> str:
        """An index of these manifests."""
        entries = []
        for part in parts:
            size = len(requests.get(f"{self._base}/manifests/{part}", headers={"Accept": MANIFEST}, timeout=20).content)
            entries.append({"mediaType": MANIFEST, "digest": part, "size": size})
        return self._manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, tags)

    def _manifest(self, manifest: Mapping[str, Any], tags: Sequence[str]) -> str:
        data = json.dumps(manifest).encode()
        digest = _digest(data)
        for reference in tags or (digest,):
            url = f"{self._base}/manifests/{reference}"
            answer = requests.put(url, data=data, headers={"Content-Type": manifest["mediaType"]}, timeout=20)
            assert answer.status_code == 201, answer.text
        return digest

    def _blob(self, data: bytes) -> dict[str, Any]:
        begun = requests.post(f"{self._base}/blobs/uploads/", timeout=20)
        url = requests.compat.urljoin(self._base, begun.headers["Location"])
        answer = requests.put(url, data=data, params={"digest": _digest(data)}, timeout=20)
        assert answer.status_code == 201, answer.text
        return {"mediaType": "application/octet-stream", "digest": _digest(data), "size": len(data)}


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
