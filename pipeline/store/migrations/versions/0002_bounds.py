"""Who approved a stage; how much of an attempt's log is kept, and what was cut out of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pipeline.store.tables import AnyText

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("stages") as stages:
        stages.add_column(sa.Column("approver", AnyText(), nullable=False, server_default=""))
    with op.batch_alter_table("attempts") as attempts:
        attempts.add_column(sa.Column("log_size", sa.BigInteger(), nullable=False, server_default="0"))
        attempts.add_column(sa.Column("log_cut_from", sa.Integer(), nullable=True))
        attempts.add_column(sa.Column("log_cut_to", sa.Integer(), nullable=True))
        attempts.add_column(sa.Column("log_cut_size", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("attempts") as attempts:
        for name in ("log_cut_size", "log_cut_to", "log_cut_from", "log_size"):
            attempts.drop_column(name)
    with op.batch_alter_table("stages") as stages:
        stages.drop_column("approver")
