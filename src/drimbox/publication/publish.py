"""What is done when a report about a study was accepted: ask the PACS, check, decide, publish, archive.

The work can be cut at any point and taken up again (``transmit`` says how).
"""

from __future__ import annotations

from dataclasses import replace

from drimbox.foundation.errors import Misconfigured, OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.publication.changed import Said, has_images
from drimbox.publication.checks import Finding, Severity, check, check_identity
from drimbox.publication.decide import (
    Depublish,
    Move,
    Nothing,
    Stop,
    Why,
    comes_late,
    decide_by_message,
    decide_by_study,
    documents_after,
    outlived,
    taken_away,
)
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ledger import Case, Subject
from drimbox.publication.services import Services
from drimbox.publication.transmit import case_of, delete, settle_pending, take_away, withdrawal
from drimbox.publication.triggers import Cause
from drimbox.publication.version import MOVED, Outcome, look_up, next_version, nothing
from drimbox.record.audit import Kind

__all__ = ["Outcome", "publish_study"]

_REJECTED = Finding(
    "study-rejected", Severity.BLOCKING, "Toutes les images de l'examen ont été rejetées (note de rejet du PACS)"
)


async def publish_study(services: Services, report_id: int, study_uid: str) -> Outcome:
    """Carry one report through on one study.

    Raises ``Unavailable`` and ``OutcomeUnknown``, for the work to be taken up again later; it waits in the operator's
    queue meanwhile. Every other failure ends in the operator's queue, and the work is over.
    """
    about: Case | Subject = Subject(study_uid, report_id)
    try:
        about = case = await case_of(services, report_id, study_uid)
        identity = services.registry.identity(case.site, case.report, services.clock.now())
        return await _carry_out(services, replace(case, identity=identity), report_id)
    except (Unavailable, OutcomeUnknown) as error:
        await services.ledger.wait(about, error)
        raise
    except (Refused, Rejected, Misconfigured) as error:
        await services.ledger.fail(about, error)
        return Outcome.STOPPED


async def _carry_out(services: Services, case: Case, report_id: int) -> Outcome:
    study_uid = case.study_uid
    await settle_pending(services, case.site, case.study_uid)
    current = await services.archive.current(case.study_uid, case.site.id)
    history = await services.archive.history(case.site.id, case.study_uid, taken_away(case.report))
    said = await services.changes.of(case.study_uid, since_report=report_id)
    gone = await withdrawal(services, said)
    withdrawn = gone is not None and gone.is_of(case.report.patient.ins)
    match decide_by_message(case.report, report_id, case.study_uid, current, history, withdrawn=withdrawn):
        case Nothing(why):
            again = None
            if why is Why.OTHER_REPORT and current is not None:
                # An older report stands, and may be what the KOS must say from now on.
                again = Cause.REPORT if outlived(case.report, report_id, study_uid, current, history) else None
            return await nothing(services, case, history, why, again=again)
        case Stop(findings):
            await services.ledger.stop(case, findings)
            return Outcome.STOPPED
        case Depublish(kos):
            return await _depublish(services, case, kos, documents_after(case.report, report_id, study_uid, history))
    late = comes_late(case.report, report_id, study_uid, history)
    return await _publish(services, case, current, history, said, late=late)


async def _depublish(services: Services, case: Case, kos: ArchivedKos, documents: tuple[str, ...]) -> Outcome:
    await delete(services, case, kos)
    async with services.ledger.conclude(case, "Dépublié", documents=documents) as transaction:
        await services.archive.end(transaction, kos.id, State.DEPUBLISHED, services.clock.now())
        await services.ledger.record(transaction, case, Kind.KOS_DEPUBLISHED, kos_uid=kos.kos_uid, ins=kos.ins)
    return Outcome.DEPUBLISHED


async def _publish(
    services: Services, case: Case, current: ArchivedKos | None, history: History, said: Said, *, late: bool
) -> Outcome:
    """``late``: the report stands if it passes the checks, but a newer one says what the KOS holds."""
    rules, report = services.rules, case.report
    incoherent = [f for f in check_identity(report, ins_range=rules.ins_range) if f.severity is Severity.BLOCKING]
    if incoherent:
        await services.ledger.stop(case, incoherent)
        return Outcome.STOPPED
    found = await look_up(services, case, said)
    findings = (
        check(report, found.study, match_patient_name=rules.match_patient_name, ins_range=rules.ins_range)
        if found
        else ()
    )
    if found and (said.out or found.rejected) and not has_images(found.study):
        findings = (*(f for f in findings if f.code != "study-empty"), _REJECTED)
    decision = decide_by_study(report, found.study if found else None, findings, current)
    if isinstance(decision, Stop):
        await services.ledger.stop(case, decision.findings)
        return Outcome.STOPPED
    assert found is not None
    if late:
        return await nothing(services, case, history, Why.LATE)
    if isinstance(decision, Move):
        await take_away(services, case, decision.current)
        current = None
        findings = (*findings, MOVED)
    warnings = [f for f in (*findings, *found.findings) if f.severity is Severity.WARNING]
    return await next_version(services, case, found, current, history, warnings)
