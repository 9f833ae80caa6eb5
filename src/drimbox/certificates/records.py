"""The state, on PostgreSQL. Private keys are sealed before they come here (``trust.vault``) and opened elsewhere."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from psycopg.types.json import Jsonb

from drimbox.certificates.acme.messages import RenewalWindow
from drimbox.certificates.schedule import Trouble
from drimbox.store.database import Connection

KEPT_REQUESTS = 20
# Of two that install at once, the second waits and replaces what the first installed.
_INSTALLING = "SELECT pg_advisory_xact_lock(724519, hashtext(%s))"


@dataclass(frozen=True, slots=True)
class KeptAccount:
    """An account at an authority; ``url`` is empty until the authority gave it."""

    directory: str
    url: str
    key: bytes = field(repr=False)
    next_key: bytes | None = field(repr=False)
    created_at: dt.datetime
    rolled_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Installed:
    """A market certificate with its chain. ``directory`` is empty when it was installed by hand."""

    id: int
    host: str
    directory: str
    chain: str = field(repr=False)
    key: bytes = field(repr=False)
    not_before: dt.datetime
    not_after: dt.datetime
    installed_at: dt.datetime
    installed_by: str
    replaced_at: dt.datetime | None
    revoked_at: dt.datetime | None
    reason: str
    window_start: dt.datetime | None
    window_end: dt.datetime | None
    window_why: str
    window_check: dt.datetime | None

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(x509.load_pem_x509_certificates(self.chain.encode()))

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def window(self) -> RenewalWindow | None:
        if self.window_start is None or self.window_end is None:
            return None
        return RenewalWindow(self.window_start, self.window_end, self.window_why, self.window_check)


@dataclass(frozen=True, slots=True)
class KeptOrder:
    """An order at an authority, or (``directory`` empty) a request made for an order by hand."""

    id: int
    host: str
    directory: str
    url: str
    key: bytes = field(repr=False)
    request: bytes = field(repr=False)
    state: str
    created_at: dt.datetime
    created_by: str
    ended_at: dt.datetime | None
    failure: str
    certificate: int | None

    @property
    def signing_request(self) -> x509.CertificateSigningRequest:
        return x509.load_der_x509_csr(self.request)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a validation is answered with: ``proof`` is the key authorization (RFC 8555 8.1)."""

    token: str
    host: str
    kind: str
    proof: str
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """The work ahead for a host. ``outcome`` says in French how the last try ended."""

    asked_at: dt.datetime | None = None
    asked_by: str = ""
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    tried_at: dt.datetime | None = None
    outcome: str = ""


# --- accounts ---------------------------------------------------------------------------------------------------------


async def account(connection: Connection, directory: str) -> KeptAccount | None:
    row = await _one(connection, "SELECT * FROM acme_account WHERE directory = %s", (directory,))
    return KeptAccount(**row) if row else None


async def accounts(connection: Connection) -> tuple[KeptAccount, ...]:
    rows = await _all(connection, "SELECT * FROM acme_account ORDER BY directory", ())
    return tuple(KeptAccount(**row) for row in rows)


async def add_account(connection: Connection, directory: str, key: bytes, now: dt.datetime) -> None:
    """Kept before it is sent: an account whose key is lost could never be used again."""
    await connection.execute(
        "INSERT INTO acme_account (directory, key, created_at) VALUES (%s, %s, %s)", (directory, key, now)
    )


async def account_is(connection: Connection, directory: str, url: str) -> None:
    await connection.execute("UPDATE acme_account SET url = %s WHERE directory = %s", (url, directory))


async def forget_account(connection: Connection, directory: str) -> None:
    """The authority knows it no more."""
    await connection.execute("DELETE FROM acme_account WHERE directory = %s", (directory,))


async def prepare_key(connection: Connection, directory: str, key: bytes) -> None:
    """A new account key, kept before it is sent."""
    await connection.execute("UPDATE acme_account SET next_key = %s WHERE directory = %s", (key, directory))


async def settle_key(connection: Connection, directory: str, now: dt.datetime, *, changed: bool) -> None:
    """The authority took the new key, or did not."""
    if changed:
        await connection.execute(
            "UPDATE acme_account SET key = next_key, next_key = NULL, rolled_at = %s "
            "WHERE directory = %s AND next_key IS NOT NULL",
            (now, directory),
        )
    else:
        await connection.execute("UPDATE acme_account SET next_key = NULL WHERE directory = %s", (directory,))


