"""What is remembered of a user from one session to the next; of patients, nothing that names them.

The notice is asked for once per user (DMP/AIRS.07); the optional traits on the screen are the user's own choice
(INS/va1.36); the last visit to a patient's list is kept under a keyed pseudonym of the two (EX_3.1-1020). A database
that cannot be reached costs a question more, or the marks of what is new, never the consultation.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import logging
from collections.abc import Collection
from typing import Any, LiteralString, Protocol

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.identity.ins import Ins
from drimbox.record.pseudonym import PatientKey
from drimbox.store.database import Pool

_log = logging.getLogger(__name__)

#: Grows when the information changes so much that it must be read again.
NOTICE_VERSION = 1
#: The traits that a user may have on the screen at all times; the five strict ones always are (INS/va1.36).
OPTIONAL_TRAITS = ("matricule", "nature", "prenoms", "nom-utilise", "prenom-utilise", "ipp")


class UserMemory(Protocol):
    """Remembers users by their national id (PS_IdNat). Nothing raises."""

    async def notice_accepted(self, person: str) -> bool: ...
    async def accept_notice(self, person: str, at: dt.datetime) -> None: ...
    async def traits(self, person: str) -> frozenset[str]: ...
    async def keep_traits(self, person: str, traits: Collection[str]) -> None: ...
    async def last_visit(self, person: str, patient: Ins) -> dt.datetime | None: ...
    async def visited(self, person: str, patient: Ins, at: dt.datetime) -> None: ...


class ForgetfulUsers:
    """Remembers for as long as the process lives."""

    def __init__(self) -> None:
        self._notices: set[str] = set()
        self._traits: dict[str, frozenset[str]] = {}
        self._visits: dict[tuple[str, Ins], dt.datetime] = {}

    async def notice_accepted(self, person: str) -> bool:
        return person in self._notices

    async def accept_notice(self, person: str, at: dt.datetime) -> None:
        self._notices.add(person)

    async def traits(self, person: str) -> frozenset[str]:
        return self._traits.get(person, frozenset())

    async def keep_traits(self, person: str, traits: Collection[str]) -> None:
        self._traits[person] = frozenset(traits) & frozenset(OPTIONAL_TRAITS)

    async def last_visit(self, person: str, patient: Ins) -> dt.datetime | None:
        return self._visits.get((person, patient))

    async def visited(self, person: str, patient: Ins, at: dt.datetime) -> None:
        self._visits[person, patient] = at


class StoredUsers:
    """``UserMemory`` in the database; a visit older than ``days`` is forgotten."""

    def __init__(self, pool: Pool, key: PatientKey, *, days: int = 400) -> None:
        self._pool = pool
        self._key = key
        self._days = days

    async def notice_accepted(self, person: str) -> bool:
        query = "SELECT 1 FROM consumer_user WHERE person = %s AND notice >= %s"
        return await self._row(query, self._hash("user", person), NOTICE_VERSION) is not None

    async def accept_notice(self, person: str, at: dt.datetime) -> None:
        await self._written(
            "INSERT INTO consumer_user (person, notice, notice_at) VALUES (%s, %s, %s) "
            "ON CONFLICT (person) DO UPDATE SET notice = excluded.notice, notice_at = excluded.notice_at",
            self._hash("user", person),
            NOTICE_VERSION,
            at,
        )

    async def traits(self, person: str) -> frozenset[str]:
        row = await self._row("SELECT traits FROM consumer_user WHERE person = %s", self._hash("user", person))
        return frozenset(row["traits"]) & frozenset(OPTIONAL_TRAITS) if row else frozenset()

    async def keep_traits(self, person: str, traits: Collection[str]) -> None:
        await self._written(
            "INSERT INTO consumer_user (person, traits) VALUES (%s, %s) "
            "ON CONFLICT (person) DO UPDATE SET traits = excluded.traits",
            self._hash("user", person),
            sorted(set(traits) & set(OPTIONAL_TRAITS)),
        )

    async def last_visit(self, person: str, patient: Ins) -> dt.datetime | None:
        who = self._hash("visit", person, patient.oid, patient.matricule)
        row = await self._row("SELECT seen_at FROM consumer_visit WHERE who = %s", who)
        return row["seen_at"] if row else None

    async def visited(self, person: str, patient: Ins, at: dt.datetime) -> None:
        """``at`` is when the DMP was asked: what it registers from then on is new the next time."""
        await self._written(
            "WITH old AS (DELETE FROM consumer_visit WHERE seen_at < %s) "
            "INSERT INTO consumer_visit (who, seen_at) VALUES (%s, %s) "
            "ON CONFLICT (who) DO UPDATE SET seen_at = greatest(consumer_visit.seen_at, excluded.seen_at)",
            at - dt.timedelta(days=self._days),
            self._hash("visit", person, patient.oid, patient.matricule),
            at,
        )

    async def _row(self, query: LiteralString, *values: object) -> dict[str, Any] | None:
        try:
            async with self._pool.connection() as connection:
                return await (await connection.execute(query, values)).fetchone()
        except (psycopg.Error, PoolTimeout) as error:
            _log.warning("what is remembered of a user could not be read: %s", type(error).__name__)
            return None

    async def _written(self, query: LiteralString, *values: object) -> None:
        try:
            async with self._pool.connection() as connection:
                await connection.execute(query, values)
        except (psycopg.Error, PoolTimeout) as error:
            _log.warning("what is to be remembered of a user could not be kept: %s", type(error).__name__)

    def _hash(self, *parts: str) -> str:
        # Lengths keep "ab" + "c" and "a" + "bc" apart.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        digest = hmac.new(self._key.secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        return f"{self._key.fingerprint}:{digest}"
