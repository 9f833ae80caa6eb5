"""The practice that each professional chose last."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = """
-- The practice that a professional chose last (DB.CO.50), under a keyed hash of their national id, as a keyed mark that
-- only tells which of those that Pro Sante Connect gives it was. This table alone names nobody; no health data.
CREATE TABLE chosen_practice (
    person    text PRIMARY KEY,
    practice  text NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX chosen_practice_seen ON chosen_practice (seen_at);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
