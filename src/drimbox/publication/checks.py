"""Is this report about this study, and about one and the same patient? (decision 4; DB.SO.11, 15, 16, 17; INS/va1.36)

Pure. A blocking finding publishes nothing; a warning is shown to the operator. Reasons never say the values.

Where the PACS says nothing there is nothing equal: an empty accession number, patient number, sex or birth date
blocks like a wrong one, under a code of its own (the drafts were asked to check "only if present", and did not take it
up: rem-source.md SO.17).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from drimbox.foundation.uids import is_uid
from drimbox.identity.traits import LocalId, Patient, Sex, Traits, normal, same_name
from drimbox.pacs.study import Study
from drimbox.reports.report import Identifier, Order, Report

Range = Literal["test", "production"]


class Severity(StrEnum):
    BLOCKING = "blocking"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. ``reason`` is a French sentence without health data."""

    code: str
    severity: Severity
    reason: str


def check(report: Report, study: Study, *, match_patient_name: bool, ins_range: Range) -> tuple[Finding, ...]:
    """All findings about a report and the study as the PACS describes it; empty when everything agrees.

    ``ins_range`` is that of the box: test and production identities never mix.
    """
    return (*check_identity(report, ins_range=ins_range), *_check_study(report, study, match_patient_name))


def check_identity(report: Report, *, ins_range: Range) -> tuple[Finding, ...]:
    """What the message alone tells: INS present, qualified, of the right range; PID and CDA about the same patient."""
    return tuple(_identity(report.patient, report.message_patient, ins_range))


def orders_of(report: Report, study: Study) -> tuple[Order, ...]:
    """The orders that belong to a study: those whose accession number is the PACS's (decision 3), each once."""
    return tuple(
        dict.fromkeys(o for o in report.orders if o.accession is not None and _is_accession(o.accession, study))
    )


def _blocking(code: str, reason: str) -> Finding:
    return Finding(code, Severity.BLOCKING, reason)


# --- the message --------------------------------------------------------------------------------------------------


def _identity(cda: Patient, pid: Patient, ins_range: Range) -> Iterator[Finding]:
    if cda.ins.authority.range != ins_range or pid.ins.authority.range != ins_range:
        yield _blocking(
            "ins-range",
            "INS de test reçue par une passerelle de production"
            if ins_range == "production"
            else "INS de production reçue par une passerelle de test",
        )
    if not pid.qualified:
        yield _blocking("ins-unqualified", "INS non qualifiée (PID-32 n'est pas VALI)")
    if cda.ins != pid.ins:
        yield _blocking("ins-differs", "L'INS du message n'est pas celle du compte rendu")
    yield from _traits(cda.traits, pid.traits)
    if _contradicts(cda.local_ids, pid.local_ids):
        yield _blocking("ipp-differs", "L'IPP du message n'est pas celui du compte rendu")


def _traits(cda: Traits, pid: Traits) -> Iterator[Finding]:
    checks = (
        ("birth-name", "Le nom de naissance du message n'est pas celui", cda.birth_family, pid.birth_family),
        ("given-name", "Le premier prénom de naissance du message n'est pas celui", cda.first_given, pid.first_given),
    )
    for code, reason, ours, theirs in checks:
        if not same_name(ours, theirs):
            yield _blocking(f"{code}-differs", f"{reason} du compte rendu")
    if cda.birth_date != pid.birth_date:
        yield _blocking("birth-date-differs", "La date de naissance du message n'est pas celle du compte rendu")
    if cda.sex is not pid.sex:
        yield _blocking("sex-differs", "Le sexe du message n'est pas celui du compte rendu")
    # Official messages differ here and must pass (official-data.md 3.3).
    if cda.birth_place and pid.birth_place and normal(cda.birth_place) != normal(pid.birth_place):
        yield Finding(
            "birth-place-differs",
            Severity.WARNING,
            "Le lieu de naissance du message n'est pas celui du compte rendu",
        )


