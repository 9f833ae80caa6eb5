"""Who the professional is, and where they practise: the userinfo of PSC (standards.md F.4).

Any member may be empty, missing or of another kind; what can be read is read. Nothing is chosen for the professional:
each activity of each ``exercice`` is one ``Practice``, and who has several is asked which (DB.CO.49).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from drimbox.national.psc.answers import Document, text
from drimbox.reports.report import Coded

PROFESSIONS = "1.2.250.1.71.1.2.7"
SPECIALITIES = "1.2.250.1.71.4.2.5"
ROLES = "1.2.250.1.213.1.1.4.6"

MAX_PRACTICES = 200

_PROFESSION_LABELS = {
    "10": "Médecin",
    "21": "Pharmacien",
    "26": "Audioprothésiste",
    "28": "Opticien-lunetier",
    "40": "Chirurgien-dentiste",
    "50": "Sage-femme",
    "60": "Infirmier",
    "69": "Infirmier psychiatrique",
    "70": "Masseur-kinésithérapeute",
    "80": "Pédicure-podologue",
    "86": "Technicien de laboratoire médical",
    "91": "Orthophoniste",
    "92": "Orthoptiste",
    "94": "Ergothérapeute",
    "95": "Diététicien",
    "96": "Psychomotricien",
    "98": "Manipulateur d'électroradiologie médicale",
}
_SPECIALITY_LABELS = {
    "SM26": "Qualifié en médecine générale",
    "SM44": "Radio-diagnostic",
    "SM54": "Médecine générale",
}
_MODES = {"L": "libéral", "S": "salarié", "B": "bénévole"}


@dataclass(frozen=True, slots=True)
class Practice:
    """One place where a professional may act (situation d'exercice).

    ``structure_id`` is a ``Struct_IdNat`` (empty when PSC knows none), ``sector`` the bare code (``SA07``), ``label``
    what the professional reads when they choose.
    """

    profession: Coded
    speciality: Coded | None
    structure_id: str
    structure_name: str
    sector: str
    label: str


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A professional. ``national_id`` is ``SubjectNameID`` (``8`` + RPPS): empty when PSC did not give it, and then
    nobody can be held to account (standards.md I.3). ``subject`` is PSC's technical id, to be that of the id_token."""

    national_id: str
    family: str
    given: str
    practices: tuple[Practice, ...]
    subject: str = ""


def read_userinfo(content: Document) -> UserInfo:
    """Read a userinfo document, whatever is missing from it."""
    exercises = list(_exercises(content))
    practices = tuple(dict.fromkeys(p for e in exercises for p in _practices(e, content)))[:MAX_PRACTICES]
    return UserInfo(
        national_id=text(content, "SubjectNameID"),
        family=text(content, "family_name") or _first(exercises, "nomDexercice"),
        given=text(content, "given_name") or _first(exercises, "prenomDexercice"),
        practices=practices or _practice_of_the_whole(content),
        subject=text(content, "sub"),
    )


def role_code(value: object) -> str:
    """The code of a ``SubjectRole``: ``10^1.2.250.1.213.1.1.5.5``, alone or as the first of a list."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return value.partition("^")[0].strip() if isinstance(value, str) else ""


def _exercises(content: Document) -> Iterator[Document]:
    reference = content.get("SubjectRefPro")
    return _objects(reference, "exercices") if isinstance(reference, dict) else iter(())


def _practices(exercise: Document, content: Document) -> Iterator[Practice]:
    """One per activity; an ``exercice`` without any is still a practice, of no known structure."""
    for activity in list(_objects(exercise, "activities")) or [{}]:
        profession = _profession(exercise, activity, content)
        if profession is not None:
            yield _practice(profession, _speciality(exercise), activity)


def _practice(profession: Coded, speciality: Coded | None, activity: Document) -> Practice:
    name = text(activity, "raisonSocialeSite") or text(activity, "enseigneCommercialeSite")
    identifier = _structure_id(activity)
    return Practice(
        profession=profession,
        speciality=speciality,
        structure_id=identifier,
        structure_name=name,
        sector=text(activity, "codeSecteurDactivite").partition("^")[0],
        label=_label(profession, speciality, name or identifier, activity),
    )


def _practice_of_the_whole(content: Document) -> tuple[Practice, ...]:
    """For people outside the directory, whose only practice is told by the top-level members."""
    code = role_code(content.get("SubjectRole"))
    if not code:
        return ()
    profession = _coded_role(code, content)
    name, identifier = text(content, "SubjectOrganization"), text(content, "SubjectOrganizationID")
    sector = text(content, "Secteur_Activite").partition("^")[0]
    return (Practice(profession, None, identifier, name, sector, _label(profession, None, name or identifier, {})),)


def _profession(exercise: Document, activity: Document, content: Document) -> Coded | None:
    if code := text(exercise, "codeProfession"):
        return Coded(code, PROFESSIONS, _PROFESSION_LABELS.get(code, ""))
    code = text(activity, "codeRole") or role_code(content.get("SubjectRole"))
    return _coded_role(code, content) if code else None


def _coded_role(code: str, content: Document) -> Coded:
    """A role, under the code system that ``SubjectRole`` names for it, else that of the unregulated roles."""
    if code in _PROFESSION_LABELS:
        return Coded(code, PROFESSIONS, _PROFESSION_LABELS[code])
    roles = content.get("SubjectRole")
    written = next((r for r in roles if isinstance(r, str)), "") if isinstance(roles, list) else roles
    told, _, system = written.partition("^") if isinstance(written, str) else ("", "", "")
    return Coded(
        code, system.strip() if told.strip() == code and system else ROLES, code.replace("_", " ").capitalize()
    )


def _speciality(exercise: Document) -> Coded | None:
    code = text(exercise, "codeSavoirFaire")
    return Coded(code, SPECIALITIES, _SPECIALITY_LABELS.get(code, "")) if code else None


def _structure_id(activity: Document) -> str:
    """The Struct_IdNat: as PSC writes it, else made from FINESS or SIRET, else the directory's technical id."""
    if known := text(activity, "ancienIdentifiantDeLaStructure"):
        return known
    for prefix, member in (("1", "numeroFinessSite"), ("3", "numeroSiretSite")):
        if number := text(activity, member):
            return prefix + number
    return text(activity, "identifiantTechniqueDeLaStructure")


def _label(profession: Coded, speciality: Coded | None, place: str, activity: Document) -> str:
    titles = [profession.label or f"Profession {profession.code}"]
    if speciality is not None:
        titles.append(speciality.label or speciality.code)
    if mode := _MODES.get(text(activity, "codeModeExercice")):
        titles.append(mode)
    title = ", ".join(titles)
    return f"{place} – {title}" if place else title


def _objects(parent: Document, name: str) -> Iterator[Document]:
    entries = parent.get(name)
    return (e for e in entries if isinstance(e, dict)) if isinstance(entries, list) else iter(())


def _first(exercises: list[Document], name: str) -> str:
    return next((value for e in exercises if (value := text(e, name))), "")
