"""The list of exams: what the DMP describes of KOS and reports, joined, narrowed and sorted. Pure.

A KOS and a report belong together when they refer to the same study, or, where one of them names none, to the same
accession or order number of the same issuer (standards.md D.4). A document that joins nothing has a line of its own:
nothing that was found is left out.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from drimbox.consumer.call import Filters
from drimbox.consumer.vocabulary import MODALITIES, REGIONS
from drimbox.foundation.errors import IdentityMismatch
from drimbox.identity.ins import Ins
from drimbox.identity.traits import normal
from drimbox.national.dmp.codes import MODALITY_SCHEMES, REFERENCE_ORDER, REGION_SCHEMES
from drimbox.national.dmp.metadata.datatypes import Cx
from drimbox.national.dmp.metadata.model import DocumentEntry
from drimbox.reports.report import Coded

_T = TypeVar("_T")
# classCode of what the patient put there (EX_3.1-1040).
_OF_THE_PATIENT = "90"


class Order(StrEnum):
    """How the lines are sorted; within each, the newest exam first."""

    DATE = "date"
    OLDEST = "ancien"
    MODALITY = "modalite"
    REGION = "region"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a line; ``key`` names it in addresses and says nothing of it."""

    key: str
    entry: DocumentEntry

    @property
    def states(self) -> tuple[str, ...]:
        """What must be told of it (EX_3.1-1080); nothing for a current document that everybody may see."""
        entry = self.entry
        told = (
            (entry.masked, "Masqué aux professionnels"),
            (entry.hidden_from_patient, "Non visible par le patient"),
            (entry.hidden_from_representatives, "Non visible par les représentants légaux"),
            (entry.archived, "Archivé"),
            (entry.obsolete, "Version remplacée"),
            (entry.class_code is not None and entry.class_code.code == _OF_THE_PATIENT, "Déposé par le patient"),
        )
        return tuple(text for applies, text in told if applies)

    @property
    def warning(self) -> str:
        """What must be said before it is opened (EX_3.2-1025), empty when nothing must."""
        if self.entry.hidden_from_patient:
            return "Ce document n'est pas encore visible par le patient : ne l'évoquez pas sans précaution."
        if self.entry.hidden_from_representatives:
            return "Ce document n'est pas visible par les représentants légaux du patient."
        return ""


@dataclass(frozen=True, slots=True)
class Exam:
    """One line: the images of one study as one structure published them, and the reports on it; or a lone report."""

    images: Document | None
    reports: tuple[Document, ...]

    @property
    def key(self) -> str:
        """Names the line in addresses."""
        return self.documents[0].key

    @property
    def documents(self) -> tuple[Document, ...]:
        return (self.images, *self.reports) if self.images else self.reports

    @property
    def study_uids(self) -> tuple[str, ...]:
        return _distinct(uid for d in self.documents for uid in d.entry.study_uids())

    @property
    def accessions(self) -> tuple[Cx, ...]:
        return _distinct(number for d in self.documents for number in d.entry.accession_numbers())

    @property
    def day(self) -> dt.date | None:
        """The day of the exam in France: when the act began, else when the document was made."""
        entries = [d.entry for d in self.documents]
        moments = [e.service_start for e in entries] + [e.creation_time for e in entries]
        return next((moment.paris_day() for moment in moments if moment is not None), None)

    @property
    def modalities(self) -> tuple[Coded, ...]:
        return self._events(MODALITY_SCHEMES)

    @property
    def regions(self) -> tuple[Coded, ...]:
        return self._events(REGION_SCHEMES)

    @property
    def title(self) -> str:
        """The title of the report; for want of one, what kind of images it is."""
        for report in self.reports:
            if report.entry.title:
                return report.entry.title
        return ", ".join(MODALITIES.get(m.code, m.label or m.code) for m in self.modalities) or "Examen d'imagerie"

    @property
    def author(self) -> str:
        """Who answers for it: the radiologist, from the report or as legal authenticator of the KOS."""
        for document in (*self.reports, *((self.images,) if self.images else ())):
            person = document.entry.legal_authenticator or next(
                (a.person for a in document.entry.authors if a.person is not None), None
            )
            if person is not None and person.name_type != "U":
                return " ".join(part for part in (person.family, person.given) if part)
        return ""

    @property
    def site(self) -> str:
        names = (i.name for d in self.documents for a in d.entry.authors for i in a.institutions if i.name)
        return next(names, "")

    def _events(self, schemes: Sequence[str]) -> tuple[Coded, ...]:
        found: dict[str, Coded] = {}
        for document in self.documents:
            for event in document.entry.event_codes:
                if event.system in schemes and (event.code not in found or not found[event.code].label):
                    found[event.code] = event
        return tuple(found.values())


def exams_of(entries: Sequence[DocumentEntry], patient: Ins, *, report_types: Sequence[str]) -> tuple[Exam, ...]:
    """The lines that the entries make, newest exam first.

    Entries that are neither a KOS nor a report of one of ``report_types`` (signatures, say) are left out. Raises
    ``IdentityMismatch`` (``dmp-patient``) when one is of another patient: then nothing of the answer is believed.
    """
    if not all(entry.is_of(patient) for entry in entries):
        raise IdentityMismatch("Le DMP a répondu avec un document d'un autre patient", code="dmp-patient")
    manifests = [_document(e) for e in entries if e.is_kos]
    reports = [_document(e) for e in entries if not e.is_kos and e.type_code and e.type_code.code in report_types]
    index = _Index(reports)
    exams = [Exam(images, index.reports_of(images.entry)) for images in manifests]
    joined = {report.key for exam in exams for report in exam.reports}
    exams += [Exam(None, (report,)) for report in reports if report.key not in joined]
    return in_order(exams, Order.DATE)


