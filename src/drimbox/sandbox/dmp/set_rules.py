"""Rules of the submission set, alike for a publication (ITI-41) and a change of status (ITI-57): standards.md D.5."""

from __future__ import annotations

import re
from dataclasses import dataclass

from drimbox.foundation.xml import Element
from drimbox.sandbox.dmp import datatypes
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bench import Bench
from drimbox.sandbox.dmp.ebrim import RegistryObject, Submission, rim
from drimbox.sandbox.dmp.rules import Rule, rule
from drimbox.sandbox.dmp.vihf import Vihf


@dataclass(frozen=True, slots=True)
class SetCase:
    """A submission under judgement, and who submits it."""

    bench: Bench
    vihf: Vihf
    submission: Submission

    @property
    def set(self) -> RegistryObject:
        return self.submission.set


@rule("SET.PACKAGE", v.REGISTRY_METADATA)
def package(case: SetCase) -> str | None:
    """One RegistryPackage, classified as a submission set; no folder, no other object (standards.md D.5, D.6)."""
    submission = case.submission
    if len(submission.packages) != 1:
        return "un seul lot de soumission attendu"
    nodes = [c.get("classificationNode") for c in _classifications(submission.set.element)]
    if nodes.count(v.SUBMISSION_SET) != 1:
        return "lot de soumission non classé comme XDSSubmissionSet"
    return f"objet inattendu dans le lot : {submission.others[0]}" if submission.others else None


@rule("SET.IDS", v.REGISTRY_METADATA)
def identifiers(case: SetCase) -> str | None:
    """Every object has its own id; its classifications and identifiers point to itself (ITI TF-3 4.2)."""
    submission = case.submission
    objects = [*submission.packages, *submission.entries]
    ids = [o.id for o in objects] + [a.id for a in submission.associations]
    for one in objects:
        parts = _classifications(one.element) + one.element.findall(rim("ExternalIdentifier"))
        ids += [p.get("id", "") for p in parts]
        if any(p.get("classifiedObject", p.get("registryObject")) != one.id for p in parts):
            return "classification ou identifiant rattaché à un autre objet"
    return "identifiant d'objet absent ou répété" if not all(ids) or len(set(ids)) < len(ids) else None


@rule("SET.SLOTS", v.REGISTRY_METADATA)
def slots(case: SetCase) -> str | None:
    """No slot stands twice in an object or classification: it would be lost or misread (ITI TF-3 4.2.3)."""
    for one in (*case.submission.packages, *case.submission.entries):
        if one.repeated_slots:
            return f"slot répété : {one.repeated_slots[0]}"
    return None


@rule("SET.TIME", v.REGISTRY_METADATA)
def time(case: SetCase) -> str | None:
    """submissionTime is UTC, 14 digits, not in the future as French local time is (standards.md D.5; ITI TF-3 DTM)."""
    when = datatypes.utc_time(case.set.slot("submissionTime"))
    late = when is None or when > case.bench.skewed(case.bench.policy.clock_skew)
    return "submissionTime absent, pas en UTC, ou dans le futur" if late else None


@rule("SET.TITLE", v.REGISTRY_METADATA)
def title(case: SetCase) -> str | None:
    """A title of at most 128 characters (standards.md D.5)."""
    return None if 0 < len(case.set.title) <= 128 else "titre du lot absent ou de plus de 128 caractères"


@rule("SET.AUTHOR", v.REGISTRY_METADATA)
def author(case: SetCase) -> str | None:
    """One author: a person or device, and one institution (standards.md D.5)."""
    return "un auteur du lot attendu" if len(case.set.authors) != 1 else author_error(case.set)


@rule("SET.STRUCTURE", v.LOCAL_POLICY)
def structure(case: SetCase) -> str | None:
    """The institution of the set is a known site (FINESS EG), that of the VIHF or a site of it (ans-faq.md 3.1)."""
    (identifier,) = case.set.institutions[:1] or ("",)
    site = any(s.identifier == identifier for s in case.bench.structures)
    same = case.bench.one_structure(identifier, case.vihf.structure)
    return None if site and same else "structure du lot différente de celle du VIHF, ou inconnue"


