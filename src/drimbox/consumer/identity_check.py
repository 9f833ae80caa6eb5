"""Is this document about the patient of the call? (standards.md J.3; REM INS and DB.CO.68)"""

from __future__ import annotations

from drimbox.consumer.call import ContextualCall
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.identity.traits import Patient, Sex, normal, parse_date, same_name
from drimbox.manifest.manifest import Manifest


def check_manifest(call: ContextualCall, manifest: Manifest) -> tuple[str, ...]:
    """Compare a KOS with the call; what only deserves a warning comes back, in French.

    A KOS names the patient by birth name and first birth given name (standards.md A.5). Raises ``IdentityMismatch``
    (``patient-differs``), or ``Refused`` (``kos-patient``) when the KOS does not say enough to be compared.
    """
    if manifest.ins is None:
        raise Refused("Le KOS ne porte pas d'INS : il ne peut pas être rapproché du patient", code="kos-patient")
    family, given = _person_name(manifest.patient_name)
    try:
        born = parse_date(manifest.birth_date)
        sex = Sex.of(manifest.sex)
    except Refused as error:
        raise Refused(f"Le KOS ne peut pas être rapproché du patient : {error.reason}", code="kos-patient") from error
    traits = call.traits
    differences = _differences(
        ins=(call.ins, manifest.ins),
        birth_name=same_name(family, traits.birth_family),
        given=_same_given(given, traits.first_given),
        birth_date=born == traits.birth_date,
        sex=sex is traits.sex,
    )
    return _verdict(differences, "KOS", manifest.birth_place, traits.birth_place)


def check_report(call: ContextualCall, patient: Patient) -> tuple[str, ...]:
    """Compare the patient of a report with the call, as ``check_manifest`` does for a KOS."""
    theirs, traits = patient.traits, call.traits
    differences = _differences(
        ins=(call.ins, patient.ins),
        birth_name=same_name(theirs.birth_family, traits.birth_family),
        given=_same_given(theirs.first_given, traits.first_given),
        birth_date=theirs.birth_date == traits.birth_date,
        sex=theirs.sex is traits.sex,
    )
    return _verdict(differences, "compte rendu", theirs.birth_place, traits.birth_place)


def _differences(
    *, ins: tuple[Ins, Ins], birth_name: bool, given: bool, birth_date: bool, sex: bool
) -> tuple[str, ...]:
    checks = (
        (ins[0] == ins[1], "matricule INS"),
        (birth_name, "nom de naissance"),
        (given, "premier prénom de naissance"),
        (birth_date, "date de naissance"),
        (sex, "sexe"),
    )
    return tuple(name for same, name in checks if not same)


def _verdict(differences: tuple[str, ...], what: str, place: str, expected_place: str) -> tuple[str, ...]:
    if differences:
        raise IdentityMismatch(
            f"Le patient du {what} n'est pas celui de l'appel (différence : {', '.join(differences)}). "
            "Rien n'est affiché.",
            code="patient-differs",
        )
    # Birth places change with the files' age even in official samples (official-data.md 2.2): a warning, no more.
    if place and expected_place and normal(place) != normal(expected_place):
        return (f"Le lieu de naissance du {what} n'est pas celui de l'appel",)
    return ()


def _person_name(name: str) -> tuple[str, str]:
    """Family and given name of a DICOM PN; only the alphabetic group counts."""
    parts = name.split("=")[0].split("^")
    return parts[0], parts[1] if len(parts) > 1 else ""


def _same_given(left: str, right: str) -> bool:
    """First given names agree, also when one source gives the whole list of given names."""
    if same_name(left, right):
        return True
    ours, theirs = normal(left).split(), normal(right).split()
    shorter, longer = sorted((ours, theirs), key=len)
    return bool(shorter) and longer[: len(shorter)] == shorter
