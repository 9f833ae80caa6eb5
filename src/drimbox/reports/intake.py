"""What happens to a message: stored with its jobs in one transaction, then acknowledged; or refused with a reason.

The acknowledgement follows the commit, never precedes it. The same message sent again gets the same answer and has one
effect. A refused message is kept too, with a line for the operator.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import LiteralString, Protocol

import psycopg

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.record.audit import INSERT, Actor, Event, Kind, Object, Thing, failed
from drimbox.reports import ack, hl7
from drimbox.reports.mllp import Frame
from drimbox.reports.order_intake import OrderIntake
from drimbox.reports.orders import ORDER
from drimbox.reports.reading import read_report
from drimbox.reports.report import Report
from drimbox.store.database import Connection, Pool, single
from drimbox.store.grouping import GroupCommit, Statement

_log = logging.getLogger(__name__)
# A refused message is kept for the operator to look at, but not without bound.
_KEPT_REFUSED = 4 * 2**20
# Reading a larger message would hold up every other task of the process.
_READ_ASIDE = 2**20

# Everything that a reception leaves, in one statement: the jobs name the report that it has just made, in the order of
# the studies. An order that declared a study deleted stands until a later report is carried through on it.
_ACCEPT: LiteralString = f"""
WITH new_message AS (
    INSERT INTO message (sender, control_id, digest, raw, answer, accepted, peer)
    VALUES (%(sender)s, %(control_id)s, %(digest)s, %(raw)s, %(answer)s, true, %(peer)s)
    RETURNING id
), new_report AS (
    INSERT INTO report (message_id, structure, document_id, operation, replaces, studies)
    SELECT id, %(structure)s, %(document_id)s, %(operation)s, %(replaces)s, %(studies)s::text[] FROM new_message
    RETURNING id
), told AS ({INSERT})
SELECT procrastinate_defer_jobs_v1(array_agg(
    ROW('default', 'publish_study', 0, 'study:' || study_uid, NULL,
        jsonb_build_object('report_id', new_report.id, 'study_uid', study_uid), NULL)::procrastinate_job_to_defer_v1
    ORDER BY place
))
FROM new_report, unnest(%(studies)s::text[]) WITH ORDINALITY AS named (study_uid, place)
"""  # noqa: S608 - put together from two constants


class IncidentOpener(Protocol):
    """Puts a line in the operator's queue, within the caller's transaction."""

    async def __call__(
        self, connection: Connection, *, code: str, reason: str, message_id: int, structure: str = ""
    ) -> None: ...


class AuditJournal(Protocol):
    """Where each reception is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...

    def row(self, event: Event) -> dict[str, object]: ...


