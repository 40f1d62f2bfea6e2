"""Opening databases: new ones, old ones, those of others, and those that are not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine
from sqlalchemy.schema import CreateIndex, CreateTable

from pipeline.errors import SettingsError
from pipeline.store import open_store
from pipeline.store.database import HEAD, Database, alembic_config
from pipeline.store.tables import metadata
from tests.pipeline.store.line import Clock, Line, deploy_stage, push, stage


def raw(url: str) -> Engine:
    parsed = make_url(url)
    return create_engine(parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed)


def test_a_database_is_opened_again_as_it_was(url: str, clock: Clock, tmp_path: Path) -> None:
    with Line.open(url, clock, tmp_path / "s") as line:
        run = line.begin(stage("a"))
        before = line.run(run)
    with Line.open(url, clock, tmp_path / "s") as line:
        assert line.run(run) == before


def test_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    engine = raw(url)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
    with open_store(url) as store:
        assert store.list_runs() == []
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert connection.dialect.has_table(connection, "runs") is False
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]


def test_a_database_of_a_newer_version_is_left_alone(url: str) -> None:
    open_store(url).close()
    engine = raw(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match=r"written by a newer Shipway \(9999\): update this one"):
        open_store(url)
    engine.dispose()


def test_a_database_of_somebody_else_is_left_alone(url: str) -> None:
    engine = raw(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE customers (id INTEGER)"))
    with pytest.raises(SettingsError, match="belongs to something else"):
        open_store(url)
    with engine.connect() as connection:
        assert not connection.dialect.has_table(connection, "runs")
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("nonsense", "write sqlite:////path/file.db"),
        ("mysql://a/b", "mysql"),
        ("sqlite://", "a database in memory is nobody's"),
        ("sqlite:////proc/nothing/x.db", "/proc/nothing: "),
        ("sqlite:////proc/version", "is the database there, and may I write to it?"),
        ("postgresql://nobody@/none?host=/nonexistent", "is the database there, and may I write to it?"),
    ],
)
def test_a_database_that_is_not_there_is_told_in_one_line(url: str, error: str) -> None:
    if url.startswith("postgresql"):
        pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(os.urandom(8192))
    with pytest.raises(SettingsError, match="file is not a database"):
        open_store(f"sqlite:///{tmp_path / 'x.db'}")


def test_a_reader_sees_one_moment(url: str) -> None:
    database = Database(url)
    database.migrate()
    count = text("SELECT count(*) FROM events")
    row = text("INSERT INTO events (hook, kind, repository, ref, sha, document, state, error, created)"
               " VALUES ('', 'push', 'r', '', '', '', 'new', '', 0)")  # fmt: skip
    with database.read() as reader:
        assert reader.execute(count).scalar() == 0
        with database.write() as writer:
            writer.execute(row)
        assert reader.execute(count).scalar() == 0
    with database.read() as reader:
        assert reader.execute(count).scalar() == 1
    database.close()


def test_every_statement_is_understood_by_postgresql(clock: Clock, tmp_path: Path) -> None:
    """For machines without one: a whole story on SQLite, each statement compiled for PostgreSQL as well."""
    dialect = postgresql.dialect()
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert "CREATE INDEX" in str(CreateIndex(index).compile(dialect=dialect))
    seen = 0
    with Line.open(f"sqlite:///{tmp_path / 'x.db'}", clock, tmp_path / "s") as line:

        @event.listens_for(line.store._database.engine, "before_execute")
        def compiled(_connection: object, clause: object, *_: object) -> None:
            nonlocal seen
            if hasattr(clause, "compile") and not isinstance(clause, sqlite.Insert):
                str(clause.compile(dialect=dialect))
                seen += 1

        line.store.record_event(push(), hook="h", delivery="d")
        line.store.set_schedules(push(), ["0 3 * * *"])
        run = line.begin(stage("a", retries=1), deploy_stage("live", "a"), group="g")
        line.claim(run, "a")
        line.lose()
        line.do(run, "a")
        claim = line.claim(run, "live")
        line.rollout(claim, line.release(claim))
        line.store.cancel(run)
        line.lose()
        line.store.retry(run)
        line.store.list_runs(pipeline="web", branch="main", states=["passed"], repository="r", before=9)
        line.store.list_services()
        line.store.figures()
    assert seen > 100
