"""Push, pull and commit against podman's, side by side, over one registry: Debian's docker-registry, or ours.

    python -m bench.registry --base debian-python.tar [--runs 5] [--registry ours]

The image is one layer: a root file system that only exists as files, as a build or a container leaves it. Cold push:
the registry is empty and the layer not packed yet. Cold pull: nothing of the image is here. The peers are podman
(Debian's, overlay driver) and, as the floor of both, skopeo, which only moves bytes that are packed already. Each pull
goes to a fresh place, and nothing is deleted before the end: ext4 is slow at making files where it has just removed
some, and that would be all that is measured. Commit is of a container that wrote 2,000 small files and 50 MB, against
buildah's. As root. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from engine.images.config import ImageConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.snapshot import commit
from engine.images.store import ImageStore
from engine.registry.client import RegistryClient, pull, push

Case = tuple[str, str, Callable[[], object], Callable[[], object]]
"""(what, who, how, what to do before it, untimed)"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(kind: str, folder: Path) -> Iterator[str]:
    """A registry as a process of its own; gives its host."""
    port = free_port()
    if kind == "ours":
        words = [sys.executable, "-m", "engine.registry.server", "--port", str(port), "--root", str(folder)]
    else:
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}", "secret": "bench"},
        }
        folder.with_suffix(".json").write_text(json.dumps(config))
        words = ["docker-registry", "serve", str(folder.with_suffix(".json"))]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Podman:
    def __init__(self, folder: Path, base: Path, host: str) -> None:
        self._folder = folder
        self._places = 1
        self._name = f"{host}/podman:1"
        self(0, "import", "-q", str(base), self._name)

    def __call__(self, place: int, *words: str) -> None:
        roots = ["--root", f"{self._folder}/root{place}", "--runroot", f"{self._folder}/run{place}"]
        subprocess.run(["podman", *roots, "--storage-driver", "overlay", *words], capture_output=True, check=True)

    def push(self) -> None:
        self(0, "push", "-q", "--tls-verify=false", self._name)

    def pull(self) -> None:
        self(self._places, "pull", "-q", "--tls-verify=false", self._name)

    def forget(self) -> None:
        self._places += 1

    def close(self) -> None:
        for place in range(self._places + 1):
            self(place, "rmi", "--all", "--force")


class Skopeo:
    """Moves bytes that are packed already between a folder and the registry."""

    def __init__(self, folder: Path, source: str, host: str) -> None:
        self._folder = folder
        self._places = 0
        self._name = f"docker://{host}/skopeo:1"
        self._copy("--src-tls-verify=false", f"docker://{source}", f"oci:{folder}/packed:1")

    def _copy(self, *words: str) -> None:
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", *words], check=True)

    def push(self) -> None:
        self._copy("--dest-tls-verify=false", f"oci:{self._folder}/packed:1", self._name)

    def pull(self) -> None:
        self._copy("--src-tls-verify=false", self._name, f"oci:{self._folder}/pulled{self._places}:1")

    def forget(self) -> None:
        self._places += 1


class Ours:
    def __init__(self, folder: Path, base: Path, host: str) -> None:
        self._folder = folder
        self._reference = Reference.parse(f"{host}/ours:1")
        self._client = RegistryClient()
        self._store = ImageStore(folder / "here")
        self._there: list[ImageStore] = []
        root = folder / "root"
        root.mkdir()
        subprocess.run(["tar", "-xf", str(base), "-C", str(root)], check=True)
        layer = self._store.add_layer_from_dir(None, root)
        self._image: Image = self._store.create_image(ImageConfig(architecture="amd64"), [layer], None)

    async def push(self) -> None:
        await push(self._client, self._store, self._image, self._reference)

    def unpack(self) -> None:
        """The layer is files alone again."""
        for digest in list(self._store.blobs):
            if digest != self._image.id:
                self._store.blobs.delete(digest)
                self._store.catalog.forget_tar(digest)

    async def pull(self) -> None:
        await pull(self._client, self._reference, self._there[-1])

    def forget(self) -> None:
        self._there.append(ImageStore(self._folder / f"there{len(self._there)}"))

    async def close(self) -> None:
        await self._client.close()
        for store in (self._store, *self._there):
            store.close()


def write_site(folder: Path) -> Path:
    """What the container wrote."""
    for number in range(2000):
        path = folder / f"srv/site/pkg{number // 50}/m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# module {number}\nVALUE = {number}\n" * 30)
    with (folder / "srv/site/blob.bin").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1 << 18).hex().encode())
    return folder


