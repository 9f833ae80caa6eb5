"""Rules of the document entry of a KOS: the nationally agreed values (standards.md D.5, official-data.md 6.3)."""

from __future__ import annotations

import re

from drimbox.sandbox.dmp import datatypes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.entry_rules import EntryCase
from drimbox.sandbox.dmp.rules import Rule, rule

_MASKS = frozenset({v.MASKED_TO_PROFESSIONALS, v.HIDDEN_FROM_PATIENT, v.HIDDEN_FROM_REPRESENTATIVES})


def _code_is(case: EntryCase, axis: str, code: str, scheme: str) -> bool:
    found = case.entry.only_code(axis)
    return found is not None and (found.code, found.scheme) == (code, scheme)


@rule("KOS_ENTRY.MIME", v.REPOSITORY_METADATA)
def mime(case: EntryCase) -> str | None:
    """mimeType is application/dicom (standards.md D.5)."""
    return None if case.entry.element.get("mimeType") == "application/dicom" else "mimeType application/dicom attendu"


@rule("KOS_ENTRY.CLASS", v.REPOSITORY_METADATA)
def class_code(case: EntryCase) -> str | None:
    """classCode is 31 Imagerie médicale of 1.2.250.1.213.1.1.4.1 (standards.md D.5)."""
    return None if _code_is(case, v.ENTRY_CLASS, "31", v.CLASSES) else "classCode 31 attendu"


@rule("KOS_ENTRY.TYPE", v.REPOSITORY_METADATA)
def type_code(case: EntryCase) -> str | None:
    """typeCode is IMG-KOS of 1.2.250.1.213.1.1.4.12 (standards.md D.5)."""
    return None if _code_is(case, v.ENTRY_TYPE, "IMG-KOS", v.IMAGING_TYPES) else "typeCode IMG-KOS attendu"


@rule("KOS_ENTRY.FORMAT", v.REPOSITORY_METADATA)
def format_code(case: EntryCase) -> str | None:
    """formatCode is the KOS SOP class of the DICOM UID registry (standards.md A.4, D.5)."""
    return None if _code_is(case, v.ENTRY_FORMAT, v.KOS_SOP_CLASS, v.DICOM_UIDS) else "formatCode du KOS attendu"


@rule("KOS_ENTRY.LANGUAGE", v.REPOSITORY_METADATA)
def language(case: EntryCase) -> str | None:
    """languageCode is fr-FR (standards.md D.5)."""
    return None if case.entry.slot("languageCode") == "fr-FR" else "languageCode fr-FR attendu"


@rule("KOS_ENTRY.CONFIDENTIALITY", v.REPOSITORY_METADATA)
def confidentiality(case: EntryCase) -> str | None:
    """N, and MASQUE_PS, INVISIBLE_PATIENT, INVISIBLE_REPRESENTANTS_LEGAUX in the XDS spelling (standards.md D.5)."""
    found = [(c.code, c.scheme) for c in case.entry.codes.get(v.ENTRY_CONFIDENTIALITY, ())]
    allowed = {("N", v.CONFIDENTIALITY)} | {(mask, v.MASKS) for mask in _MASKS}
    right = ("N", v.CONFIDENTIALITY) in found and set(found) <= allowed and len(set(found)) == len(found)
    return None if right else "confidentialityCode absent, inconnu ou répété"


@rule("KOS_ENTRY.CUMUL", v.LOCAL_POLICY)
def cumul(case: EntryCase) -> str | None:
    """EX_2.1-1050: masked to professionals and hidden from the patient at once only if the DMP is set so."""
    found = {c.code for c in case.entry.codes.get(v.ENTRY_CONFIDENTIALITY, ())}
    both = {v.MASKED_TO_PROFESSIONALS, v.HIDDEN_FROM_PATIENT} <= found
    return "EX_2.1-1050 : cumul de masquages non admis" if both and not case.bench.policy.cumulative_masks else None


