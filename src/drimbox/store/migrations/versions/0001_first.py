"""Messages, reports, publications, operator's queue, audit journal, and the tables of the job queue."""

from alembic import op
from procrastinate.schema import SchemaManager

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = """
-- Every HL7 message received, as received, with the answer it got. (sender, control_id) makes a repeat recognisable.
CREATE TABLE message (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at   timestamptz NOT NULL DEFAULT now(),
    sender        text NOT NULL,
    control_id    text NOT NULL,
    digest        bytea NOT NULL,
    raw           bytea NOT NULL,
    answer        bytea NOT NULL,
    accepted      boolean NOT NULL,
    peer          text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX message_once ON message (sender, control_id) WHERE accepted;
CREATE INDEX message_received ON message (received_at);

-- One report as one accepted message brought it; its content is read again from the message.
CREATE TABLE report (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id    bigint NOT NULL REFERENCES message (id),
    structure     text NOT NULL,
    document_id   text NOT NULL,
    operation     text NOT NULL CHECK (operation IN ('new', 'replace', 'delete')),
    received_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX report_document ON report (document_id);

-- Each version of each KOS: what was sent, and what became of it. Never deleted (DB.SO.22).
CREATE TABLE publication (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    structure       text NOT NULL,
    study_uid       text NOT NULL,
    kos_uid         text NOT NULL UNIQUE,
    state           text NOT NULL CHECK (state IN ('prepared', 'current', 'replaced', 'depublished', 'abandoned')),
    kos             bytea NOT NULL,
    metadata        bytea NOT NULL,
    signature       bytea NOT NULL,
    submission_uid  text NOT NULL,
    entry_uuid      text,
    replaces        bigint REFERENCES publication (id),
    report_id       bigint REFERENCES report (id),
    document_ids    text[] NOT NULL,
    pacs            text NOT NULL,
    ins             text NOT NULL,
    ins_oid         text NOT NULL,
    vihf_identity   jsonb NOT NULL,
    visibility      jsonb NOT NULL,
    fingerprint     text NOT NULL,
    prepared_at     timestamptz NOT NULL DEFAULT now(),
    sent_at         timestamptz,
    confirmed_at    timestamptz,
    ended_at        timestamptz
);
CREATE UNIQUE INDEX publication_one_current ON publication (structure, study_uid) WHERE state = 'current';
CREATE UNIQUE INDEX publication_one_prepared ON publication (structure, study_uid) WHERE state = 'prepared';
CREATE INDEX publication_study ON publication (study_uid);

-- What the messages say of each study: the newest report taken into account, the documents that stand behind its KOS.
CREATE TABLE reported_study (
    structure       text NOT NULL,
    study_uid       text NOT NULL,
    last_report_id  bigint NOT NULL REFERENCES report (id),
    documents       text[] NOT NULL,
    PRIMARY KEY (structure, study_uid)
);
CREATE INDEX reported_study_documents ON reported_study USING gin (documents);

-- The operator's queue: what could not be done, why, and what was done about it.
CREATE TABLE incident (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    opened_at     timestamptz NOT NULL DEFAULT now(),
    closed_at     timestamptz,
    structure     text NOT NULL DEFAULT '',
    study_uid     text NOT NULL DEFAULT '',
    message_id    bigint REFERENCES message (id),
    report_id     bigint REFERENCES report (id),
    severity      text NOT NULL DEFAULT 'error' CHECK (severity IN ('error', 'warning')),
    code          text NOT NULL,
    reason        text NOT NULL,
    peer_code     text,
    history       jsonb NOT NULL DEFAULT '[]'
);
CREATE INDEX incident_open ON incident (opened_at) WHERE closed_at IS NULL;
-- A history with one step more; of a long one the beginning and the end are kept.
CREATE FUNCTION history_with(history jsonb, step jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_array_length(history) < 100 THEN history ELSE history - 10 END || jsonb_build_array(step)
$$;
-- One open line for each cause on a study: what happens again is added to its history.
CREATE UNIQUE INDEX incident_once ON incident (structure, study_uid, code) WHERE closed_at IS NULL AND study_uid <> '';

-- The audit journal (standards.md I): who did what to which object, and how it ended. Insert only.
CREATE TABLE audit (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT now(),
    event         text NOT NULL,
    action        text NOT NULL CHECK (action IN ('C', 'R', 'U', 'D', 'E')),
    outcome       smallint NOT NULL CHECK (outcome IN (0, 4, 8, 12)),
    outcome_text  text NOT NULL DEFAULT '',
    correlation   text NOT NULL,
    structure     text NOT NULL DEFAULT '',
    actor         jsonb NOT NULL,
    objects       jsonb NOT NULL
);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_objects ON audit USING gin (objects jsonb_path_ops);
CREATE INDEX audit_person ON audit ((actor ->> 'person'));
CREATE RULE audit_no_update AS ON UPDATE TO audit DO INSTEAD NOTHING;
CREATE RULE audit_no_delete AS ON DELETE TO audit DO INSTEAD NOTHING;

-- Each whitelist that was fetched and verified; the last one is the one believed (decision 16).
CREATE TABLE whitelist (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fetched_at    timestamptz NOT NULL DEFAULT now(),
    generated_at  timestamptz NOT NULL,
    document      bytea NOT NULL
);
"""


def upgrade() -> None:
    connection = op.get_bind()
    for script in (SCHEMA, SchemaManager.get_schema()):
        # The driver takes a whole script only without parameters, and sees a % for what it is.
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(script)


def downgrade() -> None:
    raise RuntimeError("the first schema has nothing to go back to: restore a backup")
