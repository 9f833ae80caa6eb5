"""The next version of a KOS: made, compared with the one that stands, and sent unless it says nothing new."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from drimbox.manifest.read import read_manifest
from drimbox.publication.archive import NewVersion
from drimbox.publication.changed import Said, admitted, expired_and_gone
from drimbox.publication.checks import Finding, Severity
from drimbox.publication.compose import Made, compose
from drimbox.publication.decide import (
    Why,
    documents_after,
    same_visibility,
    says_the_same,
    visibility_to_publish,
)
from drimbox.publication.finding import Found, find_study
from drimbox.publication.kos import ArchivedKos, History
from drimbox.publication.ledger import Case
from drimbox.publication.ports import Draft
from drimbox.publication.reconsider import shows_the_same
from drimbox.publication.services import Services
from drimbox.publication.transmit import send, standing
from drimbox.publication.triggers import Cause, defer_resync

_log = logging.getLogger(__name__)


class Outcome(Enum):
    """How the work on a study ended."""

    PUBLISHED = "published"
    DEPUBLISHED = "depublished"
    NOTHING = "nothing"
    STOPPED = "stopped"


MOVED = Finding(
    "kos-moved",
    Severity.WARNING,
    "L'examen était publié au DMP d'un autre patient : il en a été retiré, puis publié dans celui du compte rendu",
)
_GONE = Finding(
    "kos-gone",
    Severity.WARNING,
    "Le KOS publié n'était plus au DMP (supprimé hors de la passerelle) : une nouvelle version y a été publiée",
)
_UNTOLD = (Why.SUPERSEDED, Why.NOT_FOR_DMP)
_COMPARED = (Why.UNCHANGED, Why.NOT_PUBLISHED, Why.NOT_IN_PACS)


async def look_up(services: Services, case: Case, said: Said, *, hint: str = "") -> Found | None:
    """The study in the PACSs of its structure, without what was rejected; None when none of them holds it.

    Raises ``Unavailable`` and ``Misconfigured`` as ``find_study``. What was rejected as expired, and is listed no
    longer, is released.
    """
    issuers = dict.fromkeys(n.issuer for n in case.report.accession_numbers() if n.issuer)
    sender = case.report.sender.application
    found = await find_study(case.site, case.study_uid, sender=sender, accession_issuers=tuple(issuers), hint=hint)
    listed_still = found.rejected if found else frozenset()
    if said.expired and (gone := expired_and_gone(said, found.study if found else None) - listed_still):
        await services.changes.release(case.study_uid, gone, services.clock.now())
    return admitted(said, found) if found is not None and said.out else found


async def next_version(
    services: Services,
    case: Case,
    found: Found,
    current: ArchivedKos | None,
    history: History,
    warnings: Sequence[Finding],
    *,
    ask_dmp: bool = False,
) -> Outcome:
    """Publish the next version, in the place of the ``current`` one, unless it says nothing new.

    ``ask_dmp``: the DMP is asked what it shows even when there is nothing new to say.
    """
    # A large study takes a good part of a second: not on the event loop.
    made = await asyncio.to_thread(
        compose,
        services.rules,
        case.report,
        found.study,
        structure=case.site.structure,
        now=services.clock.now(),
        notes=found.notes,
    )
    report, replaces = case.report, None
    if current is not None:
        same = await asyncio.to_thread(_same, case, current, made)
        unasked = not ask_dmp and not report.visibility_changed
        if same and unasked and same_visibility(report.visibility, current.visibility):
            return await nothing(services, case, history, Why.UNCHANGED, warnings)
        entry = await standing(services, case, current)
        if entry is None:
            warnings = [*warnings, _GONE]
        else:
            shown, replaces = entry.visibility or current.visibility, entry.entry_uuid
            report = replace(report, visibility=visibility_to_publish(report, current, entry.visibility))
            if same and same_visibility(report.visibility, shown):
                return await nothing(services, case, history, Why.UNCHANGED, warnings)
    draft = Draft(case.site, report, found.study, made.orders, made.kos_uid, made.kos, made.created)
    version = NewVersion(
        structure=case.site.id,
        study_uid=case.study_uid,
        kos_uid=made.kos_uid,
        kos=made.kos,
        submission=services.registry.prepare(draft, case.identity, replaces),
        replaces=current.id if current and replaces else None,
        report_id=case.report_id,
        document_ids=_all_documents(case, current, history),
        pacs=found.pacs,
        ins=report.patient.ins,
        visibility=report.visibility,
        fingerprint=made.fingerprint,
        cause=case.cause.value if case.cause else "",
    )
    await send(services, case, history, version, warnings)
    return Outcome.PUBLISHED


async def nothing(
    services: Services,
    case: Case,
    history: History,
    why: Why,
    warnings: Sequence[Finding] = (),
    still: Sequence[str] = (),
    again: Cause | None = None,
) -> Outcome:
    """There is nothing to do, but to remember that the report was taken into account.

    ``again``: after that, the study is to be looked at, for this cause.
    """
    documents = None
    if case.cause is None and case.report_id is not None and why not in _UNTOLD:
        documents = documents_after(case.report, case.report_id, case.study_uid, history)
    compared = case.cause is not None or why in _COMPARED
    text = f"Rien à faire : {why.value}"
    conclusion = services.ledger.conclude(
        case, text, documents=documents, warnings=warnings, still=still, compared=compared
    )
    async with conclusion as transaction:
        if again is not None:
            await defer_resync(transaction, case.study_uid, again, structure=case.site.id)
    _log.info("nothing to publish: %s", why.name, extra={"study": case.study_uid})
    return Outcome.NOTHING


def _same(case: Case, current: ArchivedKos, made: Made) -> bool:
    """Does the version that was made say the same as the one that stands?"""
    published = read_manifest(current.kos)
    if case.report_id is None:
        return shows_the_same(published, made.manifest)
    return says_the_same(current, published, made.manifest, made.fingerprint)


def _all_documents(case: Case, current: ArchivedKos | None, history: History) -> tuple[str, ...]:
    """Every report that ever stood behind the KOS; a resynchronisation adds none."""
    known = current.document_ids if current else history.documents
    return tuple(dict.fromkeys((*known, case.report.document_id))) if case.cause is None else known
