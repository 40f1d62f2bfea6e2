from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import Settings
from pipeline.store import open_store
from tests.server.gitrepo import PIPELINES, GitRepo
from tests.server.running import SECRET, Running, running
from tests.server.story import Clock, ordinary_night

GITHUB = "bradrydzewski/drone-test-go"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> GitRepo:
    made = GitRepo(tmp_path_factory.mktemp("git") / "web")
    made.commit("Greet the world\n\nAt last.", {"pipelines.yaml": PIPELINES, "Dockerfile": "FROM scratch\n"})
    return made


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """A test's own, with nothing in it."""
    return GitRepo(tmp_path / "web")


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


def settings_of(data: Path, **repositories: Any) -> Settings:
    return Settings.model_validate({"data": data, "repositories": repositories, "sweep_seconds": 0.2})


@contextmanager
def night(settings: Settings) -> Iterator[Running]:
    """A server that finds an ordinary night in its store, its hosts just heard of."""
    clock = Clock(time.time())
    with open_store(settings.database, lease_seconds=3600, clock=clock) as store:
        runs = ordinary_night(store, clock)
    with running(settings) as server:
        server.runs = runs
        yield server


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, repository: GitRepo) -> Settings:
    known = {
        "web": {"url": repository.url, "secret": SECRET},
        "private": {"url": "https://git.example.com/p.git", "secret": SECRET, "token": "a-git-token"},
        GITHUB: {"url": "/nonexistent/drone-test-go.git", "secret": SECRET},
    }
    return settings_of(tmp_path_factory.mktemp("server"), **known)


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Running]:
    """One for a module: tests in it see each other's runs."""
    with running(settings) as server:
        yield server


@pytest.fixture
def count(server: Running) -> Callable[[str], int]:
    """Rows of a table, past all that the server says of them."""

    def rows(table: str) -> int:
        with sqlite3.connect(server.settings.data / "shipway.db") as database:
            number: int = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        database.close()
        return number

    return rows
