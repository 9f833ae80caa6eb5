"""The archive of another product comes with the reports that stand on a study, and without the messages behind them."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = """
-- None: no message of this box spoke of the study yet, its documents were imported.
ALTER TABLE reported_study ALTER COLUMN last_report_id DROP NOT NULL;
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