class Commits:
    """One container's folder, committed by us (copied, then given away) and by buildah."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._site = write_site(folder / "site")
        self._store = ImageStore(folder / "store")
        self._base = self._store.create_image(ImageConfig(architecture="amd64"), [], None)
        self._buildah = [
            "buildah",
            "--root",
            f"{folder}/root",
            "--runroot",
            f"{folder}/run",
            "--storage-driver",
            "overlay",
        ]
        self._container = self.buildah("from", "scratch")
        self.buildah("add", "-q", self._container, str(self._site), "/")

    def buildah(self, *words: str) -> str:
        return subprocess.run([*self._buildah, *words], capture_output=True, text=True, check=True).stdout.strip()

    def peer(self) -> None:
        self.buildah("commit", "-q", self._container, "snapshot")

    def drop_peer(self) -> None:
        subprocess.run([*self._buildah, "rmi", "snapshot"], capture_output=True, check=False)

    def copy(self) -> None:
        commit(self._store, upper=self._site, parent=self._base)

    def donate(self) -> None:
        commit(self._store, upper=self._folder / "upper", parent=self._base, donate=True)

    def drop(self) -> None:
        for image in self._store.list():
            if image.id != self._base.id:
                self._store.remove(image.id)
        self._store.collect(grace=-1)

    def lay_out(self) -> None:
        self.drop()
        subprocess.run(["cp", "-a", str(self._site), str(self._folder / "upper")], check=True)

    def close(self) -> None:
        self.buildah("rm", "--all")
        self._store.close()


def nothing() -> None:
    return


async def measure(base: Path, runs: int, kind: str, scratch: Path) -> dict[str, dict[str, float]]:
    stored = scratch / "registry"
    with serving(kind, stored) as host:
        ours, podman = Ours(scratch, base, host), Podman(scratch / "podman", base, host)
        commits = Commits(scratch / "commits")
        await ours.push()
        skopeo = Skopeo(scratch, f"{host}/ours:1", host)

        def wipe() -> None:
            ours.unpack()
            if kind != "ours":
                shutil.rmtree(stored / "docker", ignore_errors=True)
                return
            for name in ("ours", "podman", "skopeo"):
                shutil.rmtree(stored / "repositories" / name, ignore_errors=True)
            for blob in (stored / "blobs/sha256").iterdir():
                blob.unlink()

        transfers: list[Case] = [
            ("push cold", "ours", ours.push, wipe),
            ("push again", "ours", ours.push, nothing),
            ("push cold", "podman", podman.push, wipe),
            ("push again", "podman", podman.push, nothing),
            ("push cold", "bytes only", skopeo.push, wipe),
            ("pull cold", "ours", ours.pull, ours.forget),
            ("pull again", "ours", ours.pull, nothing),
            ("pull cold", "podman", podman.pull, podman.forget),
            ("pull again", "podman", podman.pull, nothing),
            ("pull cold", "bytes only", skopeo.pull, skopeo.forget),
        ]
        snapshots: list[Case] = [
            ("commit", "ours", commits.copy, commits.drop),
            ("commit", "buildah", commits.peer, commits.drop_peer),
            ("commit", "given away", commits.donate, commits.lay_out),
        ]
        times: dict[str, dict[str, list[float]]] = {}

        async def rounds(cases: list[Case]) -> None:
            for turn in range(runs + 1):
                for what, who, work, before in cases:
                    await asyncio.to_thread(before)
                    os.sync()
                    began = time.perf_counter()
                    await _done(work())
                    if turn:
                        times.setdefault(what, {}).setdefault(who, []).append(time.perf_counter() - began)

        try:
            await rounds(transfers[:5])
            await ours.push()
            podman.push()
            skopeo.push()
            await rounds(transfers[5:])
            await rounds(snapshots)
        finally:
            await ours.close()
            commits.close()
            podman.close()
    return {what: {who: statistics.median(all_) * 1000 for who, all_ in by.items()} for what, by in times.items()}


async def _done(result: object) -> None:
    if isinstance(result, Awaitable):
        await result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a root folder's tar")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--registry", choices=("debian", "ours"), default="debian")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = asyncio.run(measure(asked.base, asked.runs, asked.registry, Path(scratch)))
    if asked.json:
        print(json.dumps(found))
        return
    for what, by in found.items():
        for who, milliseconds in by.items():
            ratio = "" if who == "ours" else f"   ours is {milliseconds / by['ours']:.1f} times as fast"
            print(f"{what:12} {who:12} {milliseconds:8.0f} ms{ratio}")


if __name__ == "__main__":
    main()
