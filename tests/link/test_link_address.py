"""The link as it is written and read: any order and case, and nothing that is not one."""

from __future__ import annotations

import base64
import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Refused
from drimbox.link.address import (
    MAX_QUERY_BYTES,
    BadLink,
    Link,
    ReportId,
    parse,
    partial,
    partial_observation,
    template,
    whole,
)
from drimbox.link.drawing import qr_code

ORIGIN = "https://vi12.mesimagesmedicales.fr"
STUDY, SERIES = "1.2.250.1.213.4.5.2.1.105", "1.2.250.1.213.4.5.2.2.105.201"
ROOT = "1.2.250.1.213.1.1.9"

uids = st.lists(st.integers(0, 10**6), min_size=2, max_size=8).map(lambda parts: ".".join(map(str, parts)))
texts = st.text("AZ09az-._^/&=?#%+;:'\"<>\\ éŒ∑漢", min_size=1, max_size=40).filter(lambda text: text.strip() == text)
links = st.builds(
    Link,
    uids,
    texts,
    st.builds(ReportId, uids, st.one_of(st.just(""), texts)),
    st.one_of(st.none(), uids),
)


@given(links)
def test_what_is_written_is_read_again(link: Link) -> None:
    found = parse(urlsplit(whole(ORIGIN, link)).query.encode())
    assert found == link
    assert parse(link.query.encode()) == link


@pytest.mark.requirement("DB.VI-SO.07")
@given(links, st.randoms(use_true_random=False))
def test_neither_order_nor_case_nor_unknown_names_matter(link: Link, random: object) -> None:
    pairs = [*link.query.split("&"), "viewerType=IHE_BIR", "diagnosticQuality=true", "x"]
    random.shuffle(pairs)  # type: ignore[attr-defined]
    cased = [
        "".join(random.choice((c.upper(), c.lower())) for c in name) + mark + value  # type: ignore[attr-defined]
        for name, mark, value in (pair.partition("=") for pair in pairs)
    ]
    assert parse("&".join(cased).encode()) == link


@given(st.binary(max_size=300))
def test_any_octets_are_a_link_or_are_not(query: bytes) -> None:
    try:
        link = parse(query)
    except BadLink:
        return
    assert parse(link.query.encode()) == link


GOOD = f"requestType=STUDY&studyUID={STUDY}&accessionNumber=A1&idCDA={ROOT}_7"


@pytest.mark.requirement("DB.VI-SO.28")
@pytest.mark.parametrize(
    "query",
    [
        "",
        GOOD.replace("STUDY", "PATIENT", 1),
        GOOD.replace("requestType=STUDY&", ""),
        GOOD.replace("requestType=STUDY", "requestType="),
        GOOD.replace(STUDY, ""),
        GOOD.replace(STUDY, f"{STUDY},1.2.3"),
        GOOD.replace(STUDY, "1..2"),
        GOOD.replace(STUDY, "1.02"),
        GOOD.replace(STUDY, "1." + "2" * 70),
        GOOD.replace(STUDY, "%31.2.3'%20OR%20'1'='1"),
        GOOD.replace("=A1", "="),
        GOOD.replace("=A1", "=%20%20"),
        GOOD.replace("=A1", "=" + "A" * 65),
        GOOD.replace("=A1", "=A%00B"),
        GOOD.replace("=A1", "=A%0d%0aSet-Cookie:x"),
        GOOD.replace("=A1", "=%ff%fe"),
        GOOD.replace(f"={ROOT}_7", "="),
        GOOD.replace(f"={ROOT}_7", "=_7"),
        GOOD.replace(f"={ROOT}_7", f"={ROOT}_"),
        GOOD.replace(f"={ROOT}_7", "=../../etc/passwd"),
        GOOD.replace("_7", "_" + "7" * 201),
        GOOD + f"&studyUID={STUDY}",
        GOOD + f"&STUDYINSTANCEUID={STUDY}",
        GOOD + "&seriesUID=x",
        GOOD.replace("STUDY", "SERIES", 1),
        GOOD + "&x=" + "y" * MAX_QUERY_BYTES,
        GOOD + "&a" * 60,
        "é=1&" + GOOD,
    ],
)
def test_no_other_address_is_a_link(query: str) -> None:
    with pytest.raises(BadLink) as refused:
        parse(query.encode())
    # One reason for all, and nothing of what came in it.
    assert str(refused.value) == str(BadLink())


@pytest.mark.requirement("DB.VI-SO.05")
def test_a_series_or_a_study() -> None:
    assert parse(GOOD.encode()).series_uid is None
    assert parse(f"{GOOD}&seriesUID=".encode()).series_uid is None
    assert parse(f"{GOOD}&seriesInstanceUID={SERIES}".encode()).series_uid == SERIES
    assert parse(f"{GOOD}&seriesuid={SERIES}".replace("STUDY", "series", 1).encode()).series_uid == SERIES


@pytest.mark.parametrize("mark", ["_", "^", "/"])
def test_the_two_parts_of_a_document_id(mark: str) -> None:
    assert ReportId.of(f"{ROOT}{mark}A_7").document_id == f"{ROOT}^A_7"
    assert ReportId.of(ROOT).document_id == ROOT


@given(uids, st.text(max_size=80))
def test_a_wrong_link_cannot_be_built(study: str, accession: str) -> None:
    try:
        link = Link(study, accession, ReportId(ROOT))
    except BadLink:
        return
    assert link.accession.strip() == accession != ""
    assert accession.isprintable()


@pytest.mark.requirement("DB.VI-SO.07")
def test_the_template_for_the_ris_becomes_a_link() -> None:
    filled = template(ORIGIN)
    for name, value in (("StudyInstanceUID", STUDY), ("AccessionNumber", "A%2F1"), ("idCDA", f"{ROOT}_7")):
        filled = filled.replace(f"{{{name}}}", value)
    assert filled.startswith(f"{ORIGIN}/IHEInvokeImageDisplay?requestType=STUDY&studyUID=")
    assert parse(urlsplit(filled).query.encode()) == Link(STUDY, "A/1", ReportId(ROOT, "7"))


def test_the_partial_address_of_tele_radiology_wants_the_report_at_its_end() -> None:
    begun = partial(ORIGIN, STUDY, "A 1&2")
    with pytest.raises(BadLink):
        parse(urlsplit(begun).query.encode())
    assert parse(urlsplit(f"{begun}{ROOT}_7").query.encode()) == Link(STUDY, "A 1&2", ReportId(ROOT, "7"))
    with pytest.raises(BadLink):
        partial(ORIGIN, "1..2", "A1")
    fields = partial_observation(4, begun).split("|")
    assert fields[:4] == ["OBX", "4", "ED", "URL_PARTIELLE_VIEWER^URL partielle de la visionneuse^TLR_OBSERVATION"]
    assert fields[5].split("^")[1:4] == ["TEXT", "", "Base64"]
    assert base64.b64decode(fields[5].split("^")[4]).decode() == begun
    assert fields[11] == "F"


def test_the_qr_code_is_a_picture() -> None:
    link = whole(ORIGIN, Link(STUDY, "A1", ReportId(ROOT, "7")))
    assert qr_code(link, ".PNG").startswith(b"\x89PNG")
    assert re.search(rb"<svg[^>]*>", qr_code(link, ".svg"))
    with pytest.raises(Refused):
        qr_code(link, ".exe")
