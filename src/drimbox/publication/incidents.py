"""The operator's queue: what could not be done, why, and what was done about it (DB.SO.15, DB.SO.21).

One open line for each cause on a study and document: what happens again is added to its history. Nothing here is health
data.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

from psycopg.types.json import Jsonb

from drimbox.foundation.clock import Clock
from drimbox.store.database import Connection, Pool

# A study whose publication waits for a PACS or for the DMP: closed by itself when it is through.
WAITING = "waiting"

# Before the code of what a resynchronisation met: another line than the report's own, closed by other things.
RESYNC = "resync-"
RESYNC_WAITING = RESYNC + WAITING

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a history. ``by`` is the operator, empty for the box itself."""

    at: dt.datetime
    text: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """One line of the queue. ``peer_code`` is the peer's own error code, word for word.

    ``document_id`` is the document of the report, empty for what is not one report's.
    """

    id: int
    opened_at: dt.datetime
    closed_at: dt.datetime | None
    structure: str
    study_uid: str
    message_id: int | None
    report_id: int | None
    severity: Severity
    code: str
    reason: str
    peer_code: str | None
    history: tuple[Step, ...]
    document_id: str = ""

    @property
    def label(self) -> str:
        """How the operator names it, without saying who the patient is."""
        if self.study_uid:
            return f"Examen {self.study_uid}"
        return f"Message n° {self.message_id}" if self.message_id is not None else f"Incident n° {self.id}"


