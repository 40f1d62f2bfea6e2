"""Push, pull and commit against podman's and docker's, side by side, over one registry: Debian's, or ours.

    python -m bench.registry --base debian-python.tar [--runs 5] [--registry ours]

The image is one layer: a root file system that only exists as files, as a build or a container leaves it. Cold push:
the registry is empty and the layer not packed yet. Cold pull: nothing of the image is here. The peers are podman
(Debian's, overlay driver), docker where there is a dockerd, and, as the floor of all, skopeo, which only moves bytes
that are packed already. Each pull goes to a fresh place, and nothing is deleted before the end, but for docker, which
has only one and so comes last: for a minute ext4 is slow at making files where it has removed some, and that would be
all that is measured.
Commit is of a container that wrote 2,000 small files and 50 MB, against buildah's. As root.

Prints medians, minima and processor time: on a busy machine the last two say more. The processor time is the client's
(for docker the daemon's), not the registry's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.registrypeers import Docker, Podman, Skopeo, cpu_of_children, serving
from engine.images.config import ImageConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.snapshot import commit
from engine.images.store import ImageStore
from engine.registry.client import RegistryClient, pull, push

Case = tuple[str, str, Callable[[], object], Callable[[], object], Callable[[], float]]
"""(what, who, how, what to do before it, untimed; the processor's seconds so far)"""


@dataclass(frozen=True)
class Figure:
    """Milliseconds."""

    median: float
    least: float
    cpu: float


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


async def measure(base: Path, runs: int, kind: str, scratch: Path) -> dict[str, dict[str, Figure]]:
    stored = scratch / "registry"
    with serving(kind, stored) as host:
        ours, podman = Ours(scratch, base, host), Podman(scratch / "podman", base, host)
        docker = Docker(scratch / "docker", base, host) if shutil.which("dockerd") else None
        commits = Commits(scratch / "commits")
        await ours.push()
        skopeo = Skopeo(scratch, f"{host}/ours:1", host)

        def wipe() -> None:
            ours.unpack()
            if kind != "ours":
                shutil.rmtree(stored / "docker", ignore_errors=True)
                return
            for name in ("ours", "podman", "docker", "skopeo"):
                shutil.rmtree(stored / "repositories" / name, ignore_errors=True)
            for blob in (stored / "blobs/sha256").iterdir():
                blob.unlink()

        mine = time.process_time
        pushes: list[Case] = [
            ("push cold", "ours", ours.push, wipe, mine),
            ("push again", "ours", ours.push, nothing, mine),
            ("push cold", "podman", podman.push, wipe, podman.cpu),
            ("push again", "podman", podman.push, nothing, podman.cpu),
            ("push cold", "bytes only", skopeo.push, wipe, skopeo.cpu),
        ]
        pulls: list[Case] = [
            ("pull cold", "ours", ours.pull, ours.forget, mine),
            ("pull again", "ours", ours.pull, nothing, mine),
            ("pull cold", "podman", podman.pull, podman.forget, podman.cpu),
            ("pull again", "podman", podman.pull, nothing, podman.cpu),
            ("pull cold", "bytes only", skopeo.pull, skopeo.forget, skopeo.cpu),
        ]
        dockers: list[Case] = []
        if docker is not None:
            pushes += [
                ("push cold", "docker", docker.push, wipe, docker.cpu),
                ("push again", "docker", docker.push, nothing, docker.cpu),
            ]
            dockers = [
                ("pull cold", "docker", docker.pull, docker.forget, docker.cpu),
                ("pull again", "docker", docker.pull, nothing, docker.cpu),
            ]
        snapshots: list[Case] = [
            ("commit", "ours", commits.copy, commits.drop, mine),
            ("commit", "buildah", commits.peer, commits.drop_peer, cpu_of_children),
            ("commit", "given away", commits.donate, commits.lay_out, mine),
        ]
        times: dict[str, dict[str, list[tuple[float, float]]]] = {}

        async def rounds(cases: list[Case]) -> None:
            for turn in range(runs + 1):
                for what, who, work, before, cpu in cases:
                    await asyncio.to_thread(before)
                    os.sync()
                    used, began = cpu(), time.perf_counter()
                    await _done(work())
                    taken = time.perf_counter() - began, cpu() - used
                    if turn:
                        times.setdefault(what, {}).setdefault(who, []).append(taken)

        try:
            await rounds(pushes)
            await ours.push()
            for peer in filter(None, (podman, skopeo, docker)):
                peer.push()
            await rounds(pulls)
            await rounds(dockers)
            await rounds(snapshots)
        finally:
            await ours.close()
            commits.close()
            podman.close()
            if docker is not None:
                docker.close()
    return {what: {who: _figure(all_) for who, all_ in by.items()} for what, by in times.items()}


def _figure(taken: list[tuple[float, float]]) -> Figure:
    walls, cpus = zip(*taken, strict=True)
    return Figure(statistics.median(walls) * 1000, min(walls) * 1000, statistics.median(cpus) * 1000)


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
        print(json.dumps({what: {who: asdict(one) for who, one in by.items()} for what, by in found.items()}))
        return
    print(f"{'':25} {'median':>8} {'least':>8} {'cpu':>8}   ours is so many times as fast")
    for what, by in found.items():
        ours = by["ours"]
        for who, one in by.items():
            ratio = "" if one is ours else f"   {one.median / ours.median:.1f} {one.least / ours.least:.1f}"
            print(f"{what:12} {who:12} {one.median:8.1f} {one.least:8.1f} {one.cpu:8.1f} ms{ratio}")


if __name__ == "__main__":
    main()
