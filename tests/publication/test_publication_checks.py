"""Whether a report is about this study and about one patient: every check of decision 4, one by one."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from publication_examples import letter_of, read, report_of, study_of

from drimbox.identity.ins import Ins
from drimbox.identity.traits import LocalId, Patient, Sex
from drimbox.pacs.study import Study
from drimbox.publication.checks import Severity, check, orders_of
from drimbox.reports.report import Identifier, Order, Report
from drimbox.sandbox.ris.letters import Identity

PRODUCTION = "1.2.250.1.213.1.4.8"


def codes(report: Report, study: Study, *, names: bool = True, ins_range: str = "test") -> dict[str, Severity]:
    found = check(report, study, match_patient_name=names, ins_range=ins_range)  # type: ignore[arg-type]
    for finding in found:
        for secret in ("279035121518989", "PAT-TROIS", "DOMINIQUE", "1979", "IPP101", "ACN105"):
            assert secret not in finding.reason
    return {finding.code: finding.severity for finding in found}


def traits(patient: Patient, **changes: object) -> Patient:
    return replace(patient, traits=replace(patient.traits, **changes))  # type: ignore[arg-type]


def with_pid(**changes: object) -> Report:
    report = report_of()
    return replace(report, message_patient=traits(report.message_patient, **changes))


def with_both(**changes: object) -> Report:
    report = report_of()
    return replace(
        report, patient=traits(report.patient, **changes), message_patient=traits(report.message_patient, **changes)
    )


@pytest.mark.requirement("D4", "exam:E")
def test_the_plain_exam_passes() -> None:
    assert codes(report_of(), study_of()) == {}


@pytest.mark.requirement("D4", "exam:M")
def test_exam_m_another_patient_under_the_same_ins() -> None:
    someone = Identity(family="ANS-DRIM", given="PatientBis", birth_date="20120125", sex="M")
    found = codes(read(letter_of("M", identity=someone)), study_of(114))
    assert set(found) == {"pacs-birth-date", "pacs-sex", "pacs-name"}
    assert set(found.values()) == {Severity.BLOCKING}


@pytest.mark.requirement("D4", "exam:I")
def test_the_birth_place_is_a_warning() -> None:
    assert codes(with_pid(birth_place="63220"), study_of()) == {"birth-place-differs": Severity.WARNING}
    assert codes(with_pid(birth_place=""), study_of()) == {}


@pytest.mark.requirement("D4", "DB.SO.11")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"birth_family": "PAT-QUATRE"}, "birth-name-differs"),
        ({"first_given": "CAMILLE"}, "given-name-differs"),
        ({"birth_date": dt.date(1979, 3, 29)}, "birth-date-differs"),
        ({"sex": Sex.MALE}, "sex-differs"),
    ],
)
def test_message_and_report_name_the_same_person(change: dict[str, object], code: str) -> None:
    assert codes(with_pid(**change), study_of()) == {code: Severity.BLOCKING}


@pytest.mark.requirement("D4", "INS/va1.36")
def test_names_are_compared_without_accents_case_and_hyphens() -> None:
    assert codes(with_pid(birth_family="Pat Trois", first_given="dominique"), study_of()) == {}


@pytest.mark.requirement("D4", "DB.SO.11")
def test_the_ins_is_qualified_one_and_of_the_range_of_the_box() -> None:
    report = report_of()
    unqualified = replace(report, message_patient=replace(report.message_patient, qualified=False))
    assert codes(unqualified, study_of()) == {"ins-unqualified": Severity.BLOCKING}
    other = replace(report.patient, ins=Ins.of("162018885045327", "1.2.250.1.213.1.4.10"))
    assert codes(replace(report, patient=other), study_of()) == {"ins-differs": Severity.BLOCKING}
    assert codes(report, study_of(), ins_range="production") == {"ins-range": Severity.BLOCKING}
    real = Ins.of("279035121518989", PRODUCTION)
    produced = replace(
        report, patient=replace(report.patient, ins=real), message_patient=replace(report.message_patient, ins=real)
    )
    assert codes(produced, study_of(), ins_range="production") == {}
    assert codes(produced, study_of()) == {"ins-range": Severity.BLOCKING}
    mixed = replace(report, message_patient=replace(report.message_patient, ins=real))
    assert set(codes(mixed, study_of())) == {"ins-range", "ins-differs"}


@pytest.mark.requirement("D4", "DB.SO.16")
@pytest.mark.parametrize(
    ("study", "code"),
    [
        (study_of(patient_id="IPP102"), "pacs-ipp"),
        (study_of(patient_id=""), "ipp-missing"),
        (study_of(patient_id_issuer="1.2.3"), "pacs-ipp"),
        (study_of(patient_id_issuer=""), None),
        (study_of(patient_id_issuer="LOCAL"), None),
    ],
)
def test_the_patient_number_is_the_pacs_s(study: Study, code: str | None) -> None:
    assert set(codes(report_of(), study)) == ({code} if code else set())


@pytest.mark.requirement("D4", "DB.SO.16")
def test_patient_numbers_of_message_and_report() -> None:
    report = report_of()
    without = replace(report, message_patient=replace(report.message_patient, local_ids=()))
    assert codes(without, study_of()) == {}
    none = replace(without, patient=replace(report.patient, local_ids=()))
    assert set(codes(none, study_of())) == {"ipp-absent"}
    other = (LocalId("IPP999", "1.2.250.1.213.4.5.2.4"),)
    contradictory = replace(report, message_patient=replace(report.message_patient, local_ids=other))
    assert set(codes(contradictory, study_of())) == {"ipp-differs"}
    elsewhere = (LocalId("IPP999", "1.2.3"), *report.message_patient.local_ids)
    assert (
        codes(replace(report, message_patient=replace(report.message_patient, local_ids=elsewhere)), study_of()) == {}
    )


@pytest.mark.requirement("D4", "DB.SO.17")
@pytest.mark.parametrize(
    ("study", "code"),
    [
        (study_of(accession_number="ACN106"), "accession-differs"),
        (study_of(accession_number=""), "accession-missing"),
        (study_of(accession_issuer="1.2.3"), "accession-differs"),
        (study_of(accession_issuer=""), None),
        (study_of(accession_number=" ACN105 "), None),
    ],
)
def test_the_accession_number_is_one_of_the_report_s(study: Study, code: str | None) -> None:
    assert set(codes(report_of(), study)) == ({code} if code else set())


@pytest.mark.requirement("DB.SO.17")
def test_a_report_without_accession_number() -> None:
    assert set(codes(report_of(orders=()), study_of())) == {"accession-absent"}


@pytest.mark.requirement("D4")
@pytest.mark.parametrize(
    ("study", "code"),
    [
        (study_of(birth_date="19790329"), "pacs-birth-date"),
        (study_of(birth_date=""), "pacs-birth-date-missing"),
        (study_of(birth_date="1979.03.28"), None),
        (study_of(sex="M"), "pacs-sex"),
        (study_of(sex=""), "pacs-sex-missing"),
        (study_of(sex="f"), None),
        (study_of(images=0), "study-empty"),
    ],
)
def test_the_pacs_says_the_same_of_the_patient(study: Study, code: str | None) -> None:
    assert set(codes(report_of(), study)) == ({code} if code else set())


@pytest.mark.parametrize(("sex", "passes"), [("", True), ("O", True), ("F", False)])
def test_an_unknown_sex_is_unknown_on_both_sides(sex: str, passes: bool) -> None:
    assert (codes(with_both(sex=Sex.UNKNOWN), study_of(sex=sex)) == {}) is passes


@pytest.mark.requirement("D4")
@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("PAT-TROIS^DOMINIQUE", True),
        ("Pat Trois^Dominique", True),
        ("PAT-TROIS DOMINIQUE", True),
        ("PAT-TROIS^DOMINIQUE^MARIE", True),
        ("DURAND^DOMI", True),
        ("DURAND^DOMINIQUE", True),
        ("PAT-TROIS^DOMINIQUE MARIE ZOE", True),
        ("PAT-TROIS^DOMINIQUE=漢字^漢字", True),
        ("PAT-TROIS^CAMILLE", False),
        ("PAT-TROIS", False),
        ("PAT-TROI^SDOMINIQUE", False),
        ("", False),
        ("^", False),
    ],
)
def test_the_pacs_s_name_is_the_birth_or_the_used_name(name: str, passes: bool) -> None:
    report = with_both(used_family="DURAND", used_given="Domi", given_names=("DOMINIQUE", "MARIE", "ZOÉ"))
    assert set(codes(report, study_of(patient_name=name))) == (set() if passes else {"pacs-name"})
    assert codes(report, study_of(patient_name=name), names=False) == {}


@pytest.mark.requirement("D3", "exam:F")
def test_orders_belong_to_the_study_whose_accession_number_they_bear() -> None:
    report = report_of("F")
    for number in (106, 107):
        [order] = orders_of(report, study_of(number))
        assert order.accession == Identifier(f"ACN{number}", "1.2.250.1.925.994044.27")
    strange = Order(Identifier("OPN1"), None)
    assert orders_of(replace(report, orders=(strange, *report.orders)), study_of(105)) == ()
    assert orders_of(replace(report, orders=(*report.orders, report.orders[0])), study_of(106)) == (report.orders[0],)
