"""Imports in the database: asked for, carried on, ended. What stands here survives the browser and the process."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from drimbox.identity.ins import Ins
from drimbox.importing.orders import (
    OPEN,
    Counts,
    Fate,
    Import,
    ImportedPatient,
    Instance,
    NewImport,
    State,
    Verdict,
    WantedInstance,
    WantedSeries,
)
from drimbox.record.audit import Actor
from drimbox.store.database import Pool, single

_OPEN = [state.value for state in OPEN]


class Ledger:
    """The imports of one box; ``node`` is its name among those that share a database."""

    def __init__(self, pool: Pool, node: str) -> None:
        self._pool = pool
        self._node = node

    async def add(self, new: NewImport) -> int:
        """Put an import in the queue; it is durable when this returns."""
        patient = new.patient
        async with self._pool.connection() as connection, connection.transaction():
            row = await (
                await connection.execute(
                    _ADD,
                    {
                        "node": self._node,
                        "person": new.person,
                        "actor": Jsonb({k: v for k, v in asdict(new.actor).items() if v}),
                        "structure": new.structure,
                        "target": new.target,
                        "study_uid": new.study_uid,
                        "stored_as": new.stored_as,
                        "kos_uid": new.kos_uid,
                        "title": new.title[:200],
                        "study_date": new.study_date,
                        "patient": Jsonb(
                            {
                                "ins": patient.ins.matricule,
                                "oid": patient.ins.oid,
                                "local_id": patient.local_id,
                                "issuer": patient.issuer,
                                "issuer_name": patient.issuer_name,
                                "label": patient.label,
                                "accession": patient.accession,
                                "accession_issuer": patient.accession_issuer,
                                "traits": dict(patient.traits),
                                "decided": patient.decided,
                            }
                        ),
                    },
                )
            ).fetchone()
            assert row is not None
            order_id = int(row["id"])
            async with connection.cursor() as cursor:
                await cursor.executemany(
                    "INSERT INTO import_series (order_id, series_uid, retrieve_url, number, modality, description) "
                    "VALUES (%s, %s, %s, %s, %s, %s)",
                    [
                        (order_id, s.series_uid, s.retrieve_url, s.number, s.modality, s.description[:200])
                        for s in new.series
                    ],
                )
                async with cursor.copy(
                    "COPY import_instance (order_id, series_uid, sop_instance_uid, sop_class_uid) FROM STDIN"
                ) as copy:
                    for series in new.series:
                        for each in series.instances:
                            await copy.write_row(
                                (order_id, series.series_uid, each.sop_instance_uid, each.sop_class_uid)
                            )
        return order_id

    async def find(self, order_id: int, person: str | None = None) -> Import | None:
        """One import; with ``person``, only if it is theirs."""
        rows = await self._imports("o.id = %(id)s", {"id": order_id})
        return next((found for found in rows if person in (None, found.person)), None)

    async def of_person(self, person: str, *, most: int = 100) -> list[Import]:
        """The imports that a person asked for, newest first."""
        found = await self._imports("o.person = %(person)s", {"person": person}, most=most)
        return sorted(found, key=lambda one: -one.id)

    async def due(self, now: dt.datetime) -> list[Import]:
        """What this box is to go on with, oldest first."""
        where = "o.node = %(node)s AND o.state = ANY (%(open)s) AND o.due_at <= %(now)s"
        found = await self._imports(where, {"node": self._node, "open": _OPEN, "now": now}, most=200)
        return sorted(found, key=lambda one: one.id)

    async def open_of(self, person: str) -> int:
        """How many imports of a person are under way."""
        async with single(self._pool) as connection:
            row = await (
                await connection.execute(
                    "SELECT count(*) AS n FROM import_order WHERE person = %s AND state = ANY (%s)", (person, _OPEN)
                )
            ).fetchone()
        assert row is not None
        return int(row["n"])

    async def series(self, order_id: int) -> tuple[WantedSeries, ...]:
        """The series of an import, in order of number."""
        async with single(self._pool) as connection:
            series = await (
                await connection.execute(
                    "SELECT * FROM import_series WHERE order_id = %s ORDER BY number NULLS LAST, series_uid",
                    (order_id,),
                )
            ).fetchall()
            rows = await (
                await connection.execute(
                    "SELECT series_uid, sop_instance_uid, sop_class_uid FROM import_instance "
                    "WHERE order_id = %s ORDER BY sop_instance_uid",
                    (order_id,),
                )
            ).fetchall()
        by_series: dict[str, list[WantedInstance]] = {}
        for row in rows:
            wanted = WantedInstance(row["sop_instance_uid"], row["sop_class_uid"])
            by_series.setdefault(row["series_uid"], []).append(wanted)
        return tuple(
            WantedSeries(
                s["series_uid"],
                s["retrieve_url"],
                s["number"],
                s["modality"],
                s["description"],
                tuple(by_series.get(s["series_uid"], ())),
            )
            for s in series
        )

    async def instances(self, order_id: int) -> list[Instance]:
        """Every instance of an import."""
        async with single(self._pool) as connection:
            rows = await (
                await connection.execute(
                    "SELECT series_uid, sop_instance_uid, sop_class_uid, state, status, code, detail, tries "
                    "FROM import_instance WHERE order_id = %s ORDER BY series_uid, sop_instance_uid",
                    (order_id,),
                )
            ).fetchall()
        return [
            Instance(
                r["series_uid"],
                r["sop_instance_uid"],
                r["sop_class_uid"],
                Fate(r["state"]),
                r["status"],
                r["code"],
                r["detail"],
                r["tries"],
            )
            for r in rows
        ]

    async def note(self, order_id: int, verdicts: Sequence[Verdict], *, fetched: int | None = None) -> None:
        """What became of instances; one that waits again has been tried once more."""
        async with self._pool.connection() as connection, connection.transaction():
            if verdicts:
                await connection.execute(
                    _NOTE,
                    {
                        "id": order_id,
                        "uids": [v.sop_instance_uid for v in verdicts],
                        "states": [v.fate.value for v in verdicts],
                        "statuses": [v.status for v in verdicts],
                        "codes": [v.code for v in verdicts],
                        "details": [v.detail[:300] for v in verdicts],
                    },
                )
            if fetched is not None:
                await connection.execute("UPDATE import_order SET fetched = %s WHERE id = %s", (fetched, order_id))

    async def begin(self, order_id: int) -> None:
        """A turn begins."""
        async with single(self._pool) as connection:
            await connection.execute(
                "UPDATE import_order SET state = 'running', started_at = coalesce(started_at, now()) "
                "WHERE id = %s AND state = ANY (%s)",
                (order_id, _OPEN),
            )

    async def put_off(
        self, order_id: int, state: State, code: str, reason: str, due_at: dt.datetime, *, tries: int
    ) -> None:
        """A turn ended without an end of the import: it goes on at ``due_at``."""
        async with single(self._pool) as connection:
            await connection.execute(
                "UPDATE import_order SET state = %s, code = %s, reason = %s, due_at = %s, tries = %s "
                "WHERE id = %s AND state = ANY (%s)",
                (state.value, code, reason[:500], due_at, tries, order_id, _OPEN),
            )

    async def end(self, order_id: int, state: State, code: str = "", reason: str = "", *, verified: bool) -> None:
        """An import is over."""
        async with single(self._pool) as connection:
            await connection.execute(
                "UPDATE import_order SET state = %s, code = %s, reason = %s, verified = %s, ended_at = now() "
                "WHERE id = %s",
                (state.value, code, reason[:500], verified, order_id),
            )

    async def cancel(self, order_id: int, person: str) -> bool:
        """The user wants no more of it; False when there is nothing to stop."""
        async with single(self._pool) as connection:
            done = await connection.execute(
                "UPDATE import_order SET cancelled = true, due_at = now() "
                "WHERE id = %s AND person = %s AND state = ANY (%s)",
                (order_id, person, _OPEN),
            )
        return done.rowcount > 0

    async def again(self, order_id: int, person: str, *, decided: bool = False) -> bool:
        """The rest of an import that ended without being whole, or at once what waits; False when there is none.

        ``decided``: the images name the patient otherwise, and the user goes on all the same.
        """
        async with self._pool.connection() as connection, connection.transaction():
            done = await connection.execute(
                "UPDATE import_order SET state = 'queued', code = '', reason = '', tries = 0, due_at = now(), "
                "cancelled = false, ended_at = NULL, asked_at = now(), "
                "patient = CASE WHEN %s THEN patient || '{\"decided\": true}' ELSE patient END "
                "WHERE id = %s AND person = %s AND state IN ('partial', 'failed', 'cancelled', 'waiting', 'login')",
                (decided, order_id, person),
            )
            if not done.rowcount:
                return False
            await connection.execute(
                "UPDATE import_instance SET state = 'waiting', status = NULL, code = '', detail = '', tries = 0 "
                "WHERE order_id = %s AND state = 'refused'",
                (order_id,),
            )
        return True

    async def brought(self, structure: str, study_uids: Collection[str]) -> dict[str, State]:
        """Which of these studies were imported, or are being: the newest import of each (DB.CO.61, DB.CO.79)."""
        async with single(self._pool) as connection:
            rows = await (
                await connection.execute(
                    "SELECT DISTINCT ON (study_uid) study_uid, state FROM import_order "
                    "WHERE structure = %s AND study_uid = ANY (%s) ORDER BY study_uid, id DESC",
                    (structure, list(study_uids)),
                )
            ).fetchall()
        return {row["study_uid"]: State(row["state"]) for row in rows}

    async def newest(self) -> list[tuple[str, str, State]]:
        """Structure, study and state of the newest import of each study, oldest first."""
        async with single(self._pool) as connection:
            rows = await (
                await connection.execute(
                    "SELECT structure, study_uid, state FROM (SELECT DISTINCT ON (structure, study_uid) * "
                    "FROM import_order WHERE node = %s ORDER BY structure, study_uid, id DESC) AS newest ORDER BY id",
                    (self._node,),
                )
            ).fetchall()
        return [(row["structure"], row["study_uid"], State(row["state"])) for row in rows]

    async def forget(self, before: dt.datetime) -> int:
        """Delete what ended before a moment: an import is no archive of patients."""
        async with single(self._pool) as connection:
            done = await connection.execute(
                "DELETE FROM import_order WHERE node = %s AND ended_at < %s", (self._node, before)
            )
        return done.rowcount

    async def next_due(self) -> dt.datetime | None:
        """When the next import that waits for its time is due; None when none is open."""
        async with single(self._pool) as connection:
            row = await (
                await connection.execute(
                    "SELECT min(due_at) AS at, count(*) AS n, min(due_at) FILTER (WHERE due_at > now()) AS later "
                    "FROM import_order WHERE node = %s AND state = ANY (%s)",
                    (self._node, _OPEN),
                )
            ).fetchone()
        assert row is not None
        return (row["later"] or row["at"]) if row["n"] else None

    async def open_ids(self) -> frozenset[int]:
        """The imports of this box that are not over."""
        async with single(self._pool) as connection:
            rows = await (
                await connection.execute(
                    "SELECT id FROM import_order WHERE node = %s AND state = ANY (%s)", (self._node, _OPEN)
                )
            ).fetchall()
        return frozenset(row["id"] for row in rows)

    async def _imports(self, where: str, values: dict[str, Any], *, most: int = 1) -> list[Import]:
        query = f"{_SELECT} WHERE {where} GROUP BY o.id ORDER BY o.id {_order(where)} LIMIT %(most)s"
        async with single(self._pool) as connection:
            rows = await (await connection.execute(query.encode(), {**values, "most": most})).fetchall()
        return [_import(row) for row in rows]


def _order(where: str) -> str:
    """The newest of a person, the oldest of the queue."""
    return "DESC" if "person" in where else "ASC"


def _import(row: dict[str, Any]) -> Import:
    patient = row["patient"]
    return Import(
        id=row["id"],
        asked_at=row["asked_at"],
        person=row["person"],
        actor=Actor(**row["actor"]),
        structure=row["structure"],
        target=row["target"],
        study_uid=row["study_uid"],
        stored_as=row["stored_as"],
        kos_uid=row["kos_uid"],
        title=row["title"],
        study_date=row["study_date"],
        patient=ImportedPatient(
            Ins.of(patient["ins"], patient["oid"]),
            patient["local_id"],
            patient["issuer"],
            patient["issuer_name"],
            patient["label"],
            patient["accession"],
            patient["accession_issuer"],
            patient["traits"],
            patient["decided"],
        ),
        state=State(row["state"]),
        code=row["code"],
        reason=row["reason"],
        tries=row["tries"],
        due_at=row["due_at"],
        verified=row["verified"],
        cancelled=row["cancelled"],
        counts=Counts(row["total"], max(row["fetched"], row["over"]), row["stored"], row["found"], row["refused"]),
        ended_at=row["ended_at"],
    )


_ADD = """
INSERT INTO import_order
    (node, person, actor, structure, target, study_uid, stored_as, kos_uid, title, study_date, patient)
VALUES (%(node)s, %(person)s, %(actor)s, %(structure)s, %(target)s, %(study_uid)s, %(stored_as)s, %(kos_uid)s,
    %(title)s, %(study_date)s, %(patient)s)
RETURNING id
"""

_SELECT = """
SELECT o.*, count(i.*) AS total,
    count(*) FILTER (WHERE i.state = 'stored') AS stored,
    count(*) FILTER (WHERE i.state IN ('found', 'present')) AS found,
    count(*) FILTER (WHERE i.state = 'refused') AS refused,
    count(*) FILTER (WHERE i.state <> 'waiting') AS over
FROM import_order o LEFT JOIN import_instance i ON i.order_id = o.id
"""

_NOTE = """
UPDATE import_instance i SET state = v.state, status = v.status, code = v.code, detail = v.detail,
    tries = i.tries + (v.state = 'waiting')::int
FROM unnest(%(uids)s::text[], %(states)s::text[], %(statuses)s::int[], %(codes)s::text[], %(details)s::text[])
    AS v (uid, state, status, code, detail)
WHERE i.order_id = %(id)s AND i.sop_instance_uid = v.uid
"""
