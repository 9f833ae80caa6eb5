"""ITI-41 Provide and Register Document Set-b: one submission set with its documents (standards.md D.6).

A submission is first prepared whole - metadata, signature, identifiers - so that it can be stored and sent again as it
was: the DMP then recognises what it already has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.foundation.uids import new_uid
from drimbox.foundation.xml import Builder, parse, to_bytes
from drimbox.identity.ins import Ins
from drimbox.national.dmp import mtom, registry, soap, xades, xmldsig
from drimbox.national.dmp.codes import (
    ACTION_PROVIDE,
    KOS_MIME,
    LCM,
    RS,
    SIGNATURE_FORMAT,
    XDSB,
    XOP,
)
from drimbox.national.dmp.errors import RegistryError
from drimbox.national.dmp.metadata import (
    Association,
    Cx,
    DocumentEntry,
    Dtm,
    RegistryObjects,
    SubmissionDraft,
    SubmissionSet,
    read_objects,
    signature_entry,
    submit_objects_request,
)
from drimbox.national.dmp.transport import Request
from drimbox.trust.keystore import Credential

_SET_ID = "SubmissionSet01"
_SIGNATURE_ID = "Signature01"
_XDSB = Builder({"xdsb": XDSB}, "xdsb")
_XOP = Builder({"xop": XOP}, "xop")


@dataclass(frozen=True, slots=True)
class KosDocument:
    """A KOS to publish: its entry (``metadata.kos_entry``), its octets, the entryUUID of the version it replaces."""

    entry: DocumentEntry
    content: bytes
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """One document of a prepared submission."""

    entry_id: str
    unique_id: str
    is_signature: bool
    content: bytes

    def __repr__(self) -> str:
        return f"PreparedDocument({self.entry_id}, {self.unique_id})"


@dataclass(frozen=True, slots=True)
class PreparedSubmission:
    """A submission set, ready to be stored and sent, today or again later.

    ``metadata`` are the octets of its ``lcm:SubmitObjectsRequest`` (the lot de soumission to archive).
    """

    submission_uid: str
    metadata: bytes
    documents: tuple[PreparedDocument, ...]
    owners: tuple[Cx, ...] = field(default=(), compare=False)
    """Whose the set and its documents are by ``metadata``, where that is known already."""

    @staticmethod
    def restore(metadata: bytes, contents: Iterable[bytes]) -> PreparedSubmission:
        """Put together again what was stored: documents find their entries by hash and size.

        Raises ``Refused`` (``submission-archive``) when a document of the metadata has no octets, or octets no entry.
        """
        objects = read_objects(parse(metadata))
        if len(objects.submission_sets) != 1:
            raise Refused("Lot de soumission archivé illisible", code="submission-archive")
        left = {(hashlib.sha1(c, usedforsecurity=False).hexdigest(), len(c)): c for c in contents}
        documents = []
        for entry in objects.entries:
            content = left.pop((entry.hash, entry.size or 0), None)
            if content is None:
                raise Refused("Un document du lot de soumission archivé manque", code="submission-archive")
            documents.append(_prepared(entry, content))
        if left:
            raise Refused("Document étranger au lot de soumission archivé", code="submission-archive")
        return PreparedSubmission(objects.submission_sets[0].unique_id, metadata, tuple(documents), _owners(objects))

    @property
    def kos(self) -> tuple[PreparedDocument, ...]:
        """The KOS of the set, in order."""
        return tuple(d for d in self.documents if not d.is_signature)

    @property
    def signature(self) -> bytes:
        """The octets of the XAdES signature."""
        return next(d.content for d in self.documents if d.is_signature)

    def objects(self) -> RegistryObjects:
        """The metadata as typed values."""
        return read_objects(parse(self.metadata))

    def __repr__(self) -> str:
        return f"PreparedSubmission({self.submission_uid}, {len(self.documents)} documents)"


@dataclass(frozen=True, slots=True)
class ProvideResult:
    """The DMP has registered the set: wholly, or ``partial`` with ``errors``; ``warnings`` lost nothing of the set."""

    partial: bool
    errors: tuple[RegistryError, ...]
    warnings: tuple[RegistryError, ...]


def prepare(
    patient: Ins,
    documents: Sequence[KosDocument],
    draft: SubmissionDraft,
    *,
    source_id: str,
    credential: Credential,
    algorithm: xmldsig.Algorithm,
    clock: Clock,
) -> PreparedSubmission:
    """Give ids, sign, write the metadata. Pure but for the ids and the signature.

    Raises ``IdentityMismatch`` when a KOS is of another patient, ``Refused`` (``submission-empty``, ``kos-hash``).
    """
    now = clock.now()
    kos = _checked(patient, documents)
    submission_uid, signature_uid = new_uid(), new_uid()
    signature = xades.sign_submission(
        submission_uid,
        [(d.entry.unique_id, d.content) for d in kos],
        signature_uid=signature_uid,
        credential=credential,
        algorithm=algorithm,
        now=now,
    )
    entries = [replace(d.entry, entry_id=f"Document{n:02d}") for n, d in enumerate(kos, 1)]
    signed = signature_entry(unique_id=signature_uid, content=signature, draft=draft, documents=entries, now=now)
    signed = replace(signed, entry_id=_SIGNATURE_ID)
    whole = submission_set(draft, patient, submission_uid, source_id, Dtm.of(now))
    metadata = submit_objects_request(
        whole,
        [*entries, signed],
        [
            *(Association.member(_SET_ID, entry.entry_id) for entry in (*entries, signed)),
            Association.signs(_SIGNATURE_ID, _SET_ID),
            *(
                Association.replaces(entry.entry_id, d.replaces)
                for entry, d in zip(entries, kos, strict=True)
                if d.replaces
            ),
        ],
    )
    contents = zip((*entries, signed), (*(d.content for d in kos), signature), strict=True)
    return PreparedSubmission(
        submission_uid,
        to_bytes(metadata),
        tuple(_prepared(e, c) for e, c in contents),
        (whole.patient_id, *(entry.patient_id for entry in (*entries, signed))),
    )


def submission_set(draft: SubmissionDraft, patient: Ins, unique_id: str, source_id: str, time: Dtm) -> SubmissionSet:
    """A draft made into a submission set."""
    return SubmissionSet(
        unique_id=unique_id,
        source_id=source_id,
        patient_id=Cx(patient.matricule, patient.oid, "NH"),
        submission_time=time,
        content_type=draft.content_type,
        authors=(draft.author,),
        title=draft.title,
        comments=draft.comments,
        entry_id=_SET_ID,
    )


def request(url: str, patient: Ins, prepared: PreparedSubmission) -> Request:
    """What is sent. Raises ``IdentityMismatch`` (``submission-patient``) for another patient's submission."""
    metadata = parse(prepared.metadata)
    if metadata.tag != f"{{{LCM}}}SubmitObjectsRequest":
        raise Refused("Lot de soumission illisible", code="submission-archive")
    owners = prepared.owners or _owners(read_objects(metadata))
    if not owners or any(owner.value != patient.matricule or owner.authority != patient.oid for owner in owners):
        raise _other_patient()
    body = _XDSB("ProvideAndRegisterDocumentSetRequest", metadata)
    attachments = []
    for number, document in enumerate(prepared.documents, 2):
        content_id = f"0.{number}"
        body.append(_XDSB("Document", _XOP("Include", href=mtom.include(content_id)), id=document.entry_id))
        attachments.append(mtom.Attachment(content_id, document.content))
    return Request(url, ACTION_PROVIDE, body, changes=True, attachments=attachments)