def _contradicts(left: Iterable[LocalId], right: Iterable[LocalId]) -> bool:
    """Do two lists give different numbers under the same issuer?"""
    ours: dict[str, set[str]] = {}
    for number in left:
        ours.setdefault(number.issuer, set()).add(number.value)
    theirs: dict[str, set[str]] = {}
    for number in right:
        theirs.setdefault(number.issuer, set()).add(number.value)
    return any(ours[issuer].isdisjoint(theirs[issuer]) for issuer in ours.keys() & theirs.keys() if issuer)


# --- the study ----------------------------------------------------------------------------------------------------


def _check_study(report: Report, study: Study, match_patient_name: bool) -> Iterator[Finding]:
    if study.instance_count == 0:
        yield _blocking("study-empty", "Le PACS connaît l'examen mais n'en liste aucune image")
    yield from _accession(report, study)
    yield from _patient_number(report, study)
    yield from _pacs_traits(report.patient.traits, study)
    if match_patient_name and not _same_person(study.patient_name, (report.patient, report.message_patient)):
        yield _blocking("pacs-name", "Le nom du patient au PACS n'est ni son nom de naissance ni son nom utilisé")


def _accession(report: Report, study: Study) -> Iterator[Finding]:
    known = report.accession_numbers()
    if not known:
        yield _blocking("accession-absent", "Le compte rendu ne donne aucun numéro d'examen (accession number)")
    elif not study.accession_number.strip():
        yield _blocking("accession-missing", "Le PACS ne donne pas de numéro d'examen (accession number) à l'examen")
    elif not any(_is_accession(number, study) for number in known):
        yield _blocking(
            "accession-differs", "Le numéro d'examen (accession number) du PACS n'est pas un de ceux du compte rendu"
        )


def _is_accession(number: Identifier, study: Study) -> bool:
    return number.value.strip() == study.accession_number.strip() != "" and _same_issuer(
        number.issuer, study.accession_issuer
    )


def _same_issuer(left: str, right: str) -> bool:
    """Two issuers differ only when both are known, as OIDs."""
    return not (is_uid(left) and is_uid(right)) or left == right


def _patient_number(report: Report, study: Study) -> Iterator[Finding]:
    known = (*report.message_patient.local_ids, *report.patient.local_ids)
    if not known:
        yield _blocking("ipp-absent", "Ni le message ni le compte rendu ne donnent d'IPP")
    elif not study.patient_id.strip():
        yield _blocking("ipp-missing", "Le PACS ne donne pas de numéro de patient (IPP) à l'examen")
    elif not any(
        n.value.strip() == study.patient_id.strip() and _same_issuer(n.issuer, study.patient_id_issuer) for n in known
    ):
        yield _blocking("pacs-ipp", "Le numéro de patient (IPP) du PACS n'est pas celui du compte rendu")


def _pacs_traits(traits: Traits, study: Study) -> Iterator[Finding]:
    born = study.birth_date.strip().replace(".", "")
    if not born:
        yield _blocking("pacs-birth-date-missing", "Le PACS ne donne pas la date de naissance du patient")
    elif born != f"{traits.birth_date:%Y%m%d}":
        yield _blocking("pacs-birth-date", "La date de naissance au PACS n'est pas celle du compte rendu")
    sex = study.sex.strip().upper()
    if not sex and traits.sex is not Sex.UNKNOWN:
        yield _blocking("pacs-sex-missing", "Le PACS ne donne pas le sexe du patient")
    elif sex != traits.sex.value and not (traits.sex is Sex.UNKNOWN and sex in ("", "O", "U")):
        yield _blocking("pacs-sex", "Le sexe au PACS n'est pas celui du compte rendu")


def _same_person(pacs_name: str, patients: Iterable[Patient]) -> bool:
    """Is a DICOM PN the birth or the used name? Given names: the first, the used one, or the list of birth names."""
    components = [*pacs_name.split("=")[0].split("^"), "", ""]
    family, given, middle = components[:3]
    written = {normal(f"{family} {given}"), normal(f"{family} {given} {middle}")} - {""}
    return any(name in written for patient in patients for name in _names(patient.traits))


def _names(traits: Traits) -> Iterator[str]:
    families = {traits.birth_family, traits.used_family} - {""}
    givens = {traits.first_given, traits.used_given, " ".join(traits.given_names)} - {""}
    for family in families:
        for given in givens:
            yield normal(f"{family} {given}")
