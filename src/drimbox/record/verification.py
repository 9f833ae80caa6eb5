"""Is the audit journal whole? The chain of seals, from its beginning, compared with what the journal holds."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, LiteralString

from drimbox.foundation.errors import Refused
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Outcome, Thing
from drimbox.record.pseudonym import PatientKey
from drimbox.record.seals import SEALED, Head, Seal, seal_of
from drimbox.store.database import Connection, Pool

_BATCH = 200
_MOST_PROBLEMS = 20
_LATE = dt.timedelta(minutes=15)
_KNOWN = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{16,64})")


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. ``problems`` are French sentences, none when the journal is whole; ``unsealed`` events came after
    the last seal, ``late`` when some of them should have been sealed long since.
    """

    at: dt.datetime
    head: Head
    events: int
    unsealed: int
    late: bool
    problems: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not self.problems

    @property
    def summary(self) -> str:
        """One line: how much was looked at, and the end of the chain, which is worth keeping elsewhere."""
        late = " (le scellement est en retard)" if self.late else ""
        return f"{self.head.number} scellés, {self.events} traces, {self.unsealed} à sceller{late}, tête {self.head}"


@dataclass(frozen=True, slots=True)
class LastVerification:
    """The last one, as the journal tells it."""

    at: dt.datetime
    by: str
    whole: bool
    summary: str
    problems: str