class Incidents:
    """The table ``incident``."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def open(
        self,
        transaction: Connection,
        *,
        structure: str,
        study_uid: str,
        code: str,
        reason: str,
        severity: Severity = "error",
        report_id: int | None = None,
        peer_code: str | None = None,
    ) -> int:
        """Put a line about a study in the queue, or add to the one that is open for the same cause; returns its id."""
        text = f"{reason} [{peer_code}]" if peer_code else reason
        row = await (
            await transaction.execute(
                "INSERT INTO incident (opened_at, structure, study_uid, code, reason, severity, report_id, "
                "document_id, peer_code, history) "
                "VALUES (%(now)s, %(structure)s, %(study)s, %(code)s, %(reason)s, %(severity)s, "
                "(SELECT id FROM report WHERE id = %(report)s), "
                "coalesce((SELECT document_id FROM report WHERE id = %(of_report)s), ''), "
                "%(peer)s, jsonb_build_array(%(step)s::jsonb)) "
                "ON CONFLICT (structure, study_uid, code, document_id) WHERE closed_at IS NULL AND study_uid <> '' "
                "DO UPDATE SET reason = EXCLUDED.reason, severity = EXCLUDED.severity, report_id = EXCLUDED.report_id, "
                "peer_code = EXCLUDED.peer_code, history = history_with(incident.history, %(step)s) RETURNING id",
                {
                    "now": self._clock.now(),
                    "structure": structure,
                    "study": study_uid,
                    "code": code,
                    "reason": reason,
                    "severity": severity,
                    "report": report_id,
                    "of_report": None if code.startswith(RESYNC) else report_id,
                    "peer": peer_code,
                    "step": self._step(text),
                },
            )
        ).fetchone()
        assert row is not None
        return int(row["id"])

    async def open_for_message(
        self, connection: Connection, *, code: str, reason: str, message_id: int, structure: str = ""
    ) -> None:
        """Put a line about a message that was refused in the queue (``reports.intake.IncidentOpener``)."""
        await connection.execute(
            "INSERT INTO incident (opened_at, structure, code, reason, message_id, history) "
            "VALUES (%s, %s, %s, %s, %s, jsonb_build_array(%s::jsonb))",
            (self._clock.now(), structure, code, reason, message_id, self._step(reason)),
        )

    async def open_for_note(
        self, connection: Connection, *, code: str, reason: str, study_uid: str = "", severity: Severity = "error"
    ) -> None:
        """Put a line about a note that was refused in the queue (``changes.listener``).

        Without a study: one open line for each cause in the same words; what happens again is added to its history.
        """
        if study_uid:
            await self.open(connection, structure="", study_uid=study_uid, code=code, reason=reason, severity=severity)
            return
        # Two at once would not see each other's line.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (code,))
        values = {
            "now": self._clock.now(),
            "code": code,
            "reason": reason,
            "severity": severity,
            "step": self._step(reason),
        }
        added = await connection.execute(
            "UPDATE incident SET history = history_with(history, %(step)s) WHERE closed_at IS NULL "
            "AND study_uid = '' AND message_id IS NULL AND code = %(code)s AND reason = %(reason)s",
            values,
        )
        if added.rowcount == 0:
            await connection.execute(
                "INSERT INTO incident (opened_at, code, reason, severity, history) "
                "VALUES (%(now)s, %(code)s, %(reason)s, %(severity)s, jsonb_build_array(%(step)s::jsonb))",
                values,
            )

    async def settle(
        self,
        transaction: Connection,
        *,
        structure: str,
        study_uid: str,
        report_id: int | None,
        documents: Collection[str],
        still: Collection[str],
        text: str,
        resynced: bool = False,
    ) -> None:
        """Work on a study was carried through: close what is settled by that.

        That is, for a report: waiting, and what concerned this report or another version of it (``documents``). What
        another report left open stays: it still awaits a human. With ``resynced``, the study was compared: what earlier
        comparisons left open. ``still`` are the codes that hold on.
        """
        await transaction.execute(
            "UPDATE incident SET closed_at = %(now)s, history = history_with(history, %(step)s) "
            "WHERE closed_at IS NULL AND structure IN ('', %(structure)s) AND study_uid = %(study)s "
            "AND NOT code = ANY (%(still)s) AND CASE WHEN starts_with(code, %(resync)s) THEN %(resynced)s "
            "ELSE %(report)s::bigint IS NOT NULL AND (code = %(waiting)s OR report_id = %(report)s OR report_id IN "
            "(SELECT id FROM report WHERE document_id = ANY (%(documents)s))) END",
            {
                "now": self._clock.now(),
                "step": self._step(text),
                "structure": structure,
                "study": study_uid,
                "still": list(still),
                "report": report_id,
                "documents": list(documents),
                "resync": RESYNC,
                "resynced": resynced,
                "waiting": WAITING,
            },
        )

    async def stopped(self, structure: str, study_uid: str) -> tuple[int, ...]:
        """The reports that could not be carried through on a study, oldest first."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT DISTINCT report_id FROM incident WHERE closed_at IS NULL AND structure = %s "
                    "AND study_uid = %s AND report_id IS NOT NULL AND severity = 'error' "
                    "AND NOT starts_with(code, %s) ORDER BY report_id",
                    (structure, study_uid, RESYNC),
                )
            ).fetchall()
        return tuple(row["report_id"] for row in rows)

    async def note(self, incident_id: int, text: str, by: str, transaction: Connection | None = None) -> None:
        """An operator's remark, added to the history."""
        async with self._connection(transaction) as connection:
            await connection.execute(
                "UPDATE incident SET history = history_with(history, %(step)s) WHERE id = %(id)s",
                {"step": self._step(text, by), "id": incident_id},
            )

    async def close(self, incident_id: int, text: str, by: str, transaction: Connection | None = None) -> None:
        """Closed by an operator, with the reason."""
        async with self._connection(transaction) as connection:
            await connection.execute(
                "UPDATE incident SET closed_at = %(now)s, history = history_with(history, %(step)s) "
                "WHERE id = %(id)s AND closed_at IS NULL",
                {"now": self._clock.now(), "step": self._step(text, by), "id": incident_id},
            )

    async def one(self, incident_id: int, transaction: Connection | None = None) -> Incident | None:
        """The line of that number; within a transaction, nobody else changes it until the end of that."""
        query: LiteralString = "SELECT * FROM incident WHERE id = %s"
        async with self._connection(transaction) as connection:
            row = await (
                await connection.execute(query + " FOR UPDATE" if transaction else query, (incident_id,))
            ).fetchone()
        return _incident(row) if row else None

    async def list(
        self,
        *,
        open_only: bool = True,
        closed_only: bool = False,
        study_uid: str | None = None,
        structure: str | None = None,
        code: str | None = None,
        severity: Severity | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> tuple[Incident, ...]:
        """Newest first; ``before`` is the id to go on from."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT * FROM incident WHERE (NOT %(open)s OR closed_at IS NULL) "
                    "AND (NOT %(closed)s OR closed_at IS NOT NULL) "
                    "AND (%(study)s::text IS NULL OR study_uid = %(study)s) "
                    "AND (%(structure)s::text IS NULL OR structure = %(structure)s) "
                    "AND (%(code)s::text IS NULL OR code = %(code)s) "
                    "AND (%(severity)s::text IS NULL OR severity = %(severity)s) "
                    "AND (%(before)s::bigint IS NULL OR id < %(before)s) ORDER BY id DESC LIMIT %(limit)s",
                    {
                        "open": open_only and not closed_only,
                        "closed": closed_only,
                        "study": study_uid,
                        "structure": structure,
                        "code": code,
                        "severity": severity,
                        "before": before,
                        "limit": limit,
                    },
                )
            ).fetchall()
        return tuple(map(_incident, rows))

    @asynccontextmanager
    async def _connection(self, given: Connection | None) -> AsyncIterator[Connection]:
        """The caller's transaction, or one of our own."""
        if given is not None:
            yield given
            return
        async with self._pool.connection() as own:
            yield own

    def _step(self, text: str, by: str = "") -> Jsonb:
        return Jsonb({"at": self._clock.now().isoformat(), "text": text, "by": by})


def _incident(row: dict[str, Any]) -> Incident:
    steps = tuple(Step(dt.datetime.fromisoformat(s["at"]), s["text"], s.get("by", "")) for s in row["history"])
    return Incident(**{**row, "history": steps})