# --- certificates -----------------------------------------------------------------------------------------------------


async def current(connection: Connection, host: str) -> Installed | None:
    """The certificate that is served."""
    row = await _one(connection, "SELECT * FROM market_certificate WHERE host = %s AND replaced_at IS NULL", (host,))
    return Installed(**row) if row else None


async def current_id(connection: Connection, host: str) -> int | None:
    row = await _one(connection, "SELECT id FROM market_certificate WHERE host = %s AND replaced_at IS NULL", (host,))
    return row["id"] if row else None


async def certificate(connection: Connection, number: int) -> Installed | None:
    row = await _one(connection, "SELECT * FROM market_certificate WHERE id = %s", (number,))
    return Installed(**row) if row else None


async def certificates(connection: Connection, limit: int = 50) -> tuple[Installed, ...]:
    """Newest first."""
    rows = await _all(connection, "SELECT * FROM market_certificate ORDER BY id DESC LIMIT %s", (limit,))
    return tuple(Installed(**row) for row in rows)


async def install(
    connection: Connection,
    *,
    host: str,
    directory: str,
    certificates: Sequence[x509.Certificate],
    key: bytes,
    by: str,
    now: dt.datetime,
) -> int:
    """Serve this certificate from now on, within the caller's transaction; its number."""
    await connection.execute(_INSTALLING, (host,))
    await connection.execute(
        "UPDATE market_certificate SET replaced_at = %s WHERE host = %s AND replaced_at IS NULL", (now, host)
    )
    chain = b"".join(c.public_bytes(Encoding.PEM) for c in certificates).decode()
    leaf = certificates[0]
    row = await _one(
        connection,
        "INSERT INTO market_certificate (host, directory, chain, key, not_before, not_after, installed_at, "
        "installed_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        (host, directory, chain, key, leaf.not_valid_before_utc, leaf.not_valid_after_utc, now, by),
    )
    assert row is not None
    return int(row["id"])


async def mark_revoked(connection: Connection, number: int, reason: str, now: dt.datetime) -> None:
    await connection.execute(
        "UPDATE market_certificate SET revoked_at = %s, reason = %s WHERE id = %s AND revoked_at IS NULL",
        (now, reason, number),
    )


async def keep_window(connection: Connection, number: int, window: RenewalWindow | None, check: dt.datetime) -> None:
    """What the authority says of the renewal; None keeps what it said before."""
    if window is None:
        await connection.execute("UPDATE market_certificate SET window_check = %s WHERE id = %s", (check, number))
        return
    await connection.execute(
        "UPDATE market_certificate SET window_start = %s, window_end = %s, window_why = %s, window_check = %s "
        "WHERE id = %s",
        (window.start, window.end, window.why[:500], check, number),
    )


# --- orders -----------------------------------------------------------------------------------------------------------


async def open_order(connection: Connection, host: str) -> KeptOrder | None:
    """The order that is under way at an authority."""
    row = await _one(
        connection,
        "SELECT * FROM certificate_order WHERE host = %s AND state = 'open' AND directory <> ''",
        (host,),
    )
    return KeptOrder(**row) if row else None


async def open_requests(connection: Connection, host: str) -> tuple[KeptOrder, ...]:
    """The requests made for an order by hand whose certificate has not come, newest first."""
    rows = await _all(
        connection,
        "SELECT * FROM certificate_order WHERE host = %s AND state = 'open' AND directory = '' "
        "ORDER BY id DESC LIMIT %s",
        (host, KEPT_REQUESTS),
    )
    return tuple(KeptOrder(**row) for row in rows)


async def add_order(
    connection: Connection,
    *,
    host: str,
    directory: str,
    url: str,
    key: bytes,
    request: bytes,
    by: str,
    now: dt.datetime,
) -> KeptOrder:
    row = await _one(
        connection,
        "INSERT INTO certificate_order (host, directory, url, key, request, created_at, created_by) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING *",
        (host, directory, url, key, request, now, by),
    )
    assert row is not None
    return KeptOrder(**row)


async def end_order(
    connection: Connection, number: int, now: dt.datetime, *, failure: str = "", certificate: int | None = None
) -> None:
    await connection.execute(
        "UPDATE certificate_order SET state = %s, ended_at = %s, failure = %s, certificate = %s WHERE id = %s",
        ("failed" if failure else "done", now, failure[:1000], certificate, number),
    )


