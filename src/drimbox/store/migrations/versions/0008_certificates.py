"""The market certificate of the viewer host: accounts at authorities, certificates, orders, answers to validations."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SCHEMA = """
-- Accounts at certificate authorities (RFC 8555 7.3), one for each directory. Keys are sealed (trust/vault.py) with a
-- secret that is not in the database. `next_key` is there while a key rollover may have reached the authority or not.
CREATE TABLE acme_account (
    directory   text PRIMARY KEY,
    url         text NOT NULL DEFAULT '',
    key         bytea NOT NULL,
    next_key    bytea,
    created_at  timestamptz NOT NULL,
    rolled_at   timestamptz
);

-- Every market certificate that was installed. `chain` is PEM, the certificate first; `directory` names the authority
-- that issued it over ACME, empty for one installed by hand. `window_*` is what the authority last said of its renewal
-- (RFC 9773), `window_check` when it may be asked again.
CREATE TABLE market_certificate (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host           text NOT NULL,
    directory      text NOT NULL DEFAULT '',
    chain          text NOT NULL,
    key            bytea NOT NULL,
    not_before     timestamptz NOT NULL,
    not_after      timestamptz NOT NULL,
    installed_at   timestamptz NOT NULL,
    installed_by   text NOT NULL,
    replaced_at    timestamptz,
    revoked_at     timestamptz,
    reason         text NOT NULL DEFAULT '',
    window_start   timestamptz,
    window_end     timestamptz,
    window_why     text NOT NULL DEFAULT '',
    window_check   timestamptz
);
CREATE UNIQUE INDEX market_certificate_current ON market_certificate (host) WHERE replaced_at IS NULL;

-- Orders at authorities, and requests (CSR) made for an order by hand: those have no directory.
CREATE TABLE certificate_order (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host         text NOT NULL,
    directory    text NOT NULL DEFAULT '',
    url          text NOT NULL DEFAULT '',
    key          bytea NOT NULL,
    request      bytea NOT NULL,
    state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed')),
    created_at   timestamptz NOT NULL,
    created_by   text NOT NULL,
    ended_at     timestamptz,
    failure      text NOT NULL DEFAULT '',
    certificate  bigint REFERENCES market_certificate (id)
);
CREATE UNIQUE INDEX certificate_order_open ON certificate_order (host) WHERE state = 'open' AND directory <> '';

-- What every node answers to a validation, for as long as it is under way.
CREATE TABLE certificate_challenge (
    token          text PRIMARY KEY,
    host           text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('http-01', 'tls-alpn-01')),
    proof          text NOT NULL,
    expires_at     timestamptz NOT NULL
);

-- The work ahead: `asked_at` when somebody asked for a new certificate now, `troubles` what each authority said no to
-- and until when it is left alone.
CREATE TABLE certificate_plan (
    host        text PRIMARY KEY,
    asked_at    timestamptz,
    asked_by    text NOT NULL DEFAULT '',
    troubles    jsonb NOT NULL DEFAULT '{}',
    tried_at    timestamptz,
    outcome     text NOT NULL DEFAULT ''
);
"""


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SCHEMA)


def downgrade() -> None:
    raise RuntimeError("a schema is not taken back: restore a backup")
