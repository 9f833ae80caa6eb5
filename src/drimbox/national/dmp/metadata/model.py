"""XDS metadata as typed values (ITI TF-3 4.2.1). They name patients: their reprs say nothing of their content."""

from __future__ import annotations

from dataclasses import dataclass, field

from drimbox.identity.ins import Ins
from drimbox.national.dmp.codes import (
    HIDDEN_FROM_PATIENT,
    HIDDEN_FROM_REPRESENTATIVES,
    KOS_CLASS,
    KOS_FORMAT,
    KOS_TYPE,
    MASKED,
    REFERENCE_ACCESSION,
    REFERENCE_STUDY,
    AssociationType,
    Node,
    Status,
)
from drimbox.national.dmp.metadata.datatypes import Cx, Dtm, Xcn, Xon
from drimbox.reports.report import Coded, Visibility


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a document or a submission set; roles and specialities keep their coded text."""

    person: Xcn | None = None
    institutions: tuple[Xon, ...] = ()
    roles: tuple[str, ...] = ()
    specialities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class DocumentEntry:
    """One document as the registry describes it.

    ``entry_id`` is the entryUUID, or a symbolic id before the registry has given one. ``hash`` is SHA-1 in hexadecimal,
    ``size`` in bytes. ``source_patient_info`` holds ``PID-n|value`` texts. ``unknown_slots`` keeps what this box does
    not use, so that an entry read can be written again whole.
    """

    unique_id: str
    patient_id: Cx
    mime_type: str
    entry_id: str = ""
    logical_id: str = ""
    version: str = ""
    object_type: str = Node.STABLE_DOCUMENT
    status: str = ""
    home: str = ""
    repository_id: str = ""
    hash: str = ""
    size: int | None = None
    uri: str = ""
    language: str = ""
    creation_time: Dtm | None = None
    service_start: Dtm | None = None
    service_stop: Dtm | None = None
    title: str = ""
    comments: str = ""
    authors: tuple[Author, ...] = ()
    legal_authenticator: Xcn | None = None
    source_patient_id: Cx | None = None
    source_patient_info: tuple[str, ...] = ()
    class_code: Coded | None = None
    type_code: Coded | None = None
    format_code: Coded | None = None
    facility_type: Coded | None = None
    practice_setting: Coded | None = None
    confidentiality: tuple[Coded, ...] = ()
    event_codes: tuple[Coded, ...] = ()
    references: tuple[Cx, ...] = ()
    unknown_slots: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __repr__(self) -> str:
        return f"DocumentEntry({self.unique_id}, {self.status.rpartition(':')[2]})"

    @property
    def is_kos(self) -> bool:
        """Is this the manifest of an imaging study? By typeCode or formatCode: samples agree on both."""
        return _same(self.type_code, KOS_TYPE) or (
            _same(self.format_code, KOS_FORMAT) and _same(self.class_code, KOS_CLASS)
        )

    @property
    def masked(self) -> bool:
        """Masked to professionals (EX_3.1-1080)."""
        return self._has(MASKED)

    @property
    def hidden_from_patient(self) -> bool:
        return self._has(HIDDEN_FROM_PATIENT)

    @property
    def hidden_from_representatives(self) -> bool:
        return self._has(HIDDEN_FROM_REPRESENTATIVES)

    @property
    def visibility(self) -> Visibility:
        """Who may see the document, as the DMP has it now (decision 6)."""
        return Visibility(self.masked, self.hidden_from_patient, self.hidden_from_representatives)

    @property
    def archived(self) -> bool:
        return self.status == Status.ARCHIVED

    @property
    def obsolete(self) -> bool:
        """A newer version has taken its place."""
        return self.status == Status.DEPRECATED

    def references_of(self, kind: str) -> tuple[Cx, ...]:
        """The references of one kind (``codes.REFERENCE_…``)."""
        return tuple(r for r in self.references if r.kind == kind)

    def study_uids(self) -> tuple[str, ...]:
        """Study Instance UIDs that the entry refers to."""
        return tuple(r.value for r in self.references_of(REFERENCE_STUDY))

    def accession_numbers(self) -> tuple[Cx, ...]:
        return self.references_of(REFERENCE_ACCESSION)

    def source_patient(self, field_name: str) -> str:
        """The value of ``PID-n`` in sourcePatientInfo, empty when absent."""
        wanted = f"{field_name}|"
        return next((v[len(wanted) :] for v in self.source_patient_info if v.startswith(wanted)), "")

    def is_of(self, patient: Ins) -> bool:
        """Is this a document of that patient? Matricule and authority both count."""
        return self.patient_id.value == patient.matricule and self.patient_id.authority == patient.oid

    def _has(self, code: Coded) -> bool:
        return any(c.code == code.code for c in self.confidentiality)


@dataclass(frozen=True, slots=True, repr=False)
class SubmissionSet:
    """One lot de soumission. ``source_id`` is the OID of this installation."""

    unique_id: str
    source_id: str
    patient_id: Cx
    submission_time: Dtm | None
    content_type: Coded | None
    authors: tuple[Author, ...]
    title: str = ""
    comments: str = ""
    entry_id: str = ""
    status: str = ""

    def __repr__(self) -> str:
        return f"SubmissionSet({self.unique_id})"


@dataclass(frozen=True, slots=True)
class Association:
    """A typed link between two registry objects, with its slots."""

    kind: str
    source: str
    target: str
    slots: tuple[tuple[str, tuple[str, ...]], ...] = ()
    entry_id: str = ""

    @staticmethod
    def member(submission_set: str, entry: str) -> Association:
        """HasMember of a new document: ``SubmissionSetStatus`` ``Original``."""
        return Association(AssociationType.HAS_MEMBER, submission_set, entry, _ORIGINAL)

    @staticmethod
    def signs(signature: str, submission_set: str) -> Association:
        return Association(AssociationType.SIGNS, signature, submission_set, _ORIGINAL)

    @staticmethod
    def replaces(new: str, old_entry_uuid: str) -> Association:
        return Association(AssociationType.REPLACES, new, old_entry_uuid, _ORIGINAL)

    @staticmethod
    def status_change(submission_set: str, entry_uuid: str, original: Status, new: Status) -> Association:
        """ITI-57 UpdateAvailabilityStatus: from the status that is, to the one that is wanted."""
        slots = (("OriginalStatus", (original.value,)), ("NewStatus", (new.value,)))
        return Association(AssociationType.UPDATE_STATUS, submission_set, entry_uuid, slots)


_ORIGINAL = (("SubmissionSetStatus", ("Original",)),)


@dataclass(frozen=True, slots=True)
class SubmissionDraft:
    """What the caller says of a submission set; its ids and its time are given when it is prepared."""

    author: Author
    content_type: Coded
    title: str = "Publication de références d'objets d'imagerie"
    comments: str = ""


@dataclass(frozen=True, slots=True)
class RegistryObjects:
    """The objects of one message, in its order. ``references`` are bare ObjectRef ids."""

    entries: tuple[DocumentEntry, ...] = ()
    submission_sets: tuple[SubmissionSet, ...] = ()
    associations: tuple[Association, ...] = ()
    references: tuple[str, ...] = field(default=())


def _same(code: Coded | None, wanted: Coded) -> bool:
    return code is not None and code.code == wanted.code
