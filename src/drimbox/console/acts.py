"""What an operator can do about a line of the queue: try again, publish the study again, file it without follow-up.

Each act, its line in the history and its line in the journal are one transaction. The pages and the command line both
come through here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drimbox.console.accounts import AuditJournal
from drimbox.foundation.errors import Refused
from drimbox.publication.incidents import WAITING, Incident, Incidents
from drimbox.publication.ledger import PUBLISH_STUDY, study_lock
from drimbox.record.audit import Actor, Event, Kind, Object, Thing
from drimbox.record.masking import masked
from drimbox.store import jobs
from drimbox.store.database import Connection, Pool

MAX_REASON = 500
_MIN_REASON = 5

Resync = Callable[[Connection, str, str], Awaitable[None]]
"""Puts a comparison of a study (structure, study UID) with PACS and DMP in the queue, in the caller's transaction."""


class ActRefused(Refused):
    """What was asked cannot be done, or not now."""

    def __init__(self, reason: str, code: str = "act-impossible") -> None:
        super().__init__(reason, code=code)


class NoIncident(ActRefused):
    """There is no such line."""

    def __init__(self) -> None:
        super().__init__("Cet incident n'existe pas", "incident-unknown")


@dataclass(frozen=True, slots=True)
class Acts:
    """The acts. Each gives one French sentence that says what was done, or raises ``ActRefused``."""

    pool: Pool
    incidents: Incidents
    journal: AuditJournal
    resync_study: Resync | None = None

    async def retry(self, incident_id: int, by: Actor) -> str:
        """Carry the report of an open line through on its study again, now: the work that waits is brought forward."""
        async with self.pool.connection() as connection, connection.transaction():
            incident = await self._open(connection, incident_id)
            if not can_retry(incident):
                raise ActRefused("Cet incident ne porte pas sur un compte rendu et un examen : rien à réessayer")
            assert incident.report_id is not None
            done = await self._again(connection, incident.report_id, incident.study_uid)
            await self._tell(connection, incident, by, "retry", f"Nouvel essai demandé : {done}")
        return f"Nouvel essai demandé : {done}."

    async def resync(self, incident_id: int, by: Actor) -> str:
        """Bring the study of an open line in accordance with what is known of it now."""
        async with self.pool.connection() as connection, connection.transaction():
            incident = await self._open(connection, incident_id)
            if not incident.study_uid:
                raise ActRefused("Cet incident ne porte pas sur un examen : rien à resynchroniser")
            done = await self._resync(connection, incident.structure, incident.study_uid, incident.report_id)
            await self._tell(connection, incident, by, "resync", f"Resynchronisation demandée : {done}")
        return f"Resynchronisation demandée : {done}."

    async def resync_of(self, structure: str, study_uid: str, by: Actor) -> str:
        """The same for a study that the box knows, whether a line of the queue is open for it or not."""
        async with self.pool.connection() as connection, connection.transaction():
            done = await self._resync(connection, structure, study_uid, None)
            await self.journal.write(
                connection,
                Event(Kind.QUEUE_ACTED, by, (Object(Thing.STUDY, study_uid, "resync"),), structure=structure),
            )
        return f"Resynchronisation demandée : {done}."

    async def discard(self, incident_id: int, reason: str, by: Actor) -> str:
        """File an open line without follow-up; of a line that waits, the work is given up.

        Refused while that work is running, and as long as it is not known whether the DMP received a version: nobody
        can decide to forget that.
        """
        reason = checked_reason(reason)
        async with self.pool.connection() as connection, connection.transaction():
            incident = await self._open(connection, incident_id)
            waits = incident.code == WAITING and can_retry(incident)
            given_up = await self._give_up(connection, incident) if waits else 0
            more = " ; le travail en attente est abandonné" if given_up else ""
            text = f"Classé sans suite : {reason}{more}"
            await self.incidents.close(incident.id, text, named(by), connection)
            await self._audit(connection, incident, by, f"discard: {reason}")
        return f"Incident classé sans suite{more}."

    async def _open(self, connection: Connection, incident_id: int) -> Incident:
        incident = await self.incidents.one(incident_id, connection)
        if incident is None:
            raise NoIncident
        if incident.closed_at is not None:
            raise ActRefused("Cet incident est déjà clos", "incident-closed")
        return incident

    async def _again(self, connection: Connection, report_id: int, study_uid: str) -> str:
        """Have the work done now. What waits before it on the same study is brought forward too: it keeps its place."""
        args: dict[str, str | int] = {"report_id": report_id, "study_uid": study_uid}
        rows = await (
            await connection.execute(
                "UPDATE procrastinate_jobs SET scheduled_at = NULL "
                "WHERE lock = %s AND status = 'todo' RETURNING task_name, args",
                (study_lock(study_uid),),
            )
        ).fetchall()
        if any(row["task_name"] == PUBLISH_STUDY and row["args"] == args for row in rows):
            return "le travail en attente est avancé"
        if await self._running(connection, report_id, study_uid):
            return "un essai est déjà en cours"
        await jobs.defer(connection, PUBLISH_STUDY, args=args, lock=study_lock(study_uid))
        return "le travail est remis en file"

    async def _resync(self, connection: Connection, structure: str, study_uid: str, report_id: int | None) -> str:
        if self.resync_study is not None:
            if not structure:
                raise ActRefused("La structure de cet examen n'est pas connue : rien à resynchroniser")
            await self.resync_study(connection, structure, study_uid)
            return "l'examen sera comparé au PACS et au DMP"
        newest = max(filter(None, (report_id, await _last_report(connection, structure, study_uid))), default=None)
        if newest is None:
            raise ActRefused("Aucun compte rendu n'est connu pour cet examen : rien à republier")
        return f"dernier compte rendu repris, {await self._again(connection, newest, study_uid)}"

    async def _running(self, connection: Connection, report_id: int, study_uid: str) -> bool:
        row = await (
            await connection.execute(
                "SELECT 1 FROM procrastinate_jobs WHERE lock = %s AND status = 'doing' AND task_name = %s "
                "AND args @> jsonb_build_object('report_id', %s::bigint)",
                (study_lock(study_uid), PUBLISH_STUDY, report_id),
            )
        ).fetchone()
        return row is not None

    async def _give_up(self, connection: Connection, incident: Incident) -> int:
        """Cancel the work of this report on this study that still waits; how many pieces there were."""
        assert incident.report_id is not None
        where = (study_lock(incident.study_uid), PUBLISH_STUDY, incident.report_id)
        # Whoever cancels holds the rows: the worker passes over them, and finds them gone.
        waiting = await (
            await connection.execute(
                "SELECT id FROM procrastinate_jobs WHERE lock = %s AND status = 'todo' AND task_name = %s "
                "AND args @> jsonb_build_object('report_id', %s::bigint) FOR UPDATE",
                where,
            )
        ).fetchall()
        if await self._running(connection, incident.report_id, incident.study_uid):
            raise ActRefused("Un essai est en cours : recommencez dans un instant", "work-running")
        if not waiting:
            return 0
        unknown = await (
            await connection.execute(
                "SELECT 1 FROM publication WHERE study_uid = %s AND state = 'prepared' AND sent_at IS NOT NULL "
                "AND structure IN (%s, (SELECT structure FROM report WHERE id = %s))",
                (incident.study_uid, incident.structure, incident.report_id),
            )
        ).fetchone()
        if unknown is not None:
            raise ActRefused(
                "On ne sait pas encore si le DMP a reçu une version de cet examen : "
                "l'incident ne peut être classé qu'une fois le DMP interrogé",
                "outcome-unknown",
            )
        for row in waiting:
            await connection.execute("SELECT procrastinate_cancel_job_v1(%s, false, false)", (row["id"],))
        return len(waiting)

    async def _tell(self, connection: Connection, incident: Incident, by: Actor, act: str, text: str) -> None:
        await self.incidents.note(incident.id, text, named(by), connection)
        await self._audit(connection, incident, by, act)

    async def _audit(self, connection: Connection, incident: Incident, by: Actor, act: str) -> None:
        objects = [Object(Thing.INCIDENT, str(incident.id), act)]
        if incident.study_uid:
            objects.append(Object(Thing.STUDY, incident.study_uid))
        await self.journal.write(connection, Event(Kind.QUEUE_ACTED, by, tuple(objects), structure=incident.structure))


