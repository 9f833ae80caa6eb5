"""The consultation of a patient's DMP: may it be consulted at all, then what does it hold?

TD0.2 always comes first (DMP/UX.08); every change of criterion is a new TD3.1 (DB.CO.55). What cannot be known is said
as such: a DMP that does not answer is never an empty one.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from drimbox.consumer.call import Consent, ContextualCall, Filters
from drimbox.consumer.exams import Exam, exams_of, narrowed
from drimbox.consumer.ports import AuditJournal, ConsumerStructure, Dmp, Structures
from drimbox.consumer.professional import Professional, vihf_identity
from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.identity.ins import Ins
from drimbox.national.dmp.actor import Actor as DmpActor
from drimbox.national.dmp.codes import KOS_TYPE, Status
from drimbox.national.dmp.existence import Authorisation, Existence, RecordStatus
from drimbox.national.dmp.metadata.model import DocumentEntry
from drimbox.national.dmp.query import Criteria
from drimbox.national.psc.userinfo import Practice
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed
from drimbox.reports.report import Coded

_log = logging.getLogger(__name__)

LOINC = "2.16.840.1.113883.6.1"
IMAGING_REPORT = Coded("18748-4", LOINC, "CR d'imagerie médicale")
_SEARCHED = (Status.APPROVED, Status.ARCHIVED)


class Obstacle(StrEnum):
    """Why the documents of a patient cannot be consulted."""

    NO_RECORD = "no-record"
    CLOSED = "closed"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    EXPIRED = "expired"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Barred:
    """The DMP answered, and the documents may not be consulted. ``may_grant``: the patient's agreement would do."""

    obstacle: Obstacle
    text: str
    may_grant: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The exams that answer the filters, newest first; ``others`` counts those that do not answer them."""

    exams: tuple[Exam, ...]
    others: int
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not be known what the DMP holds."""

    reason: str
    code: str


Finding = Barred | Found | Failed


@dataclass(frozen=True, slots=True)
class Consultant:
    """A professional in one practice, with the structure whose certificates go with it."""

    professional: Professional
    practice: Practice
    structure: ConsumerStructure
    dmp: DmpActor
    address: str

    def event(
        self, kind: Kind, patient: Ins, objects: Sequence[Object] = (), error: DrimboxError | None = None
    ) -> Event:
        """An event of the journal by this person about this patient."""
        event = Event(
            kind,
            Actor(
                person=self.professional.info.national_id,
                name=self.professional.name,
                profession=self.practice.profession.code,
                structure=self.practice.structure_id,
                sector=self.practice.sector,
                address=self.address,
            ),
            tuple(objects),
            structure=self.structure.id,
            patient=patient,
        )
        return event if error is None else failed(event, error)


def consultant(
    professional: Professional, practice: Practice, structures: Structures, *, authn_context: str, address: str
) -> Consultant:
    """The professional as they may act here.

    Raises ``Rejected`` (``structure-unknown``) when the practice is in a structure that this box does not serve.
    """
    structure = structures.of(practice.structure_id)
    if structure is None:
        raise Rejected(
            "Cette situation d'exercice relève d'une structure que cette DRIMbox ne sert pas : "
            "choisissez-en une autre, ou adressez-vous à votre administrateur",
            code="structure-unknown",
        )
    identity = vihf_identity(professional, practice, authn_context=authn_context)
    return Consultant(professional, practice, structure, structure.actor(identity), address)


class Consultation:
    """One search on its way, or its finding. ``filters`` are those it was asked with."""

    def __init__(self, filters: Filters, work: Callable[[], Awaitable[Finding]]) -> None:
        self.filters = filters
        self._task = asyncio.create_task(_recorded(work))

    @property
    def finding(self) -> Finding | None:
        """None as long as the DMP has not answered."""
        return self._task.result() if self._task.done() and not self._task.cancelled() else None

    async def wait(self, seconds: float) -> Finding | None:
        """The finding, or None when it takes longer."""
        await asyncio.wait((self._task,), timeout=seconds)
        return self.finding

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def consult(
    dmp: Dmp,
    journal: AuditJournal,
    who: Consultant,
    call: ContextualCall,
    filters: Filters,
    *,
    report_types: Sequence[Coded] = (IMAGING_REPORT,),
    now: Callable[[], dt.datetime],
) -> Finding:
    """TD0.2, then TD3.1 if it may be. Each is written to the journal before its outcome is given.

    Raises ``Rejected`` (``no-consent``) for a call whose consent lets nothing be asked (decision 18).
    """
    require_consent(call)
    try:
        existence = await _checked(dmp, journal, who, call.ins)
        barred = obstacle(existence)
        if barred is not None:
            return barred
        entries = await _searched(dmp, journal, who, call.ins, filters, report_types)
        exams = exams_of(entries, call.ins, report_types=[c.code for c in report_types])
    except DrimboxError as error:
        return Failed(error.reason, error.code)
    answering = narrowed(exams, filters)
    return Found(answering, len(exams) - len(answering), now())


