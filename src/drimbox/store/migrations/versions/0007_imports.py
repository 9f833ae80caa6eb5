"""Imports into the site's own PACSs: what was asked for, and what became of each instance."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = """
-- One import: series of one study, for one target. `node` is the box that was asked and holds what was fetched; `actor`
-- is who asked, as the audit journal tells it; `patient` is what the images are given and checked by (INS, local number
-- and its issuer, accession number) and how the patient is named on the page. No token is ever here.
CREATE TABLE import_order (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asked_at      timestamptz NOT NULL DEFAULT now(),
    node          text NOT NULL,
    person        text NOT NULL,
    actor         jsonb NOT NULL,
    structure     text NOT NULL,
    target        text NOT NULL,
    study_uid     text NOT NULL,
    stored_as     text NOT NULL,
    kos_uid       text NOT NULL,
    title         text NOT NULL DEFAULT '',
    study_date    text NOT NULL DEFAULT '',
    patient       jsonb NOT NULL,
    state         text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'waiting', 'login', 'done', 'partial', 'failed', 'cancelled')),
    code          text NOT NULL DEFAULT '',
    reason        text NOT NULL DEFAULT '',
    tries         integer NOT NULL DEFAULT 0,
    due_at        timestamptz NOT NULL DEFAULT now(),
    fetched       integer NOT NULL DEFAULT 0,
    verified      boolean NOT NULL DEFAULT false,
    cancelled     boolean NOT NULL DEFAULT false,
    started_at    timestamptz,
    ended_at      timestamptz
);
CREATE INDEX import_order_open ON import_order (node, due_at)
    WHERE state IN ('queued', 'running', 'waiting', 'login');
CREATE INDEX import_order_person ON import_order (person, id);

CREATE TABLE import_series (
    order_id      bigint NOT NULL REFERENCES import_order (id) ON DELETE CASCADE,
    series_uid    text NOT NULL,
    retrieve_url  text NOT NULL,
    number        integer,
    modality      text NOT NULL DEFAULT '',
    description   text NOT NULL DEFAULT '',
    PRIMARY KEY (order_id, series_uid)
);

-- `status` is the answer of the target to this instance, word for word; `code` and `detail` say why it is not there.
-- `present`: the target had it before.
CREATE TABLE import_instance (
    order_id          bigint NOT NULL,
    series_uid        text NOT NULL,
    sop_instance_uid  text NOT NULL,
    sop_class_uid     text NOT NULL,
    state             text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'stored', 'found', 'present', 'refused')),
    status            integer,
    code              text NOT NULL DEFAULT '',
    detail            text NOT NULL DEFAULT '',
    tries             integer NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, sop_instance_uid),
    FOREIGN KEY (order_id, series_uid) REFERENCES import_series (order_id, series_uid) ON DELETE CASCADE
);

-- What users saved for the workstations of the site: one line an image, its file lies in the state folder.
CREATE TABLE saved_instance (
    study_uid         text NOT NULL,
    series_uid        text NOT NULL,
    sop_instance_uid  text PRIMARY KEY,
    sop_class_uid     text NOT NULL,
    transfer_syntax   text NOT NULL,
    attributes        jsonb NOT NULL,
    file              text NOT NULL,
    size              bigint NOT NULL,
    saved_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX saved_instance_study ON saved_instance (study_uid, series_uid);
CREATE INDEX saved_instance_age ON saved_instance (saved_at);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
