"""The entries that this box publishes: the KOS and its signature, from plain domain values (standards.md D.5, D.7)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.traits import LocalId, Patient
from drimbox.national.dmp import codes
from drimbox.national.dmp.metadata.datatypes import Cx, Dtm, Xcn, Xon, escape
from drimbox.national.dmp.metadata.model import Author, DocumentEntry, SubmissionDraft
from drimbox.pacs.study import Study
from drimbox.reports.report import Act, Coded, Identifier, Order, Person, Report, Structure, Visibility

_MAX_NAME = 60


@dataclass(frozen=True, slots=True)
class Device:
    """This box as author of the KOS entry (decision 9): ``<identifier>^<name>^<model>…^U^^^EI``."""

    identifier: str
    model: str
    name: str = "DRIMbox"


@dataclass(frozen=True, slots=True)
class KosCoding:
    """Coding schemes of eventCodeList, where official samples disagree (decision 10)."""

    modality_scheme: str = codes.MODALITIES
    region_scheme: str = codes.SNOMED_CT


def kos_entry(
    *,
    report: Report,
    study: Study,
    orders: Sequence[Order],
    kos_uid: str,
    kos_bytes: bytes,
    created: dt.datetime,
    device: Device,
    author: Literal["device", "radiologist"] = "device",
    structure: Structure | None = None,
    coding: KosCoding | None = None,
) -> DocumentEntry:
    """The DocumentEntry of a KOS.

    ``orders`` are those that belong to this study alone (decision 3); ``created`` is the KOS's creation time, aware;
    ``structure`` the publishing structure when it is not the report's. Raises ``Refused``: ``metadata-facility``,
    ``metadata-practice`` (the report does not say where it was made), ``metadata-reference`` (an accession or order
    number without issuer); ``Misconfigured`` when the device is the author and has no identifier.
    """
    coding = coding or KosCoding()
    patient = report.patient
    acts = tuple(act for act in report.acts if study.study_uid in act.study_uids)
    start, stop = _period(acts, study, created)
    return DocumentEntry(
        unique_id=kos_uid,
        patient_id=Cx(patient.ins.matricule, patient.ins.oid, "NH"),
        mime_type=codes.KOS_MIME,
        hash=hashlib.sha1(kos_bytes, usedforsecurity=False).hexdigest(),
        size=len(kos_bytes),
        language="fr-FR",
        creation_time=Dtm.of(created),
        service_start=start,
        service_stop=stop,
        title=codes.KOS_TITLE,
        comments=codes.KOS_COMMENTS,
        authors=(_kos_author(author, device, report.signatory, structure or report.structure),),
        legal_authenticator=_professional(report.signatory),
        source_patient_id=_source_patient_id(patient, study.patient_id),
        source_patient_info=_source_patient_info(patient),
        class_code=codes.KOS_CLASS,
        type_code=codes.KOS_TYPE,
        format_code=codes.KOS_FORMAT,
        facility_type=_required(report.facility_type, "metadata-facility", "Type d'établissement"),
        practice_setting=_required(report.practice_setting, "metadata-practice", "Cadre d'exercice"),
        confidentiality=confidentiality(report.visibility),
        event_codes=(*_regions(acts, coding.region_scheme), *_modalities(study, acts, coding.modality_scheme)),
        references=tuple(_references(study, orders)),
    )


def signature_entry(
    *, unique_id: str, content: bytes, draft: SubmissionDraft, documents: Sequence[DocumentEntry], now: dt.datetime
) -> DocumentEntry:
    """The DocumentEntry of the XAdES signature of a submission set (standards.md D.7): never shown to anyone."""
    first = documents[0]
    time = Dtm.of(now)
    return DocumentEntry(
        unique_id=unique_id,
        patient_id=first.patient_id,
        mime_type=codes.SIGNATURE_MIME,
        hash=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
        size=len(content),
        language=codes.SIGNATURE_LANGUAGE,
        creation_time=time,
        service_start=time,
        service_stop=time,
        title=codes.SIGNATURE_TITLE,
        authors=(draft.author,),
        legal_authenticator=first.legal_authenticator,
        source_patient_id=first.patient_id,
        class_code=codes.SIGNATURE_CLASS,
        type_code=codes.SIGNATURE_TYPE,
        format_code=codes.SIGNATURE_FORMAT,
        facility_type=first.facility_type,
        practice_setting=first.practice_setting,
        confidentiality=(codes.NORMAL, codes.MASKED, codes.HIDDEN_FROM_PATIENT),
        event_codes=(codes.SIGNATURE_PURPOSE,),
    )


def submission_draft(report: Report, *, structure: Structure | None = None, title: str = "") -> SubmissionDraft:
    """The submission set of a report: its author is the sender of the message (PRT ``SB``), else the signatory."""
    person = report.sender.person or report.signatory
    place = structure or report.sender.structure or report.structure
    draft = SubmissionDraft(person_author(person, place), content_type_of(report.patient_class))
    return SubmissionDraft(draft.author, draft.content_type, title or draft.title)


def person_author(person: Person, structure: Structure) -> Author:
    """A professional as author, for a structure."""
    return Author(_professional(person), (Xon.structure(structure.identifier, structure.name),))


def content_type_of(patient_class: str) -> Coded:
    """contentTypeCode from PV1-2 (I, O, E, R, N); any other is ``97``, activity not told."""
    return codes.CONTENT_TYPE_OF_PATIENT_CLASS.get(
        patient_class.strip().upper(), codes.CONTENT_TYPE_OF_PATIENT_CLASS["N"]
    )


def confidentiality(visibility: Visibility) -> tuple[Coded, ...]:
    """``N`` always, and the French restrictions in their XDS spelling (they differ from HL7's: standards.md L.5)."""
    restrictions = (
        (visibility.masked_to_professionals, codes.MASKED),
        (visibility.hidden_from_patient, codes.HIDDEN_FROM_PATIENT),
        (visibility.hidden_from_representatives, codes.HIDDEN_FROM_REPRESENTATIVES),
    )
    return (codes.NORMAL, *(code for wanted, code in restrictions if wanted))


def _kos_author(kind: str, device: Device, signatory: Person, structure: Structure) -> Author:
    if kind == "radiologist":
        person = _professional(signatory)
    elif device.identifier:
        person = Xcn.device(device.identifier, device.name, device.model)
    else:
        raise Misconfigured("Donnez l'identifiant de cette DRIMbox (box.device_id) : elle est l'auteur du KOS")
    return Author(person, (Xon.structure(structure.identifier, structure.name),))


def _professional(person: Person) -> Xcn:
    return Xcn.professional(person.identifier, person.family, person.given)


def _source_patient_id(patient: Patient, pacs_patient_id: str) -> Cx:
    """The IPP, the PACS's own first; the INS when no IPP has an issuer."""
    known = [number for number in patient.local_ids if is_uid(number.issuer)]
    found: LocalId | None = next((n for n in known if n.value == pacs_patient_id), next(iter(known), None))
    if found is None:
        return Cx(patient.ins.matricule, patient.ins.oid, "NH")
    return Cx(found.value, found.issuer, "PI")


def _source_patient_info(patient: Patient) -> tuple[str, ...]:
    traits = patient.traits
    family, given = escape(traits.birth_family[:_MAX_NAME]), escape(traits.first_given[:_MAX_NAME])
    values = [
        f"PID-5|{family}^{given}^^^^^L",
        f"PID-7|{traits.birth_date:%Y%m%d}",
        f"PID-8|{traits.sex.value}",
    ]
    if traits.birth_place:
        values.append(f"PID-11|^^^^^^BDL^^{escape(traits.birth_place)}")
    return tuple(values)


def _period(acts: Sequence[Act], study: Study, created: dt.datetime) -> tuple[Dtm, Dtm]:
    """Start and stop of the act that made the study; the study's own time where the report says nothing."""
    study_time = _study_instant(study)
    start = min((act.start for act in acts if act.start), default=study_time or created)
    stop = max((act.stop for act in acts if act.stop), default=start)
    return Dtm.of(start), Dtm.of(max(start, stop))


def _study_instant(study: Study) -> dt.datetime | None:
    text = study.study_date.replace(".", "") + (study.study_time.replace(":", "").split(".")[0] or "")
    try:
        return dt.datetime.strptime(f"{text:0<14}", "%Y%m%d%H%M%S").replace(tzinfo=PARIS)
    except ValueError:
        return None


def _regions(acts: Sequence[Act], scheme: str) -> Iterator[Coded]:
    seen: set[str] = set()
    for region in (region for act in acts for region in act.regions):
        if region.code in seen:
            continue
        seen.add(region.code)
        # Only a code of the anatomical value set may go under the scheme that is set for it.
        system = scheme if region.system in codes.REGION_SCHEMES or not region.system else region.system
        yield Coded(region.code, system, region.label)


def _modalities(study: Study, acts: Sequence[Act], scheme: str) -> Iterator[Coded]:
    labels = {m.code: m.label for act in acts for m in act.modalities if m.label}
    images = [m for m in study.modalities if m in codes.ACQUISITIONS]
    # A study without any (scanned paper, "OT") is told as it is, rather than not at all.
    for code in images or study.modalities:
        yield Coded(code, scheme, labels.get(code) or codes.ACQUISITIONS.get(code, code))


def _references(study: Study, orders: Sequence[Order]) -> Iterator[Cx]:
    """Accession and order with their own issuers, the study UID without one (decision 11); each once."""
    for accession in dict.fromkeys(o.accession for o in orders if o.accession):
        yield _reference(accession, codes.REFERENCE_ACCESSION)
    yield Cx(study.study_uid, kind=codes.REFERENCE_STUDY)
    for placer in dict.fromkeys(o.placer for o in orders if o.placer):
        yield _reference(placer, codes.REFERENCE_ORDER)


def _reference(identifier: Identifier, kind: str) -> Cx:
    if not is_uid(identifier.issuer):
        raise Refused(
            "Numéro d'examen ou de demande sans émetteur (OID) : il ne peut pas être publié", code="metadata-reference"
        )
    return Cx(identifier.value, identifier.issuer, kind)


def _required(code: Coded | None, error: str, name: str) -> Coded:
    if code is None or not code.code:
        raise Refused(f"{name} absent du compte rendu", code=error)
    return code
