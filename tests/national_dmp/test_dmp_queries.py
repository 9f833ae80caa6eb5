"""Stored queries: how a search is written, and what of the answer is kept."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path

import pytest
from dmp_examples import SOURCE_ID
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.national.dmp import codes, query, retrieve, status
from drimbox.national.dmp.codes import Status
from drimbox.national.dmp.metadata import Cx, DocumentEntry, Dtm, SubmissionDraft
from drimbox.national.dmp.query import Criteria, EntryRef
from drimbox.national.dmp.retrieve import DocumentWanted
from drimbox.national.dmp.transport import Request
from drimbox.reports.report import Coded

URL = "https://dmp.test/registry"


def slots(request: Request) -> list[tuple[str, list[str]]]:
    return [
        (slot.get("name", ""), [v.text or "" for v in slot.iter(f"{{{codes.RIM}}}Value")])
        for slot in request.body.iter(f"{{{codes.RIM}}}Slot")
    ]


@pytest.fixture(scope="session")
def query_schema(shared: Path) -> etree.XMLSchema:
    return etree.XMLSchema(file=str(shared / "schemas" / "xds" / "ebRS30" / "query.xsd"))


@pytest.mark.requirement("DMP/UX.27", "D10")
def test_a_search_names_every_scheme_of_a_code(ins: Ins, query_schema: etree.XMLSchema) -> None:
    criteria = Criteria(
        class_codes=(codes.KOS_CLASS, codes.REPORT_CLASS),
        modalities=("MR", "CT"),
        regions=("67734004",),
        exam_from=dt.datetime(2021, 1, 8, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        exam_to=dt.datetime(2022, 1, 8, tzinfo=dt.UTC),
    )
    request = query.find_documents(URL, ins, criteria)
    query_schema.assertValid(request.body)
    assert slots(request) == [
        ("$XDSDocumentEntryPatientId", ["'279035121518989^^^&1.2.250.1.213.1.4.10&ISO^NH'"]),
        ("$XDSDocumentEntryStatus", ["('urn:oasis:names:tc:ebxml-regrep:StatusType:Approved')"]),
        ("$XDSDocumentEntryType", ["('urn:uuid:7edca82f-054d-47f2-a032-9b2a5b5186c1')"]),
        ("$XDSDocumentEntryClassCode", ["('31^^1.2.250.1.213.1.1.4.1','10^^1.2.250.1.213.1.1.4.1')"]),
        (
            "$XDSDocumentEntryEventCodeList",
            [
                "('MR^^1.2.840.10008.2.16.4','MR^^1.2.250.1.213.1.1.5.618',"
                "'CT^^1.2.840.10008.2.16.4','CT^^1.2.250.1.213.1.1.5.618')"
            ],
        ),
        (
            "$XDSDocumentEntryEventCodeList",
            ["('67734004^^2.16.840.1.113883.6.96','67734004^^1.2.250.1.213.1.1.5.695','67734004^^1.2.250.1.213.2.5')"],
        ),
        ("$XDSDocumentEntryServiceStartTimeFrom", ["20210108000000"]),
        ("$XDSDocumentEntryServiceStartTimeTo", ["20220108000000"]),
    ]
    assert request.body.find(f"{{{codes.RIM}}}AdhocQuery").get("id") == "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"  # type: ignore[union-attr]
    assert not request.changes


def test_a_search_by_reference(ins: Ins, query_schema: etree.XMLSchema) -> None:
    accession = Cx("ACN'105", "1.2.250.1.925.994044.27", codes.REFERENCE_ACCESSION)
    study = Cx("1.2.3", kind=codes.REFERENCE_STUDY)
    request = query.find_by_reference(URL, ins, [accession, study], [Status.APPROVED, Status.ARCHIVED])
    query_schema.assertValid(request.body)
    assert dict(slots(request)) == {
        "$XDSDocumentEntryPatientId": [f"'{ins.cx()}'"],
        "$XDSDocumentEntryStatus": [
            "('urn:oasis:names:tc:ebxml-regrep:StatusType:Approved','urn:asip:ci-sis:2010:StatusType:Archived')"
        ],
        "$XDSDocumentEntryReferenceIdList": [
            "('ACN''105^^^&1.2.250.1.925.994044.27&ISO^urn:ihe:iti:xds:2013:accession',"
            "'1.2.3^^^^urn:ihe:iti:xds:2016:studyInstanceUID')"
        ],
    }


def test_the_technical_id_is_asked_by_unique_id(query_schema: etree.XMLSchema) -> None:
    for only, kind in ((True, "ObjectRef"), (False, "LeafClass")):
        request = query.get_documents(URL, ["2.25.1"], technical_ids_only=only)
        query_schema.assertValid(request.body)
        assert slots(request) == [("$XDSDocumentEntryUniqueId", ["('2.25.1')"])]
        assert request.body[0].get("returnType") == kind


def unlisted(value: str) -> list[str]:
    """Read ``('a','b''c')`` as a registry does."""
    assert value.startswith("(")
    assert value.endswith(")")
    return [v.replace("''", "'") for v in re.findall(r"'((?:[^']|'')*)'", value)]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("a'(),^&é"), min_size=1, max_size=40), min_size=1, max_size=30))
def test_lists_are_coded_so_that_nothing_leaves_its_quotes(values: list[str]) -> None:
    coded = [Coded(value, "s") for value in values]
    request = query.find_documents(
        URL, Ins.of("279035121518989", "1.2.250.1.213.1.4.10"), Criteria(type_codes=tuple(coded))
    )
    (lists,) = [v for name, v in slots(request) if name == "$XDSDocumentEntryTypeCode"]
    assert [one for value in lists for one in unlisted(value)] == [f"{v}^^s" for v in values]
    assert all(len(value) <= 256 for value in lists)


def test_a_value_too_long_for_a_slot_is_refused(ins: Ins) -> None:
    with pytest.raises(Refused) as refusal:
        query.find_documents(URL, ins, Criteria(type_codes=(Coded("x" * 250, "1.2.3"),)))
    assert refusal.value.code == "query-length"


# --- the filter of our own --------------------------------------------------------------------------------------------


@pytest.mark.requirement("D10")
def test_a_document_is_kept_whatever_scheme_its_codes_have(entry: DocumentEntry) -> None:
    approved = replace(entry, status=Status.APPROVED.value)
    for scheme in (*codes.MODALITY_SCHEMES, "1.2.3.unheard.of"):
        coded = replace(approved, event_codes=(Coded("CT", scheme), Coded("67734004", scheme)))
        assert Criteria(modalities=("CT", "MR"), regions=("67734004",)).matches(coded)
        assert not Criteria(modalities=("MR",)).matches(coded)
        assert not Criteria(modalities=("CT",), regions=("774007",)).matches(coded)


def test_each_criterion_excludes(entry: DocumentEntry) -> None:
    approved = replace(entry, status=Status.APPROVED.value)
    start = dt.datetime(2021, 1, 8, 9, 25, tzinfo=dt.UTC)
    assert Criteria().matches(approved)
    assert not Criteria().matches(replace(entry, status=Status.DELETED.value))
    assert Criteria().matches(replace(entry, status=""))
    assert Criteria(statuses=(Status.DELETED,)).matches(replace(entry, status=Status.DELETED.value))
    assert Criteria(class_codes=(codes.KOS_CLASS,)).matches(approved)
    assert not Criteria(class_codes=(codes.REPORT_CLASS,)).matches(approved)
    assert not Criteria(class_codes=(codes.KOS_CLASS,)).matches(replace(approved, class_code=None))
    assert Criteria(exam_from=start, exam_to=start + dt.timedelta(seconds=1)).matches(approved)
    assert not Criteria(exam_from=start + dt.timedelta(seconds=1)).matches(approved)
    assert not Criteria(exam_to=start).matches(approved)
    assert not Criteria(exam_to=start).matches(replace(approved, service_start=None))
    assert Criteria(created_from=start).matches(approved)
    assert not Criteria(created_to=start).matches(approved)


def test_of_several_versions_the_approved_one_stands(entry: DocumentEntry) -> None:
    def version(name: str, state: Status) -> DocumentEntry:
        return replace(entry, entry_id=name, status=state.value)

    old, now, put_away = (
        version("old", Status.DEPRECATED),
        version("now", Status.APPROVED),
        version("away", Status.ARCHIVED),
    )
    assert query.current([]) is None
    assert query.current([now, old]) == EntryRef("now", Status.APPROVED)
    assert query.current([old, put_away]) == EntryRef("away", Status.ARCHIVED)
    assert query.current([old]) == EntryRef("old", Status.DEPRECATED)


# --- other requests ---------------------------------------------------------------------------------------------------


def test_a_retrieval_is_valid(shared: Path) -> None:
    schema = etree.XMLSchema(file=str(shared / "schemas" / "xds" / "IHE" / "IHEXDSB.xsd"))
    schema.assertValid(retrieve.request(URL, [DocumentWanted("1.2", "1.2.3"), DocumentWanted("1.2", "1.2.4")]).body)
    for wrong in ([], [DocumentWanted("", "1.2.3")]):
        with pytest.raises(Refused):
            retrieve.request(URL, wrong)


@pytest.mark.requirement("DMP/CONF.03", "DB.SO.97")
def test_a_depublication_is_valid_and_carries_no_document(
    ins: Ins, draft: SubmissionDraft, clock: FixedClock, shared: Path
) -> None:
    schema = etree.XMLSchema(file=str(shared / "schemas" / "xds" / "ebRS30" / "lcm.xsd"))
    request = status.request(
        URL,
        ins,
        "urn:uuid:1",
        original=Status.APPROVED,
        new=Status.DELETED,
        draft=draft,
        source_id=SOURCE_ID,
        clock=clock,
    )
    schema.assertValid(request.body)
    assert request.changes
    assert not request.attachments
    (association,) = request.body.iter(f"{{{codes.RIM}}}Association")
    assert association.get("associationType") == "urn:ihe:iti:2010:AssociationType:UpdateAvailabilityStatus"
    assert (association.get("sourceObject"), association.get("targetObject")) == ("SubmissionSet01", "urn:uuid:1")
    told = {s.get("name"): [v.text for v in s.iter(f"{{{codes.RIM}}}Value")] for s in association}
    assert told == {
        "OriginalStatus": ["urn:oasis:names:tc:ebxml-regrep:StatusType:Approved"],
        "NewStatus": ["urn:asip:ci-sis:2010:StatusType:Deleted"],
    }
    assert not list(request.body.iter(f"{{{codes.RIM}}}ExtrinsicObject"))


@pytest.mark.parametrize(
    ("original", "new"),
    [(Status.DELETED, Status.APPROVED), (Status.DEPRECATED, Status.DELETED), (Status.APPROVED,) * 2],
)
def test_other_changes_of_status_are_refused(
    original: Status, new: Status, ins: Ins, draft: SubmissionDraft, clock: FixedClock
) -> None:
    with pytest.raises(Refused) as refusal:
        status.request(URL, ins, "urn:uuid:1", original=original, new=new, draft=draft, source_id="1.2", clock=clock)
    assert refusal.value.code == "status-change"


def test_dates_less_exact_than_a_day_still_filter(entry: DocumentEntry) -> None:
    month = replace(entry, status=Status.APPROVED.value, service_start=Dtm("202101"))
    assert Criteria(exam_from=dt.datetime(2021, 1, 1, tzinfo=dt.UTC)).matches(month)
    assert not Criteria(exam_from=dt.datetime(2021, 1, 2, tzinfo=dt.UTC)).matches(month)
