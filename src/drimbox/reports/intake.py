"""What happens to a message: stored with its jobs in one transaction, then acknowledged; or refused with a reason.

The acknowledgement follows the commit, never precedes it. The same message sent again gets the same answer and has one
effect. A refused message is kept too, with a line for the operator.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import psycopg

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed
from drimbox.reports import ack, hl7
from drimbox.reports.mllp import Frame
from drimbox.reports.reading import read_report
from drimbox.reports.report import Report
from drimbox.store import jobs
from drimbox.store.database import Connection, Pool

_log = logging.getLogger(__name__)
# A refused message is kept for the operator to look at, but not without bound.
_KEPT_REFUSED = 4 * 2**20


class IncidentOpener(Protocol):
    """Puts a line in the operator's queue, within the caller's transaction."""

    async def __call__(
        self, connection: Connection, *, code: str, reason: str, message_id: int, structure: str = ""
    ) -> None: ...


class AuditJournal(Protocol):
    """Where each reception is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


class Intake:
    """Receives frames for one source. ``structure_of`` names the structure of a report, "" when no one knows it."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        *,
        structure_of: Callable[[Report], str],
        open_incident: IncidentOpener,
        journal: AuditJournal,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._structure_of = structure_of
        self._open_incident = open_incident
        self._journal = journal

    async def receive(self, frame: Frame, peer: str) -> bytes:
        """The answer to one frame; never raises for what the frame holds."""
        message: hl7.Message | None = None
        try:
            message = hl7.parse(frame.content)
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
        if message.control_id and (earlier := await self._earlier(message, digest)) is not None:
            return earlier
        report = read_report(message)
        reply = ack.answer(message, ack.Code.ACCEPTED, self._clock.now())
        try:
            await self._store(message, raw, digest, reply, report, peer)
        except psycopg.errors.UniqueViolation:
            # The same message came in by two connections at once; the other one was first.
            earlier = await self._earlier(message, digest)
            if earlier is None:
                raise
            return earlier
        return reply

    async def _earlier(self, message: hl7.Message, digest: bytes) -> bytes | None:
        async with self._pool.connection() as connection:
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
        structure = self._structure_of(report)
        async with self._pool.connection() as connection, connection.transaction():
            message_id = await _insert_message(connection, message, raw, digest, reply, peer, accepted=True)
            row = await (
                await connection.execute(
                    "INSERT INTO report (message_id, structure, document_id, operation) "
                    "VALUES (%s, %s, %s, %s) RETURNING id",
                    (message_id, structure, report.document_id, report.operation.value),
                )
            ).fetchone()
            assert row is not None
            report_id = int(row["id"])
            for study_uid in report.study_uids():
                await jobs.defer(
                    connection,
                    "publish_study",
                    args={"report_id": report_id, "study_uid": study_uid},
                    lock=f"study:{study_uid}",
                )
            await self._journal.write(connection, _received(message, report, structure, peer))

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
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT raw FROM message JOIN report ON report.message_id = message.id WHERE report.id = %s",
                    (report_id,),
                )
            ).fetchone()
        if row is None:
            raise Refused("Compte rendu inconnu", code="report-unknown")
        return read_report(hl7.parse(bytes(row["raw"])))
