"""Pairs that were installed in the box itself, and the reminders of their renewal."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SCHEMA = """
-- A pair installed at a place (the name of its setting). `chain` is PEM, the certificate first; `key` is sealed
-- (trust/vault.py) under a secret that is not in the database, and emptied when the pair is taken out.
CREATE TABLE installed_pair (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    place         text NOT NULL,
    chain         text NOT NULL,
    key           bytea NOT NULL,
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    installed_at  timestamptz NOT NULL,
    installed_by  text NOT NULL,
    removed_at    timestamptz,
    removed_by    text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX installed_pair_current ON installed_pair (place) WHERE removed_at IS NULL;

-- The delays before the end of a certificate (SHA-256 of it) at which the operator was told: once each, whatever the
-- number of nodes.
CREATE TABLE key_reminder (
    certificate  text NOT NULL,
    place        text NOT NULL,
    days         integer NOT NULL,
    told_at      timestamptz NOT NULL,
    PRIMARY KEY (certificate, place, days)
);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
