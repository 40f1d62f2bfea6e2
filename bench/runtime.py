#!/usr/bin/env python3
"""Starts `true` in a container, ours beside crun: request → exit seen, and exec; full isolation, no network.

    bench/runtime.py [--runs 25] [--gap 0.1]

Both run the same OCI spec (Docker's default profile, limits, a fresh overlay over one busybox layer), in turns, in one
run. Prints medians in milliseconds and the ratio. Needs root, crun and /bin/busybox.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.containers import specs
from engine.containers.hostconfig import HostConfig
from engine.containers.model import ContainerConfig
from engine.containers.users import ResolvedUser
from engine.runtime.launcher import Launcher, Overlay
from engine.runtime.spec import LinuxCPU, LinuxMemory, LinuxPids, Spec

CGROUP = "/shipway-bench"


def spec_of(argv: list[str], shift: int = 0) -> Spec:
    spec = specs.build(
        ContainerConfig(env=["PATH=/bin"]),
        HostConfig(network_mode="none"),
        argv,
        [],
        specs.Surroundings(
            container_id="bench",
            hostname="bench",
            user=ResolvedUser(uid=0, gid=0, groups=(), home="/"),
            cgroups_path="",
            id_shift=shift,
            sharing=specs.Sharing(user="" if shift else "host"),
        ),
    )
    limits = spec.linux.resources
    assert limits is not None
    limits.memory, limits.pids, limits.cpu = LinuxMemory(limit=256 << 20), LinuxPids(512), LinuxCPU(shares=512)
    return spec


def make_layer(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "bin" / "busybox")
    for applet in ("true", "sleep", "sh"):
        (folder / "bin" / applet).hardlink_to(folder / "bin" / "busybox")
    for name in ("proc", "dev", "sys", "etc", "tmp"):
        (folder / name).mkdir()
    return folder


def fresh(folder: Path, layer: Path) -> Overlay:
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("upper", "work"):
        (folder / part).mkdir(parents=True)
    return Overlay((layer,), folder / "upper", folder / "work", volatile=True)


class Ours:
    def __init__(self, launcher: Launcher, folder: Path, layer: Path) -> None:
        self._launcher, self._folder, self._layer, self._count = launcher, folder, layer, 0

    async def run(self, spec: Spec) -> float:
        self._count += 1
        name = f"run{self._count}"
        overlay = fresh(self._folder / name, self._layer)
        begun = time.perf_counter()
        await self._launcher.create(name, spec, rootfs=overlay, log=None)
        await self._launcher.start(name)
        code = (await self._launcher.wait(name)).code
        seconds = time.perf_counter() - begun
        assert code == 0, code
        await self._launcher.delete(name)
        return seconds

    async def hold(self, spec: Spec) -> None:
        await self._launcher.create("held", spec, rootfs=fresh(self._folder / "held", self._layer), log=None)
        await self._launcher.start("held")

    async def exec(self) -> float:
        self._count += 1
        process = spec_of(["true"]).process
        begun = time.perf_counter()
        await self._launcher.exec("held", f"e{self._count}", process)
        code = (await self._launcher.wait("held", f"e{self._count}")).code
        seconds = time.perf_counter() - begun
        assert code == 0, code
        return seconds

    async def burst(self, spec: Spec, count: int, at_once: int) -> float:
        gate = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with gate:
                await self.run(spec)

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        return count / (time.perf_counter() - begun)


class Crun:
    """A helper process in its own mount namespace: crun 1.8 refuses hybrid cgroups unless the v2 tree is hidden."""

    def __init__(self, folder: Path, layer: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--crun-in", str(folder), str(layer)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def ask(self, word: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def crun_side(folder: Path, layer: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(0x20000)
    libc.mount(None, b"/", None, 0x4000 | 0x40000, None)
    if os.path.isdir("/sys/fs/cgroup/unified"):
        libc.mount(b"none", b"/sys/fs/cgroup/unified", b"tmpfs", 0, None)
    base = ["crun", "--cgroup-manager=cgroupfs", f"--root={folder}/state"]
    folder.mkdir()
    process = folder / "process.json"
    process.write_bytes(msgspec.json.encode(spec_of(["true"]).process))

    def bundle(name: str, argv: list[str]) -> tuple[Path, Path]:
        overlay = fresh(folder / name, layer)
        (folder / name / "merged").mkdir()
        spec = json.loads(msgspec.json.encode(spec_of(argv)))
        spec["ociVersion"] = "1.0.2"  # crun 1.8 knows no later one
        spec["root"]["path"] = "merged"
        spec["linux"]["cgroupsPath"] = f"{CGROUP}/crun-{name}"
        (folder / name / "config.json").write_text(json.dumps(spec))
        return folder / name, overlay.upper

    def mount(path: Path) -> None:
        options = f"lowerdir={layer},upperdir={path}/upper,workdir={path}/work,volatile"
        libc.mount(b"overlay", bytes(path / "merged"), b"overlay", 0, options.encode())

    held, _ = bundle("held", ["sleep", "1000"])
    mount(held)
    subprocess.run([*base, "run", "-d", "-b", str(held), "held"], check=True, stdout=subprocess.DEVNULL)
    for count, line in enumerate(sys.stdin):
        if line.strip() == "run":
            path, _ = bundle(f"run{count}", ["true"])
            begun = time.perf_counter()
            mount(path)
            subprocess.run([*base, "run", "-b", str(path), f"run{count}"], check=True)
            seconds = time.perf_counter() - begun
            libc.umount2(bytes(path / "merged"), 2)
        else:
            begun = time.perf_counter()
            subprocess.run([*base, "exec", "-p", str(process), "held"], check=True)
            seconds = time.perf_counter() - begun
        print(seconds, flush=True)
    subprocess.run([*base, "delete", "-f", "held"], check=True)


async def main(runs: int, gap: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="swb-"))
    layer = make_layer(folder / "layer")
    launcher = await Launcher.connect(folder / "x", f"{CGROUP}/ours")
    crun = Crun(folder / "crun", layer)
    ours = Ours(launcher, folder / "ours", layer)
    plain, users = spec_of(["true"]), spec_of(["true"], 1_000_000)
    await ours.hold(spec_of(["sleep", "1000"]))
    samples: dict[str, list[float]] = {}

    async def ask(word: str) -> float:
        return await asyncio.to_thread(crun.ask, word)

    cases: dict[str, Callable[[], object]] = {
        "run ours": lambda: ours.run(plain),
        "run ours, user namespace": lambda: ours.run(users),
        "run crun": lambda: ask("run"),
        "exec ours": ours.exec,
        "exec crun": lambda: ask("exec"),
    }
    for turn in range(runs + 2):
        for name, case in cases.items():
            await asyncio.sleep(gap)
            seconds = await case()  # type: ignore[misc]
            if turn > 1:
                samples.setdefault(name, []).append(seconds)
    for name, taken in samples.items():
        taken.sort()
        p95 = taken[int(len(taken) * 0.95)]
        figures = (statistics.median(taken) * 1e3, p95 * 1e3, taken[0] * 1e3)
        print("{:28} median {:7.2f} ms   p95 {:7.2f}   min {:6.2f}".format(name, *figures))
    for what in ("run", "exec"):
        ratio = statistics.median(samples[f"{what} ours"]) / statistics.median(samples[f"{what} crun"])
        print(f"{what}: {ratio:.2f} of crun")
    print(f"burst, 8 at once: {await ours.burst(plain, 60, 8):.0f} containers/s, "
          f"in user namespaces {await ours.burst(users, 60, 8):.0f}")  # fmt: skip
    crun.close()
    await launcher.shutdown()
    shutil.rmtree(folder)
    for root in Path("/sys/fs/cgroup").iterdir():
        for path in (root / f"{CGROUP[1:]}/ours", root / CGROUP[1:]):
            if path.is_dir():
                path.rmdir()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--crun-in"]:
        crun_side(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        options.add_argument("--runs", type=int, default=25)
        options.add_argument("--gap", type=float, default=0.1, help="seconds before each sample")
        given = options.parse_args()
        asyncio.run(main(given.runs, given.gap))
