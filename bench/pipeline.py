"""The orchestrator's own cost: from a signed webhook and a hint to the first process; stages through all its machinery.

    python -m bench.pipeline [--runs 25] [--stages 64]

Starts a system of its own (`shipway up`) with one small repository. As root. The peer is the figure that GitLab
calls satisfying, one second from trigger to start: no peer's scheduler can be had here to measure beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import docker
import requests

from bench.engines import free_port
from scripts.baseimages import BUSYBOX, busybox_root
from scripts.story.repository import Repository
from scripts.story.system import ENDED, Ports, System

_PIPELINES = """\
pipelines:
  first:
    on: {push: {branches: [first]}}
    stages:
      one: {test: {image: "busybox:1.35", run: [cat /proc/uptime], network: none}}
  many:
    on: {push: {branches: [many]}}
    stages:
      some: {matrix: {n: NUMBERS}, test: {image: "busybox:1.35", run: ["true"], network: none}}
"""
_POLL = 0.05


class Bench:
    """A running system and a repository whose branches `first` and `many` start the two pipelines."""

    def __init__(self, folder: Path, stages: int) -> None:
        self.system = System(folder / "data", Ports(*(free_port() for _ in range(4))))
        self._repository = Repository(folder / "git")
        self._stages = stages
        self._session = requests.Session()
        self.system.configure(self._repository)

    def start(self) -> None:
        self.system.start()
        engine = docker.DockerClient(self.system.engine_url)
        name, _, tag = BUSYBOX.partition(":")
        engine.api.import_image_from_data(busybox_root(), repository=name, tag=tag)
        engine.close()
        copy = self._repository.copy
        copy.mkdir()
        numbers = json.dumps(list(range(self._stages)))
        (copy / "pipelines.yaml").write_text(_PIPELINES.replace("NUMBERS", numbers))
        author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
        for words in (("init", "-q", "-b", "main"), ("add", "-A"), (*author, "commit", "-q", "-m", "bench")):
            subprocess.run(["git", *words], cwd=copy, check=True)
        subprocess.run(["git", "clone", "-q", "--bare", copy, self._repository.bare], check=True)
        self._sha = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=copy, check=True, capture_output=True, text=True
        ).stdout.strip()

    def trigger(self, branch: str) -> None:
        """What a forge does after a push."""
        body = json.dumps({"repository": "web", "ref": f"refs/heads/{branch}", "after": self._sha}).encode()
        digest = hmac.new(self._repository.secret.encode(), body, hashlib.sha256).hexdigest()
        answer = self._session.post(
            f"{self.system.url}/hooks/generic",
            data=body,
            headers={"X-Shipway-Signature-256": f"sha256={digest}", "X-Shipway-Delivery": str(uuid.uuid4())},
            timeout=10,
        )
        answer.raise_for_status()

    def ended(self, number: int) -> dict[str, Any]:
        """The run of that number, once it has ended."""
        while True:
            answer = self._session.get(f"{self.system.url}/api/v1/runs/{number}", timeout=10)
            if answer.status_code == 200 and (run := answer.json())["state"] in ENDED:
                assert run["state"] == "passed", run
                return dict(run)
            time.sleep(_POLL)


def _to_process(bench: Bench, runs: int) -> tuple[list[float], list[float]]:
    """Seconds until the stage's own process, from the webhook and from the hint, on the clock that all sides see."""
    from_trigger, from_hint = [], []
    for number in range(1, runs + 1):
        time.sleep(0.3)
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        bench.trigger("first")
        run = bench.ended(number)
        process = float(bench.system.command("logs", f"{number}/one").stdout.split()[0])
        from_trigger.append(process - begun)
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        from_hint.append(process - (run["stages"][0]["attempts"][0]["created"] - booted))
    return sorted(from_trigger), sorted(from_hint)


def _stages_a_second(bench: Bench, number: int, stages: int) -> float:
    begun = time.perf_counter()
    bench.trigger("many")
    bench.ended(number)
    return stages / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--stages", type=int, default=64)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="swbench-"))
    bench = Bench(folder, options.stages)
    try:
        bench.start()
        for start, taken in zip(("webhook", "hint"), _to_process(bench, options.runs), strict=True):
            p95 = taken[int(len(taken) * 0.95)]
            print(f"{start} to first process: median {statistics.median(taken) * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms")
        rate = _stages_a_second(bench, options.runs + 1, options.stages)
        print(f"stages of one container each, {options.stages} side by side: {rate:.1f} a second")
    finally:
        bench.system.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
