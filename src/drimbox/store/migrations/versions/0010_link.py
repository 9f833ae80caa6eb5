"""The link in a report: how often the identity of a patient was tried."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SCHEMA = """
-- One row each time that somebody said who the patient of a link is (decision 19): what limits it, over a restart and
-- for all nodes. Written whether the study exists or not; gone once it counts no more.
CREATE TABLE link_attempt (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    study_uid  text NOT NULL,
    address    text NOT NULL
);
CREATE INDEX link_attempt_study ON link_attempt (study_uid, at);
CREATE INDEX link_attempt_address ON link_attempt (address, at);
CREATE INDEX link_attempt_at ON link_attempt (at);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
