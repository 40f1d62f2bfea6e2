"""The system under the story: `shipway up` as a child, and its REST API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from cli.layout import Address, Layout
from scripts.story.narrator import StoryFailedError
from scripts.story.repository import Repository

ENDED = frozenset({"passed", "failed", "cancelled", "lost"})
STAGE_ENDED = ENDED | {"skipped"}


@dataclass(frozen=True)
class Ports:
    """Where the story's system listens, on the loopback address."""

    server: int = 7700
    registry: int = 7750
    metrics: int = 7701
    publish: int = 8080


class System:
    """`shipway up` with a data folder and ports of its own."""

    def __init__(self, data: Path, ports: Ports) -> None:
        self.data = data
        self.ports = ports
        self.url = f"http://127.0.0.1:{ports.server}"
        self._config = data / "config.yaml"
        self._layout = Layout(
            data,
            Address("127.0.0.1", ports.server),
            Address("127.0.0.1", ports.registry),
            Address("127.0.0.1", ports.metrics),
        )
        self._process: subprocess.Popen[str] | None = None
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SHIPWAY_CONFIG": str(self._config),
            "SHIPWAY_SERVER_URL": self.url,
        }

    def configure(self, *repositories: Repository) -> None:
        """Makes repositories known, with the secrets of their hooks."""
        self.data.mkdir(parents=True, exist_ok=True)
        known = {each.name: {"url": str(each.bare), "secret": each.secret} for each in repositories}
        self._config.touch(mode=0o600)
        self._config.write_text(yaml.safe_dump({"repositories": known, "worker_labels": {"role": "web"}}))

    def start(self, timeout: float = 60.0) -> str:
        """Starts it and waits until it says that it is up; returns what it said."""
        ports = self.ports
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cli", "up", "--data", str(self.data)),
                *("--listen", f"127.0.0.1:{ports.server}"),
                *("--registry", f"127.0.0.1:{ports.registry}"),
                *("--metrics", f"127.0.0.1:{ports.metrics}"),
            ],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C is the story's to hear; it then stops the system itself.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = []
        deadline = time.monotonic() + timeout
        for line in self._process.stdout:
            said.append(line)
            if line.startswith("up:"):
                return "".join(said)
            if time.monotonic() > deadline:
                break
        raise StoryFailedError("shipway up did not come up:\n" + "".join(said))

    def stop(self) -> None:
        """Ctrl-C, and the wait for its end."""
        self._session.close()
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            ended = self._process.wait(60)
        except subprocess.TimeoutExpired:
            raise StoryFailedError("shipway up did not stop within 60 s of Ctrl-C") from None
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        if ended:
            raise StoryFailedError(f"shipway up ended with {ended}")

    @property
    def engine_url(self) -> str:
        return f"unix://{self._layout.engine_socket}"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `shipway ARGUMENTS` against this system."""
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def get(self, path: str) -> Any:
        answer = self._session.get(f"{self.url}/api/v1{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def run_of(self, commit: str, timeout: float = 10.0) -> int:
        """The id of the run that the push of `commit` began."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for run in self.get("/runs")["runs"]:
                if run["sha"] == commit:
                    return int(run["id"])
            time.sleep(0.05)
        raise StoryFailedError(f"the push of {commit[:12]} began no run")

    def follow(self, run: int, timeout: float = 60.0) -> Iterator[dict[str, Any]]:
        """Each stage of the run as it ends; returns when the run has ended."""
        told: set[str] = set()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            now = self.get(f"/runs/{run}")
            for stage in now["stages"]:
                if stage["state"] in STAGE_ENDED and stage["name"] not in told:
                    told.add(stage["name"])
                    yield stage
            if now["state"] in ENDED:
                return
            time.sleep(0.05)
        raise StoryFailedError(f"run {run} did not end within {timeout:.0f} s")
