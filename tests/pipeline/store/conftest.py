"""A store on each database that we support, with a clock that only the test moves."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests import needs
from tests.pipeline.store.line import Clock, Line


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    on_path = shutil.which("initdb")
    return found[0].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL of this session's own."""
    pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
    programs = _programs()
    if programs is None:
        needs.lacking("PostgreSQL is not installed")
    # The server refuses to run as root.
    user: str | None = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            needs.lacking("there is no user postgres to run PostgreSQL as")
    place = Path(tempfile.mkdtemp(prefix="swpg"))
    if user:
        shutil.chown(place, user)
    options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]
    subprocess.run(
        [programs / "initdb", "-D", place / "data", *options], user=user, cwd=place, check=True, capture_output=True
    )
    quick = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=50"]
    process = subprocess.Popen(
        [programs / "postgres", "-D", place / "data", "-k", place, *(part for each in quick for part in ("-c", each))],
        user=user,
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while subprocess.run([programs / "pg_isready", "-q", "-h", place], check=False).returncode:
            assert process.poll() is None, "PostgreSQL ended at its start"
            assert time.monotonic() < deadline, "PostgreSQL is not ready after 30 s"
            time.sleep(0.05)
        yield f"postgresql://postgres@/postgres?host={place}"
    finally:
        process.send_signal(signal.SIGQUIT)  # at once: nobody needs its files
        process.wait(30)
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shipway.db'}"
        return
    server: str = request.getfixturevalue("postgresql")
    admin = create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    admin.dispose()
    yield server


@pytest.fixture
def line(url: str, clock: Clock, tmp_path: Path) -> Iterator[Line]:
    with Line.open(url, clock, tmp_path / "secrets") as line:
        yield line
