"""The exchanges with the DMP about one study, each in an order that survives a cut at any point.

A version is stored before it is sent. Once it may have left, the DMP is asked whether it arrived before anything is
sent again, and then the very same octets are sent: the DMP knows them by their uniqueId.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from drimbox.foundation.errors import DrimboxError, Misconfigured, Refused, Rejected, Unavailable
from drimbox.publication.archive import NewVersion
from drimbox.publication.checks import Finding, Severity
from drimbox.publication.decide import documents_after
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ledger import Case
from drimbox.publication.ports import AlreadyRegistered, Entry, Submission
from drimbox.publication.services import Services
from drimbox.record.audit import Kind

_log = logging.getLogger(__name__)

_PARTIAL = Finding("dmp-partial", Severity.WARNING, "Le DMP a enregistré le KOS mais pas tout le lot de soumission")


async def case_of(services: Services, report_id: int, study_uid: str) -> Case:
    """A report with the structure that publishes it.

    Raises ``Misconfigured``: ``structure-unknown``, or ``sender-unknown`` for a RIS that may not send for it.
    """
    report = await services.reports.load(report_id)
    site = services.sites.of(report)
    if site is None:
        raise Misconfigured(
            "La structure du compte rendu n'est pas une de celles que sert la passerelle", code="structure-unknown"
        )
    if site.senders and report.sender.application not in site.senders:
        raise Misconfigured(
            "Le RIS émetteur (MSH-3) n'est pas un de ceux qui envoient pour cette structure", code="sender-unknown"
        )
    return Case(report_id, study_uid, report, site)


async def settle_pending(services: Services, case: Case) -> None:
    """Bring to its end a version that an earlier run may have sent: ask first, send again only what is not there."""
    await services.archive.discard_unsent(case.site.id, case.study_uid)
    pending = await services.archive.pending(case.site.id, case.study_uid)
    if pending is None:
        return
    submission = Submission(pending.submission_uid, pending.metadata, pending.signature, pending.vihf_identity)
    if await services.registry.find(case.site, pending.ins, pending.vihf_identity, pending.kos_uid) is None:
        try:
            await services.registry.provide(case.site, pending.ins, pending.kos, submission)
        except AlreadyRegistered:
            # It was on its way while we asked.
            _log.info("submission arrived meanwhile", extra={"study": case.study_uid})
        except Rejected as error:
            # What it was to replace may have changed since: it is made anew from what holds now.
            _log.warning("pending submission refused: %s", error.code, extra={"study": case.study_uid})
            async with services.archive.transaction() as transaction:
                await services.archive.end(transaction, pending.id, State.ABANDONED, services.clock.now())
            return
    owner = case
    if pending.report_id is not None and pending.report_id != case.report_id:
        owner = await case_of(services, pending.report_id, case.study_uid)
    owner = replace(owner, identity=pending.vihf_identity)
    history = await services.archive.history(case.site.id, case.study_uid)
    await confirm(services, owner, history, pending.id, pending.kos_uid)


async def send(
    services: Services, case: Case, history: History, version: NewVersion, warnings: Sequence[Finding]
) -> None:
    """Store, send, confirm. What is not known to have failed stays pending, and is asked about next time."""
    archive, registry = services.archive, services.registry
    async with archive.transaction() as transaction:
        version_id = await archive.prepare(transaction, version, services.clock.now())
    await archive.sending(version_id, services.clock.now())
    try:
        received = await registry.provide(case.site, version.ins, version.kos, version.submission)
        if received.partial:
            if await registry.find(case.site, version.ins, case.identity, version.kos_uid) is None:
                raise Rejected(
                    "Le DMP n'a pas enregistré le KOS", code="dmp-partial", peer_code=", ".join(received.peer_codes)
                )
            warnings = [*warnings, _PARTIAL]
    except AlreadyRegistered:
        _log.info("submission registered at its first sending", extra={"study": case.study_uid})
    except (Unavailable, Refused, Misconfigured):
        await archive.not_sent(version_id)
        raise
    except Rejected:
        async with archive.transaction() as transaction:
            await archive.end(transaction, version_id, State.ABANDONED, services.clock.now())
        raise
    await confirm(services, case, history, version_id, version.kos_uid, warnings)


async def confirm(
    services: Services, case: Case, history: History, version_id: int, kos_uid: str, warnings: Sequence[Finding] = ()
) -> None:
    """The version is in the DMP. Its entryUUID is for the archive: it is looked up again before each use (D.6)."""
    documents = documents_after(case.report, case.study_uid, history.documents)
    async with services.ledger.conclude(case, "Publié", documents=documents, warnings=warnings) as transaction:
        await services.archive.confirm(transaction, version_id, services.clock.now())
        await services.ledger.record(transaction, case, Kind.KOS_PUBLISHED, kos_uid=kos_uid)
    _log.info("KOS published", extra={"study": case.study_uid, "kos": kos_uid})
    try:
        entry = await services.registry.find(case.site, case.report.patient.ins, case.identity, kos_uid)
    except DrimboxError as error:
        _log.warning("entryUUID not known yet: %s", error.code, extra={"study": case.study_uid})
        return
    if entry is not None:
        await services.archive.set_entry_uuid(version_id, entry.entry_uuid)


async def standing(services: Services, case: Case, current: ArchivedKos) -> Entry | None:
    """The current version as the DMP has it now, its entryUUID looked up; None when it is no longer there."""
    entry = await services.registry.inspect(case.site, current.ins, case.identity, current.kos_uid)
    return entry if entry is not None and entry.standing else None


async def delete(services: Services, case: Case, kos: ArchivedKos) -> None:
    """Take a version out of the DMP, if it is still there: an earlier try may have done it unknown to us."""
    entry = await standing(services, case, kos)
    if entry is None:
        return
    try:
        await services.registry.delete(case.site, kos.ins, case.identity, entry, case.report)
    except Rejected:
        if await standing(services, case, kos) is not None:
            raise


async def take_away(services: Services, case: Case, kos: ArchivedKos) -> None:
    """The KOS stands in another patient's record: it is taken out there first, in a step of its own."""
    await delete(services, case, kos)
    async with services.archive.transaction() as transaction:
        await services.archive.end(transaction, kos.id, State.DEPUBLISHED, services.clock.now())
        await services.ledger.record(transaction, case, Kind.KOS_DEPUBLISHED, kos_uid=kos.kos_uid, ins=kos.ins)