def in_order(exams: Iterable[Exam], order: Order) -> tuple[Exam, ...]:
    """The lines sorted; what says neither modality nor region comes last."""
    newest = sorted(exams, key=_newest_first)
    if order is Order.OLDEST:
        return tuple(sorted(newest, key=lambda e: (e.day is None, e.day or dt.date.min)))
    if order is Order.MODALITY:
        return tuple(sorted(newest, key=lambda e: _first_or_last(MODALITIES.get(m.code, m.code) for m in e.modalities)))
    if order is Order.REGION:
        return tuple(
            sorted(newest, key=lambda e: _first_or_last(REGIONS.get(r.code, r.label or r.code) for r in e.regions))
        )
    return tuple(newest)


def registered_among(exams: Iterable[Exam], entry_ids: Collection[str]) -> tuple[Exam, ...]:
    """The lines that hold one of these documents (entryUUIDs)."""
    wanted = frozenset(entry_ids)
    return tuple(exam for exam in exams if any(d.entry.entry_id in wanted for d in exam.documents))


def counted_by_type(exams: Iterable[Exam], entry_ids: Collection[str]) -> tuple[tuple[str, int], ...]:
    """How many of these documents are on the lines, by the label of their typeCode (DMP/UX.15)."""
    wanted = frozenset(entry_ids)
    found: dict[str, set[str]] = {}
    for exam in exams:
        for document in exam.documents:
            code = document.entry.type_code
            if document.entry.entry_id in wanted and code is not None:
                label = "Images (KOS)" if document.entry.is_kos else code.label or code.code
                found.setdefault(label, set()).add(document.key)
    return tuple((label, len(keys)) for label, keys in sorted(found.items()))


class _Index:
    """Reports by what they refer to: a long list is joined without comparing each with each."""

    def __init__(self, reports: Sequence[Document]) -> None:
        self._by_reference: dict[str, list[Document]] = {}
        self._places = {report.key: place for place, report in enumerate(reports)}
        for report in reports:
            for name in set(_reference_names(report.entry)):
                self._by_reference.setdefault(name, []).append(report)

    def reports_of(self, manifest: DocumentEntry) -> tuple[Document, ...]:
        found = {r.key: r for name in _reference_names(manifest) for r in self._by_reference.get(name, ())}
        kept = [report for report in found.values() if _belong(manifest, report.entry)]
        return tuple(sorted(kept, key=lambda report: self._places[report.key]))


def _reference_names(entry: DocumentEntry) -> Iterator[str]:
    yield from (f"study {uid}" for uid in entry.study_uids())
    yield from (f"number {number.value}" for number in _numbers(entry))


def narrowed(exams: Iterable[Exam], filters: Filters) -> tuple[Exam, ...]:
    """The lines that answer the filters, whatever coding scheme their documents use (decision 10)."""
    return tuple(exam for exam in exams if _answers(exam, filters))


def _document(entry: DocumentEntry) -> Document:
    return Document(hashlib.sha256(entry.unique_id.encode()).hexdigest()[:20], entry)


def _belong(manifest: DocumentEntry, report: DocumentEntry) -> bool:
    studies, reported = set(manifest.study_uids()), set(report.study_uids())
    if studies and reported:
        # Where both name studies, an equal accession number is a number that another site gave too.
        return bool(studies & reported)
    return any(_same_number(m, r) for m in _numbers(manifest) for r in _numbers(report))


def _numbers(entry: DocumentEntry) -> tuple[Cx, ...]:
    return (*entry.accession_numbers(), *entry.references_of(REFERENCE_ORDER))


def _same_number(left: Cx, right: Cx) -> bool:
    """Equal values; two issuers that are both named must agree, since numbers repeat from one site to another."""
    return (
        (left.kind or right.kind) == (right.kind or left.kind)
        and left.value == right.value
        and (not left.authority or not right.authority or left.authority == right.authority)
    )


def _first_or_last(names: Iterable[str]) -> tuple[bool, str]:
    first = min((normal(name) for name in names), default="")
    return (not first, first)


def _newest_first(exam: Exam) -> tuple[int, bool, str]:
    day = exam.day
    replaced = all(document.entry.obsolete for document in exam.documents)
    return (-day.toordinal() if day else 1, replaced, exam.documents[0].key)


def _answers(exam: Exam, filters: Filters) -> bool:
    if filters.study_uid and filters.study_uid not in exam.study_uids:
        return False
    if filters.accession and not any(
        _same_number(Cx(filters.accession, filters.accession_issuer), number) for number in exam.accessions
    ):
        return False
    if filters.modalities and not {m.code for m in exam.modalities} & set(filters.modalities):
        return False
    wanted = {normal(region) for region in filters.regions}
    if wanted and not {normal(name) for r in exam.regions for name in (r.code, r.label) if name} & wanted:
        return False
    return _in_period(exam.day, filters)


def _in_period(day: dt.date | None, filters: Filters) -> bool:
    if filters.first_day is None and filters.last_day is None:
        return True
    if day is None:
        return False
    return (filters.first_day or day) <= day <= (filters.last_day or day)


def _distinct(values: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(values))
