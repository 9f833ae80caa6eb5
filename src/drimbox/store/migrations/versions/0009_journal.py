"""The audit journal: seals, the only way out of it, who may search it; what the administrator was told of the queue."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

SCHEMA = """
-- The chain that shows an alteration of the journal (DB.CS.08). Of kind `rows`, a seal covers the events from first_id
-- to last_id: how many, the newest, the digest of them all. Of kind `removal`, it says that the events up to last_id
-- were older than `newest_at`, itself `keep_days` old, and were taken out. `seal` is an HMAC of all that and of the
-- seal before, under a key that is not in the database (its fingerprint is `key`).
CREATE TABLE audit_seal (
    number      bigint PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('rows', 'removal')),
    first_id    bigint NOT NULL,
    last_id     bigint NOT NULL CHECK (last_id >= first_id),
    events      bigint NOT NULL,
    newest_at   timestamptz NOT NULL,
    keep_days   integer CHECK (keep_days >= 180),
    digest      bytea NOT NULL,
    sealed_at   timestamptz NOT NULL,
    key         text NOT NULL,
    seal        bytea NOT NULL,
    CHECK ((kind = 'removal') = (keep_days IS NOT NULL))
);
CREATE INDEX audit_seal_removal ON audit_seal (last_id) WHERE kind = 'removal';
CREATE INDEX audit_seal_rows ON audit_seal (last_id) WHERE kind = 'rows';
CREATE RULE audit_seal_no_update AS ON UPDATE TO audit_seal DO INSTEAD NOTHING;
CREATE RULE audit_seal_no_delete AS ON DELETE TO audit_seal DO INSTEAD NOTHING;

-- An event leaves the journal only past the retention that a removal in the chain names (DB.CS.09); any other DELETE
-- does nothing, as before.
CREATE OR REPLACE RULE audit_no_delete AS ON DELETE TO audit WHERE NOT EXISTS (
    SELECT 1 FROM audit_seal AS seal WHERE seal.kind = 'removal' AND old.id <= seal.last_id
    AND old.at < seal.newest_at AND seal.newest_at <= now() - make_interval(days => seal.keep_days)
) DO INSTEAD NOTHING;
CREATE FUNCTION journal_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit journal is not truncated';
END $$;
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION journal_is_kept();
CREATE TRIGGER audit_seal_no_truncate BEFORE TRUNCATE ON audit_seal
    FOR EACH STATEMENT EXECUTE FUNCTION journal_is_kept();

-- Searches of the journal by piece of work and by kind (DB.CS.10).
CREATE INDEX audit_correlation ON audit (correlation);
CREATE INDEX audit_event ON audit (event, id);

-- A fourth right: the journal. Who administers does not read what people did, nor the messages.
DO $$
DECLARE
    old text;
BEGIN
    FOR old IN SELECT conname FROM pg_constraint
        WHERE conrelid = 'account'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%roles%'
    LOOP
        EXECUTE format('ALTER TABLE account DROP CONSTRAINT %I', old);
    END LOOP;
END $$;
ALTER TABLE account ADD CONSTRAINT account_roles_known
    CHECK (roles <@ ARRAY['operateur', 'administrateur', 'lecture-messages', 'auditeur']);
ALTER TABLE account ADD CONSTRAINT account_roles_apart
    CHECK (NOT (roles @> ARRAY['administrateur'] AND roles && ARRAY['lecture-messages', 'auditeur']));

-- How the administrator is told of the queue (DB.SO.21): by which channel, since when, how the last tries went.
CREATE TABLE notice_channel (
    channel      text PRIMARY KEY,
    since        timestamptz NOT NULL,
    sent_at      timestamptz,
    next_try_at  timestamptz,
    failures     integer NOT NULL DEFAULT 0,
    failure      text NOT NULL DEFAULT ''
);
-- The lines of the queue that a channel told of.
CREATE TABLE notice (
    channel      text NOT NULL REFERENCES notice_channel (channel),
    incident_id  bigint NOT NULL REFERENCES incident (id),
    told_at      timestamptz NOT NULL,
    PRIMARY KEY (channel, incident_id)
);
CREATE INDEX incident_opened ON incident (opened_at);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
