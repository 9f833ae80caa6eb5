"""Writes down how the work on a study ended: archive, operator's queue and journal, in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.identity.ins import Ins
from drimbox.publication.archive import Archive
from drimbox.publication.checks import Finding
from drimbox.publication.decide import taken_away
from drimbox.publication.incidents import RESYNC, WAITING, Incidents, Severity
from drimbox.publication.ports import AuditJournal, Identity, Site
from drimbox.publication.triggers import Cause, study_lock
from drimbox.record.audit import Actor, Event, Kind, Object, Outcome, Thing
from drimbox.reports.report import Operation, Report
from drimbox.store import jobs
from drimbox.store.database import Connection

__all__ = ["PUBLISH_STUDY", "Case", "Ledger", "Subject", "study_lock"]

PUBLISH_STUDY = "publish_study"
"""The task that carries one report through on one study; its arguments are ``report_id`` and ``study_uid``."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a piece of work is about, as far as it is known before anything was read.

    Either a report (``report_id``; ``structure`` is not known yet), or another ``cause`` with a structure.
    """

    study_uid: str
    report_id: int | None = None
    structure: str = ""
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One report on one study: what the work is about. ``identity`` is who acts at the DMP.

    With a ``cause``, nothing new was reported: the report is the one that stands, ``report_id`` None when it was made
    again from an imported version.
    """

    report_id: int | None
    study_uid: str
    report: Report
    site: Site
    identity: Identity = field(default_factory=dict)
    cause: Cause | None = None

    @property
    def subject(self) -> Subject:
        return Subject(self.study_uid, self.report_id, self.site.id, self.cause)


