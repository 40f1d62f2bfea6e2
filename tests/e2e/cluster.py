"""A whole system over two hosts: broker, registry and server on this side, engine and worker on each host."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import requests
import yaml

from scripts.baseimages import BUSYBOX, busybox_root
from scripts.story.repository import Repository
from tests.e2e.hosts import Lan, Processes, python, wait_for
from tests.ports import free_port
from workers.broker import Broker
from workers.broker import stop as stop_broker

PUBLISH = 8080
_TOKEN = "a-token-for-the-workers-of-this-test"
_ENDED = {"passed", "failed", "cancelled", "lost"}


class Cluster:
    """Hosts are called `one` and `two`. `url` is the server's, `registry` what images are named after."""

    names = ("one", "two")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lan = Lan(len(self.names))
        self.broker = Broker(folder / "broker", folder / "b.sock", (self.lan.address, free_port()))
        self.url = f"http://{self.lan.address}:{free_port()}"
        self.registry = f"{self.lan.address}:{free_port()}"
        self.repository = Repository(folder / "git")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SHIPWAY_")}
        self.processes = Processes(
            folder / "logs",
            {**clean, "SHIPWAY_SERVER_URL": self.url, "SHIPWAY_WORKER_TOKEN": _TOKEN, "PYTHONUNBUFFERED": "1"},
        )
        self._http = requests.Session()
        self._http.trust_env = False

    def start(self) -> None:
        """Brings everything up, one base image on both hosts included."""
        self.processes.environment = {**self.processes.environment, "SHIPWAY_BROKER_URL": self.broker.remote_url}
        server = self.url.rpartition(":")
        config = self.folder / "config.yaml"
        known = {"web": {"url": str(self.repository.bare), "secret": self.repository.secret}}
        config.write_text(yaml.safe_dump({"repositories": known}))
        self.processes.start(
            "registry",
            *python("engine.registry.server"),
            *("--host", self.lan.address, "--port", self.registry.rpartition(":")[2]),
            *("--root", str(self.folder / "registry")),
        )
        self.processes.start(
            "server",
            *python("server"),
            SHIPWAY_CONFIG=str(config),
            SHIPWAY_DATA=str(self.folder / "server"),
            SHIPWAY_LISTEN_HOST=self.lan.address,
            SHIPWAY_LISTEN_PORT=server[2],
        )
        for index in range(len(self.names)):
            self.start_engine(index)
        for index in range(len(self.names)):
            self.await_engine(index)
            self.engine(index).api.import_image_from_data(
                busybox_root(), repository=BUSYBOX.partition(":")[0], tag=BUSYBOX.partition(":")[2]
            )
            self.start_worker(index)
        wait_for(self._all_online, "the workers' arrival")

    def start_engine(self, index: int) -> None:
        place = self.folder / f"h{index}"
        self.processes.start(
            f"engine-{self.names[index]}",
            *python("engine"),
            *("--host", f"unix://{self.socket(index)}", "--data-root", str(place / "engine")),
            *("--exec-root", str(place / "run"), "--insecure-registry", self.registry),
            netns=self.lan.names[index],
        )

    def start_worker(self, index: int) -> None:
        self.processes.start(
            f"worker-{self.names[index]}",
            *(*python("workers"), "--clear-traffic"),
            netns=self.lan.names[index],
            SHIPWAY_DATA=str(self.folder / f"h{index}" / "worker"),
            SHIPWAY_ENGINE=f"unix://{self.socket(index)}",
            SHIPWAY_WORKER_NAME=self.names[index],
            SHIPWAY_WORKER_LABELS="role=web",
        )

    def socket(self, index: int) -> Path:
        return self.folder / f"e{index}.sock"

    def await_engine(self, index: int) -> None:
        wait_for(lambda: self._listens(index), f"the start of the engine of host {self.names[index]}")

    def _listens(self, index: int) -> bool:
        """The socket's file is there a moment before anybody listens at it."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket(index))) == 0

    def engine(self, index: int) -> docker.DockerClient:
        return docker.DockerClient(f"unix://{self.socket(index)}", timeout=60)

    def get(self, path: str) -> Any:
        answer = self._http.get(f"{self.url}/api/v1{path}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def _all_online(self) -> bool:
        try:
            workers = self.get("/workers")["workers"]
        except requests.RequestException:
            return False
        return {each["name"] for each in workers if each["state"] == "online"} == set(self.names)

    def run_of(self, commit: str) -> int:
        """The id of the run that a pushed commit began."""
        found: list[int] = []

        def look() -> bool:
            found.extend(run["id"] for run in self.get("/runs")["runs"] if run["sha"] == commit)
            return bool(found)

        wait_for(look, f"a run of {commit[:12]}")
        return found[0]

    def ended(self, run: int, timeout: float = 90.0) -> dict[str, Any]:
        """The run, once it has ended."""
        wait_for(lambda: self.get(f"/runs/{run}")["state"] in _ENDED, f"the end of run {run}", timeout)
        view: dict[str, Any] = self.get(f"/runs/{run}")
        return view

    def replicas(self, index: int) -> list[str]:
        """The running replicas of one host, by name."""
        running = self.engine(index).containers.list(filters={"label": "shipway.service"})
        return sorted(str(each.name) for each in running)

    def close(self) -> None:
        try:
            for index in range(len(self.names)):
                if self._listens(index):
                    for each in self.engine(index).containers.list(all=True):
                        each.remove(force=True)
        finally:
            self.processes.stop()


@contextmanager
def running() -> Iterator[Cluster]:
    """A started cluster; at the end nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="swc"))
    cluster = Cluster(folder)
    cluster.lan.lay()
    broker = cluster.broker.start()
    try:
        cluster.start()
        yield cluster
    finally:
        try:
            cluster.close()
        finally:
            stop_broker(broker)
            cluster.lan.remove()
            shutil.rmtree(folder)
