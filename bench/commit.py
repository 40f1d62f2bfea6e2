"""Commits of containers that wrote 2,000 small files and 50 MB, by our engine and by Docker's, over their sockets.

    python -m bench.commit --base debian-python.tar --docker unix:///var/run/docker.sock [--runs 7]

Each engine commits a container that has ended and one that runs (and is paused meanwhile), in turns. Ours is a daemon
of its own; Docker's runs already, may have no network, and keeps nothing of this. As root. Prints medians in
milliseconds, and ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench.build import MAKE_FILES
from bench.engines import OURS, Connection, started

IMAGE = "bench-commit-base:1"
STAY = "\nprint('written', flush=True)\nimport time\ntime.sleep(3600)\n"


class Engine:
    """One that is there, reached as its clients reach it."""

    def __init__(self, address: str, base: Path) -> None:
        self._path = address.removeprefix("unix://")
        self._words = ["docker", "-H", address]
        self("import", str(base), IMAGE)
        self._made = [self._write("ended", ""), self._write("runs", STAY)]

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self._words, *words], capture_output=True, text=True, check=True).stdout.strip()

    def _write(self, name: str, more: str) -> str:
        words = ["run", "--network", "none", "--name", f"bench-commit-{name}", *(["-d"] if more else [])]
        self(*words, IMAGE, "python3", "-c", MAKE_FILES + more, "/srv/site", "2000", "50")
        while more and "written" not in self("logs", f"bench-commit-{name}"):
            time.sleep(0.05)
        return f"bench-commit-{name}"

    def commit(self, name: str) -> float:
        """In seconds. The image does not stay."""
        os.sync()
        connection = Connection(self._path)
        headers = {"Content-Type": "application/json"}
        started = time.perf_counter()
        connection.request("POST", f"/v1.41/commit?container=bench-commit-{name}&comment={started}", "{}", headers)
        answer = json.load(connection.getresponse())
        took = time.perf_counter() - started
        connection.close()
        self("rmi", answer["Id"])
        return took

    def close(self) -> None:
        for name in self._made:
            self("rm", "-f", name)
        self("rmi", IMAGE)


def measure(base: Path, docker: str, runs: int, scratch: Path) -> dict[str, dict[str, float]]:
    """Case → engine → median in milliseconds."""
    times: dict[str, dict[str, list[float]]] = {}
    with started("ours", scratch, *OURS) as path, contextlib.ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for name, at in {"ours": f"unix://{path}", **({"docker": docker} if docker else {})}.items():
            engines[name] = Engine(at, base)
            stack.callback(engines[name].close)
        for turn in range(runs + 1):
            for case in ("ended", "runs"):
                for name, engine in engines.items():
                    took = engine.commit(case)
                    if turn:
                        times.setdefault(case, {}).setdefault(name, []).append(took)
    return {case: {who: statistics.median(all_) * 1000 for who, all_ in by.items()} for case, by in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="a root folder's tar with python3 in it")
    parser.add_argument("--docker", default="", help="a Docker daemon's address")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="swc"))
    try:
        found = measure(asked.base, asked.docker, asked.runs, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if asked.json:
        print(json.dumps(found))
        return
    for case, by in found.items():
        others = [f"{name} {by[name]:7.0f} ms {by['ours'] / by[name]:.2f}x" for name in by if name != "ours"]
        print(f"{case:6} ours {by['ours']:7.0f} ms   {'   '.join(others)}")


if __name__ == "__main__":
    main()