class Ledger:
    """The three places where the end of a piece of work is written."""

    def __init__(self, archive: Archive, incidents: Incidents, journal: AuditJournal, clock: Clock) -> None:
        self._archive = archive
        self._incidents = incidents
        self._journal = journal
        self._clock = clock

    @asynccontextmanager
    async def conclude(
        self,
        case: Case,
        text: str,
        *,
        documents: Sequence[str] | None,
        warnings: Sequence[Finding] = (),
        still: Sequence[str] = (),
        compared: bool = True,
    ) -> AsyncIterator[Connection]:
        """The work is carried through: what is written in the block, and all that follows from it, are one.

        ``documents`` are the reports that stand from now on, None when the work changes nothing to that. Incidents
        that this settles are closed with ``text``, but those of the codes ``still``; ``warnings`` are opened, or stay
        so. ``compared``: the study was looked at, which settles what an earlier comparison left open.
        """
        async with self._archive.transaction() as transaction:
            yield transaction
            lasting = [*still, *(warning.code for warning in warnings)]
            await self._settle(transaction, case, text, lasting, compared=compared)
            for warning in warnings:
                await self._open(transaction, case.subject, warning.code, warning.reason, severity="warning")
            if documents is not None:
                await self._note(transaction, case, documents)

    async def over(self, subject: Subject, text: str) -> None:
        """A comparison found nothing to look after: what an earlier one left open is settled."""
        async with self._archive.transaction() as transaction:
            await self._incidents.settle(
                transaction,
                structure=subject.structure,
                study_uid=subject.study_uid,
                report_id=None,
                documents=(),
                still=(),
                text=text,
                resynced=True,
            )

    async def stopped(self, subject: Subject) -> tuple[int, ...]:
        """The reports that the operator's queue holds, oldest first."""
        return await self._incidents.stopped(subject.structure, subject.study_uid)

    async def stop(self, case: Case, findings: Sequence[Finding]) -> None:
        """Nothing may be published: one line for the operator, with every reason."""
        reason = " ; ".join(finding.reason for finding in findings)
        await self._end(case, DrimboxError(reason, code=findings[0].code))

    async def fail(self, about: Case | Subject, error: DrimboxError) -> None:
        """The work cannot be done, now or later: the operator must act."""
        if isinstance(about, Case):
            await self._end(about, error)
            return
        async with self._archive.transaction() as transaction:
            await self._open(transaction, about, _code(about, error.code), error.reason, peer_code=error.peer_code)

    async def defect(self, subject: Subject, place: str) -> None:
        """The program itself failed on this work, at ``place``."""
        reason = f"Défaut de la passerelle ({place}) : à signaler avec le journal technique"
        await self.fail(subject, DrimboxError(reason, code="defect"))

    async def wait(self, about: Case | Subject, error: DrimboxError) -> None:
        """The work is put off: it waits in the queue, until it is carried through."""
        subject = about.subject if isinstance(about, Case) else about
        async with self._archive.transaction() as transaction:
            await self._open(
                transaction,
                subject,
                _code(subject, WAITING),
                f"En attente : {error.reason}",
                severity="warning",
                peer_code=error.peer_code,
            )

    async def record(
        self,
        transaction: Connection,
        case: Case,
        kind: Kind,
        *,
        kos_uid: str = "",
        ins: Ins | None = None,
        failure: str = "",
    ) -> None:
        """A line in the journal (DB.SO.44); ``failure`` is EventOutcomeDescription (DB.SO.45)."""
        person = case.report.sender.person or case.report.signatory
        objects = [
            Object(Thing.STUDY, case.study_uid, f"resync: {case.cause.value}" if case.cause else ""),
            Object(Thing.DOCUMENT, case.report.document_id),
            *([Object(Thing.KOS, kos_uid)] if kos_uid else []),
        ]
        event = Event(
            kind=kind,
            actor=Actor(
                person=person.identifier,
                name=f"{person.given} {person.family}".strip(),
                structure=case.site.structure.identifier,
                system=case.report.sender.application,
            ),
            objects=tuple(objects),
            outcome=Outcome.SERIOUS_FAILURE if failure else Outcome.SUCCESS,
            outcome_text=failure,
            structure=case.site.id,
            patient=ins or case.report.patient.ins,
        )
        await self._journal.write(transaction, event)

    async def _end(self, case: Case, error: DrimboxError) -> None:
        deletes = case.cause is Cause.ORDER_DELETED or (
            case.cause is None and case.report.operation is Operation.DELETE
        )
        kind = Kind.KOS_DEPUBLISHED if deletes else Kind.KOS_PUBLISHED
        code = _code(case, error.code)
        async with self._archive.transaction() as transaction:
            await self._settle(transaction, case, "Nouvel essai, autre motif", [code], compared=case.cause is not None)
            await self._open(transaction, case.subject, code, error.reason, peer_code=error.peer_code)
            await self.record(transaction, case, kind, failure=f"{error.code}: {error.reason}")

    async def _settle(
        self, transaction: Connection, case: Case, text: str, still: Sequence[str], *, compared: bool
    ) -> None:
        """A comparison settles what comparisons left open, and nothing that a report left to a human."""
        reported = case.cause is None
        await self._incidents.settle(
            transaction,
            structure=case.site.id,
            study_uid=case.study_uid,
            report_id=case.report_id if reported else None,
            documents=[d for d in (case.report.document_id, case.report.replaces) if d] if reported else [],
            still=still,
            text=text,
            resynced=compared,
        )

    async def _open(
        self,
        transaction: Connection,
        subject: Subject,
        code: str,
        reason: str,
        *,
        severity: Severity = "error",
        peer_code: str | None = None,
    ) -> None:
        await self._incidents.open(
            transaction,
            structure=subject.structure,
            study_uid=subject.study_uid,
            code=code,
            reason=reason,
            severity=severity,
            report_id=subject.report_id,
            peer_code=peer_code,
        )

    async def _note(self, transaction: Connection, case: Case, documents: Sequence[str]) -> None:
        """Remember the report, and see to the studies that its predecessor named and it does not."""
        report, structure, ended = case.report, case.site.id, taken_away(case.report)
        assert case.report_id is not None
        gone = {ended, *await self._archive.before(transaction, structure, ended)} if ended else set()
        await self._archive.note(
            transaction, structure, case.study_uid, case.report_id, documents, report.document_id, gone=gone
        )
        if report.operation is not Operation.REPLACE or not gone:
            return
        named = report.study_uids()
        if case.study_uid not in named:
            return
        for study_uid in await self._archive.left_out(transaction, structure, gone, named):
            await jobs.defer(
                transaction,
                PUBLISH_STUDY,
                args={"report_id": case.report_id, "study_uid": study_uid},
                lock=study_lock(study_uid),
            )


def _code(about: Case | Subject, code: str) -> str:
    """What a comparison met has lines of its own: a report's line leads to the report, and awaits its own end."""
    return f"{RESYNC}{code}" if about.cause is not None else code
