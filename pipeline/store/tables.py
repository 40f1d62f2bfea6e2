"""The tables. Times are Unix seconds; documents are JSON text of the models in `plan` and `protocol`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine.interfaces import Dialect

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class AnyText(TypeDecorator[str]):
    """Text of strangers: PostgreSQL takes no NUL, SQLite does; both keep a mark in its place."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """SQLAlchemy calls it with each value on its way in."""
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if value is not None else None


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, AnyText, nullable=null, default="" if not null else None)


def _time(name: str, *, null: bool = True) -> Column[float]:
    return Column(name, Double, nullable=null)


events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hook", String(32), nullable=False, default=""),
    Column("kind", String(16), nullable=False),
    Column("repository", Text, nullable=False),
    _text("ref"),
    _text("sha"),
    _text("document"),
    Column("state", String(16), nullable=False, default="new"),
    _text("error"),
    _time("created", null=False),
    Index(None, "state"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("hook", String(32), primary_key=True),
    Column("delivery", String(200), primary_key=True),
    Column("event_id", ForeignKey("events.id"), nullable=False),
    _time("created", null=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event_id", ForeignKey("events.id"), nullable=True),
    Column("pipeline", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    _text("reason"),
    _text("title"),
    _text("repository"),
    _text("event_kind"),
    _text("branch"),
    _text("tag"),
    _text("sha"),
    _text("message"),
    _text("author"),
    _text("event"),
    _text("plan"),
    _text("grouping", null=True),
    Column("cancelled", Boolean, nullable=False, default=False),
    _time("triggered", null=False),
    _time("created", null=False),
    _time("started"),
    _time("finished"),
    UniqueConstraint("event_id", "pipeline"),
    Index(None, "state"),
    Index(None, "grouping", "state"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("repository", Text, primary_key=True),
    Column("schedule", Text, primary_key=True),
    _text("ref"),
    _text("sha"),
    _time("due", null=False),
    Index(None, "due"),
)

stages = Table(
    "stages",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("base", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    _text("reason"),
    _text("planned"),
    _text("outputs"),
    Column("worker", String(64), nullable=True),
    Column("lock", String(128), nullable=True),
    Column("approved", Boolean, nullable=False, default=False),
    Column("approver", AnyText, nullable=False, default="", server_default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("losses", Integer, nullable=False, default=0),
    Column("epoch", Integer, nullable=False, default=0),
    Column("hints", Integer, nullable=False, default=0),
    _time("hint_at"),
    _time("started"),
    _time("finished"),
    UniqueConstraint("run_id", "name"),
    Index(None, "state"),
    Index(None, "lock", "state"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("worker", String(64), nullable=True),
    Column("token", String(64), nullable=True),
    _time("lease_until"),
    _time("deadline"),
    _time("created", null=False),
    _time("started"),
    _time("finished"),
    _text("error"),
    Column("exit_code", Integer, nullable=True),
    _text("timings"),
    Column("log_size", BigInteger, nullable=False, default=0, server_default="0"),
    Column("log_cut_from", Integer, nullable=True),
    Column("log_cut_to", Integer, nullable=True),
    Column("log_cut_size", BigInteger, nullable=False, default=0, server_default="0"),
    UniqueConstraint("run_id", "position", "number"),
    Index(None, "state"),
)

logs = Table(
    "logs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("attempt", ForeignKey("attempts.id"), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("stream", String(8), nullable=False),
    _time("time", null=False),
    _text("text"),
    UniqueConstraint("attempt", "seq"),
)

services = Table(
    "services",
    metadata,
    Column("name", String(64), primary_key=True),
    _text("repository"),
    _text("spec"),
    Column("releases", Integer, nullable=False, default=0),
    Column("live", String(80), nullable=True),
    _time("updated", null=False),
)

releases = Table(
    "releases",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("service", ForeignKey("services.name"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    _text("spec"),
    _text("image"),
    _text("digest"),
    Column("environment", String(64), nullable=False),
    Column("rollback", Boolean, nullable=False, default=False),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    _text("repository"),
    _text("commit"),
    _time("committed"),
    _text("tests"),
    _text("error"),
    _time("created", null=False),
    _time("live"),
    UniqueConstraint("service", "number"),
    UniqueConstraint("run_id", "position", "epoch"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("service", ForeignKey("services.name"), nullable=False),
    Column("release", ForeignKey("releases.id"), nullable=False, unique=True),
    Column("previous", String(80), nullable=True),
    Column("state", String(16), nullable=False),
    _text("reason"),
    Column("attempt", ForeignKey("attempts.id"), nullable=False),
    _time("started", null=False),
    _time("finished"),
    Index(None, "service", "state"),
)

rollout_hosts = Table(
    "rollout_hosts",
    metadata,
    Column("rollout_id", ForeignKey("rollouts.id"), primary_key=True),
    Column("host", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    _text("detail"),
    _text("data"),
)

steps = Table(
    "steps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rollout_id", ForeignKey("rollouts.id"), nullable=False),
    Column("key", String(200), nullable=False),
    Column("host", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    _text("payload"),
    Column("state", String(16), nullable=False),
    _text("error"),
    _text("result"),
    Column("token", String(64), nullable=True),
    _time("lease_until"),
    _time("deadline", null=False),
    Column("hints", Integer, nullable=False, default=0),
    _time("hint_at"),
    _time("created", null=False),
    UniqueConstraint("rollout_id", "key"),
    Index(None, "state"),
    Index(None, "host", "state"),
)

workers = Table(
    "workers",
    metadata,
    Column("name", String(64), primary_key=True),
    _text("labels"),
    _text("address"),
    _text("version"),
    _text("engine"),
    Column("concurrency", Integer, nullable=False, default=1),
    Column("engine_ok", Boolean, nullable=False, default=True),
    _text("detail"),
    _text("containers"),
    _text("replicas"),
    _time("registered", null=False),
    _time("seen", null=False),
)
