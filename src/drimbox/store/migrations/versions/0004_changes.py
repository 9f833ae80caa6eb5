"""What the site says of its studies after their publication: notes, deletions; and walks through the archive."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = """
-- Each Key Object Selection that a PACS sent us about a change, as received (RAD-66). `title` is the code of its
-- document title (DCM 113001: rejected for quality reasons, and so on).
CREATE TABLE change_note (
    sop_instance_uid  text PRIMARY KEY,
    received_at       timestamptz NOT NULL DEFAULT now(),
    caller            text NOT NULL,
    study_uid         text NOT NULL,
    title             text NOT NULL,
    object            bytea NOT NULL
);
CREATE INDEX change_note_study ON change_note (study_uid);

-- The instances that notes reject: they are in no KOS, whatever the PACS still lists. `released_at` ends that.
CREATE TABLE rejected_instance (
    note_uid          text NOT NULL REFERENCES change_note (sop_instance_uid),
    study_uid         text NOT NULL,
    sop_instance_uid  text NOT NULL,
    title             text NOT NULL,
    released_at       timestamptz,
    PRIMARY KEY (note_uid, sop_instance_uid)
);
CREATE INDEX rejected_instance_study ON rejected_instance (study_uid) WHERE released_at IS NULL;

-- Studies that an information system declared deleted (OMI^O23, ORC-1 CA), until it or a report speaks of them again.
CREATE TABLE withdrawn_study (
    study_uid     text PRIMARY KEY,
    withdrawn_at  timestamptz NOT NULL DEFAULT now(),
    message_id    bigint REFERENCES message (id)
);

-- Walks through the archive (DB.SO.28, DB.SO.31): how far each went and what it found.
CREATE TABLE walk (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('reconciliation', 'address')),
    mode          text NOT NULL CHECK (mode IN ('repair', 'report')),
    state         text NOT NULL CHECK (state IN ('running', 'paused', 'done', 'stopped')),
    started_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz,
    started_by    text NOT NULL,
    total         bigint NOT NULL,
    done          bigint NOT NULL DEFAULT 0,
    position      bigint NOT NULL DEFAULT 0,
    last          bigint NOT NULL,
    findings      jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX walk_one_at_a_time ON walk (kind) WHERE state IN ('running', 'paused');
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
