"""ITI-18 Registry Stored Query: what documents has this patient (TD3.1), which entryUUID has this one (TD3.1b).

A search names every coding scheme that official samples use for a modality or a region, and what comes back is filtered
here too (decision 10): a document coded in another way is still found, one that does not match is not shown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drimbox.foundation.clock import utc_digits
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.foundation.xml import Builder
from drimbox.identity.ins import Ins
from drimbox.national.dmp import registry, soap
from drimbox.national.dmp.codes import (
    ACTION_QUERY,
    MODALITY_SCHEMES,
    QUERY,
    REGION_SCHEMES,
    RIM,
    AssociationType,
    Node,
    Status,
    StoredQuery,
)
from drimbox.national.dmp.metadata import Cx, DocumentEntry, Dtm, RegistryObjects, read_objects
from drimbox.national.dmp.transport import Request
from drimbox.reports.report import Coded

_QUERY = Builder({"query": QUERY, "rim": RIM}, "query")
# rim:LongName: a longer list of alternatives is spread over several Values of the slot, which still mean OR.
_MAX_VALUE = 256
#: Submission sets whose members are asked for in one request.
SETS_AT_ONCE = 100
#: Who has more than this to ask after does not ask.
MOST_SETS = 1000

_Slot = tuple[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Criteria:
    """What to look for (TD3.1). Within a field any value matches; all fields must match.

    ``modalities`` and ``regions`` are bare codes, looked for under every scheme. Exam dates are those of the act
    (serviceStartTime), aware instants: from included, to excluded.
    """

    statuses: tuple[Status, ...] = (Status.APPROVED,)
    class_codes: tuple[Coded, ...] = ()
    type_codes: tuple[Coded, ...] = ()
    format_codes: tuple[Coded, ...] = ()
    practice_settings: tuple[Coded, ...] = ()
    facility_types: tuple[Coded, ...] = ()
    modalities: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    exam_from: dt.datetime | None = None
    exam_to: dt.datetime | None = None
    created_from: dt.datetime | None = None
    created_to: dt.datetime | None = None

    def matches(self, entry: DocumentEntry) -> bool:
        """Does an entry match, whatever scheme its codes stand under?"""
        events = {code.code for code in entry.event_codes}
        single = (
            (self.class_codes, entry.class_code),
            (self.type_codes, entry.type_code),
            (self.format_codes, entry.format_code),
            (self.practice_settings, entry.practice_setting),
            (self.facility_types, entry.facility_type),
        )
        return (
            has_status(entry, self.statuses)
            and all(not wanted or (found and found.code in {c.code for c in wanted}) for wanted, found in single)
            and all(not wanted or events & set(wanted) for wanted in (self.modalities, self.regions))
            and _within(entry.service_start, self.exam_from, self.exam_to)
            and _within(entry.creation_time, self.created_from, self.created_to)
        )


def has_status(entry: DocumentEntry, wanted: Sequence[Status]) -> bool:
    """Is the entry in one of these states? One whose state was not told is kept: it was found by asking for them."""
    return not entry.status or entry.status in wanted


@dataclass(frozen=True, slots=True)
class EntryRef:
    """A document of the registry. ``status`` is empty where only the technical id was asked for (TD3.1b)."""

    entry_uuid: str
    status: str = ""


# --- requests ---------------------------------------------------------------------------------------------------------


def find_documents(url: str, patient: Ins, criteria: Criteria) -> Request:
    """FindDocuments: the metadata of every matching document of the patient."""
    slots = [
        _patient_slot(patient),
        ("$XDSDocumentEntryStatus", _lists(s.value for s in criteria.statuses)),
        # On-demand documents have no content of their own: they cannot be a KOS.
        ("$XDSDocumentEntryType", _lists([Node.STABLE_DOCUMENT])),
        *_code_slots(criteria),
        *_time_slots(criteria),
    ]
    return _request(url, StoredQuery.FIND_DOCUMENTS, slots)


def find_by_reference(url: str, patient: Ins, references: Sequence[Cx], statuses: Sequence[Status]) -> Request:
    """FindDocumentsByReferenceId: documents that carry at least one of the references.

    A Study Instance UID is asked for without assigning authority, as decision 11 writes it.
    """
    slots = [
        _patient_slot(patient),
        ("$XDSDocumentEntryStatus", _lists(s.value for s in statuses)),
        ("$XDSDocumentEntryReferenceIdList", _lists(r.encode() for r in references)),
    ]
    return _request(url, StoredQuery.FIND_BY_REFERENCE, slots)


def get_documents(url: str, unique_ids: Sequence[str], *, technical_ids_only: bool) -> Request:
    """GetDocuments by uniqueId: whole entries, or their entryUUIDs only, all that the indirect mode may ask (D.8)."""
    slots = [("$XDSDocumentEntryUniqueId", _lists(unique_ids))]
    return _request(url, StoredQuery.GET_DOCUMENTS, slots, "ObjectRef" if technical_ids_only else "LeafClass")


def find_submission_sets(url: str, patient: Ins, since: dt.datetime) -> Request:
    """FindSubmissionSets: what was submitted for the patient from an aware instant on (EX_3.1-1020)."""
    slots = [
        ("$XDSSubmissionSetPatientId", (quoted(patient.cx()),)),
        ("$XDSSubmissionSetStatus", _lists([Status.APPROVED])),
        ("$XDSSubmissionSetSubmissionTimeFrom", (utc_digits(since),)),
    ]
    # Their ids are enough, and however many there are, the registry gives them all.
    return _request(url, StoredQuery.FIND_SUBMISSION_SETS, slots, "ObjectRef")


def get_associations(url: str, objects: Sequence[str]) -> Request:
    """GetAssociations: every link from or to these objects, by their entryUUIDs."""
    return _request(url, StoredQuery.GET_ASSOCIATIONS, [("$uuid", _lists(objects))])


# --- answers ----------------------------------------------------------------------------------------------------------


def entries(answer: soap.Answer, patient: Ins) -> tuple[DocumentEntry, ...]:
    """The entries of an answer, every one of this patient.

    Raises ``IdentityMismatch`` (``answer-patient``) when one is not, and then none is given; ``Refused`` when the
    answer is incomplete (``answer-truncated``) or not readable; as ``registry.whole`` when the registry failed.
    """
    found = _objects(answer).entries
    if any(not entry.is_of(patient) for entry in found):
        raise IdentityMismatch("Le DMP a répondu pour un autre patient : rien n'est affiché", code="answer-patient")
    return found


def references(answer: soap.Answer) -> tuple[str, ...]:
    """The entryUUIDs of an answer, each once. Raises as ``entries``."""
    found = _objects(answer)
    return tuple(dict.fromkeys((*found.references, *(entry.entry_id for entry in found.entries))))


def members(answer: soap.Answer) -> set[str]:
    """The documents that the sets of an answer hold. Raises as ``registry.whole``."""
    return {a.target for a in _objects(answer).associations if a.kind == AssociationType.HAS_MEMBER}


def current(found: Sequence[DocumentEntry]) -> EntryRef | None:
    """Of several versions of one document, the one that stands: Approved, else Archived, else the last one told."""
    if not found:
        return None
    for status in (Status.APPROVED, Status.ARCHIVED):
        standing = [entry for entry in found if entry.status == status]
        if standing:
            return EntryRef(standing[-1].entry_id, standing[-1].status)
    return EntryRef(found[-1].entry_id, found[-1].status)


def _objects(answer: soap.Answer) -> RegistryObjects:
    body = soap.expect(answer, QUERY, "AdhocQueryResponse")
    registry.whole(body)
    listed = body.find(f"{{{RIM}}}RegistryObjectList")
    if listed is None:
        raise Refused("Réponse du DMP sans liste de résultats", code="answer-list")
    found = read_objects(listed)
    total = body.get("totalResultCount", "")
    counted = len(found.entries) + len(found.references) + len(found.submission_sets) + len(found.associations)
    if total.isascii() and total.isdigit() and int(total[:9]) > counted:
        raise Refused("Le DMP n'a rendu qu'une partie des résultats", code="answer-truncated")
    return found


# --- coding of parameters (ITI-18 3.18.4.1.2.3.5) ---------------------------------------------------------------------


def _request(url: str, query: str, slots: Iterable[_Slot], return_type: str = "LeafClass") -> Request:
    body = _QUERY(
        "AdhocQueryRequest",
        _QUERY("ResponseOption", returnComposedObjects="true", returnType=return_type),
        _QUERY(
            "rim:AdhocQuery",
            *(
                _QUERY("rim:Slot", _QUERY("rim:ValueList", *(_QUERY("rim:Value", v) for v in values)), name=name)
                for name, values in slots
            ),
            id=query,
        ),
    )
    return Request(url, ACTION_QUERY, body, changes=False)


def _patient_slot(patient: Ins) -> _Slot:
    return "$XDSDocumentEntryPatientId", (quoted(patient.cx()),)


def _code_slots(criteria: Criteria) -> Iterator[_Slot]:
    for name, codes in (
        ("$XDSDocumentEntryClassCode", criteria.class_codes),
        ("$XDSDocumentEntryTypeCode", criteria.type_codes),
        ("$XDSDocumentEntryFormatCode", criteria.format_codes),
        ("$XDSDocumentEntryPracticeSettingCode", criteria.practice_settings),
        ("$XDSDocumentEntryHealthcareFacilityTypeCode", criteria.facility_types),
    ):
        if codes:
            yield name, _lists(f"{c.code}^^{c.system}" for c in codes)
    # The slot given twice means AND: a modality of the list and a region of the list.
    for wanted, schemes in ((criteria.modalities, MODALITY_SCHEMES), (criteria.regions, REGION_SCHEMES)):
        if wanted:
            coded = [f"{code}^^{scheme}" for code in wanted for scheme in schemes]
            yield "$XDSDocumentEntryEventCodeList", _lists(coded)


def _time_slots(criteria: Criteria) -> Iterator[_Slot]:
    for name, instant in (
        ("$XDSDocumentEntryServiceStartTimeFrom", criteria.exam_from),
        ("$XDSDocumentEntryServiceStartTimeTo", criteria.exam_to),
        ("$XDSDocumentEntryCreationTimeFrom", criteria.created_from),
        ("$XDSDocumentEntryCreationTimeTo", criteria.created_to),
    ):
        if instant is not None:
            yield name, (utc_digits(instant),)


def quoted(text: str) -> str:
    """A string parameter: in single quotes, quotes inside doubled."""
    return "'" + text.replace("'", "''") + "'"


def _lists(values: Iterable[str]) -> list[str]:
    """``('a','b')``, as many as it takes for each to fit a Value."""
    lists: list[str] = []
    line = ""
    for value in map(quoted, values):
        if line and len(line) + len(value) + 3 > _MAX_VALUE:
            lists.append(f"({line})")
            line = ""
        line = f"{line},{value}" if line else value
    if line:
        lists.append(f"({line})")
    if any(len(one) > _MAX_VALUE for one in lists):
        raise Refused("Critère de recherche trop long", code="query-length")
    return lists


def _within(time: Dtm | None, start: dt.datetime | None, end: dt.datetime | None) -> bool:
    if start is None and end is None:
        return True
    if time is None:
        return False
    instant = time.instant()
    return (start is None or instant >= start) and (end is None or instant < end)
