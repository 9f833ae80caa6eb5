"""Is this document, or this image, about the patient of the call? (standards.md J.3; INS/va1.36; DB.CO.68)

Another INS is another patient: nothing of it is shown or imported, whatever anyone decides. Any other difference is
told with both values; what is then done is a setting, and the professional's own decision.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from drimbox.consumer.call import ContextualCall
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.identity.traits import Patient, Sex, Traits, normal, parse_date, same_name
from drimbox.manifest.manifest import Manifest

#: What is done with a difference: the professional decides, nobody does, or it is shown and no more.
Rule = Literal["decide", "refuse", "show"]

BIRTH_PLACE = "Lieu de naissance"
_SEXES = {Sex.MALE: "Masculin", Sex.FEMALE: "Féminin", Sex.OTHER: "Autre", Sex.UNKNOWN: "Indéterminé"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One trait that is not the call's. Health data: shown to the professional, never logged."""

    trait: str
    expected: str
    found: str

    def __repr__(self) -> str:
        return f"Difference({self.trait})"


@dataclass(frozen=True, slots=True)
class Rules:
    """``traits``: what is done with another name, birth date or sex; ``birth_place``: with another place.

    Birth places change with the age of the files even in official samples (official-data.md 2.2), hence a rule apart.
    """

    traits: Rule = "decide"
    birth_place: Rule = "show"

    def of(self, difference: Difference) -> Rule:
        return self.birth_place if difference.trait == BIRTH_PLACE else self.traits

    def refusing(self, differences: Iterable[Difference]) -> bool:
        return any(self.of(d) == "refuse" for d in differences)

    def deciding(self, differences: Iterable[Difference]) -> bool:
        return any(self.of(d) == "decide" for d in differences)


DEFAULT_RULES = Rules()


class TraitsDiffer(IdentityMismatch):
    """The traits are not the call's, and nobody has decided to go on.

    ``differences`` are for the screen alone; ``final``: nobody may decide; ``key`` names the document in addresses.
    """

    def __init__(self, what: str, differences: Sequence[Difference], *, final: bool, key: str) -> None:
        names = ", ".join(d.trait.lower() for d in differences)
        super().__init__(
            f"Le patient du {what} n'est pas celui de l'appel (différence : {names}). Rien n'est affiché",
            code="patient-differs",
        )
        self.differences = tuple(differences)
        self.final = final
        self.key = key


def require_agreement(
    what: str, differences: Sequence[Difference], rules: Rules, *, decided: bool, key: str = ""
) -> None:
    """Raises ``TraitsDiffer`` unless the differences may be shown, or the professional ``decided`` to go on."""
    if rules.refusing(differences):
        raise TraitsDiffer(what, differences, final=True, key=key)
    if rules.deciding(differences) and not decided:
        raise TraitsDiffer(what, differences, final=False, key=key)


def check_manifest(call: ContextualCall, manifest: Manifest) -> tuple[Difference, ...]:
    """Compare a KOS with the call.

    A KOS names the patient by birth name and first birth given name (standards.md A.5). Raises ``IdentityMismatch``
    (``ins-differs``) for another INS, ``Refused`` (``kos-patient``) when the KOS does not say enough to be compared.
    """
    if manifest.ins is None:
        raise Refused("Le KOS ne porte pas d'INS : il ne peut pas être rapproché du patient", code="kos-patient")
    _require_ins(call, manifest.ins, "KOS")
    family, given = person_name(manifest.patient_name)
    try:
        born = parse_date(manifest.birth_date)
        sex = Sex.of(manifest.sex)
    except Refused as error:
        raise Refused(f"Le KOS ne peut pas être rapproché du patient : {error.reason}", code="kos-patient") from error
    return compared(call.traits, Traits(family, given, born, sex, manifest.birth_place))


def check_report(call: ContextualCall, patient: Patient) -> tuple[Difference, ...]:
    """Compare the patient of a report with the call, as ``check_manifest`` does for a KOS."""
    _require_ins(call, patient.ins, "compte rendu")
    return compared(call.traits, patient.traits)


def compared(ours: Traits, theirs: Traits) -> tuple[Difference, ...]:
    """The traits that differ. An absent birth place is no other one: documents need not give it."""
    place = theirs.birth_place
    checks = (
        (
            same_name(theirs.birth_family, ours.birth_family),
            Difference("Nom de naissance", ours.birth_family, theirs.birth_family or "absent"),
        ),
        (
            same_given(theirs.first_given, ours.first_given),
            Difference("Premier prénom de naissance", ours.first_given, theirs.first_given or "absent"),
        ),
        (
            theirs.birth_date == ours.birth_date,
            Difference("Date de naissance", _day(ours.birth_date), _day(theirs.birth_date)),
        ),
        (theirs.sex is ours.sex, Difference("Sexe", _SEXES[ours.sex], _SEXES[theirs.sex])),
        (
            not place or not ours.birth_place or normal(place) == normal(ours.birth_place),
            Difference(BIRTH_PLACE, ours.birth_place, place),
        ),
    )
    return tuple(difference for same, difference in checks if not same)


def compared_image(
    traits: Traits, *, name: str, birth_date: str, sex: str, used_names: Collection[str] = ()
) -> tuple[Difference, ...]:
    """The traits of an image (DICOM PN, DA, CS) that differ from the call's.

    A PACS knows the patient by the birth name or by a used name (decision 4): ``used_names`` are those that documents
    tell. What the image does not say is not a difference: the INS has been compared before.
    """
    family, given = person_name(name)
    found: list[Difference] = []
    known = (traits.birth_family, *used_names)
    if family and not any(same_name(family, one) for one in known if one):
        found.append(Difference("Nom de naissance", traits.birth_family, family))
    if given and not same_given(given, traits.first_given) and not any(same_name(given, one) for one in used_names):
        found.append(Difference("Premier prénom de naissance", traits.first_given, given))
    born = _date(birth_date)
    if birth_date.strip() and born != traits.birth_date:
        found.append(Difference("Date de naissance", _day(traits.birth_date), _day(born) if born else "illisible"))
    told = sex.strip().upper()
    if told and told != traits.sex.value:
        shown = _SEXES[Sex(told)] if told in set(Sex) else "illisible"
        found.append(Difference("Sexe", _SEXES[traits.sex], shown))
    return tuple(found)


def person_name(name: str) -> tuple[str, str]:
    """Family and given name of a DICOM PN; only the alphabetic group counts."""
    parts = name.split("=")[0].split("^")
    return parts[0].strip(), parts[1].strip() if len(parts) > 1 else ""


def same_given(left: str, right: str) -> bool:
    """First given names agree, also when one source gives the whole list of given names."""
    if same_name(left, right):
        return True
    ours, theirs = normal(left).split(), normal(right).split()
    shorter, longer = sorted((ours, theirs), key=len)
    return bool(shorter) and longer[: len(shorter)] == shorter


def _require_ins(call: ContextualCall, ins: Ins, what: str) -> None:
    if ins != call.ins:
        raise IdentityMismatch(
            f"Le patient du {what} n'est pas celui de l'appel (différence : matricule INS). Rien n'est affiché",
            code="ins-differs",
        )


def _date(text: str) -> dt.date | None:
    try:
        return parse_date(text)
    except Refused:
        return None


def _day(day: dt.date) -> str:
    return f"{day:%d/%m/%Y}"