@dataclass(slots=True)
class _Findings:
    problems: list[str] = field(default_factory=list)
    more: int = 0

    def add(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more += 1

    def all(self) -> tuple[str, ...]:
        rest = (f"… et {self.more} autres anomalies",) if self.more else ()
        return (*self.problems, *rest)


async def verify(pool: Pool, key: PatientKey, known: str = "") -> Verification:
    """Compute everything again; ``known`` is an end of the chain that was kept elsewhere (``1234:9f86…``).

    Raises ``Refused`` (``journal-head``) for a ``known`` that is none. Reads within one snapshot: what is written or
    removed meanwhile changes nothing of the answer.
    """
    kept = _head(known)
    findings = _Findings()
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        end = await _chain(connection, key, kept, findings)
        events = await _digests(connection, end, findings)
        await _outside(connection, end, findings)
        row = await _row(
            connection,
            "SELECT count(*) AS n, min(at) AS oldest, now() AS now FROM audit WHERE id > %(last)s",
            {"last": end.last_id},
        )
    late = row["oldest"] is not None and row["now"] - row["oldest"] > _LATE
    return Verification(row["now"], end, events, row["n"], late, findings.all())


async def verified(pool: Pool, key: PatientKey, journal: Journal, by: Actor, known: str = "") -> Verification:
    """Verify, and write in the journal that it was done and how it ended."""
    found = await verify(pool, key, known)
    event = Event(
        Kind.AUDIT_VERIFIED,
        by,
        (Object(Thing.SYSTEM, "journal", found.summary),),
        outcome=Outcome.SUCCESS if found.whole else Outcome.SERIOUS_FAILURE,
        outcome_text="" if found.whole else f"journal-altered: {' ; '.join(found.problems)}",
    )
    await journal.write(None, event)
    return found


async def last(pool: Pool) -> LastVerification | None:
    """The last verification; None when there was never one."""
    async with pool.connection() as connection:
        row = await (
            await connection.execute(
                "SELECT at, outcome, outcome_text, actor, objects FROM audit WHERE event = %s ORDER BY id DESC LIMIT 1",
                (Kind.AUDIT_VERIFIED.code,),
            )
        ).fetchone()
    if row is None:
        return None
    actor, told = row["actor"], row["objects"][0].get("detail", "")
    by = actor.get("name") or actor.get("person") or actor.get("system", "")
    _, _, problems = row["outcome_text"].partition(": ")
    return LastVerification(row["at"], by, row["outcome"] == 0, told, problems)


async def _chain(connection: Connection, key: PatientKey, kept: tuple[int, str] | None, findings: _Findings) -> Head:
    """Every link after the other: its number, its range, its HMAC."""
    end = Head()
    async for row in _seals(connection):
        seal, mac = seal_of(row), bytes(row["seal"])
        if seal.number != end.number + 1:
            findings.add(f"Scellés {end.number + 1} à {seal.number - 1} absents")
        elif row["key"] != key.fingerprint:
            findings.add(f"Scellé {seal.number} fait avec une autre clé ({row['key']}) : il ne peut pas être vérifié")
        elif mac != seal.mac(key.sealing, end.seal):
            findings.add(f"Scellé {seal.number} altéré")
        if seal.first_id != (end.removed_to if seal.kind == "removal" else end.last_id) + 1:
            findings.add(f"Scellé {seal.number} : sa plage ne suit pas la précédente")
        if seal.keep_days is not None:
            _removal(seal, findings)
        if kept is not None and kept[0] == seal.number and not mac.hex().startswith(kept[1]):
            findings.add(f"Scellé {seal.number} : ce n'est pas celui qui avait été relevé")
        end = Head(
            seal.number,
            mac,
            end.last_id if seal.kind == "removal" else seal.last_id,
            seal.last_id if seal.kind == "removal" else end.removed_to,
        )
    if kept is not None and kept[0] > end.number:
        findings.add(f"Scellés {end.number + 1} à {kept[0]} retirés : le dernier relevé était le {kept[0]}")
    return end


def _removal(seal: Seal, findings: _Findings) -> None:
    if seal.newest_at > seal.sealed_at - dt.timedelta(days=seal.keep_days or 0):
        findings.add(f"Scellé {seal.number} : des traces ont été retirées avant la fin de leur conservation")


async def _digests(connection: Connection, end: Head, findings: _Findings) -> int:
    """The events under each seal; how many were looked at."""
    events = 0
    for first in range(1, end.number + 1, _BATCH):
        values = {"first": first, "last": first + _BATCH - 1, "removed_to": end.removed_to}
        for row in await (await connection.execute(SEALED, values)).fetchall():
            events += row["found"]
            where = f"Traces {row['first_id']} à {row['last_id']}"
            if row["found"] != row["events"]:
                findings.add(f"{where} : {row['found']} présentes, {row['events']} scellées")
            elif row["computed"] != row["digest"]:
                findings.add(f"{where} : au moins une a été altérée")
    return events


async def _outside(connection: Connection, end: Head, findings: _Findings) -> None:
    """What was removed stays away, and was old enough."""
    back = await _row(
        connection, "SELECT count(*) AS n FROM audit WHERE id <= %(removed_to)s", {"removed_to": end.removed_to}
    )
    if back["n"]:
        findings.add(f"{back['n']} traces à une place dont tout a été retiré")
    early = await _row(connection, _EARLY, {"removed_to": end.removed_to})
    if early["n"]:
        findings.add(f"{early['n']} plages de traces retirées avant la fin de leur conservation")


async def _seals(connection: Connection) -> AsyncIterator[dict[str, Any]]:
    after = 0
    while rows := await (
        await connection.execute("SELECT * FROM audit_seal WHERE number > %s ORDER BY number LIMIT 5000", (after,))
    ).fetchall():
        for row in rows:
            yield row
        after = rows[-1]["number"]


def _head(known: str) -> tuple[int, str] | None:
    if not known:
        return None
    found = _KNOWN.fullmatch(known.strip().lower())
    if found is None:
        raise Refused(
            "La tête attendue a la forme numéro:empreinte, comme dans le journal technique", code="journal-head"
        )
    return int(found[1]), found[2]


async def _row(connection: Connection, query: LiteralString, values: dict[str, Any]) -> dict[str, Any]:
    row = await (await connection.execute(query, values)).fetchone()
    assert row is not None
    return row


_EARLY = """
SELECT count(*) AS n FROM audit_seal AS seal
WHERE seal.kind = 'rows' AND seal.last_id <= %(removed_to)s AND NOT EXISTS (
    SELECT 1 FROM audit_seal AS removal
    WHERE removal.kind = 'removal' AND removal.last_id >= seal.last_id AND seal.newest_at < removal.newest_at
)
"""
