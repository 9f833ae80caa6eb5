"""Who the professional is: every shape of the userinfo document, and the ones nobody foresaw."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psc_double import OTHER_RSA, SUBJECT, PscDouble, raw

from drimbox.foundation.errors import Refused, Rejected
from drimbox.national.psc.client import PscClient
from drimbox.national.psc.userinfo import read_userinfo
from drimbox.reports.report import Coded

ACTIVITY = {
    "codeModeExercice": "L",
    "codeSecteurDactivite": "SA07",
    "codeSectionPharmacien": "",
    "codeRole": "",
    "numeroSiretSite": "",
    "numeroFinessSite": "",
    "identifiantTechniqueDeLaStructure": "R100036",
    "raisonSocialeSite": "CAB MED BIS TOUBIB0023550",
    "enseigneCommercialeSite": "",
    "ancienIdentifiantDeLaStructure": "499700218896007",
}
EXERCISE = {
    "codeProfession": "10",
    "codeCategorieProfessionnelle": "C",
    "nomDexercice": "TOUBIB0021889",
    "prenomDexercice": "PAUL",
    "codeTypeSavoirFaire": "S",
    "codeSavoirFaire": "SM54",
    "activities": [ACTIVITY],
}
USER: dict[str, Any] = {
    "Secteur_Activite": "SA07^1.2.250.1.71.4.2.4",
    "sub": SUBJECT,
    "SubjectOrganization": "CAB MED BIS TOUBIB0023550",
    "SubjectOrganizationID": "R100036",
    "preferred_username": "899700218896",
    "given_name": "Paul",
    "family_name": "TOUBIB0021889",
    "SubjectRole": ["10^1.2.250.1.213.1.1.5.5"],
    "SubjectNameID": "899700218896",
    "SubjectRefPro": {"codeCivilite": "M", "exercices": [EXERCISE]},
}


@pytest.mark.requirement("DB.CO.49", "DMP/AIRS.06")
def test_one_practice() -> None:
    info = read_userinfo(USER)
    assert (info.national_id, info.family, info.given, info.subject) == (
        "899700218896",
        "TOUBIB0021889",
        "Paul",
        SUBJECT,
    )
    [practice] = info.practices
    assert practice.profession == Coded("10", "1.2.250.1.71.1.2.7", "Médecin")
    assert practice.speciality == Coded("SM54", "1.2.250.1.71.4.2.5", "Médecine générale")
    assert (practice.structure_id, practice.sector) == ("499700218896007", "SA07")
    assert practice.label == "CAB MED BIS TOUBIB0023550 – Médecin, Médecine générale, libéral"


@pytest.mark.requirement("DB.CO.49")
def test_each_activity_of_each_exercise_is_a_practice() -> None:
    hospital = ACTIVITY | {"raisonSocialeSite": "CHU", "ancienIdentifiantDeLaStructure": "1750803447"}
    other = EXERCISE | {"codeProfession": "40", "codeSavoirFaire": "", "activities": [hospital]}
    exercises = [EXERCISE | {"activities": [ACTIVITY, hospital, ACTIVITY]}, other]
    info = read_userinfo(USER | {"SubjectRefPro": {"exercices": exercises}})
    assert [(p.profession.code, p.structure_id) for p in info.practices] == [
        ("10", "499700218896007"),
        ("10", "1750803447"),
        ("40", "1750803447"),
    ]
    assert info.practices[2].speciality is None


@pytest.mark.parametrize(
    ("changes", "identifier"),
    [
        ({"ancienIdentifiantDeLaStructure": "1750803447"}, "1750803447"),
        ({"ancienIdentifiantDeLaStructure": "", "numeroFinessSite": "750803447"}, "1750803447"),
        ({"ancienIdentifiantDeLaStructure": " ", "numeroSiretSite": "18751275100020"}, "318751275100020"),
        ({"ancienIdentifiantDeLaStructure": None}, "R100036"),
        ({"ancienIdentifiantDeLaStructure": None, "identifiantTechniqueDeLaStructure": None}, ""),
    ],
)
def test_the_structure_by_what_is_known_of_it(changes: dict[str, Any], identifier: str) -> None:
    exercise = EXERCISE | {"activities": [ACTIVITY | changes]}
    [practice] = read_userinfo(USER | {"SubjectRefPro": {"exercices": [exercise]}}).practices
    assert practice.structure_id == identifier


def test_people_without_a_profession_of_the_directory() -> None:
    activity = ACTIVITY | {"codeRole": "SECRETARIAT_MEDICAL"}
    exercise = EXERCISE | {"codeProfession": "", "codeSavoirFaire": "", "activities": [activity]}
    secretary = USER | {
        "SubjectRole": ["SECRETARIAT_MEDICAL^1.2.250.1.213.1.1.4.6"],
        "SubjectRefPro": {"exercices": [exercise]},
    }
    [practice] = read_userinfo(secretary).practices
    assert practice.profession == Coded("SECRETARIAT_MEDICAL", "1.2.250.1.213.1.1.4.6", "Secretariat medical")

    outside = {name: value for name, value in USER.items() if name != "SubjectRefPro"}
    [practice] = read_userinfo(outside).practices
    assert practice.profession.code == "10"
    assert (practice.structure_id, practice.sector) == ("R100036", "SA07")


def test_nothing_is_invented_for_what_is_missing() -> None:
    info = read_userinfo({})
    assert (info.national_id, info.family, info.given, info.practices, info.subject) == ("", "", "", (), "")
    names_of_practice = read_userinfo({"SubjectRefPro": USER["SubjectRefPro"]})
    assert (names_of_practice.family, names_of_practice.given) == ("TOUBIB0021889", "PAUL")
    # preferred_username may be either id (F.4): it is never taken for the national one.
    assert read_userinfo({"preferred_username": "899700218896"}).national_id == ""


_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(dict.fromkeys(USER, _json)),
    st.lists(_json | st.fixed_dictionaries(dict.fromkeys(EXERCISE, _json)), max_size=3),
)
def test_any_document_is_read(content: dict[str, Any], exercises: list[Any]) -> None:
    read_userinfo(content)
    info = read_userinfo(content | {"SubjectRefPro": {"exercices": exercises}})
    assert all(p.profession.code for p in info.practices)


@given(st.lists(st.sampled_from(["10", "40", "50"]), max_size=4), st.integers(0, 3))
def test_practices_are_the_product(professions: list[str], activities: int) -> None:
    places = [ACTIVITY | {"ancienIdentifiantDeLaStructure": f"175080344{i}"} for i in range(activities)]
    exercises = [EXERCISE | {"codeProfession": code, "activities": places} for code in professions]
    info = read_userinfo({"SubjectRefPro": {"exercices": exercises}})
    assert len(info.practices) == len(set(professions)) * max(activities, 1)


@pytest.mark.requirement("DB.CO.63")
async def test_as_json_and_as_a_signed_token(psc: PscDouble, client: PscClient) -> None:
    psc.answers["userinfo"] = USER
    plain = await client.userinfo("access-token", subject=SUBJECT)
    assert psc.asked[-1].headers["authorization"] == "Bearer access-token"
    signed = psc.signed(USER | {"iss": psc.issuer, "aud": "drimbox test"})
    psc.answers["userinfo"] = raw(signed, content_type="application/jwt;charset=UTF-8")
    assert await client.userinfo("access-token", subject=SUBJECT) == plain


@pytest.mark.requirement("DB.CO.63")
async def test_an_identity_that_must_not_be_taken(psc: PscDouble, client: PscClient) -> None:
    for token in (
        psc.signed(USER, OTHER_RSA),
        psc.signed(USER | {"iss": "https://evil.example"}),
        psc.signed(USER | {"aud": "another"}),
        "nonsense",
        "é.é.é",
    ):
        psc.answers["userinfo"] = raw(token, content_type="application/jwt")
        with pytest.raises(Refused):
            await client.userinfo("access-token")
    psc.answers["userinfo"] = USER | {"sub": SUBJECT + "0"}
    with pytest.raises(Refused):
        await client.userinfo("access-token", subject=SUBJECT)
    psc.answers["userinfo"] = raw(b"", 401, www_authenticate='Bearer error="invalid_token"')
    with pytest.raises(Rejected) as rejected:
        await client.userinfo("access-token")
    assert rejected.value.code == "psc-token"
