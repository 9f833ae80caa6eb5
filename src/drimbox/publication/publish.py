"""What is done when a report about a study was accepted: ask the PACS, check, decide, publish, archive.

The work can be cut at any point and taken up again (``transmit`` says how).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from drimbox.foundation.errors import DrimboxError, Misconfigured, OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.foundation.uids import new_uid
from drimbox.manifest.build import build_manifest
from drimbox.manifest.read import read_manifest
from drimbox.pacs.study import Study
from drimbox.publication.archive import NewVersion
from drimbox.publication.checks import Finding, Severity, check, check_identity, orders_of
from drimbox.publication.decide import (
    Depublish,
    Move,
    Nothing,
    Stop,
    Why,
    decide_by_message,
    decide_by_study,
    documents_after,
    same_visibility,
    says_the_same,
    visibility_to_publish,
)
from drimbox.publication.fingerprint import fingerprint
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ledger import Case
from drimbox.publication.ports import Draft, Site
from drimbox.publication.services import Services
from drimbox.publication.transmit import case_of, delete, send, settle_pending, standing, take_away
from drimbox.record.audit import Kind
from drimbox.reports.report import Order, Report

_log = logging.getLogger(__name__)


class Outcome(Enum):
    """How the work on a study ended."""

    PUBLISHED = "published"
    DEPUBLISHED = "depublished"
    NOTHING = "nothing"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class _Found:
    """A study with the PACS that holds it."""

    pacs: str
    study: Study


@dataclass(frozen=True, slots=True, repr=False)
class _Made:
    """A KOS that was built; ``same`` when it says nothing new."""

    kos_uid: str
    kos: bytes
    created: dt.datetime
    orders: tuple[Order, ...]
    fingerprint: str
    same: bool


_GONE = Finding(
    "kos-gone",
    Severity.WARNING,
    "Le KOS publié n'était plus au DMP (supprimé hors de la passerelle) : une nouvelle version y a été publiée",
)
_MOVED = Finding(
    "kos-moved",
    Severity.WARNING,
    "L'examen était publié au DMP d'un autre patient : il en a été retiré, puis publié dans celui du compte rendu",
)


async def publish_study(services: Services, report_id: int, study_uid: str) -> Outcome:
    """Carry one report through on one study.

    Raises ``Unavailable`` and ``OutcomeUnknown``, for the work to be taken up again later; it waits in the operator's
    queue meanwhile. Every other failure ends in the operator's queue, and the work is over.
    """
    case: Case | None = None
    try:
        case = await case_of(services, report_id, study_uid)
        acting = replace(case, identity=services.registry.identity(case.site, case.report, services.clock.now()))
        return await _carry_out(services, acting)
    except (Unavailable, OutcomeUnknown) as error:
        await services.ledger.wait(case, report_id, study_uid, error)
        raise
    except (Refused, Rejected, Misconfigured) as error:
        await services.ledger.fail(case, report_id, study_uid, error)
        return Outcome.STOPPED


async def _carry_out(services: Services, case: Case) -> Outcome:
    await settle_pending(services, case)
    current = await services.archive.current(case.study_uid, case.site.id)
    history = await services.archive.history(case.site.id, case.study_uid)
    match decide_by_message(case.report, case.report_id, case.study_uid, current, history):
        case Nothing(why):
            return await _nothing(services, case, history, why)
        case Stop(findings):
            await services.ledger.stop(case, findings)
            return Outcome.STOPPED
        case Depublish(kos):
            return await _depublish(services, case, kos, history)
    return await _publish(services, case, current, history)


async def _nothing(
    services: Services, case: Case, history: History, why: Why, warnings: Sequence[Finding] = ()
) -> Outcome:
    """There is nothing to do, but to remember that the report was taken into account."""
    untold = why in (Why.SUPERSEDED, Why.NOT_FOR_DMP)
    documents = None if untold else documents_after(case.report, case.study_uid, history.documents)
    async with services.ledger.conclude(case, f"Rien à faire : {why.value}", documents=documents, warnings=warnings):
        pass
    _log.info("nothing to publish: %s", why.name, extra={"study": case.study_uid})
    return Outcome.NOTHING


# --- taking out of the DMP --------------------------------------------------------------------------------------------


async def _depublish(services: Services, case: Case, kos: ArchivedKos, history: History) -> Outcome:
    await delete(services, case, kos)
    documents = documents_after(case.report, case.study_uid, history.documents)
    async with services.ledger.conclude(case, "Dépublié", documents=documents) as transaction:
        await services.archive.end(transaction, kos.id, State.DEPUBLISHED, services.clock.now())
        await services.ledger.record(transaction, case, Kind.KOS_DEPUBLISHED, kos_uid=kos.kos_uid, ins=kos.ins)
    return Outcome.DEPUBLISHED


# --- a new version ----------------------------------------------------------------------------------------------------


async def _publish(services: Services, case: Case, current: ArchivedKos | None, history: History) -> Outcome:
    rules, report = services.rules, case.report
    incoherent = [f for f in check_identity(report, ins_range=rules.ins_range) if f.severity is Severity.BLOCKING]
    if incoherent:
        await services.ledger.stop(case, incoherent)
        return Outcome.STOPPED
    found = await _find_study(case.site, case.study_uid)
    findings = (
        check(report, found.study, match_patient_name=rules.match_patient_name, ins_range=rules.ins_range)
        if found
        else ()
    )
    decision = decide_by_study(report, found.study if found else None, findings, current)
    if isinstance(decision, Stop):
        await services.ledger.stop(case, decision.findings)
        return Outcome.STOPPED
    assert found is not None
    if isinstance(decision, Move):
        await take_away(services, case, decision.current)
        current = None
        findings = (*findings, _MOVED)
    warnings = [f for f in findings if f.severity is Severity.WARNING]
    return await _version(services, case, found, current, history, warnings)


async def _find_study(site: Site, study_uid: str) -> _Found | None:
    """The study and its PACS; None only when every PACS of the structure answered that it has none.

    Raises ``Unavailable`` when it was not found and one of them could not or would not answer (decision 7).
    """
    if not site.pacs:
        raise Misconfigured("Aucun PACS n'est configuré pour la structure", code="pacs-none")
    failures: list[DrimboxError] = []
    for pacs in site.pacs:
        try:
            study = await pacs.finder.find(study_uid)
        except (Unavailable, Rejected) as error:
            failures.append(error)
            continue
        if study is not None:
            return _Found(pacs.id, study)
    if failures:
        first = failures[0]
        raise Unavailable(first.reason, code=first.code, peer_code=first.peer_code)
    return None


async def _version(
    services: Services,
    case: Case,
    found: _Found,
    current: ArchivedKos | None,
    history: History,
    warnings: list[Finding],
) -> Outcome:
    """Publish the next version, unless it says nothing new."""
    # A large study takes a good part of a second: not on the event loop.
    made = await asyncio.to_thread(_compose, services, case, found.study, current)
    report, replaces = case.report, None
    if current is not None:
        if made.same and not report.visibility_changed and same_visibility(report.visibility, current.visibility):
            return await _nothing(services, case, history, Why.UNCHANGED, warnings)
        entry = await standing(services, case, current)
        if entry is None:
            warnings = [*warnings, _GONE]
        else:
            shown, replaces = entry.visibility or current.visibility, entry.entry_uuid
            report = replace(report, visibility=visibility_to_publish(report, current, entry.visibility))
            if made.same and same_visibility(report.visibility, shown):
                return await _nothing(services, case, history, Why.UNCHANGED, warnings)
    draft = Draft(case.site, report, found.study, made.orders, made.kos_uid, made.kos, made.created)
    version = NewVersion(
        structure=case.site.id,
        study_uid=case.study_uid,
        kos_uid=made.kos_uid,
        kos=made.kos,
        submission=services.registry.prepare(draft, case.identity, replaces),
        replaces=current.id if current and replaces else None,
        report_id=case.report_id,
        document_ids=_all_documents(report, current, history),
        pacs=found.pacs,
        ins=report.patient.ins,
        visibility=report.visibility,
        fingerprint=made.fingerprint,
    )
    await send(services, case, history, version, warnings)
    return Outcome.PUBLISHED


def _compose(services: Services, case: Case, study: Study, current: ArchivedKos | None) -> _Made:
    """The next version of the KOS, and whether it says the same as the current one. Pure but for the new UIDs."""
    rules = services.rules
    kos_uid, created = new_uid(rules.uid_root), services.clock.now()
    orders = orders_of(case.report, study)
    kos = build_manifest(
        case.report,
        study,
        orders=orders,
        retrieve_base=rules.retrieve_base,
        kos_uid=kos_uid,
        series_uid=new_uid(rules.uid_root),
        created=created,
        manufacturer=rules.manufacturer,
        structure=case.site.structure,
        zone=rules.zone,
    )
    # Read back even when there is nothing to compare: what we could not read ourselves must not leave.
    proposed = read_manifest(kos)
    word = fingerprint(case.report, study, case.site.structure)
    same = current is not None and says_the_same(current, read_manifest(current.kos), proposed, word)
    return _Made(kos_uid, kos, created, orders, word, same)


def _all_documents(report: Report, current: ArchivedKos | None, history: History) -> tuple[str, ...]:
    known = current.document_ids if current else history.documents
    return tuple(dict.fromkeys((*known, report.document_id)))
