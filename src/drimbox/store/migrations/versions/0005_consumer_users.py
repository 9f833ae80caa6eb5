"""What the consumer remembers of its users: the notice they have read, what they want shown, when they last looked."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = """
-- Under a keyed hash of the national id. `notice` is the version of the information that was read and accepted
-- (DMP/AIRS.07), 0 for none.
-- `traits` are the optional traits of the patient that the user wants on the screen at all times (INS/va1.36).
CREATE TABLE consumer_user (
    person          text PRIMARY KEY,
    notice          integer NOT NULL DEFAULT 0,
    notice_at       timestamptz,
    traits          text[] NOT NULL DEFAULT '{}'
);

-- When a user last saw the list of a patient. `who` is a keyed hash of both: the table names neither.
CREATE TABLE consumer_visit (
    who             text PRIMARY KEY,
    seen_at         timestamptz NOT NULL
);
CREATE INDEX consumer_visit_age ON consumer_visit (seen_at);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