def can_retry(incident: Incident) -> bool:
    """Is it about one report on one study?"""
    return bool(incident.study_uid) and incident.report_id is not None


def checked_reason(reason: str) -> str:
    """The reason that an operator gives, on one line. Raises ``ActRefused`` (``reason``)."""
    reason = masked(" ".join("".join(c if c.isprintable() else " " for c in reason).split()))
    if len(reason) < _MIN_REASON:
        raise ActRefused("Donnez le motif : il reste dans l'historique", "reason")
    if len(reason) > MAX_REASON:
        raise ActRefused(f"Motif trop long : {MAX_REASON} caractères au plus", "reason")
    return reason


def named(by: Actor) -> str:
    """How the history names who acted."""
    return f"{by.name} ({by.person})" if by.name and by.person else by.name or by.person


async def _last_report(connection: Connection, structure: str, study_uid: str) -> int | None:
    row = await (
        await connection.execute(
            "SELECT max(id) AS id FROM (SELECT last_report_id AS id FROM reported_study "
            "WHERE structure = %(structure)s AND study_uid = %(study)s UNION ALL "
            "SELECT report_id FROM publication WHERE structure = %(structure)s AND study_uid = %(study)s) AS known",
            {"structure": structure, "study": study_uid},
        )
    ).fetchone()
    return int(row["id"]) if row and row["id"] is not None else None