@rule("SET.CONTENT_TYPE", v.REGISTRY_METADATA)
def content_type(case: SetCase) -> str | None:
    """One contentTypeCode of two digits, scheme 1.2.250.1.213.2.2, with its label (standards.md D.5, JDV_J59)."""
    code = case.set.only_code(v.SET_CONTENT_TYPE)
    right = code is not None and code.scheme == v.CONTENT_TYPES and re.fullmatch(r"\d{2}", code.code) and code.label
    return None if right else "contentTypeCode absent ou faux"


@rule("SET.PATIENT", v.REGISTRY_METADATA)
def patient(case: SetCase) -> str | None:
    """The patient of the set is the resource-id of the VIHF (standards.md E)."""
    same = case.set.identifier(v.SET_PATIENT) == case.vihf.patient
    return None if same else "patient du lot différent de celui du VIHF"


@rule("SET.SOURCE_ID", v.REGISTRY_METADATA)
def source_id(case: SetCase) -> str | None:
    """sourceId is the OID of the installation (standards.md D.5)."""
    return None if datatypes.is_oid(case.set.identifier(v.SET_SOURCE)) else "sourceId absent, ou pas un OID"


@rule("SET.UNIQUE_ID", v.REGISTRY_METADATA)
def unique_id(case: SetCase) -> str | None:
    """uniqueId is an OID of at most 64 characters (standards.md D.5; EX_2.1-1130)."""
    return None if datatypes.is_oid(case.set.identifier(v.SET_UNIQUE)) else "uniqueId du lot absent, ou pas un OID"


@rule("SET.ALONE", v.REGISTRY_METADATA)
def alone(case: SetCase) -> str | None:
    """No homeCommunityId, no intendedRecipient (standards.md D.5)."""
    filled = case.set.element.get("home") is not None or "intendedRecipient" in case.set.slots
    return "homeCommunityId ou intendedRecipient non admis" if filled else None


@rule("SET.NEW", "XDSDuplicateUniqueIdInRegistry")
def new(case: SetCase) -> str | None:
    """The uniqueId of a submission set is never used again (standards.md D.2)."""
    return "lot déjà enregistré" if case.bench.store.has_submission(case.set.identifier(v.SET_UNIQUE)) else None


SET_RULES: tuple[Rule[SetCase], ...] = (
    package,
    identifiers,
    slots,
    time,
    title,
    author,
    structure,
    content_type,
    patient,
    source_id,
    unique_id,
    alone,
)


@rule("RECORD.KNOWN", v.UNKNOWN_PATIENT)
def record_known(case: SetCase) -> str | None:
    """The patient has a DMP (standards.md D.8)."""
    known = case.bench.patient(case.vihf.patient)
    return None if known is not None and known.status != "none" else "pas de DMP pour ce patient"


@rule("RECORD.OPEN", v.RECORD_CLOSED)
def record_open(case: SetCase) -> str | None:
    """A closed DMP is not fed (standards.md D.8: alimentation needs an active DMP)."""
    known = case.bench.patient(case.vihf.patient)
    assert known is not None
    return "DMP fermé" if known.status == "closed" else None


RECORD_RULES: tuple[Rule[SetCase], ...] = (record_known, record_open, new)


def author_error(of: RegistryObject) -> str | None:
    """Why an author has not the French form; None when all have (standards.md D.5)."""
    for one in of.authors:
        who = one.person
        if who is None or who.authority != v.PERSONS or not (who.is_professional or who.is_device):
            return "authorPerson absent ou mal formé"
        if not datatypes.is_person_id(who.identifier):
            return "identifiant d'auteur mal formé"
        if len(one.organisations) != 1 or len(one.institutions) != 1:
            return "une authorInstitution bien formée attendue"
        where = one.institutions[0]
        if (where.authority, where.id_type) != (v.STRUCTURES, "IDNST") or not datatypes.is_structure_id(
            where.identifier
        ):
            return "identifiant de authorInstitution mal formé"
    return None


def _classifications(element: Element) -> list[Element]:
    return element.findall(rim("Classification"))