@rule("KOS_ENTRY.MODALITY", v.REPOSITORY_METADATA)
def modality(case: EntryCase) -> str | None:
    """eventCodeList holds at least one modality of the value set, each once (standards.md D.5)."""
    found = [c.code for c in case.entry.codes.get(v.ENTRY_EVENT, ()) if c.scheme in v.MODALITY_SCHEMES]
    right = found and set(found) <= v.MODALITIES and len(set(found)) == len(found)
    return None if right else "modalité absente, inconnue ou répétée dans eventCodeList"


@rule("KOS_ENTRY.REGION", v.REPOSITORY_METADATA)
def region(case: EntryCase) -> str | None:
    """The other codes of eventCodeList are anatomic regions of the value set (standards.md D.5)."""
    others = [c for c in case.entry.codes.get(v.ENTRY_EVENT, ()) if c.scheme not in v.MODALITY_SCHEMES]
    right = all(c.scheme in v.REGION_SCHEMES and c.code in v.REGIONS for c in others)
    return None if right else "région inconnue dans eventCodeList"


@rule("KOS_ENTRY.PATIENT_INFO", v.REPOSITORY_METADATA)
def patient_info(case: EntryCase) -> str | None:
    """sourcePatientInfo gives PID-5 (birth name, type L), PID-7 and PID-8 (standards.md D.5, official-data.md 6.3)."""
    lines = dict(value.partition("|")[::2] for value in case.entry.slots.get("sourcePatientInfo", ()))
    if len(lines) < len(case.entry.slots.get("sourcePatientInfo", ())):
        return "sourcePatientInfo répété"
    right = (
        re.fullmatch(r"[^^|~]+\^[^^|~]+\^[^|~]*\^L", lines.get("PID-5", ""))
        and re.fullmatch(r"\d{8}", lines.get("PID-7", ""))
        and lines.get("PID-8", "") in ("M", "F", "O", "U")
    )
    return None if right else "sourcePatientInfo incomplet ou mal formé"


@rule("KOS_ENTRY.REFERENCES", v.REPOSITORY_METADATA)
def references(case: EntryCase) -> str | None:
    """referenceIdList holds CXi of the three types; accession and order with their issuer (standards.md D.5)."""
    values = case.entry.slots.get(v.REFERENCES_SLOT, ())
    for value in values:
        told = datatypes.reference(value)
        if told is None or told.kind not in (v.ACCESSION_REFERENCE, v.ORDER_REFERENCE, v.STUDY_REFERENCE):
            return "référence mal formée ou de type inconnu dans referenceIdList"
        if told.kind != v.STUDY_REFERENCE and not told.authority:
            return "référence sans organisme émetteur dans referenceIdList"
    return "référence répétée dans referenceIdList" if len(set(values)) < len(values) else None


@rule("KOS_ENTRY.STUDY", v.REPOSITORY_METADATA)
def study(case: EntryCase) -> str | None:
    """referenceIdList names exactly one study, without assigning authority (standards.md D.5; decision 11)."""
    told = [datatypes.reference(value) for value in case.entry.slots.get(v.REFERENCES_SLOT, ())]
    studies = [t for t in told if t is not None and t.kind == v.STUDY_REFERENCE]
    right = len(studies) == 1 and datatypes.is_oid(studies[0].value) and not studies[0].authority
    return None if right else "une référence d'étude, sans organisme émetteur, attendue"


@rule("KOS_ENTRY.ACCESSION", v.REPOSITORY_METADATA)
def accession(case: EntryCase) -> str | None:
    """referenceIdList names at least one accession number (standards.md D.5)."""
    found = any(value.endswith(v.ACCESSION_REFERENCE) for value in case.entry.slots.get(v.REFERENCES_SLOT, ()))
    return None if found else "numéro d'accession absent de referenceIdList"


KOS_ENTRY_RULES: tuple[Rule[EntryCase], ...] = (
    mime,
    class_code,
    type_code,
    format_code,
    language,
    confidentiality,
    cumul,
    modality,
    region,
    patient_info,
    references,
    study,
    accession,
)
