"""The chain of seals over the audit journal, which shows that an event was altered, added or taken away (DB.CS.08).

Events are written by several nodes at once and as fast as messages come in: none may wait for the digest of the one
before. So they are sealed afterwards, some at a time: a seal covers a range of ids with one digest and is chained to
the seal before it by an HMAC whose key is in the state folder, never in the database. Who can write in the database
alone cannot make a seal; who holds both is found by the copy of the last seal that each one leaves in the technical log
(``verify`` takes it).

Nothing in a range may change once it is sealed: ``_horizon`` waits until every transaction that may hold an id of it
has ended. Ids that no event has are those of transactions that were rolled back.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import json
import logging
import time
from dataclasses import dataclass
from typing import Any, LiteralString

from drimbox.record.pseudonym import PatientKey
from drimbox.store.database import Connection, Pool, single

LOCK = 724519
"""The advisory lock of whoever adds to the chain."""

_log = logging.getLogger(__name__)
_MOST = 50_000  # events under one seal
_WAIT = 20.0  # seconds for transactions that are writing
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Seal:
    """One link of the chain. Of kind ``rows``: the events from ``first_id`` to ``last_id``, ``events`` of them, the
    newest of ``newest_at``, with their ``digest``. Of kind ``removal``: those were older than ``newest_at``, at least
    ``keep_days`` old, and were taken out.
    """

    number: int
    kind: str
    first_id: int
    last_id: int
    events: int
    newest_at: dt.datetime
    keep_days: int | None
    digest: bytes
    sealed_at: dt.datetime

    def mac(self, key: bytes, previous: bytes) -> bytes:
        """The seal itself, chained to the one before."""
        told = (self.number, self.kind, self.first_id, self.last_id, self.events, _instant(self.newest_at))
        text = json.dumps([*told, self.keep_days, self.digest.hex(), _instant(self.sealed_at)], separators=(",", ":"))
        return hmac.new(key, previous + text.encode(), hashlib.sha256).digest()


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends: the number and the octets of the last seal, the id up to which events are sealed."""

    number: int = 0
    seal: bytes = b""
    last_id: int = 0
    removed_to: int = 0

    def __str__(self) -> str:
        """``1234:9f86d081884c7d65``: what the log keeps, and ``verify`` takes."""
        return f"{self.number}:{self.seal.hex()[:16]}"


class Sealer:
    """Adds seals to the chain; of several nodes, one at a time does."""

    def __init__(self, pool: Pool, key: PatientKey, *, most: int = _MOST, wait: float = _WAIT) -> None:
        self._pool = pool
        self._key = key
        self._most = most
        self._wait = wait

    async def seal(self) -> int:
        """Seal every event that was written before this call; how many seals that took.

        Gives up, until the next call, where a transaction goes on writing for too long or another node is at it.
        """
        async with single(self._pool) as connection:
            horizon = await _horizon(connection, self._wait)
        if horizon is None:
            _log.warning("journal not sealed: a transaction goes on writing")
            return 0
        made = 0
        while await self._one(horizon):
            made += 1
        return made

    async def _one(self, horizon: int) -> bool:
        async with self._pool.connection() as connection, connection.transaction():
            if not await _alone(connection):
                return False
            before = await head(connection)
            row = await _row(
                connection,
                _DIGEST_AHEAD,
                {"first": before.last_id + 1, "horizon": horizon, "most": self._most},
            )
            if not row["events"]:
                return False
            seal = Seal(
                number=before.number + 1,
                kind="rows",
                first_id=before.last_id + 1,
                last_id=horizon if row["events"] < self._most else row["newest_id"],
                events=row["events"],
                newest_at=row["newest_at"],
                keep_days=None,
                digest=row["digest"],
                sealed_at=row["now"],
            )
            after = await append(connection, seal, before, self._key)
        _log.info("journal sealed up to event %d: %s", seal.last_id, after)
        return True


async def append(connection: Connection, seal: Seal, before: Head, key: PatientKey) -> Head:
    """Write one link, within the caller's transaction, which holds ``LOCK``; the head that it makes."""
    mac = seal.mac(key.sealing, before.seal)
    await connection.execute(
        "INSERT INTO audit_seal (number, kind, first_id, last_id, events, newest_at, keep_days, digest, sealed_at, "
        "key, seal) VALUES (%(number)s, %(kind)s, %(first_id)s, %(last_id)s, %(events)s, %(newest_at)s, "
        "%(keep_days)s, %(digest)s, %(sealed_at)s, %(key)s, %(seal)s)",
        {
            "number": seal.number,
            "kind": seal.kind,
            "first_id": seal.first_id,
            "last_id": seal.last_id,
            "events": seal.events,
            "newest_at": seal.newest_at,
            "keep_days": seal.keep_days,
            "digest": seal.digest,
            "sealed_at": seal.sealed_at,
            "key": key.fingerprint,
            "seal": mac,
        },
    )
    removed_to = seal.last_id if seal.kind == "removal" else before.removed_to
    return Head(seal.number, mac, before.last_id if seal.kind == "removal" else seal.last_id, removed_to)


