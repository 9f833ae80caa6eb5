"""The contextual call: what is accepted, what is refused, and that a refusal never repeats a value."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from consumer_world import DOMINIQUE, TEST_OID
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from drimbox.box.settings.common import IssuerCx4
from drimbox.box.settings.consumer import ConsumerSection
from drimbox.consumer.call import MAX_CALL_BYTES, CallRefused, Consent, ContextualCall, parse_call
from drimbox.identity.ins import Ins
from drimbox.identity.traits import Sex

VALUES = ConsumerSection.model_fields["consent_values"].default
NEW = DOMINIQUE.call()
# The generation of early 2023, as the deprecated front end of the demonstrator posts it (rem-consumer.md 1.2).
OLD = {
    "ins": DOMINIQUE.matricule,
    "insAuthority": TEST_OID,
    "consent": "yes",
    "patientID": "IPP101",
    "patientIDIssuer": "IPP-B&1.2.250.1.999.2&ISO",
    "lastName": "PAT-TROIS",
    "firstName": "DOMINIQUE",
    "birthDate": "19790328",
    "birthPlace": "51215",
    "sex": "F",
}


def parse(fields: dict[str, str] | bytes, **more: object) -> ContextualCall:
    body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    options = {"environment": "test", "consent_values": VALUES, **more}
    return parse_call(body, **options)  # type: ignore[arg-type]


def refused(fields: dict[str, str] | bytes, **more: object) -> CallRefused:
    with pytest.raises(CallRefused) as caught:
        parse(fields, **more)
    return caught.value


def outcome(fields: dict[str, str]) -> CallRefused | None:
    try:
        parse(fields)
    except CallRefused as error:
        return error
    return None


@pytest.mark.requirement("DB.CO.48", "D18")
def test_both_generations_of_names_say_the_same() -> None:
    assert parse(OLD) == parse(NEW)


@pytest.mark.requirement("DB.CO.48", "INS/va1.36")
def test_everything_is_read() -> None:
    call = parse(
        NEW
        | {
            "StudyInstanceUID": "1.2.3.4",
            "Modality": "ct,MR",
            "AccessionNumber": "ACN101",
            "AccessionNumberIssuer": "&1.2.250.1.925&ISO",
            "StudyDate": "20210123-20230123",
            "AnatomicRegion": "Abdomen + pelvis",
            "Situation": "1750803447",
        }
    )
    assert call.ins == Ins.of(DOMINIQUE.matricule, TEST_OID)
    assert (call.traits.birth_family, call.traits.first_given) == ("PAT-TROIS", "DOMINIQUE")
    assert (call.traits.birth_date, call.traits.sex) == (dt.date(1979, 3, 28), Sex.FEMALE)
    assert call.traits.birth_place == "51215"
    assert (call.local_id.value, call.local_id.issuer, call.issuer_name) == ("IPP101", "1.2.250.1.999.2", "IPP-B")
    assert call.consent is Consent.YES
    assert call.situation == "1750803447"
    filters = call.filters
    assert (filters.study_uid, filters.modalities, filters.regions) == ("1.2.3.4", ("CT", "MR"), ("Abdomen + pelvis",))
    assert (filters.accession, filters.accession_issuer) == ("ACN101", "1.2.250.1.925")
    assert (filters.first_day, filters.last_day) == (dt.date(2021, 1, 23), dt.date(2023, 1, 23))


@pytest.mark.requirement("D18")
@pytest.mark.parametrize(
    "name", ["InformationEtConsentement", "informationEtConsentement", "consent", "InformationEtOppositionConsultation"]
)
def test_every_name_of_the_consent_is_known(name: str) -> None:
    fields = {k: v for k, v in NEW.items() if k != "InformationEtConsentement"}
    assert parse(fields | {name: "yes"}).consent is Consent.YES


@pytest.mark.requirement("DB.CO.93", "DB.CO.94", "DMP/CONF.06", "D18")
@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("yes", Consent.YES),
        ("Oui", Consent.YES),
        ("no", Consent.NO),
        ("INC", Consent.NO),
        ("NA", Consent.NO),
        ("unknown", Consent.UNKNOWN),
        ("peut-être", Consent.NO),
        ("true", Consent.NO),
    ],
)
def test_only_a_mapped_value_consents(value: str, meaning: Consent) -> None:
    assert parse(NEW | {"InformationEtConsentement": value}).consent is meaning


@pytest.mark.requirement("DMP/CONF.06", "D18")
def test_absent_consent_is_no_consent() -> None:
    assert parse({k: v for k, v in NEW.items() if k != "InformationEtConsentement"}).consent is Consent.NO


def test_one_spelling_may_have_its_own_meaning() -> None:
    values = {"yes": "yes", "InformationEtOppositionConsultation=yes": "no"}
    fields = {k: v for k, v in NEW.items() if k != "InformationEtConsentement"}
    assert parse(fields | {"InformationEtOppositionConsultation": "yes"}, consent_values=values).consent is Consent.NO
    assert parse(fields | {"consent": "yes"}, consent_values=values).consent is Consent.YES


@pytest.mark.requirement("DB.CO.48")
@pytest.mark.parametrize("name", [n for n in NEW if n != "InformationEtConsentement"])
def test_what_is_missing_is_named(name: str) -> None:
    assert refused({k: v for k, v in NEW.items() if k != name}).parameter == name


@pytest.mark.parametrize("name", list(NEW))
def test_what_is_empty_is_named(name: str) -> None:
    error = refused(NEW | {name: "  "})
    assert error.parameter == name
    assert name in error.reason


def test_what_is_unknown_is_named() -> None:
    assert refused(NEW | {"Patient.shoeSize": "42"}).parameter == "Patient.shoeSize"


def test_what_is_given_twice_is_named_also_under_two_names() -> None:
    assert refused(urlencode([*NEW.items(), ("PatientID", "X")]).encode()).parameter == "PatientID"
    assert refused(NEW | {"ins": DOMINIQUE.matricule}).parameter == "ins"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Patient.identifier.value", "279035121518988"),
        ("Patient.identifier.value", "27903512151898"),
        ("Patient.identifier.value", "ABCDEFGHIJKLMNO"),
        ("Patient.identifier.system", "1.2.250.1.213.1.4.2"),
        ("Patient.identifier.system", "1.2.250.1.213.1.4.8"),
        ("Patient.gender", "femme"),
        ("Patient.birthDate", "28/03/1979"),
        ("Patient.birthDate", "19790230"),
        ("Patient.birthDate", "197903280000"),
        ("Patient.name.family", "PAT\x00TROIS"),
        ("Patient.name.given", "D" * 129),
        ("PatientID", "9" * 65),
        ("PatientIDIssuer", "A&B&C&D"),
        ("PatientIDIssuer", "NOM&1.02.3&ISO"),
        ("StudyInstanceUID", "1.2.3.x"),
        ("StudyDate", "20230123-20210123"),
        ("StudyDate", "2023"),
        ("StudyDate", "-"),
        ("StudyDate", "2023012320230124"),
        ("Modality", "scanner du thorax"),
        ("Modality", "CT,,MR"),
        ("AnatomicRegion", ","),
    ],
)
@pytest.mark.requirement("DB.CO.48")
def test_a_bad_value_is_refused_by_the_name_of_its_parameter(name: str, value: str) -> None:
    error = refused(NEW | {name: value})
    assert error.parameter == name
    assert len(value) < 3 or value not in error.reason


@pytest.mark.requirement("D18")
def test_a_production_identity_is_no_business_of_a_test_box_nor_the_other_way() -> None:
    assert "de test" in refused(NEW, environment="production").reason
    assert parse(NEW | {"Patient.identifier.system": "1.2.250.1.213.1.4.8"}, environment="production")


@pytest.mark.parametrize(
    ("given", "oid", "name"),
    [
        ("IPP-B&1.2.250.1.999.2&ISO", "1.2.250.1.999.2", "IPP-B"),
        ("&1.2.250.1.999.2&ISO", "1.2.250.1.999.2", ""),
        ("1.2.250.1.999.2", "1.2.250.1.999.2", ""),
        ("urn:oid:1.2.250.1.999.2", "1.2.250.1.999.2", ""),
        ("1.2.250.1.999.2&ISO", "1.2.250.1.999.2", ""),
        ("HOPITAL", "", "HOPITAL"),
    ],
)
def test_the_issuer_may_be_the_whole_cx4_or_a_part(given: str, oid: str, name: str) -> None:
    call = parse(NEW | {"PatientIDIssuer": given})
    assert (call.local_id.issuer, call.issuer_name) == (oid, name)


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ("20210123", dt.date(2021, 1, 23), dt.date(2021, 1, 23)),
        ("20210123-", dt.date(2021, 1, 23), None),
        ("-20210123", None, dt.date(2021, 1, 23)),
        ("2021-01-23-2023-01-23", dt.date(2021, 1, 23), dt.date(2023, 1, 23)),
    ],
)
def test_periods(given: str, first: dt.date | None, last: dt.date | None) -> None:
    filters = parse(NEW | {"StudyDate": given}).filters
    assert (filters.first_day, filters.last_day) == (first, last)


def test_an_ampersand_that_was_not_encoded_is_told_without_its_value() -> None:
    body = urlencode({k: v for k, v in NEW.items() if k != "PatientIDIssuer"}) + "&PatientIDIssuer=SECRETNAME&1.2.3&ISO"
    error = refused(body.encode())
    assert error.parameter == "PatientIDIssuer"
    assert "SECRETNAME" not in error.reason
    assert "1.2.3" not in error.reason


def test_too_much_of_it() -> None:
    assert refused(b"a" * (MAX_CALL_BYTES + 1)).code == "contextual-call"
    assert "Trop" in refused(b"&".join(b"a=1" for _ in range(100))).reason
    assert refused(b"").reason


def test_latin_letters_must_be_utf8() -> None:
    body = urlencode({k: v for k, v in NEW.items() if k != "Patient.name.given"}) + "&Patient.name.given=L%E9a"
    assert refused(body.encode()).parameter == "Patient.name.given"


@settings(deadline=None)
@given(st.binary(max_size=400))
@example(b"=&=")
@example(b"%=1")
@example(b"ins=%ZZ")
def test_any_bytes_end_in_a_call_or_a_refusal(body: bytes) -> None:
    with suppress(CallRefused):
        parse_call(body, environment="test", consent_values=VALUES)


@settings(deadline=None)
@given(
    st.sampled_from([*NEW, "StudyDate", "Modality", "StudyInstanceUID", "AnatomicRegion", "Situation"]),
    st.text(st.characters(codec="utf-8"), min_size=6, max_size=60),
)
def test_a_refusal_never_repeats_the_value(name: str, value: str) -> None:
    marked = f"qZ7{value}Xk9"
    error = outcome(NEW | {name: marked})
    assert error is None or error.parameter == name
    assert "qZ7" not in repr(error)


def test_health_data_is_not_in_any_repr() -> None:
    call = parse(NEW | {"StudyDate": "20210123"})
    shown = f"{call!r} {call.ins!r} {call.traits!r} {call.local_id!r} {call.filters!r}"
    for secret in (DOMINIQUE.matricule, "PAT-TROIS", "DOMINIQUE", "1979", "IPP101", "2021"):
        assert secret not in shown


ISSUERS = {
    "IPP-B": "IPP-B&1.2.250.1.999.2&ISO",
    "1.2.250.1.999.3": "IPP-C&1.2.250.1.999.3&ISO",
    "AUTRE&1.2.250.1.999.9&ISO": "IPP-D&1.2.250.1.999.4&ISO",
}


@pytest.mark.parametrize(
    ("given", "oid", "name"),
    [
        ("IPP-B", "1.2.250.1.999.2", "IPP-B"),
        (" ipp-b ", "1.2.250.1.999.2", "IPP-B"),
        ("urn:oid:1.2.250.1.999.3", "1.2.250.1.999.3", "IPP-C"),
        ("&1.2.250.1.999.3&ISO", "1.2.250.1.999.3", "IPP-C"),
        # The whole text wins over its parts; an OID over a name.
        ("AUTRE&1.2.250.1.999.9&ISO", "1.2.250.1.999.4", "IPP-D"),
        ("IPP-B&1.2.250.1.999.3&ISO", "1.2.250.1.999.3", "IPP-C"),
        # What the setting does not know stays as sent.
        ("IPP-Z&1.2.250.1.999.8&ISO", "1.2.250.1.999.8", "IPP-Z"),
        ("IPP-Z", "", "IPP-Z"),
    ],
)
@pytest.mark.requirement("DB.CO.48", "DB.CO.77")
def test_a_setting_says_the_whole_issuer_of_what_is_sent(given: str, oid: str, name: str) -> None:
    call = parse(NEW | {"PatientIDIssuer": given}, issuers=ISSUERS)
    assert (call.local_id.issuer, call.issuer_name) == (oid, name)


@pytest.mark.parametrize("whole", ["IPP-B", "&1.2.250.1.999.2&ISO", "IPP&12&ISO", "IPP&1.2.3", "IPP&1.2.3&L"])
def test_the_setting_wants_whole_issuers(whole: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(IssuerCx4).validate_python(whole)


def test_nobody_is_born_tomorrow() -> None:
    today = dt.date(2024, 3, 1)
    error = refused(NEW | {"Patient.birthDate": "20240302"}, today=today)
    assert error.parameter == "Patient.birthDate"
    assert "2024" not in error.reason
    assert parse(NEW | {"Patient.birthDate": "20240301"}, today=today).traits.birth_date == today
