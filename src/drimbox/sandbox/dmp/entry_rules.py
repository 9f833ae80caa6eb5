"""Rules that every document entry keeps, KOS and signature alike (standards.md D.5)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from drimbox.sandbox.dmp import datatypes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bench import Bench
from drimbox.sandbox.dmp.ebrim import RegistryObject
from drimbox.sandbox.dmp.rules import Rule, rule
from drimbox.sandbox.dmp.set_rules import author_error
from drimbox.sandbox.dmp.vihf import Vihf

_FACILITY = re.compile(r"SA\d{2}")


@dataclass(frozen=True, slots=True)
class EntryCase:
    """A document entry under judgement, with the octets that came for it."""

    bench: Bench
    vihf: Vihf
    entry: RegistryObject
    content: bytes

    def __repr__(self) -> str:
        return f"EntryCase({self.entry.id})"


@rule("ENTRY.OBJECT_TYPE", v.REPOSITORY_METADATA)
def object_type(case: EntryCase) -> str | None:
    """A stable document (standards.md D.3)."""
    return None if case.entry.element.get("objectType") == v.STABLE_DOCUMENT else "objectType faux"


@rule("ENTRY.PATIENT", "XDSPatientIdDoesNotMatch")
def patient(case: EntryCase) -> str | None:
    """The patient of the entry is that of the set and of the VIHF (standards.md D.5, E)."""
    same = case.entry.identifier(v.ENTRY_PATIENT) == case.vihf.patient
    return None if same else "patient du document différent de celui du VIHF"


@rule("ENTRY.UNIQUE_ID", v.REPOSITORY_METADATA)
def unique_id(case: EntryCase) -> str | None:
    """uniqueId is an OID (standards.md D.5; EX_2.1-1130)."""
    return None if datatypes.is_oid(case.entry.identifier(v.ENTRY_UNIQUE)) else "uniqueId absent, ou pas un OID"


@rule("ENTRY.AUTHOR", v.REPOSITORY_METADATA)
def author(case: EntryCase) -> str | None:
    """At least one author: XCN of a professional or device, XON of a structure (standards.md D.5)."""
    return "auteur absent" if not case.entry.authors else author_error(case.entry)


@rule("ENTRY.AUTHOR_STRUCTURE", v.LOCAL_POLICY)
def author_structure(case: EntryCase) -> str | None:
    """EX_2.1-1140: an author's institution is the Identifiant_Structure of the VIHF, or a site of it (EJ/EG)."""
    same = any(case.bench.one_structure(i, case.vihf.structure) for i in case.entry.institutions)
    return None if same else "EX_2.1-1140 : aucune structure d'auteur n'est celle du VIHF"


@rule("ENTRY.LEGAL_AUTHENTICATOR", v.REPOSITORY_METADATA)
def legal_authenticator(case: EntryCase) -> str | None:
    """legalAuthenticator is a professional: XCN of type D, IDNPS (standards.md D.5)."""
    who = datatypes.person(case.entry.slot("legalAuthenticator"))
    right = who is not None and who.authority == v.PERSONS and who.is_professional
    return None if right and who is not None and datatypes.is_person_id(who.identifier) else "legalAuthenticator faux"


@rule("ENTRY.CREATION", v.REPOSITORY_METADATA)
def creation(case: EntryCase) -> str | None:
    """creationTime is UTC, 14 digits without offset, not in the future (standards.md D.5; ITI TF-3 4.2.3.1.7)."""
    when = datatypes.utc_time(case.entry.slot("creationTime"))
    late = when is None or when > case.bench.skewed(case.bench.policy.clock_skew)
    return "creationTime absent, pas en UTC, ou dans le futur" if late else None


@rule("ENTRY.SERVICE_TIME", v.REPOSITORY_METADATA)
def service_time(case: EntryCase) -> str | None:
    """serviceStartTime, and serviceStopTime when given, are UTC and in order (standards.md D.5)."""
    start = datatypes.utc_time(case.entry.slot("serviceStartTime"))
    stop = datatypes.utc_time(case.entry.slot("serviceStopTime"))
    if start is None or ("serviceStopTime" in case.entry.slots and stop is None):
        return "serviceStartTime ou serviceStopTime absent ou pas en UTC"
    return "serviceStopTime avant serviceStartTime" if stop is not None and stop < start else None


@rule("ENTRY.SUBMISSION_TIME", v.REPOSITORY_METADATA)
def submission_time(case: EntryCase) -> str | None:
    """The submissionTime slot that the samples put on entries is UTC when given (official-data.md 6.3)."""
    right = "submissionTime" not in case.entry.slots or datatypes.utc_time(case.entry.slot("submissionTime"))
    return None if right else "submissionTime du document pas en UTC"