async def head(connection: Connection) -> Head:
    """Where the chain ends now."""
    row = await _row(connection, _HEAD, {})
    return Head(row["number"], row["seal"], row["last_id"], row["removed_to"])


def seal_of(row: dict[str, Any]) -> Seal:
    """A row of ``audit_seal``."""
    names = ("number", "kind", "first_id", "last_id", "events", "newest_at", "keep_days", "digest", "sealed_at")
    return Seal(**{name: row[name] for name in names})


async def hold(connection: Connection) -> None:
    """Take ``LOCK`` until the end of the transaction, however long another holds it."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))


async def _alone(connection: Connection) -> bool:
    row = await _row(connection, "SELECT pg_try_advisory_xact_lock(%(lock)s) AS mine", {"lock": LOCK})
    return bool(row["mine"])


async def _horizon(connection: Connection, wait: float) -> int | None:
    """An id up to which nobody will write any more; None when that takes longer than ``wait`` seconds.

    An INSERT holds its lock on the table before it takes an id, and until the end of its transaction. So, of the
    ids given out at one instant, all are written or lost once the transactions that held the lock just after are over.
    """
    horizon = (await _row(connection, _LAST_GIVEN, {}))["id"]
    writing = await _writers(connection)
    until = time.monotonic() + wait
    while writing:
        if time.monotonic() > until:
            return None
        await asyncio.sleep(_POLL)
        writing &= await _writers(connection)
    return int(horizon)


async def _writers(connection: Connection) -> set[str]:
    rows = await (await connection.execute(_WRITERS)).fetchall()
    return {row["who"] for row in rows}


async def _row(connection: Connection, query: LiteralString, values: dict[str, Any]) -> dict[str, Any]:
    row = await (await connection.execute(query, values)).fetchone()
    assert row is not None
    return row


def _instant(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds")


_HEAD = """
SELECT coalesce(max(number), 0) AS number,
    coalesce((SELECT seal FROM audit_seal ORDER BY number DESC LIMIT 1), ''::bytea) AS seal,
    coalesce((SELECT max(last_id) FROM audit_seal WHERE kind = 'rows'), 0) AS last_id,
    coalesce((SELECT max(last_id) FROM audit_seal WHERE kind = 'removal'), 0) AS removed_to
FROM audit_seal
"""

_LAST_GIVEN = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS id FROM audit_id_seq"

_WRITERS = """
SELECT virtualtransaction || '/' || coalesce(pid, 0) AS who FROM pg_locks
WHERE relation = 'audit'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AND granted
AND pid IS DISTINCT FROM pg_backend_pid()
"""

# An event as the digest takes it: every column, whatever the time zone and the settings of the session.
_LINE = """
jsonb_build_array(id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), event, action, outcome,
    outcome_text, correlation, structure, actor, objects)::text
"""
_DIGEST = "sha256(coalesce(string_agg(sha256(convert_to(line, 'UTF8')), ''::bytea ORDER BY id), ''::bytea))"

_DIGEST_AHEAD: LiteralString = f"""
SELECT count(*) AS events, max(id) AS newest_id, max(at) AS newest_at, {_DIGEST} AS digest, clock_timestamp() AS now
FROM (
    SELECT id, at, {_LINE} AS line FROM audit WHERE id BETWEEN %(first)s AND %(horizon)s ORDER BY id LIMIT %(most)s
) AS ahead
"""  # noqa: S608 - our own text

SEALED: LiteralString = f"""
SELECT seal.*, found.events AS found, found.digest AS computed
FROM audit_seal AS seal CROSS JOIN LATERAL (
    SELECT count(*) AS events, {_DIGEST} AS digest
    FROM (SELECT id, {_LINE} AS line FROM audit WHERE id BETWEEN seal.first_id AND seal.last_id) AS lines
) AS found
WHERE seal.kind = 'rows' AND seal.number BETWEEN %(first)s AND %(last)s AND seal.last_id > %(removed_to)s
ORDER BY seal.number
"""  # noqa: S608 - our own text
"""The seals of a range of numbers with what the events give now: ``found`` of them, ``computed`` their digest."""