# --- challenges -------------------------------------------------------------------------------------------------------


async def announce(connection: Connection, challenge: Challenge) -> None:
    await connection.execute(
        "INSERT INTO certificate_challenge (token, host, kind, proof, expires_at) VALUES (%s, %s, %s, %s, %s) "
        "ON CONFLICT (token) DO UPDATE SET proof = EXCLUDED.proof, expires_at = EXCLUDED.expires_at",
        (challenge.token, challenge.host, challenge.kind, challenge.proof, challenge.expires_at),
    )


async def withdraw(connection: Connection, host: str) -> None:
    """Nothing is under validation any more."""
    await connection.execute("DELETE FROM certificate_challenge WHERE host = %s", (host,))


async def challenge(connection: Connection, token: str, host: str, now: dt.datetime) -> str | None:
    """What answers an HTTP-01 validation."""
    row = await _one(
        connection,
        "SELECT proof FROM certificate_challenge "
        "WHERE token = %s AND host = %s AND kind = 'http-01' AND expires_at > %s",
        (token, host, now),
    )
    return row["proof"] if row else None


async def challenges(connection: Connection, host: str, kind: str, now: dt.datetime) -> tuple[Challenge, ...]:
    rows = await _all(
        connection,
        "SELECT * FROM certificate_challenge WHERE host = %s AND kind = %s AND expires_at > %s ORDER BY token",
        (host, kind, now),
    )
    return tuple(Challenge(**row) for row in rows)


# --- the plan ---------------------------------------------------------------------------------------------------------


async def plan(connection: Connection, host: str) -> Plan:
    row = await _one(connection, "SELECT * FROM certificate_plan WHERE host = %s", (host,))
    if row is None:
        return Plan()
    troubles = {directory: Trouble.of_json(kept) for directory, kept in row["troubles"].items()}
    return Plan(row["asked_at"], row["asked_by"], troubles, row["tried_at"], row["outcome"])


async def ask(connection: Connection, host: str, by: str, now: dt.datetime | None = None) -> None:
    """Have a certificate ordered now: pauses of our own end, those that an authority imposed stay.

    ``now`` None: by the clock of the database.
    """
    kept = await plan(connection, host)
    imposed = {directory: t.to_json() for directory, t in kept.troubles.items() if t.imposed}
    await connection.execute(
        "INSERT INTO certificate_plan (host, asked_at, asked_by) VALUES (%(host)s, coalesce(%(now)s, now()), %(by)s) "
        "ON CONFLICT (host) DO UPDATE SET asked_at = EXCLUDED.asked_at, asked_by = %(by)s, troubles = %(troubles)s",
        {"host": host, "now": now, "by": by, "troubles": Jsonb(imposed)},
    )


async def hosts(connection: Connection) -> tuple[str, ...]:
    """Those that something is known of."""
    rows = await _all(
        connection, "SELECT host FROM certificate_plan UNION SELECT host FROM market_certificate ORDER BY host", ()
    )
    return tuple(row["host"] for row in rows)


async def tried(
    connection: Connection,
    host: str,
    *,
    now: dt.datetime,
    outcome: str,
    troubles: Mapping[str, Trouble],
    still_asked: bool,
) -> None:
    """How a try ended."""
    await connection.execute(
        "INSERT INTO certificate_plan (host, tried_at, outcome, troubles) "
        "VALUES (%(host)s, %(now)s, %(outcome)s, %(troubles)s) ON CONFLICT (host) DO UPDATE SET tried_at = %(now)s, "
        "outcome = %(outcome)s, troubles = %(troubles)s, "
        "asked_at = CASE WHEN %(asked)s THEN certificate_plan.asked_at END",
        {
            "host": host,
            "now": now,
            "outcome": outcome[:1000],
            "troubles": Jsonb({directory: trouble.to_json() for directory, trouble in troubles.items()}),
            "asked": still_asked,
        },
    )


async def _one(connection: Connection, query: LiteralString, values: tuple[Any, ...]) -> dict[str, Any] | None:
    return await (await connection.execute(query, values)).fetchone()


async def _all(connection: Connection, query: LiteralString, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    return await (await connection.execute(query, values)).fetchall()
