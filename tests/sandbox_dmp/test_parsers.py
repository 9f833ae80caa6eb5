"""What comes from outside is read or refused: never an error of the judge itself, never a forged thing accepted."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from drimbox.sandbox.dmp import datatypes
from drimbox.sandbox.dmp.kos import Unreadable, read_kos
from drimbox.sandbox.dmp.mime import MAX_PARTS, parse_media_type, split_parts
from drimbox.sandbox.dmp.query_slots import FIND_DOCUMENTS, read_parameters
from drimbox.sandbox.dmp.rules import Breach
from sandbox_dmp import metadata as md
from sandbox_dmp.kos_files import kos_file
from sandbox_dmp.scene import ACCESSION, INS, OID, ORDER, Scene, Wire, multipart

SHARED_SCENE = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NO_BOUNDARY = st.binary(max_size=200).filter(lambda b: b"MIMEBoundary_Bound" not in b)


@given(st.text(max_size=200))
def test_any_content_type_is_read_or_refused(text: str) -> None:
    try:
        media = parse_media_type(text)
    except ValueError:
        return
    assert "/" in media.name
    assert media.name == media.name.lower()


@given(st.dictionaries(st.sampled_from(["0.2", "0.3", "a@b"]), NO_BOUNDARY, min_size=1))
def test_octets_of_parts_are_kept(contents: dict[str, bytes]) -> None:
    media_type, body = multipart(b"<x/>", contents)
    media = parse_media_type(media_type)
    root, *parts = split_parts(body, media.get("boundary"))
    assert root.content == b"<x/>"
    assert {p.content_id: p.content for p in parts} == contents


@given(st.binary(max_size=400), st.sampled_from(["b", "", "x" * 71, "é"]))
def test_any_multipart_is_read_or_refused(body: bytes, boundary: str) -> None:
    for octets in (body, b"--b\r\n" + body, b"--b\r\n" + body + b"\r\n--b--"):
        try:
            split_parts(octets, boundary)
        except ValueError:
            continue


def test_a_flood_of_parts_is_refused() -> None:
    _, body = multipart(b"<x/>", {str(n): b"" for n in range(MAX_PARTS)})
    with pytest.raises(ValueError, match="trop de parties"):
        split_parts(body, "MIMEBoundary_Bound")


@given(st.text(alphabet="^&|ISO.0123456789D", max_size=80))
def test_any_data_type_is_read_or_refused(text: str) -> None:
    for read in (datatypes.person, datatypes.institution, datatypes.reference, datatypes.utc_time, datatypes.instant):
        read(text)
    datatypes.is_ins(text), datatypes.is_person_id(text), datatypes.is_structure_id(text), datatypes.words(text)


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_times_are_read_back(when: dt.datetime) -> None:
    whole = when.replace(microsecond=0)
    assert datatypes.utc_time(f"{whole:%Y}".zfill(4) + f"{whole:%m%d%H%M%S}") == whole
    assert datatypes.instant(when.isoformat()) == when


@pytest.mark.parametrize(
    ("matricule", "right"),
    [
        ("279035121518989", True),
        ("162018885045327", True),
        ("185012A00412389", True),
        ("185012B00412319", True),
        ("279035121518988", False),
        ("27903512151898", False),
        ("A79035121518989", False),
    ],
)
def test_ins_keys(matricule: str, right: bool) -> None:
    assert datatypes.is_ins(matricule) is right


def asked(slots: str) -> etree._Element:
    return etree.fromstring(f'<AdhocQuery xmlns="{md.RIM}" id="{FIND_DOCUMENTS}">{slots}</AdhocQuery>')


@given(
    st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1)
)
def test_texts_of_a_list_are_read_back(texts: list[str]) -> None:
    told = ",".join("'" + text.replace("'", "''") + "'" for text in texts)
    slots = md.slot("$XDSDocumentEntryPatientId", "'x'") + md.slot("$XDSDocumentEntryStatus", f"({told})")
    assert read_parameters(asked(slots))["$XDSDocumentEntryStatus"] == (tuple(texts),)


@given(st.text(alphabet="'(),^ ab$%", max_size=60))
def test_any_value_of_a_query_is_read_or_refused(text: str) -> None:
    names = ("$XDSDocumentEntryPatientId", "$XDSDocumentEntryStatus", "$XDSDocumentEntryClassCode")
    for name in names:
        with suppress(Breach):
            read_parameters(asked(md.slot(name, text)))


KOS = kos_file(
    uid="1.2.3.4", study="1.2.3.5", created=dt.datetime(2024, 1, 1, tzinfo=dt.UTC), ins=INS, oid=OID,
    accession=ACCESSION, order=ORDER,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(KOS) - 1), st.integers(0, 7), st.integers(0, len(KOS)))
def test_any_dicom_is_read_or_refused(place: int, bit: int, end: int) -> None:
    bent = bytearray(KOS)
    bent[place] ^= 1 << bit
    for octets in (bytes(bent), KOS[:end]):
        try:
            read_kos(octets)
        except Unreadable:
            continue


PLACES, BITS = st.floats(0, 1, exclude_max=True), st.integers(0, 7)


def flipped(wire: Wire, start: int, end: int, place: float, bit: int) -> tuple[Wire, int]:
    """The message with one bit changed, between two places, and where."""
    where = start + int(place * (end - start))
    octets = bytearray(wire.body)
    octets[where] ^= 1 << bit
    return replace(wire, body=bytes(octets)), where


@SHARED_SCENE
@given(place=PLACES, bit=BITS)
def test_any_flip_of_a_publication_is_answered(court: Scene, place: float, bit: int) -> None:
    wire = court.publication()
    bent, where = flipped(wire, 0, len(wire.body), place, bit)
    answered = court.send(bent)
    assert answered.status in (200, 400, 403, 415, 500)
    kos = wire.body.index(wire.content)
    if kos <= where < kos + len(wire.content):
        assert answered.broken[0] != ""


@SHARED_SCENE
@given(place=PLACES, bit=BITS)
def test_no_flip_of_an_assertion_is_believed(court: Scene, place: float, bit: int) -> None:
    wire = court.existence(court.caller())
    start, end = wire.body.index(b"<saml:Subject>"), wire.body.index(b"</saml:Assertion>")
    bent, _ = flipped(wire, start, end, place, bit)
    assert court.send(bent).fault[2] != ""


def test_a_deep_message_is_refused(court: Scene) -> None:
    wire = court.existence(court.caller())
    answered = court.send(wire.bent(b"<soap:Body>", b"<soap:Body>" + b"<x>" * 300 + b"</x>" * 300))
    assert answered.broken == ("SOAP.XML", "dmp:MalformedRequest")
