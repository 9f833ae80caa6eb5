"""What is done when something else than a report speaks of a study: compare it with PACS and DMP, and set it right.

A note of the PACS, an order, the operator, a walk (``triggers.Cause``). Who acts at the DMP is told by the archived
submission (ans-faq.md 3.2); what the KOS says, by the newest report that stands and by the PACS. Nothing here makes a
report stand or fall. The same study twice, before its report, or in any order with reports: what holds now is looked
at each time, never what the trigger was thought to mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from drimbox.foundation.errors import (
    DrimboxError,
    Misconfigured,
    OutcomeUnknown,
    Refused,
    Rejected,
    Unavailable,
)
from drimbox.publication.changed import Said, has_images
from drimbox.publication.checks import Finding, Severity, check
from drimbox.publication.decide import Depublish, Move, Nothing, Stop, Why, same_visibility
from drimbox.publication.finding import Found
from drimbox.publication.incidents import RESYNC
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ledger import Case, Subject
from drimbox.publication.ports import Site
from drimbox.publication.publish import publish_study
from drimbox.publication.reconsider import decide_by_pacs, decide_by_record
from drimbox.publication.services import Services
from drimbox.publication.transmit import delete, report_behind, settle_pending, take_away, withdrawal
from drimbox.publication.triggers import Cause
from drimbox.publication.version import MOVED, Outcome, look_up, next_version, nothing
from drimbox.record.audit import Kind
from drimbox.reports.report import Report, Visibility

# People and walks want to know what the DMP holds; a note or an order only that the PACS changed.
_ASKS_DMP = (Cause.OPERATOR, Cause.RECONCILIATION)
# Nobody meant the study to leave: the operator is told that it did.
_UNMEANT = (Cause.OPERATOR, Cause.RECONCILIATION, Cause.ADDRESS, Cause.REPORT)
_LEAVES_REPORTS = (Cause.ADDRESS, Cause.ORDER_DELETED, Cause.REPORT)
_WEIGHT = (Outcome.STOPPED, Outcome.PUBLISHED, Outcome.DEPUBLISHED, Outcome.NOTHING)

_LEFT = Finding(
    f"{RESYNC}study-gone",
    Severity.WARNING,
    "Aucun PACS n'a plus d'image de l'examen : son KOS a été retiré du DMP ; il y reviendra avec les images",
)
_OTHER_PATIENT = Finding(
    "order-patient",
    Severity.BLOCKING,
    "Le message qui déclare l'examen supprimé désigne un autre patient : le KOS est laissé au DMP",
)


@dataclass(frozen=True, slots=True)
class _Standing:
    """A study as the box knows it: the version in the DMP, the newest that was there, what the messages said."""

    current: ArchivedKos | None
    newest: ArchivedKos | None
    history: History


async def resync_study(services: Services, study_uid: str, cause: Cause, structure: str = "") -> Outcome:
    """Bring a study in accordance with what PACS and DMP say now, for one structure or for all that know it.

    Gives back what weighs most. One structure that cannot does not hold up another; raises ``Unavailable`` and
    ``OutcomeUnknown`` in the end, for the work to be taken up again later. Every other failure ends in the operator's
    queue, and the work is over.
    """
    outcomes: list[Outcome] = []
    put_off: DrimboxError | None = None
    for name in (structure,) if structure else await services.archive.publishers(study_uid):
        try:
            outcomes += await _resync(services, Subject(study_uid, None, name, cause), cause)
        except (Unavailable, OutcomeUnknown) as error:
            put_off = put_off or error
    if put_off is not None:
        raise put_off
    return min(outcomes, key=_WEIGHT.index, default=Outcome.NOTHING)


async def _resync(services: Services, subject: Subject, cause: Cause) -> list[Outcome]:
    """For one structure: the reports that are taken up again, then the study itself."""
    about: Case | Subject = subject
    outcomes: list[Outcome] = []
    try:
        site = services.sites.named(subject.structure)
        if site is None:
            raise Misconfigured(
                f"La structure {subject.structure} n'est plus une de celles que sert la passerelle",
                code="structure-unknown",
            )
        if cause not in _LEAVES_REPORTS:
            outcomes += await _take_up_reports(services, subject)
        await settle_pending(services, site, subject.study_uid)
        state = await _standing(services, subject)
        if state.current is None and not state.history.documents:
            await services.ledger.over(subject, f"Rien à faire : {Why.NOT_PUBLISHED.value}")
            return outcomes
        about = case = await _case(services, site, subject, state)
        return [*outcomes, await _carry_out(services, case, state, cause)]
    except (Unavailable, OutcomeUnknown) as error:
        await services.ledger.wait(about, error)
        raise
    except (Refused, Rejected, Misconfigured) as error:
        await services.ledger.fail(about, error)
        return [*outcomes, Outcome.STOPPED]


async def _take_up_reports(services: Services, subject: Subject) -> list[Outcome]:
    """Reports that could not be carried through may be now: the images came after them, the PACS was corrected."""
    stopped = await services.ledger.stopped(subject)
    return [await publish_study(services, report_id, subject.study_uid) for report_id in stopped]


async def _standing(services: Services, subject: Subject) -> _Standing:
    structure, study_uid = subject.structure, subject.study_uid
    newest = await services.archive.published_last(structure, study_uid)
    current = newest if newest is not None and newest.state == State.CURRENT else None
    return _Standing(current, newest, await services.archive.history(structure, study_uid))


async def _case(services: Services, site: Site, subject: Subject, state: _Standing) -> Case:
    """The newest report that stands, as the DMP is to show it, by whom the study was published."""
    report, report_id = await _report(services, site, state)
    newest = state.newest
    if newest is None:
        identity = services.registry.identity(site, report, services.clock.now())
    else:
        identity = services.registry.identity_again(site, newest.vihf_identity)
        visibility = await _visibility(services, report, report_id, newest)
        report = replace(report, visibility=visibility, visibility_changed=False)
    return Case(report_id, subject.study_uid, report, site, identity, subject.cause)


async def _report(services: Services, site: Site, state: _Standing) -> tuple[Report, int | None]:
    if state.history.standing_report_id:
        return await services.reports.load(state.history.standing_report_id), state.history.standing_report_id
    if state.newest is None:
        raise Refused("Aucun compte rendu ni KOS archivé ne décrit l'examen", code="report-unknown")
    return await report_behind(services, site, state.newest), state.newest.report_id


async def _visibility(services: Services, report: Report, report_id: int | None, newest: ArchivedKos) -> Visibility:
    """The report's own; or that of the version published last, where the DMP's was changed by hand (decision 6)."""
    if report_id is None or newest.report_id is None or newest.report_id == report_id:
        return newest.visibility
    behind = await services.reports.load(newest.report_id)
    return report.visibility if same_visibility(behind.visibility, newest.visibility) else newest.visibility


async def _carry_out(services: Services, case: Case, state: _Standing, cause: Cause) -> Outcome:
    said = await services.changes.of(case.study_uid)
    gone = await withdrawal(services, said)
    owner = state.newest.ins if state.newest else case.report.patient.ins
    withdrawn = gone is not None and gone.is_of(owner)
    if gone is not None and not withdrawn and cause is Cause.ORDER_DELETED:
        await services.ledger.stop(case, (_OTHER_PATIENT,))
        return Outcome.STOPPED
    match decide_by_record(state.current, state.history, withdrawn=withdrawn):
        case Nothing(why):
            return await nothing(services, case, state.history, why)
        case Depublish(kos):
            return await _depublish(services, case, kos, "déclaré supprimé")
    found = await look_up(services, case, said, hint=state.newest.pacs if state.newest else "")
    return await _compared(services, case, state, said, found, cause)


async def _compared(
    services: Services, case: Case, state: _Standing, said: Said, found: Found | None, cause: Cause
) -> Outcome:
    rules, report, current = services.rules, case.report, state.current
    images = found is not None and has_images(found.study)
    findings: tuple[Finding, ...] = ()
    if found is not None and images:
        checked = check(report, found.study, match_patient_name=rules.match_patient_name, ins_range=rules.ins_range)
        # What else the report itself may warn of was told when it was published.
        findings = (*(f for f in checked if f.severity is Severity.BLOCKING), *found.findings)
    match decide_by_pacs(report, images, findings, current):
        case Nothing(why):
            return await nothing(services, case, state.history, why, still=(_LEFT.code,))
        case Stop(stopped):
            await services.ledger.stop(case, stopped)
            return Outcome.STOPPED
        case Depublish(kos):
            rejected = found is not None and bool(said.out or found.rejected)
            warnings = () if rejected or cause not in _UNMEANT else (_LEFT,)
            text = "images rejetées" if rejected else "plus d'image au PACS"
            return await _depublish(services, case, kos, text, warnings)
        case Move(kos):
            await take_away(services, case, kos)
            current, findings = None, (*findings, MOVED)
    assert found is not None
    ask_dmp = cause in _ASKS_DMP
    return await next_version(services, case, found, current, state.history, findings, ask_dmp=ask_dmp)


async def _depublish(
    services: Services, case: Case, kos: ArchivedKos, why: str, warnings: tuple[Finding, ...] = ()
) -> Outcome:
    """Take the KOS out of the DMP; its reports stand on, and what the DMP showed of it is kept."""
    entry = await delete(services, case, kos)
    seen = entry.visibility if entry is not None else None
    conclusion = services.ledger.conclude(case, f"Dépublié : {why}", documents=None, warnings=warnings)
    async with conclusion as transaction:
        await services.archive.end(transaction, kos.id, State.DEPUBLISHED, services.clock.now(), seen=seen)
        await services.ledger.record(transaction, case, Kind.KOS_DEPUBLISHED, kos_uid=kos.kos_uid, ins=kos.ins)
    return Outcome.DEPUBLISHED