async def grant(dmp: Dmp, journal: AuditJournal, who: Consultant, call: ContextualCall) -> None:
    """TD0.3 ``AJOUT``: the professional states that the patient agrees (decision 22). Raises as the DMP client."""
    require_consent(call)
    try:
        await dmp.authorise(who.dmp, call.ins)
    except DrimboxError as error:
        await journal.write(None, who.event(Kind.DMP_ACCESS_CHANGED, call.ins, error=error))
        raise
    await journal.write(None, who.event(Kind.DMP_ACCESS_CHANGED, call.ins))


def require_consent(call: ContextualCall) -> None:
    """Raises ``Rejected`` (``no-consent``) unless the call carries the patient's consent (DB.CO.93, DB.CO.94)."""
    if call.consent is not Consent.YES:
        raise Rejected("L'appel ne porte pas le consentement du patient", code="no-consent")


def obstacle(existence: Existence) -> Barred | None:
    """What stands in the way, in words; None when the DMP may be consulted."""
    if existence.may_consult:
        return None
    if existence.status is RecordStatus.NONE:
        return Barred(Obstacle.NO_RECORD, "Ce patient n'a pas de DMP.", False)
    if existence.status is RecordStatus.CLOSED:
        since = _closing_day(existence.closed_on)
        return Barred(Obstacle.CLOSED, f"Le DMP de ce patient est fermé{since}.", False)
    if existence.status is not RecordStatus.ACTIVE:
        return Barred(Obstacle.UNKNOWN, "Le DMP n'a pas indiqué l'état du dossier de ce patient.", False)
    return _BARRED[existence.authorisation]


_BARRED = {
    Authorisation.ABSENT: Barred(
        Obstacle.ABSENT, "Vous n'êtes pas encore autorisé à consulter le DMP de ce patient.", True
    ),
    Authorisation.EXPIRED: Barred(
        Obstacle.EXPIRED, "Votre autorisation de consulter le DMP de ce patient a expiré.", True
    ),
    Authorisation.FORBIDDEN: Barred(
        Obstacle.FORBIDDEN, "Ce patient a bloqué votre accès à son DMP : il est le seul à pouvoir le rétablir.", False
    ),
    Authorisation.UNKNOWN: Barred(
        Obstacle.UNKNOWN, "Le DMP n'a pas indiqué si vous êtes autorisé à consulter le dossier de ce patient.", False
    ),
}


async def _checked(dmp: Dmp, journal: AuditJournal, who: Consultant, patient: Ins) -> Existence:
    try:
        existence = await dmp.existence(who.dmp, patient)
    except DrimboxError as error:
        await journal.write(None, who.event(Kind.DMP_ACCESS_CHECKED, patient, error=error))
        raise
    await journal.write(None, who.event(Kind.DMP_ACCESS_CHECKED, patient))
    return existence


async def _searched(
    dmp: Dmp,
    journal: AuditJournal,
    who: Consultant,
    patient: Ins,
    filters: Filters,
    report_types: Sequence[Coded],
) -> tuple[DocumentEntry, ...]:
    try:
        answers = await asyncio.gather(
            *(dmp.find_documents(who.dmp, patient, criteria) for criteria in criteria_of(filters, report_types))
        )
    except DrimboxError as error:
        await journal.write(None, who.event(Kind.DMP_QUERIED, patient, error=error))
        raise
    entries = {entry.entry_id or entry.unique_id: entry for answer in answers for entry in answer}
    found = [Object(Thing.KOS if e.is_kos else Thing.DOCUMENT, e.unique_id) for e in entries.values()]
    await journal.write(None, who.event(Kind.DMP_QUERIED, patient, found))
    return tuple(entries.values())


def criteria_of(filters: Filters, report_types: Sequence[Coded]) -> tuple[Criteria, ...]:
    """The searches that together find every document of the lines that answer the filters.

    A document is never older than its exam, so the beginning of the period bounds what is asked; its end cannot. KOS
    are asked by modality and region; reports are not, for theirs may be coded otherwise, or not at all, and would be
    missing beside their images: what they join decides, here.
    """
    since = dt.datetime.combine(filters.first_day, dt.time(), PARIS) if filters.first_day else None
    regions = filters.regions if all(_is_code(region) for region in filters.regions) else ()
    if not filters.modalities and not regions:
        return (Criteria(_SEARCHED, type_codes=(KOS_TYPE, *report_types), created_from=since),)
    return (
        Criteria(_SEARCHED, type_codes=(KOS_TYPE,), modalities=filters.modalities, regions=regions, created_from=since),
        Criteria(_SEARCHED, type_codes=tuple(report_types), created_from=since),
    )


def _is_code(region: str) -> bool:
    """Callers name regions by code or by label; only codes can be asked of the DMP."""
    return region.isascii() and region.isdigit()


def _closing_day(digits: str) -> str:
    if len(digits) < 8 or not digits[:8].isdigit():
        return ""
    return f" depuis le {digits[6:8]}/{digits[4:6]}/{digits[:4]}"


async def _recorded(work: Callable[[], Awaitable[Finding]]) -> Finding:
    """A task boundary: whatever happens becomes a finding that the page can show."""
    try:
        return await work()
    except DrimboxError as error:
        return Failed(error.reason, error.code)
    except Exception:  # noqa: BLE001 - a task boundary
        _log.exception("a consultation failed")
        return Failed("Erreur interne de la DRIMbox : la recherche n'a pas abouti", "internal")
