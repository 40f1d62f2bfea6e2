#!/usr/bin/env python3
"""Containers through the Docker Engine API, ours beside dockerd: a run without and with a network, exec, a burst,
memory.

    bench/api.py [--runs 25] [--gap 0.1] [--peer unix:///run/docker.sock]

Both engines are asked in turns by the same client, one connection kept open, in one run. Without --peer a dockerd
(Debian's docker.io) is started for it, with folders of its own. Prints medians in milliseconds, and ratios. As root.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import shutil
import socket
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.engines import OURS, Connection, started

IMAGE = "bench/busybox:1"
_ports = itertools.count(22000)


class Engine:
    """A client of one of them."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path
        self._connection = Connection(path)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body) if body is not None else None
        self._connection.request(method, f"/v1.41{path}", data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{self.name}: {method} {path}: {said.decode()}")
        return (
            json.loads(said) if said and answer.getheader("Content-Type", "").startswith("application/json") else None
        )

    def load(self, layer: bytes) -> None:
        repository, tag = IMAGE.split(":")
        path = f"/images/create?fromSrc=-&repo={repository}&tag={tag}"
        self._connection.request("POST", f"/v1.41{path}", layer, {"Content-Type": "application/x-tar"})
        self._connection.getresponse().read()

    def create(self, *command: str, network: str = "none") -> str:
        host: dict[str, object] = {"NetworkMode": network}
        body: dict[str, object] = {"Image": IMAGE, "Cmd": command, "HostConfig": host}
        if network != "none":
            body["ExposedPorts"] = {"80/tcp": {}}
            host["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(next(_ports))}]}
        return str(self.ask("POST", "/containers/create", body)["Id"])

    def run(self, network: str) -> None:
        container = self.create("true", network=network)
        self.ask("POST", f"/containers/{container}/start")
        assert self.ask("POST", f"/containers/{container}/wait")["StatusCode"] == 0
        self.ask("DELETE", f"/containers/{container}")

    def exec(self, container: str) -> None:
        wanted = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
        found = self.ask("POST", f"/containers/{container}/exec", wanted)["Id"]
        body = b'{"Detach": false, "Tty": false}'
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self.path)
            head = f"POST /v1.41/exec/{found}/start HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
            head += f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
            stream.sendall(head.encode() + body)
            while stream.recv(65536):
                pass
        while (state := self.ask("GET", f"/exec/{found}/json"))["Running"]:
            time.sleep(0.001)
        assert state["ExitCode"] == 0

    def burst(self, count: int, at_once: int) -> float:
        """Containers a second, each run to its end and removed."""
        with ThreadPoolExecutor(at_once) as threads:
            begun = time.perf_counter()
            list(threads.map(lambda _: Engine(self.name, self.path).run("none"), range(count)))
            return count / (time.perf_counter() - begun)


def busybox() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for applet in ("true", "sleep"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            tar.addfile(link)
    return packed.getvalue()


def memory(folder: Path) -> float:
    """MiB (proportional set size) of all processes that have the folder in their command line, and their children."""
    found: dict[int, tuple[int, bool]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            found[int(entry)] = parent, str(folder).encode() in Path(f"/proc/{entry}/cmdline").read_bytes()
    total = 0
    for pid, (parent, named) in found.items():
        if named or found.get(parent, (0, False))[1]:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(text.split("Pss:")[1].split()[0])
    return total / 1024


def measure(engines: list[Engine], runs: int, gap: float) -> None:
    held = {engine.name: engine.create("sleep", "100000") for engine in engines}
    for engine in engines:
        engine.ask("POST", f"/containers/{held[engine.name]}/start")
    cases: dict[str, Callable[[Engine], None]] = {
        "run": lambda engine: engine.run("none"),
        "run on a bridge, a port published": lambda engine: engine.run("bridge"),
        "exec": lambda engine: engine.exec(held[engine.name]),
    }
    for case, work in cases.items():
        samples: dict[str, list[float]] = {engine.name: [] for engine in engines}
        for turn in range(runs + 2):
            for engine in engines:
                time.sleep(gap)
                begun = time.perf_counter()
                work(engine)
                if turn > 1:
                    samples[engine.name].append((time.perf_counter() - begun) * 1e3)
        for name, taken in samples.items():
            taken.sort()
            print(f"{case:34} {name:8} median {statistics.median(taken):7.2f} ms   min {taken[0]:7.2f}")
        ours, peer = (statistics.median(samples[engine.name]) for engine in engines)
        print(f"{case:34} 1/{peer / ours:.1f}", flush=True)
    rates = {engine.name: engine.burst(50, 8) for engine in engines}
    print("burst of 50, 8 at once:", ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items()))
    for engine in engines:
        engine.ask("DELETE", f"/containers/{held[engine.name]}?force=1")


def main(runs: int, gap: float, peer: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="swb-"))
    dockerd = ("dockerd", "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs")
    try:
        with contextlib.ExitStack() as stack:
            engines = [Engine("ours", stack.enter_context(started("ours", folder, *OURS)))]
            print(f"idle: {memory(folder):.1f} MiB")
            path = peer.removeprefix("unix://") or stack.enter_context(started("dockerd", folder, *dockerd))
            engines.append(Engine("dockerd", path))
            layer = busybox()
            for engine in engines:
                engine.load(layer)
            measure(engines, runs, gap)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=25)
    options.add_argument("--gap", type=float, default=0.1, help="seconds before each sample")
    options.add_argument("--peer", default="", help="the socket of a dockerd that runs already")
    given = options.parse_args()
    main(given.runs, given.gap, given.peer)
