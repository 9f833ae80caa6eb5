"""The list: joining, narrowing, sorting, and refusing what is of another patient."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import time
from dataclasses import replace

import pytest
from consumer_world import DOMINIQUE, REPORT_TYPE, SECOND, TEST_OID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drimbox.consumer.call import Filters
from drimbox.consumer.exams import Exam, Order, exams_of, in_order, narrowed
from drimbox.consumer.permission import Obstacle, obstacle
from drimbox.consumer.searching import in_parts, kos_criteria, report_criteria
from drimbox.foundation.errors import IdentityMismatch, Rejected, Unavailable
from drimbox.national.dmp.codes import (
    KOS_TYPE,
    MODALITIES,
    NORMAL,
    REFERENCE_ACCESSION,
    REFERENCE_ORDER,
    REFERENCE_STUDY,
    SNOMED_CT,
    Status,
)
from drimbox.national.dmp.existence import Authorisation, Existence, RecordStatus
from drimbox.national.dmp.metadata.datatypes import Cx, Dtm
from drimbox.national.dmp.metadata.model import DocumentEntry
from drimbox.national.dmp.query import Criteria
from drimbox.reports.report import Coded

CHEST = Coded("67734004", SNOMED_CT, "segment thoracique du tronc")


def kos(
    uid: str, study: str = "", accession: str = "", issuer: str = "1.9", day: str = "20240115", **more: object
) -> DocumentEntry:
    references = (
        *((Cx(study, "", REFERENCE_STUDY),) if study else ()),
        *((Cx(accession, issuer, REFERENCE_ACCESSION),) if accession else ()),
    )
    entry = DocumentEntry(
        unique_id=uid,
        patient_id=Cx(DOMINIQUE.matricule, TEST_OID, "NH"),
        mime_type="application/dicom",
        status=Status.APPROVED,
        service_start=Dtm.parse(day + "0900"),
        type_code=KOS_TYPE,
        event_codes=(Coded("CT", MODALITIES), CHEST),
        confidentiality=(NORMAL,),
        references=references,
    )
    return replace(entry, **more)


def report(uid: str, study: str = "", accession: str = "", **more: object) -> DocumentEntry:
    entry = kos(uid, study, accession, mime_type="text/xml", type_code=REPORT_TYPE, event_codes=(), title="CR")
    return replace(entry, **more)


def exams(*entries: DocumentEntry) -> tuple[Exam, ...]:
    return exams_of(entries, DOMINIQUE.ins, report_types=["18748-4"])


def shape(found: tuple[Exam, ...]) -> list[tuple[str, list[str]]]:
    return [(e.images.entry.unique_id if e.images else "", [r.entry.unique_id for r in e.reports]) for e in found]


@pytest.mark.requirement("DB.CO.54")
def test_images_and_report_of_one_study_are_one_line() -> None:
    assert shape(exams(kos("1", "1.2"), report("2", "1.2"))) == [("1", ["2"])]


@pytest.mark.requirement("DB.CO.54", "D11")
def test_an_accession_number_joins_only_under_the_same_issuer() -> None:
    assert shape(exams(kos("1", accession="A"), report("2", accession="A"))) == [("1", ["2"])]
    other = replace(report("2"), references=(Cx("A", "1.8", REFERENCE_ACCESSION),))
    assert sorted(shape(exams(kos("1", accession="A"), other))) == [("", ["2"]), ("1", [])]
    unnamed = replace(report("2"), references=(Cx("A", "", REFERENCE_ACCESSION),))
    assert shape(exams(kos("1", accession="A"), unnamed)) == [("1", ["2"])]


def test_an_equal_number_of_another_study_joins_nothing() -> None:
    assert sorted(shape(exams(kos("1", "1.2", "A"), report("2", "1.3", "A")))) == [("", ["2"]), ("1", [])]


@pytest.mark.requirement("D26")
def test_a_report_on_two_studies_and_two_reports_on_one_study() -> None:
    both = replace(report("9"), references=(Cx("1.2", "", REFERENCE_STUDY), Cx("1.3", "", REFERENCE_STUDY)))
    found = exams(kos("1", "1.2"), kos("2", "1.3"), both, report("8", "1.2"))
    assert sorted(shape(found)) == [("1", ["9", "8"]), ("2", ["9"])]


@pytest.mark.requirement("D2")
def test_two_structures_that_published_one_study_are_two_lines() -> None:
    assert sorted(shape(exams(kos("1", "1.2"), kos("2", "1.2"), report("3", "1.2")))) == [("1", ["3"]), ("2", ["3"])]


@pytest.mark.requirement("DB.CO.54")
def test_newest_exam_first_whatever_the_document_dates() -> None:
    old = kos("1", "1.1", day="20200101", creation_time=Dtm.parse("20240901"))
    new = kos("2", "1.2", day="20230601", creation_time=Dtm.parse("20230602"))
    dateless = kos("3", "1.3", service_start=None)
    undated = replace(kos("4", "1.4", service_start=None), creation_time=Dtm.parse("20210301"))
    assert [e.images.entry.unique_id for e in exams(old, dateless, undated, new) if e.images] == ["2", "4", "1", "3"]


def test_other_documents_are_left_out() -> None:
    signature = replace(kos("5"), type_code=Coded("E1762", "ASTM"))
    assert exams(signature, report("2", "1.2", type_code=Coded("11490-0", "2.16.840.1.113883.6.1"))) == ()


def test_one_document_of_another_patient_discredits_the_answer() -> None:
    stranger = kos("2", "1.3", patient_id=Cx(SECOND.matricule, TEST_OID, "NH"))
    with pytest.raises(IdentityMismatch):
        exams(kos("1", "1.2"), stranger)
    with pytest.raises(IdentityMismatch):
        exams(kos("1", "1.2", patient_id=Cx(DOMINIQUE.matricule, "1.2.250.1.213.1.4.8", "NH")))


@pytest.mark.requirement("DB.CO.55", "D10")
@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(), True),
        (Filters(modalities=("CT", "MR")), True),
        (Filters(modalities=("MR",)), False),
        (Filters(regions=("67734004",)), True),
        (Filters(regions=("Segment Thoracique du TRONC",)), True),
        (Filters(regions=("774007",)), False),
        (Filters(first_day=dt.date(2024, 1, 15), last_day=dt.date(2024, 1, 15)), True),
        (Filters(first_day=dt.date(2024, 1, 16)), False),
        (Filters(last_day=dt.date(2024, 1, 14)), False),
        (Filters(accession="A"), True),
        (Filters(accession="A", accession_issuer="1.9"), True),
        (Filters(accession="A", accession_issuer="1.8"), False),
        (Filters(study_uid="1.2"), True),
        (Filters(study_uid="1.3"), False),
        (Filters(modalities=("CT",), regions=("774007",)), False),
    ],
)
def test_filters(filters: Filters, kept: bool) -> None:
    found = exams(kos("1", "1.2", "A"), report("2", "1.2"))
    assert bool(narrowed(found, filters)) is kept


@pytest.mark.requirement("D10")
@pytest.mark.parametrize("scheme", ["1.2.840.10008.2.16.4", "1.2.250.1.213.1.1.5.618"])
def test_a_modality_is_found_under_each_scheme_that_samples_use(scheme: str) -> None:
    entry = kos("1", "1.2", event_codes=(Coded("CT", scheme),))
    assert narrowed(exams(entry), Filters(modalities=("CT",)))


def test_the_day_of_an_exam_is_a_day_in_france() -> None:
    (exam,) = exams(kos("1", "1.2", service_start=Dtm.parse("20240701223000")))
    assert exam.day == dt.date(2024, 7, 2)


@pytest.mark.requirement("DMP/UX.27", "DB.CO.55")
def test_several_criteria_go_into_one_search() -> None:
    filters = Filters(modalities=("CT",), regions=("67734004",), first_day=dt.date(2024, 1, 1))
    first, second = kos_criteria(filters), report_criteria(filters, [REPORT_TYPE])
    assert first.type_codes == (KOS_TYPE,)
    assert (first.modalities, first.regions) == (("CT",), ("67734004",))
    assert first.created_from == dt.datetime(2023, 12, 31, 23, tzinfo=dt.UTC)
    assert (second.type_codes, second.modalities, second.regions) == ((REPORT_TYPE,), (), ())


def test_a_region_named_by_a_label_is_filtered_here_alone() -> None:
    assert kos_criteria(Filters(regions=("Abdomen + pelvis",))).regions == ()


@pytest.mark.requirement("DMP/UX.08", "D22")
@pytest.mark.parametrize(
    ("status", "authorisation", "expected", "may_grant"),
    [
        (RecordStatus.ACTIVE, Authorisation.VALID, None, False),
        (RecordStatus.NONE, Authorisation.ABSENT, Obstacle.NO_RECORD, False),
        (RecordStatus.CLOSED, Authorisation.VALID, Obstacle.CLOSED, False),
        (RecordStatus.UNKNOWN, Authorisation.VALID, Obstacle.UNKNOWN, False),
        (RecordStatus.ACTIVE, Authorisation.ABSENT, Obstacle.ABSENT, True),
        (RecordStatus.ACTIVE, Authorisation.EXPIRED, Obstacle.EXPIRED, True),
        (RecordStatus.ACTIVE, Authorisation.FORBIDDEN, Obstacle.FORBIDDEN, False),
        (RecordStatus.ACTIVE, Authorisation.UNKNOWN, Obstacle.UNKNOWN, False),
    ],
)
def test_each_answer_to_the_existence_test_has_its_words(
    status: RecordStatus, authorisation: Authorisation, expected: Obstacle | None, may_grant: bool
) -> None:
    barred = obstacle(Existence(status, authorisation))
    assert (barred.obstacle if barred else None) == expected
    if barred is not None:
        assert barred.may_grant is may_grant
        assert barred.text.endswith(".")


def test_a_closed_record_tells_since_when() -> None:
    barred = obstacle(Existence(RecordStatus.CLOSED, Authorisation.VALID, "20231224"))
    assert barred is not None
    assert "24/12/2023" in barred.text


def test_an_emergency_stands_for_the_authorisation_never_against_the_patient() -> None:
    def barred(authorisation: Authorisation, status: RecordStatus = RecordStatus.ACTIVE) -> bool:
        return obstacle(Existence(status, authorisation), emergency=True) is not None

    assert not barred(Authorisation.ABSENT)
    assert not barred(Authorisation.EXPIRED)
    assert barred(Authorisation.FORBIDDEN)
    assert barred(Authorisation.ABSENT, RecordStatus.CLOSED)
    assert barred(Authorisation.ABSENT, RecordStatus.NONE)


@pytest.mark.requirement("DB.CO.54")
def test_an_order_number_joins_what_names_nothing_else() -> None:
    image = replace(kos("1"), references=(Cx("P7", "1.9", REFERENCE_ORDER),))
    assert shape(exams(image, replace(report("2"), references=(Cx("P7", "1.9", REFERENCE_ORDER),)))) == [("1", ["2"])]
    # The same characters as an accession number are another number.
    other = replace(report("2"), references=(Cx("P7", "1.9", REFERENCE_ACCESSION),))
    assert len(exams(image, other)) == 2


@pytest.mark.requirement("DB.CO.54", "DB.CO.55")
def test_the_list_is_sorted_by_date_modality_or_region() -> None:
    head = Coded("774007", SNOMED_CT, "tête et cou")
    lines = exams(
        kos("1", "1.1", day="20200101", event_codes=(Coded("MR", MODALITIES), CHEST)),
        kos("2", "1.2", day="20230601", event_codes=(Coded("CT", MODALITIES), head)),
        kos("3", "1.3", day="20240101", event_codes=()),
    )

    def ordered(order: Order) -> list[str]:
        return [e.images.entry.unique_id for e in in_order(lines, order) if e.images]

    assert ordered(Order.DATE) == ["3", "2", "1"]
    assert ordered(Order.OLDEST) == ["1", "2", "3"]
    # IRM before Scanner; abdomen, chest, head; what says nothing comes last.
    assert ordered(Order.MODALITY) == ["1", "2", "3"]
    assert ordered(Order.REGION) == ["2", "1", "3"]


@pytest.mark.requirement("DMP/UX.10")
def test_a_very_long_list_is_joined_at_once() -> None:
    entries = [kos(f"1.{n}", f"2.{n}", f"A{n}") for n in range(1500)]
    entries += [report(f"3.{n}", f"2.{n}") for n in range(1500)]
    started = time.process_time()
    lines = exams(*entries)
    assert len(lines) == 1500
    assert all(len(line.reports) == 1 for line in lines)
    assert time.process_time() - started < 1.5


# --- asked in parts ---------------------------------------------------------------------------------------------------


class Registry:
    """A DMP that gives at most ``most`` documents at once; its documents by the instant of their creation."""

    def __init__(self, moments: list[dt.datetime], most: int) -> None:
        self.moments = moments
        self.most = most
        self.asked = 0

    async def __call__(self, criteria: Criteria) -> list[DocumentEntry]:
        self.asked += 1
        start, end = criteria.created_from, criteria.created_to
        found = [
            kos(str(n), creation_time=Dtm.parse(m.strftime("%Y%m%d%H%M%S")))
            for n, m in enumerate(self.moments)
            if (start is None or m >= start) and (end is None or m < end)
        ]
        if len(found) > self.most:
            raise Rejected("Trop de résultats", code="dmp-rejected", peer_code="XDSTooManyResults")
        return found


NOW = dt.datetime(2026, 11, 23, 14, tzinfo=dt.UTC)


@pytest.mark.requirement("DMP/UX.27")
@given(
    seconds=st.lists(st.integers(0, 20 * 365 * 86400), max_size=60),
    most=st.integers(4, 40),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_too_much_at_once_is_found_whole_and_once(seconds: list[int], most: int) -> None:
    moments = [NOW - dt.timedelta(seconds=s) for s in seconds]
    registry = Registry(moments, most)
    told: list[str] = []

    async def ask() -> None:
        await in_parts(registry, Criteria(), lambda entries: told.extend(e.unique_id for e in entries), now=NOW)

    try:
        asyncio.run(ask())
        whole = True
    except Unavailable:
        # Only where even six hours hold too many, or there are too many such places: and then it is said.
        whole = False
    assert len(set(told)) == len(told)
    assert not whole or sorted(told, key=int) == [str(n) for n in range(len(moments))]
    assert registry.asked <= 64


async def test_the_newest_half_is_told_first() -> None:
    registry = Registry([NOW - dt.timedelta(days=n) for n in range(30)], 10)
    told: list[list[int]] = []
    await in_parts(registry, Criteria(), lambda entries: told.append([int(e.unique_id) for e in entries]), now=NOW)
    parts = [part for part in told if part]
    assert len(parts) > 1
    assert all(max(newer) < min(older) for newer, older in itertools.pairwise(parts))


async def test_another_refusal_is_not_taken_for_too_much() -> None:
    async def refuse(criteria: Criteria) -> list[DocumentEntry]:
        raise Rejected("Refus", code="dmp-rejected", peer_code="XDSUnknownPatientId")

    with pytest.raises(Rejected):
        await in_parts(refuse, Criteria(), lambda entries: None, now=NOW)
