"""Builds against buildah's, side by side: eight instructions on a Debian with Python.

    python -m bench.build --base debian-python.tar [--runs 5] [--buildkit unix:///run/buildkit/buildkitd.sock]

Ours is measured inside one process, context tar included; what a command-line client adds comes on top. buildah
runs with chroot isolation, which starts no container. BuildKit is measured where a daemon is named, through
buildctl. As root. Prints medians in milliseconds, and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from engine.build import Builder, BuildRequest, receive
from engine.config import EngineConfig
from engine.containers import idranges
from engine.containers.ephemeral import run_ephemeral
from engine.containers.idranges import IdRanges
from engine.images.config import ContainerConfig, ImageConfig
from engine.images.image import Image
from engine.images.reference import Reference
from engine.images.store import ImageStore
from engine.network import Networks
from engine.runtime.launcher import Launcher

DOCKERFILE = """\
FROM base
ENV APP_HOME=/srv/app PYTHONUNBUFFERED=1
WORKDIR /srv/app
COPY requirements.txt mkfiles.py ./
RUN python3 mkfiles.py /srv/site 2000 50
COPY src/ ./src/
EXPOSE 8000
CMD ["python3", "-m", "http.server", "8000"]
"""
MAKE_FILES = """\
import os, sys
root, n, mb = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for i in range(n):
    d = f"{root}/pkg{i // 50}"
    if i % 50 == 0:
        os.makedirs(d)
    with open(f"{d}/m{i}.py", "w") as f:
        f.write(f"# module {i}\\nVALUE = {i}\\n" * 30)
with open(f"{root}/blob.bin", "wb") as f:
    for _ in range(mb * 2):
        f.write(os.urandom(1 << 18).hex().encode())