def result(answer: soap.Answer) -> ProvideResult:
    """Read the answer. Raises as ``registry.outcome``; ``Refused`` when it is none."""
    found = registry.outcome(soap.expect(answer, RS, "RegistryResponse"))
    return ProvideResult(found.partial, found.errors, found.warnings)


def _checked(patient: Ins, documents: Sequence[KosDocument]) -> tuple[KosDocument, ...]:
    if not documents:
        raise Refused("Lot de soumission sans document", code="submission-empty")
    for document in documents:
        entry, content = document.entry, document.content
        if not entry.is_of(patient):
            raise _other_patient()
        actual = (hashlib.sha1(content, usedforsecurity=False).hexdigest(), len(content))
        if entry.mime_type != KOS_MIME or (entry.hash, entry.size) != actual:
            raise Refused("Les métadonnées ne décrivent pas ce document KOS", code="kos-hash")
    return tuple(documents)


def _owners(objects: RegistryObjects) -> tuple[Cx, ...]:
    return (*(s.patient_id for s in objects.submission_sets), *(e.patient_id for e in objects.entries))


def _other_patient() -> IdentityMismatch:
    return IdentityMismatch("Le lot de soumission n'est pas de ce patient", code="submission-patient")


def _prepared(entry: DocumentEntry, content: bytes) -> PreparedDocument:
    format_code = entry.format_code.code if entry.format_code else ""
    return PreparedDocument(entry.entry_id, entry.unique_id, format_code == SIGNATURE_FORMAT.code, content)
