"""Opening the database and its transactions: one writer at a time, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from pipeline.errors import SettingsError
from pipeline.store.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

_REMEDY = "write sqlite:////path/file.db, or postgresql://user@host/name"
HEAD = "0002"
"""The newest revision in `migrations/versions`."""
_WRITER = 0x5348_4950
"""Key of the advisory lock that makes PostgreSQL's writers take turns, as SQLite's do."""


class Database:
    """An engine and the two ways to use it. Raises SettingsError for a URL that leads nowhere."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise SettingsError(f"database_url: {_REMEDY}") from None
        self.sqlite = parsed.get_backend_name() == "sqlite"
        if self.sqlite:
            _make_folder(parsed.database)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if not self.sqlite and parsed.drivername != "postgresql+psycopg":
            raise SettingsError(f"database_url: {parsed.drivername} is not supported: {_REMEDY}")
        try:
            self.engine: Engine = create_engine(parsed, pool_pre_ping=not self.sqlite, pool_size=8, max_overflow=24)
        except ModuleNotFoundError:
            raise SettingsError("database_url: there is no driver for it: install shipway[postgresql]") from None
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = threading.Lock()
        self._writing = self.engine.execution_options(writes=True)
        # SQLite's readers see one moment by themselves.
        snapshot: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = self.engine if self.sqlite else self.engine.execution_options(**snapshot)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that nobody else's can overlap: what it reads stays true until it ends."""
        # SQLite's own waiting sleeps in growing steps; taking turns in the process first is fair and fast.
        with self._writer, self._writing.begin() as connection:
            if not self.sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER})
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        with self._reading.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Makes the tables, or brings older ones up to date. Raises SettingsError."""
        try:
            self._migrate()
        except DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            raise SettingsError(
                f"database_url: {reason[:300]}: is the database there, and may I write to it?"
            ) from None

    def _migrate(self) -> None:
        with self.write() as connection:
            tables = set(inspect(connection).get_table_names())
            if not tables:
                metadata.create_all(connection)
                connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
                connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
                return
            if "alembic_version" not in tables:
                raise SettingsError("this database belongs to something else: name another in database_url")
            version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if version != HEAD:
            upgrade(self.engine, version)

    def close(self) -> None:
        self.engine.dispose()


def upgrade(engine: Engine, version: str | None) -> None:
    """Runs the migrations that this database has not seen. Raises SettingsError when it is newer than we are."""
    from alembic import command
    from alembic.util.exc import CommandError

    config = alembic_config()
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError:
            raise SettingsError(f"this database was written by a newer Shipway ({version}): update this one") from None


def alembic_config() -> Config:
    """Alembic's settings: where our migrations are. `attributes["connection"]` is for the caller to fill."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _make_folder(database: str | None) -> None:
    if not database or database == ":memory:":
        raise SettingsError(f"database_url: a database in memory is nobody's: {_REMEDY}")
    folder = Path(database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"database_url: {folder}: {error.strerror}: name another place") from None


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin our own transactions
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "busy_timeout=15000",
        "foreign_keys=ON",
        "cache_size=-16000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
