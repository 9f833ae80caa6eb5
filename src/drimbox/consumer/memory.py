"""The practice that a professional chose last, remembered from one login to the next (DB.CO.50).

Kept in the database under a keyed hash of the national id, so that a copy of the table names nobody; the practice is
kept as a keyed mark, which only says which of those that PSC gives at the next login it was. No health data. A database
that cannot be reached costs the professional one question more, never the login.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import Protocol

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.national.psc.userinfo import Practice, UserInfo
from drimbox.record.pseudonym import PatientKey
from drimbox.store.database import Pool

_log = logging.getLogger(__name__)


class PracticeMemory(Protocol):
    """Where it is kept. Nothing raises: what cannot be kept or found is asked again."""

    async def recall(self, info: UserInfo) -> Practice | None: ...
    async def keep(self, national_id: str, practice: Practice) -> None: ...


class Forgetful:
    """Remembers nothing from one login to the next."""

    async def recall(self, info: UserInfo) -> Practice | None:
        return None

    async def keep(self, national_id: str, practice: Practice) -> None:
        return None


class StoredPractices:
    """The memory in the database; whoever has not come for ``days`` days is forgotten."""

    def __init__(self, pool: Pool, key: PatientKey, *, days: int = 400) -> None:
        self._pool = pool
        self._key = key
        self._days = days

    async def recall(self, info: UserInfo) -> Practice | None:
        """The practice chosen last, when it is still one of theirs; their visit counts."""
        person = self._person(info.national_id)
        try:
            async with self._pool.connection() as connection:
                await connection.execute(
                    "DELETE FROM chosen_practice WHERE seen_at < now() - make_interval(days => %s)", (self._days,)
                )
                cursor = await connection.execute(
                    "UPDATE chosen_practice SET seen_at = now() WHERE person = %s RETURNING practice", (person,)
                )
                row = await cursor.fetchone()
        except (psycopg.Error, PoolTimeout) as error:
            _log.warning("the practice chosen last could not be read: %s", type(error).__name__)
            return None
        kept = row["practice"] if row is not None else ""
        return next((p for p in info.practices if hmac.compare_digest(self._mark(person, p), kept)), None)

    async def keep(self, national_id: str, practice: Practice) -> None:
        """Taken without a question at the next login."""
        person = self._person(national_id)
        try:
            async with self._pool.connection() as connection:
                await connection.execute(
                    "INSERT INTO chosen_practice (person, practice) VALUES (%s, %s) "
                    "ON CONFLICT (person) DO UPDATE SET practice = excluded.practice, seen_at = now()",
                    (person, self._mark(person, practice)),
                )
        except (psycopg.Error, PoolTimeout) as error:
            _log.warning("the practice chosen could not be kept: %s", type(error).__name__)

    def _person(self, national_id: str) -> str:
        return f"{self._key.fingerprint}:{self._hash('professional', national_id)}"

    def _mark(self, person: str, practice: Practice) -> str:
        speciality = practice.speciality.code if practice.speciality else ""
        parts = (practice.profession.code, speciality, practice.structure_id, practice.structure_name, practice.sector)
        return self._hash("practice", person, *parts, practice.label)

    def _hash(self, *parts: str) -> str:
        # Lengths keep "ab" + "c" and "a" + "bc" apart.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hmac.new(self._key.secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