@rule("ENTRY.SOURCE_PATIENT", v.REPOSITORY_METADATA)
def source_patient(case: EntryCase) -> str | None:
    """sourcePatientId is the IPP (PI, with its issuer) or the INS of the same patient (standards.md D.5)."""
    told = datatypes.reference(case.entry.slot("sourcePatientId"))
    if told is None or not told.authority or told.kind not in ("PI", "NH"):
        return "sourcePatientId absent ou mal formé"
    if told.authority in v.INS_OIDS:
        same = case.vihf.patient.startswith(f"{told.value}^^^&{told.authority}&")
        return None if same else "sourcePatientId porte un autre INS que le patient"
    return None if told.kind == "PI" else "sourcePatientId de type NH sans INS"


@rule("ENTRY.TITLE", v.REPOSITORY_METADATA)
def title(case: EntryCase) -> str | None:
    """A title of at most 128 characters (standards.md D.5)."""
    return None if 0 < len(case.entry.title) <= 128 else "titre absent ou de plus de 128 caractères"


@rule("ENTRY.LENGTH", v.REPOSITORY_METADATA)
def length(case: EntryCase) -> str | None:
    """Values, codes and labels have at most 256 characters (standards.md D.5)."""
    texts = [value for values in case.entry.slots.values() for value in values]
    texts += [text for codes in case.entry.codes.values() for c in codes for text in (c.code, c.scheme, c.label)]
    return None if all(len(text) <= 256 for text in texts) else "valeur de plus de 256 caractères"


@rule("ENTRY.CODES", v.REPOSITORY_METADATA)
def codes(case: EntryCase) -> str | None:
    """Every code has a value, one codingScheme and a label (ITI TF-3 4.2.3.1.2)."""
    whole = all(c.code and c.scheme and c.label for found in case.entry.codes.values() for c in found)
    return None if whole else "code sans valeur, sans codingScheme ou sans libellé"


@rule("ENTRY.FACILITY", v.REPOSITORY_METADATA)
def facility(case: EntryCase) -> str | None:
    """One healthcareFacilityTypeCode SAnn, scheme 1.2.250.1.71.4.2.4 (standards.md D.5)."""
    code = case.entry.only_code(v.ENTRY_FACILITY)
    right = code is not None and code.scheme == v.FACILITIES and _FACILITY.fullmatch(code.code)
    return None if right else "healthcareFacilityTypeCode absent ou faux"


@rule("ENTRY.PRACTICE", v.REPOSITORY_METADATA)
def practice(case: EntryCase) -> str | None:
    """One practiceSettingCode, scheme 1.2.250.1.213.1.1.4.9 (standards.md D.5)."""
    code = case.entry.only_code(v.ENTRY_PRACTICE)
    return None if code is not None and code.scheme == v.PRACTICES else "practiceSettingCode absent ou faux"


@rule("ENTRY.URI", v.REPOSITORY_METADATA)
def uri(case: EntryCase) -> str | None:
    """URI is for XDM only (standards.md D.5, L.7)."""
    return "URI n'est admis qu'en XDM" if "URI" in case.entry.slots else None


@rule("ENTRY.HASH", v.REPOSITORY_METADATA)
def digest(case: EntryCase) -> str | None:
    """hash is the SHA-1, in hexadecimal, of the octets received (standards.md D.5; ITI TF-3 4.2.3.2.10)."""
    right = case.entry.slot("hash").lower() == hashlib.sha1(case.content).hexdigest()
    return None if right else "hash absent ou différent du document reçu"


@rule("ENTRY.SIZE", v.REPOSITORY_METADATA)
def size(case: EntryCase) -> str | None:
    """size is the number of octets received (standards.md D.5)."""
    return None if case.entry.slot("size") == str(len(case.content)) else "size absent ou différent du document reçu"


@rule("ENTRY.VOLUME", "XDSRepositoryOutOfResources")
def volume(case: EntryCase) -> str | None:
    """A document is at most 5 MB (standards.md D.5, volumetry)."""
    return None if len(case.content) <= case.bench.policy.max_document else "document trop volumineux"


ENTRY_RULES: tuple[Rule[EntryCase], ...] = (
    object_type,
    patient,
    unique_id,
    author,
    author_structure,
    legal_authenticator,
    creation,
    service_time,
    submission_time,
    source_patient,
    title,
    length,
    codes,
    facility,
    practice,
    uri,
    volume,
    digest,
    size,
)
