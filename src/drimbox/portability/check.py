"""Is a set what it says it is? Everything is checked before anything of it is believed.

A set is refused whole: a KOS of another patient than its metadata, of another study, of other octets than were
published.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.foundation.xml import Element
from drimbox.identity.ins import Ins
from drimbox.manifest.read import Manifest, read_manifest
from drimbox.national.dmp.codes import KOS_MIME, AssociationType, Status
from drimbox.national.dmp.metadata import Cx, DocumentEntry, SubmissionSet
from drimbox.portability import notes
from drimbox.portability.compose import local_number
from drimbox.portability.layout import refused
from drimbox.portability.metadata import Lot, keep_local_number, read_metadata
from drimbox.portability.notes import YEARS, Notes
from drimbox.portability.octets import KosOctets, SetReader, is_signature, signs
from drimbox.portability.references import ReportReference
from drimbox.portability.sources import SetFiles
from drimbox.publication.kos import State
from drimbox.reports.report import normal_structure_id

Range = Literal["test", "production"]
References = Mapping[str, tuple[ReportReference, ...]]

_STATE = {Status.DEPRECATED.value: State.REPLACED, Status.DELETED.value: State.DEPUBLISHED}
_MAX_DOCUMENT_ID = 256


@dataclass(frozen=True, slots=True, repr=False)
class CheckedVersion:
    """One KOS of a set.

    ``replaces_entry`` is the entryUUID of the one that it replaced, empty for none; ``documents`` are its reports,
    oldest first, ``standing`` those that stand on the study, None when this version does not tell.
    """

    kos_uid: str
    study_uid: str
    kos: bytes
    ins: Ins
    state: State
    entry: DocumentEntry
    entry_uuid: str
    replaces_entry: str
    documents: tuple[str, ...]
    standing: tuple[str, ...] | None
    notes: Notes

    def __repr__(self) -> str:
        return f"CheckedVersion({self.kos_uid}, {self.state})"


@dataclass(frozen=True, slots=True, repr=False)
class CheckedSet:
    """A set that may be imported.

    ``structures`` are the Struct_IdNat that it names, those of its KOS first; ``at`` is when it was submitted;
    ``warnings`` are codes of what is odd and lets it pass (``WARNINGS``).
    """

    submission_set: SubmissionSet
    metadata: bytes
    signature: bytes
    assertion: Element | None
    structures: tuple[str, ...]
    at: dt.datetime
    versions: tuple[CheckedVersion, ...]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"CheckedSet({self.submission_set.unique_id})"


WARNINGS: Mapping[str, str] = {
    "report-missing": "lots sans CR.TXT : le compte rendu derrière le KOS n'est pas connu",
    "signature-missing": "lots sans signature",
    "signature-hash": "lots dont la signature n'est pas celle que décrivent les métadonnées",
    "signature-digest": "lots dont la signature ne porte pas sur le KOS",
    "other-document": "lots avec un document qui n'est ni un KOS ni une signature, laissé de côté",
    "identity": "KOS sans identité VIHF complète : leur mise à jour par le PACS demandera un message du RIS",
    "other-current": "KOS dont l'examen a un autre KOS courant dans la passerelle",
    "ignored-path": "fichiers du zip dont le chemin mène hors de l'archive, ignorés",
    "volume-incomplete": "volumes qui n'ont pas tous les lots qu'ils annoncent",
}
"""What is odd and lets pass, in words for the operator."""


def check_set(files: SetFiles, *, ins_range: Range) -> CheckedSet:
    """Read one set and check all of it.

    Raises ``Refused``: ``archive-…``, ``ins-range``, and what reading a KOS, XML, an INS or metadata may raise;
    ``IdentityMismatch`` (``archive-patient``) when its parts are of different patients; ``Unavailable`` when the disk
    does not answer.
    """
    reader = SetReader(files)
    lot = read_metadata(reader.metadata())
    submission_set = lot.objects.submission_sets[0]
    entries = tuple(e for e in lot.objects.entries if not is_signature(e) and (e.is_kos or e.mime_type == KOS_MIME))
    if not entries:
        raise refused("Le lot ne contient pas de KOS", "no-kos")
    if len({entry.unique_id for entry in lot.objects.entries}) != len(lot.objects.entries):
        raise refused("Deux documents du lot portent le même identifiant", "duplicate")
    ins = _patient(lot, submission_set, ins_range)
    kos = {entry.unique_id: reader.kos(lot, entry) for entry in entries}
    if strangers := set(reader.kos_names()) - {k.name for k in kos.values()}:
        raise refused(f"{len(strangers)} KOS du lot sans métadonnées", "kos-stranger")
    references = reader.references()
    _same_patient(references, entries, ins)
    at = _submitted(submission_set, entries[0])
    signature, described = reader.signature(lot)
    return CheckedSet(
        submission_set=submission_set,
        metadata=_with_local_number(lot.metadata, entries, references, ins),
        signature=signature,
        assertion=lot.assertion,
        structures=_structures(entries, submission_set),
        at=at,
        versions=tuple(_version(lot, entry, kos[entry.unique_id], ins, references) for entry in entries),
        warnings=(
            *([] if references else ["report-missing"]),
            *_signature_warnings(signature, described, kos),
            *(["other-document"] if any(e not in entries and not is_signature(e) for e in lot.objects.entries) else []),
        ),
    )


def _patient(lot: Lot, submission_set: SubmissionSet, ins_range: Range) -> Ins:
    """The one patient of the set and of all its documents."""
    owners = {
        (o.value.strip(), o.authority)
        for o in (submission_set.patient_id, *(e.patient_id for e in lot.objects.entries))
    }
    found = {Ins.of(value, authority) for value, authority in owners}
    if len(found) != 1:
        raise _other_patient("Les documents du lot ne sont pas tous du même patient")
    ins = found.pop()
    if ins.authority.range != ins_range:
        raise Refused(
            "INS de test reçue par une passerelle de production"
            if ins_range == "production"
            else "INS de production reçue par une passerelle de test",
            code="ins-range",
        )
    return ins


def _same_patient(references: References, entries: Sequence[DocumentEntry], ins: Ins) -> None:
    """The reports are of that patient: by INS, and by the site's own number where both give one of the same issuer."""
    numbers = [number for e in entries if (number := local_number(e, ins)) is not None]
    for reference in (r for found in references.values() for r in found):
        if reference.ins != ins:
            raise _other_patient("Le compte rendu de CR.TXT n'est pas du patient du lot")
        if any(_contradicts(reference, number) for number in numbers):
            raise _other_patient("L'IPP de CR.TXT n'est pas celui des métadonnées")
        if len(reference.document_id) > _MAX_DOCUMENT_ID:
            raise refused("Identifiant de compte rendu trop long", "report-reference")


