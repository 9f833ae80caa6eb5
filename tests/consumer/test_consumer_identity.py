"""Comparing documents with the call."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from consumer_world import DOMINIQUE, SECOND

from drimbox.consumer.call import ContextualCall, parse_call
from drimbox.consumer.identity_check import check_manifest, check_report
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
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ins": SECOND.ins}, "INS"),
        ({"birth_date": "19790329"}, "date de naissance"),
        ({"sex": "M"}, "sexe"),
        ({"patient_name": "PAT-QUATRE^DOMINIQUE"}, "nom de naissance"),
        ({"patient_name": "PAT-TROIS^MARIE"}, "prénom"),
        ({"patient_name": "PAT-TROIS^"}, "prénom"),
    ],
)
def test_any_difference_stops_and_is_named(call: ContextualCall, change: dict[str, object], word: str) -> None:
    with pytest.raises(IdentityMismatch) as caught:
        check_manifest(call, replace(MANIFEST, **change))
    assert word in caught.value.reason
    for secret in ("PAT", "DOMINIQUE", "1979", DOMINIQUE.matricule, SECOND.matricule):
        assert secret not in caught.value.reason


@pytest.mark.parametrize("change", [{"ins": None}, {"birth_date": ""}, {"sex": "X"}])
def test_what_cannot_be_compared_is_refused(call: ContextualCall, change: dict[str, object]) -> None:
    with pytest.raises(Refused):
        check_manifest(call, replace(MANIFEST, **change))


def test_another_birth_place_is_a_warning(call: ContextualCall) -> None:
    (warning,) = check_manifest(call, replace(MANIFEST, birth_place="63220"))
    assert "63220" not in warning


def test_reports_are_held_to_the_same_rule(call: ContextualCall) -> None:
    traits = Traits("PAT-TROIS", "DOMINIQUE", call.traits.birth_date, Sex.FEMALE, "51215")
    assert check_report(call, Patient(DOMINIQUE.ins, False, traits)) == ()
    with pytest.raises(IdentityMismatch):
        check_report(call, Patient(SECOND.ins, False, traits))
    with pytest.raises(IdentityMismatch):
        check_report(call, Patient(DOMINIQUE.ins, False, replace(traits, sex=Sex.MALE)))
