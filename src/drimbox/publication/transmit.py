"""The exchanges with the DMP about one study, each in an order that survives a cut at any point.

A version is stored before it is sent. Once it may have left, the DMP is asked whether it arrived before anything is
sent again, and then the very same octets are sent: the DMP knows them by their uniqueId.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from drimbox.foundation.errors import DrimboxError, Misconfigured, Refused, Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.publication.archive import NewVersion
from drimbox.publication.changed import Said, Withdrawal
from drimbox.publication.checks import Finding, Severity
from drimbox.publication.decide import documents_after, taken_away
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ledger import Case
from drimbox.publication.ports import AlreadyRegistered, Entry, Received, Site, Submission
from drimbox.publication.services import Services
from drimbox.publication.triggers import Cause
from drimbox.record.audit import Kind
from drimbox.reports.report import Report

_log = logging.getLogger(__name__)

_PARTIAL = Finding("dmp-partial", Severity.WARNING, "Le DMP a enregistré le KOS mais pas tout le lot de soumission")


async def case_of(services: Services, report_id: int, study_uid: str) -> Case:
    """A report with the structure that publishes it.

    Raises ``Misconfigured``: ``structure-unknown``, ``structure-ambiguous``, or ``sender-unknown`` for a RIS that may
    not send for it.
    """
    report = await services.reports.load(report_id)
    site = services.sites.publisher(report)
    if site.senders and report.sender.application not in site.senders:
        raise Misconfigured(
            "Le RIS émetteur (MSH-3) n'est pas un de ceux qui envoient pour cette structure", code="sender-unknown"
        )
    return Case(report_id, study_uid, report, site)


async def report_behind(services: Services, site: Site, kos: ArchivedKos) -> Report:
    """The report that a version was made from; of an imported version, what it says itself (``Services.recollect``).

    Raises ``Refused`` when it cannot be read.
    """
    if kos.report_id is not None:
        return await services.reports.load(kos.report_id)
    return await asyncio.to_thread(services.recollect, kos, site.structure)


async def withdrawal(services: Services, said: Said) -> Withdrawal | None:
    """The deletion that was declared of a study (OMI^O23), with the patient that the message named; None: none was.

    Raises ``Refused`` when the message cannot be read again.
    """
    if not said.withdrawn:
        return None
    if not said.withdrawn_by:
        return Withdrawal()
    return Withdrawal((await services.orders.load(said.withdrawn_by)).ins)


async def settle_pending(services: Services, site: Site, study_uid: str) -> None:
    """Bring to its end a version that an earlier run may have sent: ask first, send again only what is not there."""
    await services.archive.discard_unsent(site.id, study_uid)
    pending = await services.archive.pending(site.id, study_uid)
    if pending is None:
        return
    submission = Submission(pending.submission_uid, pending.metadata, pending.signature, pending.vihf_identity)
    if await services.registry.find(site, pending.ins, pending.vihf_identity, pending.kos_uid) is None:
        try:
            await services.registry.provide(site, pending.ins, pending.kos, submission)
        except AlreadyRegistered:
            # It was on its way while we asked.
            _log.info("submission arrived meanwhile", extra={"study": study_uid})
        except Rejected as error:
            # What it was to replace may have changed since: it is made anew from what holds now.
            _log.warning("pending submission refused: %s", error.code, extra={"study": study_uid})
            await _abandoned(services, pending.id)
            return
    report = await report_behind(services, site, pending)
    owner = Case(
        pending.report_id,
        study_uid,
        report,
        site,
        pending.vihf_identity,
        Cause(pending.cause) if pending.cause else None,
    )
    history = await services.archive.history(site.id, study_uid, taken_away(report))
    await confirm(services, owner, history, pending.id, pending.kos_uid, pending.ins)


async def send(
    services: Services, case: Case, history: History, version: NewVersion, warnings: Sequence[Finding]
) -> None:
    """Store, send, confirm. What is not known to have failed stays pending, and is asked about next time."""
    archive, registry = services.archive, services.registry
    version_id = await archive.to_send(version, services.clock.now())
    received = Received()
    try:
        received = await registry.provide(case.site, version.ins, version.kos, version.submission)
    except AlreadyRegistered:
        _log.info("submission registered at its first sending", extra={"study": case.study_uid})
    except (Unavailable, Refused, Misconfigured):
        await archive.not_sent(version_id)
        raise
    except Rejected:
        await _abandoned(services, version_id)
        raise
    if received.partial:
        # The DMP took it, who knows how far: when it does not tell now, it is asked next time.
        if await registry.find(case.site, version.ins, case.identity, version.kos_uid) is None:
            await _abandoned(services, version_id)
            codes = ", ".join(received.peer_codes)
            raise Rejected("Le DMP n'a pas enregistré le KOS", code="dmp-partial", peer_code=codes)
        warnings = [*warnings, _PARTIAL]
    await confirm(services, case, history, version_id, version.kos_uid, version.ins, warnings)


async def _abandoned(services: Services, version_id: int) -> None:
    async with services.archive.transaction() as transaction:
        await services.archive.end(transaction, version_id, State.ABANDONED, services.clock.now())


async def confirm(
    services: Services,
    case: Case,
    history: History,
    version_id: int,
    kos_uid: str,
    ins: Ins,
    warnings: Sequence[Finding] = (),
) -> None:
    """The version is in the DMP. Its entryUUID is for the archive: it is looked up again before each use (D.6)."""
    documents = None
    if case.cause is None and case.report_id is not None:
        documents = documents_after(case.report, case.report_id, case.study_uid, history)
    async with services.ledger.conclude(case, "Publié", documents=documents, warnings=warnings) as transaction:
        await services.archive.confirm(transaction, version_id, services.clock.now())
        await services.ledger.record(transaction, case, Kind.KOS_PUBLISHED, kos_uid=kos_uid, ins=ins)
    _log.info("KOS published", extra={"study": case.study_uid, "kos": kos_uid})
    try:
        entry = await services.registry.find(case.site, ins, case.identity, kos_uid)
    except DrimboxError as error:
        _log.warning("entryUUID not known yet: %s", error.code, extra={"study": case.study_uid})
        return
    if entry is not None:
        await services.archive.set_entry_uuid(version_id, entry.entry_uuid)


async def standing(services: Services, case: Case, current: ArchivedKos) -> Entry | None:
    """The current version as the DMP has it now, its entryUUID looked up; None when it is no longer there."""
    entry = await services.registry.inspect(case.site, current.ins, case.identity, current.kos_uid)
    return entry if entry is not None and entry.standing else None


async def delete(services: Services, case: Case, kos: ArchivedKos) -> Entry | None:
    """Take a version out of the DMP, if it is still there: an earlier try may have done it unknown to us.

    Gives back what the DMP had, None when it was no longer there.
    """
    entry = await standing(services, case, kos)
    if entry is None:
        return None
    try:
        await services.registry.delete(case.site, kos.ins, case.identity, entry, case.report)
    except Rejected:
        if await standing(services, case, kos) is not None:
            raise
    return entry


async def take_away(services: Services, case: Case, kos: ArchivedKos) -> None:
    """The KOS stands in another patient's record: it is taken out there first, in a step of its own."""
    await delete(services, case, kos)
    async with services.archive.transaction() as transaction:
        await services.archive.end(transaction, kos.id, State.DEPUBLISHED, services.clock.now())
        await services.ledger.record(transaction, case, Kind.KOS_DEPUBLISHED, kos_uid=kos.kos_uid, ins=kos.ins)