class Intake:
    """Receives frames for one source. ``structure_of`` names the structure of a report, "" when no one knows it.

    ``orders`` takes the order messages (OMI^O23); without it they are refused as of an unknown type.
    """

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        *,
        structure_of: Callable[[Report], str],
        open_incident: IncidentOpener,
        journal: AuditJournal,
        orders: OrderIntake | None = None,
    ) -> None:
        self._pool = pool
        self._group = GroupCommit(pool)
        self._clock = clock
        self._orders = orders
        self._structure_of = structure_of
        self._open_incident = open_incident
        self._journal = journal

    async def receive(self, frame: Frame, peer: str) -> bytes:
        """The answer to one frame; never raises for what the frame holds."""
        message: hl7.Message | None = None
        try:
            message = hl7.parse(frame.content)
            if self._orders is not None and message.type[0] == ORDER:
                return await self._orders.receive(message, frame, peer)
            if not frame.whole:
                raise hl7.MessageError("Message trop long", code="hl7-size", condition="207", location="MSH^1")
            return await self._take(message, frame.content, peer)
        except hl7.MessageError as error:
            return await self._refuse(message, frame.content, peer, error)
        except psycopg.Error as error:
            _log.error("message not stored: %s", type(error).__name__)
            return ack.answer(message, ack.Code.REJECTED, self._clock.now(), _TRY_AGAIN)

    async def _take(self, message: hl7.Message, raw: bytes, peer: str) -> bytes:
        digest = hashlib.sha256(raw).digest()
        try:
            report = await _read(message, len(raw))
        except hl7.MessageError:
            # What was accepted once stays so, whatever we have learnt to refuse since.
            if (earlier := await self._earlier(message, digest)) is not None:
                return earlier
            raise
        reply = ack.answer(message, ack.Code.ACCEPTED, self._clock.now())
        try:
            await self._store(message, raw, digest, reply, report, peer)
        except psycopg.errors.UniqueViolation:
            earlier = await self._earlier(message, digest)
            if earlier is None:
                raise
            return earlier
        return reply

    async def _earlier(self, message: hl7.Message, digest: bytes) -> bytes | None:
        async with single(self._pool) as connection:
            row = await (
                await connection.execute(
                    "SELECT digest, answer FROM message WHERE sender = %s AND control_id = %s AND accepted",
                    (message.sender, message.control_id),
                )
            ).fetchone()
        if row is None:
            return None
        if row["digest"] != digest:
            raise hl7.MessageError(
                "Identifiant de message déjà utilisé pour un autre contenu",
                code="hl7-duplicate",
                condition="205",
                location="MSH^1^10",
            )
        return bytes(row["answer"])

    async def _store(
        self, message: hl7.Message, raw: bytes, digest: bytes, reply: bytes, report: Report, peer: str
    ) -> None:
        """Message, report, jobs and journal, committed together with those of other messages that come just now."""
        structure = self._structure_of(report)
        values = self._journal.row(_received(message, report, structure, peer)) | {
            "sender": message.sender,
            "control_id": message.control_id,
            "digest": digest,
            "raw": raw,
            "answer": reply,
            "peer": peer,
            "structure": structure,
            "document_id": report.document_id,
            "operation": report.operation.value,
            "replaces": report.replaces or "",
            "studies": list(report.study_uids()),
        }
        await self._group.run(Statement(_ACCEPT, values, len(raw)))

    async def _refuse(self, message: hl7.Message | None, raw: bytes, peer: str, error: hl7.MessageError) -> bytes:
        reply = ack.answer(message, ack.Code.ERROR, self._clock.now(), error)
        kept = raw[:_KEPT_REFUSED]
        try:
            async with self._pool.connection() as connection, connection.transaction():
                message_id = await _insert_message(
                    connection, message, kept, hashlib.sha256(raw).digest(), reply, peer, accepted=False
                )
                await self._open_incident(connection, code=error.code, reason=error.reason, message_id=message_id)
                await self._journal.write(connection, failed(_event(message, peer), error))
        except psycopg.Error as failure:
            # Nothing could be noted: the sender must not believe that the matter is closed.
            _log.error("refusal not stored: %s", type(failure).__name__)
            return ack.answer(message, ack.Code.REJECTED, self._clock.now(), _TRY_AGAIN)
        _log.warning("message refused: %s", error.code, extra={"peer": peer})
        return reply


_TRY_AGAIN = hl7.MessageError("Service momentanément indisponible, renvoyer le message", code="store", condition="207")


async def _read(message: hl7.Message, size: int) -> Report:
    return read_report(message) if size <= _READ_ASIDE else await asyncio.to_thread(read_report, message)


def _event(message: hl7.Message | None, peer: str) -> Event:
    """The reception of a message, as the journal tells it (DB.SO.43): RAD-128 for an ORU, CARD-7 for an MDM."""
    if message is None:
        return Event(Kind.REPORT_RECEIVED, Actor(address=peer))
    kind = Kind.MDM_RECEIVED if message.type[0] == "MDM" else Kind.REPORT_RECEIVED
    return Event(kind, Actor(system=message.sender, address=peer), (Object(Thing.MESSAGE, message.control_id),))


def _received(message: hl7.Message, report: Report, structure: str, peer: str) -> Event:
    event = _event(message, peer)
    documents = (Object(Thing.DOCUMENT, report.document_id, report.operation.value),)
    studies = tuple(Object(Thing.STUDY, uid) for uid in report.study_uids())
    return replace(event, objects=event.objects + documents + studies, structure=structure, patient=report.patient.ins)


async def _insert_message(
    connection: Connection,
    message: hl7.Message | None,
    raw: bytes,
    digest: bytes,
    reply: bytes,
    peer: str,
    *,
    accepted: bool,
) -> int:
    sender = message.sender if message else ""
    control_id = message.control_id if message else ""
    row = await (
        await connection.execute(
            "INSERT INTO message (sender, control_id, digest, raw, answer, accepted, peer) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (sender, control_id, digest, raw, reply, accepted, peer),
        )
    ).fetchone()
    assert row is not None
    return int(row["id"])


class StoredReports:
    """The reports of accepted messages, read again from the messages themselves."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, report_id: int) -> Report:
        """Raises ``Refused`` (``report-unknown``) when there is no such report."""
        async with single(self._pool) as connection:
            row = await (
                await connection.execute(
                    "SELECT raw FROM message JOIN report ON report.message_id = message.id WHERE report.id = %s",
                    (report_id,),
                    binary=True,
                )
            ).fetchone()
        if row is None:
            raise Refused("Compte rendu inconnu", code="report-unknown")
        raw = bytes(row["raw"])
        return await _read(hl7.parse(raw), len(raw))
