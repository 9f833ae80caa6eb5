"""Sessions at Pro Santé Connect that are over: every node ends the visits that hang on them."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SCHEMA = """
-- One row for each session, or person, of which Pro Santé Connect told one node that it is over. Digests (SHA-256,
-- hex): the names themselves are secrets, or persons. One of the two may be empty. Gone once no visit can be as old.
CREATE TABLE link_logout (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL,
    session  text NOT NULL,
    subject  text NOT NULL
);
CREATE INDEX link_logout_at ON link_logout (at);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