def _contradicts(reference: ReportReference, number: Cx) -> bool:
    same_issuer = bool(reference.ipp_issuer) and reference.ipp_issuer == number.authority
    return same_issuer and bool(reference.ipp) and reference.ipp != number.value


def _with_local_number(metadata: bytes, entries: Sequence[DocumentEntry], references: References, ins: Ins) -> bytes:
    """The submission set, with the IPP of CR.TXT where it does not tell it itself."""
    reference = next((r for found in references.values() for r in found if r.ipp), None)
    if reference is None or any(local_number(entry, ins) is not None for entry in entries):
        return metadata
    return keep_local_number(metadata, Cx(reference.ipp, reference.ipp_issuer, "PI"))


def _version(lot: Lot, entry: DocumentEntry, kos: KosOctets, ins: Ins, references: References) -> CheckedVersion:
    manifest = read_manifest(kos.octets)
    _agree(manifest, entry, ins)
    filed = lot.filed[entry.unique_id]
    told = notes.from_slots(filed.notes)
    state = _STATE.get(filed.status, State.CURRENT)
    documents = _documents(references, told.reports or references)
    if told.standing is not None:
        standing: tuple[str, ...] | None = _documents(references, told.standing)
    else:
        # Another product's archive: the reports of the KOS that stands, stand.
        standing = documents if state is State.CURRENT else None
    replaced = (
        a.target for a in lot.objects.associations if a.kind == AssociationType.REPLACES and a.source == entry.entry_id
    )
    return CheckedVersion(
        kos_uid=manifest.kos_uid,
        study_uid=manifest.study_uid,
        kos=kos.octets,
        ins=ins,
        state=state,
        entry=entry,
        entry_uuid=filed.entry_uuid,
        replaces_entry=next(replaced, ""),
        documents=documents,
        standing=standing,
        notes=told,
    )


def _agree(manifest: Manifest, entry: DocumentEntry, ins: Ins) -> None:
    """The KOS and its entry speak of one document, one study, one patient."""
    if manifest.kos_uid != entry.unique_id:
        raise refused("L'identifiant du KOS n'est pas celui de ses métadonnées", "kos-uid")
    if entry.study_uids() and manifest.study_uid not in entry.study_uids():
        raise refused("L'examen du KOS n'est pas celui de ses métadonnées", "study")
    if manifest.ins is not None and manifest.ins != ins:
        raise _other_patient("Le patient du KOS n'est pas celui de ses métadonnées")


def _documents(references: References, names: Iterable[str]) -> tuple[str, ...]:
    """The reports of some files, each once."""
    found = (references.get(name.upper(), ()) for name in names)
    return tuple(dict.fromkeys(r.document_id for several in found for r in several))


def _signature_warnings(signature: bytes, described: bool, kos: Mapping[str, KosOctets]) -> list[str]:
    if not signature:
        return ["signature-missing"]
    # All of them are looked at: one that bears on other octets refuses the set.
    borne = [signs(signature, kos_uid, octets) for kos_uid, octets in kos.items()]
    return [*([] if described else ["signature-hash"]), *([] if all(borne) else ["signature-digest"])]


def _submitted(submission_set: SubmissionSet, entry: DocumentEntry) -> dt.datetime:
    time = submission_set.submission_time or entry.creation_time
    if time is None or not YEARS[0] <= time.instant().year <= YEARS[1]:
        raise refused("Le lot ne dit pas quand il a été soumis, ou à une date impossible", "metadata")
    return time.instant()


def _structures(entries: Sequence[DocumentEntry], submission_set: SubmissionSet) -> tuple[str, ...]:
    authors = (*(a for e in entries for a in e.authors), *submission_set.authors)
    found = (normal_structure_id(i.identifier) for author in authors for i in author.institutions if i.identifier)
    return tuple(dict.fromkeys(found))


def _other_patient(reason: str) -> IdentityMismatch:
    return IdentityMismatch(reason, code="archive-patient")