"""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_context(folder: Path) -> None:
    rnd = random.Random(7)  # noqa: S311 - the same files each time
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "mkfiles.py").write_text(MAKE_FILES)
    (folder / "requirements.txt").write_text("".join(f"package{i}=={i}.0\n" for i in range(40)))
    for i in range(500):
        path = folder / f"src/app{i // 25}/f{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"def f{j}(): return {rnd.random()}\n" for j in range(120)))


def change_last_copy(folder: Path) -> None:
    (folder / "src/app0/f0.py").write_text(f"X = {os.urandom(8).hex()!r}\n")


class Buildah:
    def __init__(self, folder: Path, base: Path) -> None:
        self._words = [
            "buildah",
            "--root",
            f"{folder}/root",
            "--runroot",
            f"{folder}/run",
            "--storage-driver",
            "overlay",
        ]
        container = self("from", "scratch")
        self("add", container, str(base), "/")
        self("config", "--env", PATH, container)
        self("commit", "-q", container, "base")
        self("rm", container)

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self._words, *words], capture_output=True, text=True, check=True).stdout.strip()

    def build(self, context: Path, *more: str) -> None:
        self("bud", "-q", "--layers", "--isolation", "chroot", "--network", "host", *more, "-t", "app", str(context))

    def close(self) -> None:
        self("rmi", "--all", "--force")
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(self._words[2]):
                subprocess.run(["umount", line.split()[1]], check=False)


class BuildKit:
    """A daemon that runs already; the base is in the folder `store`, an OCI layout, under `digest`."""

    def __init__(self, address: str, store: Path, digest: str) -> None:
        self._words = ["buildctl", "--addr", address, "build", "--progress=plain", "--frontend", "dockerfile.v0"]
        self._words += ["--oci-layout", f"base={store}", "--opt", f"context:base=oci-layout://base@{digest}"]
        self._words += ["--opt", "force-network-mode=none", "--output", "type=image,name=app"]

    def build(self, context: Path, *more: str) -> None:
        words = [*self._words, "--local", f"context={context}", "--local", f"dockerfile={context}", *more]
        subprocess.run(words, capture_output=True, check=True)


class Ours:
    def __init__(self, config: EngineConfig, images: ImageStore, builder: Builder) -> None:
        self._config = config
        self._images = images
        self._builder = builder

    async def build(self, context: Path, *, no_cache: bool = False) -> None:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            tar.add(context, ".")
        sent = raw.getvalue()

        async def stream() -> AsyncIterator[bytes]:
            for at in range(0, len(sent), 1 << 18):
                yield sent[at : at + (1 << 18)]

        self.started = time.perf_counter()
        received = await receive(stream(), self._config.data_root / "build" / "contexts")
        try:
            request = BuildRequest(context=received, tags=("app",), no_cache=no_cache, network="none")
            await self._builder.build(request, self._pull, lambda event: None)
        finally:
            received.close()

    async def _pull(self, reference: Reference, platform: object) -> Image:
        raise RuntimeError(f"{reference} should be here")


async def measure(base: Path, runs: int, scratch: Path, buildkit: str = "") -> dict[str, dict[str, float]]:
    """Case → builder → median in milliseconds. The builders take turns."""
    context = scratch / "context"
    context.mkdir()
    make_context(context)
    config = EngineConfig(data_root=scratch / "data", exec_root=Path(tempfile.mkdtemp(prefix="sw")))
    images = ImageStore(config.data_root / "images")
    root = config.data_root / "base"
    root.mkdir()
    await asyncio.to_thread(subprocess.run, ["tar", "-xf", str(base), "-C", str(root)], check=True)
    inner = ContainerConfig(env=(PATH,))
    layer = images.add_layer_from_dir(None, root)
    image = images.create_image(ImageConfig(architecture="amd64", config=inner), [layer], Reference.parse("base"))
    launcher = await Launcher.connect(config.exec_root, config.cgroup_parent)
    networks = Networks(config, config.data_root / "networks")
    ranges = None if await idranges.lack(launcher, config.data_root) else IdRanges(config.instance, lambda: ())
    builder = Builder(config, images, functools.partial(run_ephemeral, launcher, networks, config), ranges=ranges)
    ours, peer = Ours(config, images, builder), Buildah(scratch / "buildah", base)
    peers: dict[str, Buildah | BuildKit] = {"buildah": peer}
    if buildkit:
        _, described = await asyncio.to_thread(images.manifest_of, image)
        peers["buildkit"] = BuildKit(buildkit, images.root, described.digest)
        await asyncio.to_thread(peers["buildkit"].build, context)  # it unpacks the base
    times: dict[str, dict[str, list[float]]] = {}
    try:
        for case, before in (("cold", None), ("cached", None), ("last COPY", change_last_copy)):
            for _ in range(runs):
                if before is not None:
                    before(context)
                await ours.build(context, no_cache=case == "cold")
                _note(times, case, "ours", time.perf_counter() - ours.started)
                for name, other in peers.items():
                    if case == "cached":
                        other.build(context)
                    started = time.perf_counter()
                    other.build(context, *(["--no-cache"] if case == "cold" else []))
                    _note(times, case, name, time.perf_counter() - started)
    finally:
        builder.close()
        await launcher.shutdown()
        images.close()
        peer.close()
        shutil.rmtree(config.exec_root)
    return {case: {who: statistics.median(all_) * 1000 for who, all_ in by.items()} for case, by in times.items()}


def _note(times: dict[str, dict[str, list[float]]], case: str, who: str, seconds: float) -> None:
    times.setdefault(case, {}).setdefault(who, []).append(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a root folder's tar with python3 in it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--buildkit", default="", help="a BuildKit daemon's address")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = asyncio.run(measure(asked.base, asked.runs, Path(scratch), asked.buildkit))
    if asked.json:
        print(json.dumps(found))
        return
    for case, by in found.items():
        print(f"{case:10} ours {by['ours']:7.0f} ms", end="")
        for name in [name for name in by if name != "ours"]:
            print(f"   {name} {by[name]:7.0f} ms {by['ours'] / by[name]:.2f}x", end="")
        print()


if __name__ == "__main__":
    main()
