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
from drimbox.publication.incidents import WAITING, Incidents, Severity
from drimbox.publication.ports import AuditJournal, Identity, Site
from drimbox.record.audit import Actor, Event, Kind, Object, Outcome, Thing
from drimbox.reports.report import Operation, Report
from drimbox.store import jobs
from drimbox.store.database import Connection

PUBLISH_STUDY = "publish_study"
"""The task that carries one report through on one study; its arguments are ``report_id`` and ``study_uid``."""


def study_lock(study_uid: str) -> str:
    """Work on one study is done one piece at a time, in the order in which it came."""
    return f"study:{study_uid}"


@dataclass(frozen=True, slots=True)
class Case:
    """One report on one study: what the work is about. ``identity`` is who acts at the DMP."""

    report_id: int
    study_uid: str
    report: Report
    site: Site
    identity: Identity = field(default_factory=dict)


class Ledger:
    """The three places where the end of a piece of work is written."""

    def __init__(self, archive: Archive, incidents: Incidents, journal: AuditJournal, clock: Clock) -> None:
        self._archive = archive
        self._incidents = incidents
        self._journal = journal
        self._clock = clock

    @asynccontextmanager
    async def conclude(
        self, case: Case, text: str, *, documents: Sequence[str] | None, warnings: Sequence[Finding] = ()
    ) -> AsyncIterator[Connection]:
        """The report is carried through: what is written in the block, and all that follows from it, are one.

        ``documents`` are the reports that stand from now on, None when the report changes nothing to that. Incidents
        that this settles are closed with ``text``; ``warnings`` are opened, or stay so.
        """
        async with self._archive.transaction() as transaction:
            yield transaction
            await self._settle(transaction, case, text, [warning.code for warning in warnings])
            for warning in warnings:
                await self._open(transaction, case, warning.code, warning.reason, severity="warning")
            if documents is not None:
                await self._note(transaction, case, documents)

    async def stop(self, case: Case, findings: Sequence[Finding]) -> None:
        """Nothing may be published: one line for the operator, with every reason."""
        reason = " ; ".join(finding.reason for finding in findings)
        await self._end(case, findings[0].code, reason, None)

    async def fail(self, case: Case | None, report_id: int, study_uid: str, error: DrimboxError) -> None:
        """The work cannot be done, now or later: the operator must act."""
        if case is not None:
            await self._end(case, error.code, error.reason, error.peer_code)
            return
        async with self._archive.transaction() as transaction:
            await self._incidents.open(
                transaction,
                structure="",
                study_uid=study_uid,
                code=error.code,
                reason=error.reason,
                report_id=report_id,
                peer_code=error.peer_code,
            )

    async def defect(self, report_id: int, study_uid: str, place: str) -> None:
        """The program itself failed on this work, at ``place``."""
        reason = f"Défaut de la passerelle ({place}) : à signaler avec le journal technique"
        await self.fail(None, report_id, study_uid, DrimboxError(reason, code="defect"))

    async def wait(self, case: Case | None, report_id: int, study_uid: str, error: DrimboxError) -> None:
        """The work is put off: it waits in the queue, until it is carried through."""
        async with self._archive.transaction() as transaction:
            await self._incidents.open(
                transaction,
                structure=case.site.id if case else "",
                study_uid=study_uid,
                code=WAITING,
                reason=f"En attente : {error.reason}",
                severity="warning",
                report_id=report_id,
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
            Object(Thing.STUDY, case.study_uid),
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

    async def _end(self, case: Case, code: str, reason: str, peer_code: str | None) -> None:
        kind = Kind.KOS_DEPUBLISHED if case.report.operation is Operation.DELETE else Kind.KOS_PUBLISHED
        async with self._archive.transaction() as transaction:
            await self._settle(transaction, case, "Nouvel essai, autre motif", [code])
            await self._open(transaction, case, code, reason, peer_code=peer_code)
            await self.record(transaction, case, kind, failure=f"{code}: {reason}")

    async def _settle(self, transaction: Connection, case: Case, text: str, still: Sequence[str]) -> None:
        await self._incidents.settle(
            transaction,
            structure=case.site.id,
            study_uid=case.study_uid,
            report_id=case.report_id,
            documents=[d for d in (case.report.document_id, case.report.replaces) if d],
            still=still,
            text=text,
        )

    async def _open(
        self,
        transaction: Connection,
        case: Case,
        code: str,
        reason: str,
        *,
        severity: Severity = "error",
        peer_code: str | None = None,
    ) -> None:
        await self._incidents.open(
            transaction,
            structure=case.site.id,
            study_uid=case.study_uid,
            code=code,
            reason=reason,
            severity=severity,
            report_id=case.report_id,
            peer_code=peer_code,
        )

    async def _note(self, transaction: Connection, case: Case, documents: Sequence[str]) -> None:
        """Remember the report, and see to the studies that its predecessor named and it does not."""
        report = case.report
        await self._archive.note(
            transaction, case.site.id, case.study_uid, case.report_id, documents, report.document_id
        )
        if report.operation is not Operation.REPLACE or report.replaces is None:
            return
        named = report.study_uids()
        if case.study_uid not in named:
            return
        for study_uid in await self._archive.left_out(transaction, case.site.id, report.replaces, named):
            await jobs.defer(
                transaction,
                PUBLISH_STUDY,
                args={"report_id": case.report_id, "study_uid": study_uid},
                lock=study_lock(study_uid),
            )
