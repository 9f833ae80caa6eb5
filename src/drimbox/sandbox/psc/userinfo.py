"""The userinfo document in the real shape (standards.md F.4): every field present, most of them empty strings."""

from __future__ import annotations

from typing import Any

from drimbox.sandbox.psc.people import Activity, Exercise, User

_ADDRESS = (
    "complementDestinataire",
    "complementPointGeographique",
    "numeroVoie",
    "indiceRepetitionVoie",
    "codeTypeDeVoie",
    "libelleVoie",
    "mentionDistribution",
)
_REACH = ("codePays", "telephone", "telephone2", "telecopie", "adresseEMail", "codeDepartement")


def userinfo(user: User) -> dict[str, Any]:
    """What PSC tells of ``user``. Top-level sector and organisation are those of the first activity."""
    place = user.first_place
    return {
        "Secteur_Activite": f"{place.sector}^1.2.250.1.71.4.2.4" if place else "",
        "sub": user.subject,
        "email_verified": False,
        "SubjectOrganization": place.name if place else "",
        "Mode_Acces_Raison": "",
        "preferred_username": user.national_id,
        "given_name": user.given,
        "family_name": user.family,
        "Acces_Regulation_Medicale": "FAUX",
        "UITVersion": "1.0",
        "authMode": "MOBILE",
        "Palier_Authentification": "APPPRIP3^1.2.250.1.213.1.5.1.1.1",
        "SubjectRole": [user.role],
        "PSI_Locale": "1.2.250.1.213.1.3.1.1",
        "SubjectNameID": user.national_id,
        "SubjectOrganizationID": place.directory_id if place else "",
        "otherIds": other_ids(user),
        "SubjectRefPro": {
            "codeCivilite": user.civility,
            "exercices": [_exercise(user, exercise) for exercise in user.exercises],
        },
    }


def other_ids(user: User) -> list[dict[str, Any]]:
    """``otherIds``: the national id and where it is registered."""
    return [{"identifiant": user.national_id, "origine": "RPPS", "qualite": 1}]


def _exercise(user: User, exercise: Exercise) -> dict[str, Any]:
    return {
        "codeProfession": exercise.profession,
        "codeCategorieProfessionnelle": "C" if exercise.profession else "",
        "codeCiviliteDexercice": user.civility_of_practice,
        "nomDexercice": user.family,
        "prenomDexercice": user.given,
        "codeTypeSavoirFaire": "S" if exercise.speciality else "",
        "codeSavoirFaire": exercise.speciality,
        "activities": [_activity(activity) for activity in exercise.activities],
    }


def _activity(activity: Activity) -> dict[str, str]:
    place = activity.place
    return {
        "codeModeExercice": activity.mode,
        "codeSecteurDactivite": place.sector,
        "codeSectionPharmacien": "",
        "codeRole": activity.role,
        "codeGenreActivite": "GENR01",
        "numeroSiretSite": place.siret,
        "numeroSirenSite": place.siret[:9],
        "numeroFinessSite": place.finess,
        "numeroFinessetablissementJuridique": "",
        "identifiantTechniqueDeLaStructure": place.directory_id,
        "raisonSocialeSite": place.name,
        "enseigneCommercialeSite": "",
        **dict.fromkeys(_ADDRESS, ""),
        "bureauCedex": place.city,
        "codePostal": place.postal_code,
        "codeCommune": "",
        **dict.fromkeys(_REACH, ""),
        "ancienIdentifiantDeLaStructure": place.identifier,
        "autoriteDenregistrement": "CNOM/CNOM/CNOM" if activity.mode == "L" else "CNOM/CNOM/ARS",
    }
