"""Accounts of the operator's console, and the indexes by which it searches."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = """
-- Who may use the console. `password` is a versioned hash, none for people who only come by Pro Santé Connect.
-- `stamp` grows with each change that ends the open sessions of the account.
CREATE TABLE account (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    login           text NOT NULL UNIQUE,
    name            text NOT NULL,
    national_id     text UNIQUE,
    roles           text[] NOT NULL,
    password        text,
    former          text[] NOT NULL DEFAULT '{}',
    must_change     boolean NOT NULL DEFAULT true,
    password_at     timestamptz,
    failures        integer NOT NULL DEFAULT 0,
    blocked_until   timestamptz,
    locked_at       timestamptz,
    stamp           integer NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL,
    last_login_at   timestamptz,
    CHECK (roles <@ ARRAY['operateur', 'administrateur', 'lecture-messages']),
    -- Technical administration and health data are never in the same hands.
    CHECK (NOT roles @> ARRAY['administrateur', 'lecture-messages'])
);

-- The accession numbers that a submission names in its referenceIdList, as its XML writes them. Octets that are no
-- text are kept apart by the encoding, so that no submission whatever can make an insertion fail.
CREATE FUNCTION accessions_of(metadata bytea) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(array_agg(DISTINCT found[1]), '{}')
    FROM regexp_matches(
        encode(metadata, 'escape'), '>([^<>^]+)\\^\\^\\^[^<>^]*\\^urn:ihe:iti:xds:2013:accession', 'g'
    ) AS found
$$;
CREATE INDEX publication_accessions ON publication USING gin (accessions_of(metadata));
CREATE INDEX publication_documents ON publication USING gin (document_ids);
CREATE INDEX incident_study ON incident (study_uid) WHERE study_uid <> '';
CREATE INDEX incident_report ON incident (report_id);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
