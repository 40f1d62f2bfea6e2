"""One system for all tests that only use it: `shipway up`, with the example services pushed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from scripts.baseimages import BUSYBOX, PYTHON, busybox_root, python_root
from scripts.story.repository import Repository
from scripts.story.system import Ports, System
from tests.ports import free_port

_CACHE = Path(__file__).resolve().parents[2] / ".cache"


@dataclass
class Up:
    """A running system; `web` and `api` are laid out and known to it, and `web` has been pushed once."""

    system: System
    web: Repository
    api: Repository
    first_commit: str
    first_run: int

    def push(self, repository: Repository, message: str) -> str:
        """Pushes, waits for the end of the run, and tells its state, with the reason if it is a bad one."""
        commit, _ = repository.push(message)
        run = self.system.run_of(commit)
        reasons = [stage["reason"] for stage in self.system.follow(run) if stage["reason"]]
        view = self.system.get(f"/runs/{run}")
        return ": ".join(filter(None, (view["state"], view["reason"], *reasons)))


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp(prefix="swu"))
    ports = Ports(*(free_port() for _ in range(4)))
    system = System(folder / "data", ports)
    web, api = Repository(folder / "git"), Repository(folder / "git", "api")
    system.configure(web, api)
    try:
        system.start()
        _base_images(system)
        registry = f"localhost:{ports.registry}"
        web.create(f"{system.url}/hooks/generic", registry, ports.publish)
        api.create(f"{system.url}/hooks/generic", registry, free_port())
        commit, _ = web.push("Version 1")
        run = system.run_of(commit)
        stages = {stage["name"]: stage["state"] for stage in system.follow(run)}
        assert set(stages.values()) == {"passed"}, system.get(f"/runs/{run}")
        yield Up(system, web, api, commit, run)
    finally:
        system.stop()
        shutil.rmtree(folder)


def _base_images(system: System) -> None:
    engine = docker.DockerClient(system.engine_url, timeout=120)
    try:
        name, _, tag = BUSYBOX.partition(":")
        engine.api.import_image_from_data(busybox_root(), repository=name, tag=tag)
        name, _, tag = PYTHON.partition(":")
        engine.api.import_image_from_file(str(python_root(_CACHE)), repository=name, tag=tag)
    finally:
        engine.close()
