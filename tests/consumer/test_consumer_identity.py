"""Comparing documents with the call."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from consumer_world import DOMINIQUE, SECOND

from drimbox.consumer.call import ContextualCall, parse_call
from drimbox.consumer.identity_check import (
    Rules,
    TraitsDiffer,
    check_manifest,
    check_report,
    compared_image,
    require_agreement,
)
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.traits import Patient, Sex, Traits
from drimbox.manifest.manifest import Manifest

MANIFEST = Manifest(
    kos_uid="1.2",
    study_uid="1.3",
    study_date="20240115",
    description="",
    ins=DOMINIQUE.ins,
    patient_name="PAT-TROIS^DOMINIQUE",
    birth_date="19790328",
    sex="F",
    birth_place="51215",
    requests=(),
    series=(),
)


@pytest.fixture
def call() -> ContextualCall:
    return parse_call(urlencode(DOMINIQUE.call()).encode(), environment="test", consent_values={"yes": "yes"})


@pytest.mark.requirement("INS/va1.36", "DB.CO.68")
def test_the_same_patient(call: ContextualCall) -> None:
    assert check_manifest(call, MANIFEST) == ()
    assert check_manifest(call, replace(MANIFEST, patient_name="Pat Trois^dominique=ideographic")) == ()
    assert check_manifest(call, replace(MANIFEST, patient_name="PAT-TROIS^DOMINIQUE MARIE")) == ()


@pytest.mark.requirement("DB.CO.68", "D23")
def test_another_ins_stops_whatever_anyone_decides(call: ContextualCall) -> None:
    with pytest.raises(IdentityMismatch) as caught:
        check_manifest(call, replace(MANIFEST, ins=SECOND.ins))
    assert not isinstance(caught.value, TraitsDiffer)
    for secret in ("PAT", "DOMINIQUE", "1979", DOMINIQUE.matricule, SECOND.matricule):
        assert secret not in caught.value.reason


@pytest.mark.requirement("INS/va1.36")
@pytest.mark.parametrize(
    ("change", "trait", "values"),
    [
        ({"birth_date": "19790329"}, "Date de naissance", ("28/03/1979", "29/03/1979")),
        ({"sex": "M"}, "Sexe", ("Féminin", "Masculin")),
        ({"patient_name": "PAT-QUATRE^DOMINIQUE"}, "Nom de naissance", ("PAT-TROIS", "PAT-QUATRE")),
        ({"patient_name": "PAT-TROIS^MARIE"}, "Premier prénom de naissance", ("DOMINIQUE", "MARIE")),
        ({"patient_name": "PAT-TROIS^"}, "Premier prénom de naissance", ("DOMINIQUE", "absent")),
    ],
)
def test_any_other_difference_is_told_with_both_values(
    call: ContextualCall, change: dict[str, str], trait: str, values: tuple[str, str]
) -> None:
    (difference,) = check_manifest(call, replace(MANIFEST, **change))
    assert (difference.trait, (difference.expected, difference.found)) == (trait, values)
    assert not any(value in repr(difference) for value in values)
    # Going on takes a decision; nobody may decide where the setting says so.
    with pytest.raises(TraitsDiffer) as caught:
        require_agreement("KOS", (difference,), Rules(), decided=False)
    assert trait.lower() in caught.value.reason
    assert not any(value in caught.value.reason for value in values)
    require_agreement("KOS", (difference,), Rules(), decided=True)
    with pytest.raises(TraitsDiffer) as refused:
        require_agreement("KOS", (difference,), Rules(traits="refuse"), decided=True)
    assert refused.value.final


@pytest.mark.parametrize("change", [{"ins": None}, {"birth_date": ""}, {"sex": "X"}])
def test_what_cannot_be_compared_is_refused(call: ContextualCall, change: dict[str, object]) -> None:
    with pytest.raises(Refused):
        check_manifest(call, replace(MANIFEST, **change))


def test_another_birth_place_is_shown_and_decided_only_where_the_setting_says_so(call: ContextualCall) -> None:
    (difference,) = check_manifest(call, replace(MANIFEST, birth_place="63220"))
    assert (difference.expected, difference.found) == ("51215", "63220")
    require_agreement("KOS", (difference,), Rules(), decided=False)
    with pytest.raises(TraitsDiffer):
        require_agreement("KOS", (difference,), Rules(birth_place="decide"), decided=False)


@pytest.mark.requirement("DB.CO.68", "INS/va1.36", "D4")
@pytest.mark.parametrize(
    ("image", "traits"),
    [
        ({}, []),
        ({"name": "pat trois^Dominique"}, []),
        ({"name": "DUPONT^DOMINIQUE"}, []),
        ({"name": "", "birth_date": "", "sex": ""}, []),
        ({"name": "PAT-QUATRE^DOMINIQUE"}, ["Nom de naissance"]),
        ({"name": "PAT-TROIS^MARIE"}, ["Premier prénom de naissance"]),
        ({"birth_date": "19790329"}, ["Date de naissance"]),
        ({"birth_date": "illisible"}, ["Date de naissance"]),
        ({"sex": "M"}, ["Sexe"]),
        ({"sex": "?"}, ["Sexe"]),
    ],
)
def test_images_are_compared_by_what_a_pacs_knows(
    call: ContextualCall, image: dict[str, str], traits: list[str]
) -> None:
    told = {"name": "PAT-TROIS^DOMINIQUE", "birth_date": "19790328", "sex": "F", **image}
    found = compared_image(call.traits, **told, used_names=("DUPONT",))
    assert [d.trait for d in found] == traits


def test_reports_are_held_to_the_same_rule(call: ContextualCall) -> None:
    traits = Traits("PAT-TROIS", "DOMINIQUE", call.traits.birth_date, Sex.FEMALE, "51215")
    assert check_report(call, Patient(DOMINIQUE.ins, False, traits)) == ()
    with pytest.raises(IdentityMismatch):
        check_report(call, Patient(SECOND.ins, False, traits))
    (difference,) = check_report(call, Patient(DOMINIQUE.ins, False, replace(traits, sex=Sex.MALE)))
    assert difference.trait == "Sexe"
