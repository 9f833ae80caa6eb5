"""What an operator can do about a line of the queue: try again, compare the study again, file it without follow-up.

Each act, its line in the history and its line in the journal are one transaction. The pages and the command line both
come through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from drimbox.certificates import records as certificates
from drimbox.certificates import trouble
from drimbox.console.accounts import AuditJournal
from drimbox.foundation.errors import Refused
from drimbox.publication.archive import publishers
from drimbox.publication.incidents import RESYNC, RESYNC_WAITING, WAITING, Incident, Incidents
from drimbox.publication.ledger import PUBLISH_STUDY
from drimbox.publication.triggers import RESYNC_STUDY, Cause, defer_resync, study_lock
from drimbox.record.audit import Actor, Event, Kind, Object, Thing
from drimbox.record.masking import masked
from drimbox.store import jobs
from drimbox.store.database import Connection, Pool

MAX_REASON = 500
_MIN_REASON = 5


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

    async def retry(self, incident_id: int, by: Actor) -> str:
        """Do the work of an open line again, now: a report on a study, or a comparison of the study."""
        async with self.pool.connection() as connection, connection.transaction():
            incident = await self._open(connection, incident_id)
            if can_retry(incident):
                assert incident.report_id is not None
                done = await self._again(connection, incident.report_id, incident.study_uid)
            elif of_comparison(incident):
                done = await self._resync(connection, incident.structure, incident.study_uid)
            elif of_order(incident):
                done = await self._order_again(connection, by)
            else:
                raise ActRefused("Cet incident ne porte pas sur un compte rendu et un examen : rien à réessayer")
            await self._tell(connection, incident, by, "retry", f"Nouvel essai demandé : {done}")
        return f"Nouvel essai demandé : {done}."

    async def resync(self, incident_id: int, by: Actor) -> str:
        """Compare the study of an open line with PACS and DMP; for every structure where the line names none."""
        async with self.pool.connection() as connection, connection.transaction():
            incident = await self._open(connection, incident_id)
            if not incident.study_uid:
                raise ActRefused("Cet incident ne porte pas sur un examen : rien à resynchroniser")
            done = await self._resync(connection, incident.structure, incident.study_uid)
            await self._tell(connection, incident, by, "resync", f"Resynchronisation demandée : {done}")
        return f"Resynchronisation demandée : {done}."

    async def resync_of(self, structure: str, study_uid: str, by: Actor) -> str:
        """The same for a study, whether a line of the queue is open for it or not; ``structure`` empty for all."""
        async with self.pool.connection() as connection, connection.transaction():
            done = await self._resync(connection, structure, study_uid)
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
            given_up = 0
            if waits or incident.code == RESYNC_WAITING:
                given_up = await self._give_up(connection, incident)
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
        waiting = await _brought_forward(connection, study_uid)
        if any(row["task_name"] == PUBLISH_STUDY and row["args"] == args for row in waiting):
            return "le travail en attente est avancé"
        if await _jobs(connection, study_uid, "doing", PUBLISH_STUDY, {"report_id": report_id}):
            return "un essai est déjà en cours"
        await jobs.defer(connection, PUBLISH_STUDY, args=args, lock=study_lock(study_uid))
        return "le travail est remis en file"

    async def _order_again(self, connection: Connection, by: Actor) -> str:
        """Have the market certificate ordered now."""
        for host in await certificates.hosts(connection):
            await certificates.ask(connection, host, named(by))
        return "le certificat est commandé"

    async def _resync(self, connection: Connection, structure: str, study_uid: str) -> str:
        known = await publishers(connection, study_uid)
        if not known or (structure and structure not in known):
            raise ActRefused("La passerelle n'a de cet examen ni KOS ni compte rendu à comparer", "study-unknown")
        waiting = await _brought_forward(connection, study_uid)
        covering = [r for r in waiting if r["task_name"] == RESYNC_STUDY and r["args"]["structure"] in ("", structure)]
        # What a walk asked for waits behind everything else.
        if any(row["priority"] >= 0 for row in covering):
            return "la comparaison en attente est avancée"
        await defer_resync(connection, study_uid, Cause.OPERATOR, structure=structure)
        return "l'examen sera comparé au PACS et au DMP"

    async def _give_up(self, connection: Connection, incident: Incident) -> int:
        """Cancel the work of this line that still waits; how many pieces there were."""
        study_uid, compared = incident.study_uid, of_comparison(incident)
        task = RESYNC_STUDY if compared else PUBLISH_STUDY
        wanted: dict[str, str | int] = (
            {} if compared or incident.report_id is None else {"report_id": incident.report_id}
        )
        # Whoever cancels holds the rows: the worker passes over them, and finds them gone.
        waiting = await _jobs(connection, study_uid, "todo", task, wanted)
        if await _jobs(connection, study_uid, "doing", task, wanted):
            raise ActRefused("Un essai est en cours : recommencez dans un instant", "work-running")
        if compared:
            waiting = [row for row in waiting if row["args"]["structure"] in ("", incident.structure)]
        if not waiting:
            return 0
        unknown = await (
            await connection.execute(
                "SELECT 1 FROM publication WHERE study_uid = %s AND state = 'prepared' AND sent_at IS NOT NULL "
                "AND structure IN (%s, (SELECT structure FROM report WHERE id = %s))",
                (study_uid, incident.structure, incident.report_id),
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
            if compared and not row["args"]["structure"]:
                await self._for_the_others(connection, incident, Cause(row["args"]["cause"]))
        return len(waiting)

    async def _for_the_others(self, connection: Connection, incident: Incident, cause: Cause) -> None:
        """A comparison for every structure is given up for one of them: the others still want theirs."""
        for structure in await publishers(connection, incident.study_uid):
            if structure != incident.structure:
                await defer_resync(connection, incident.study_uid, cause, structure=structure)

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
    return bool(incident.study_uid) and incident.report_id is not None and not of_comparison(incident)


def of_order(incident: Incident) -> bool:
    """Is it about the market certificate, which can be ordered again?"""
    return incident.code in (trouble.ORDER, trouble.LATE)


def of_comparison(incident: Incident) -> bool:
    """Did a comparison of the study open it, and no report?"""
    return bool(incident.study_uid) and incident.code.startswith(RESYNC)


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


async def _brought_forward(connection: Connection, study_uid: str) -> list[dict[str, Any]]:
    """The work that waits on a study, which from now on waits for no later try."""
    rows = await connection.execute(
        "UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE lock = %s AND status = 'todo' "
        "RETURNING task_name, args, priority",
        (study_lock(study_uid),),
    )
    return await rows.fetchall()


async def _jobs(
    connection: Connection, study_uid: str, status: str, task: str, args: Mapping[str, str | int]
) -> list[dict[str, Any]]:
    """The work of a task on a study, in a status, with these arguments among its own; the rows are held."""
    rows = await connection.execute(
        "SELECT id, args FROM procrastinate_jobs WHERE lock = %s AND status::text = %s AND task_name = %s "
        "AND args @> %s ORDER BY id FOR UPDATE",
        (study_lock(study_uid), status, task, Jsonb(dict(args))),
    )
    return await rows.fetchall()
