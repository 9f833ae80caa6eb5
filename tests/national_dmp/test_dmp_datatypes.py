"""CX, XCN, XON, DTM: what is written is read again, and nothing inside a value can become a separator."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drimbox.foundation.errors import Refused
from drimbox.national.dmp.metadata import Cx, Dtm, Xcn, Xon
from drimbox.national.dmp.metadata.datatypes import clean, escape, unescape

# Text as any message might bring it: separators and escapes more often than chance would have it.
_TEXT = st.text(
    st.one_of(st.sampled_from("^&~|\\'EFSTR "), st.characters(blacklist_categories=("Cs", "Cc"))), max_size=18
)
_OID = st.sampled_from(["1.2.250.1.71.4.2.1", "2.25.7", "1.2.250.1.213.1.4.10"])


@settings(deadline=None)
@given(_TEXT)
def test_any_text_survives_escaping(text: str) -> None:
    assert unescape(escape(text)) == clean(text)
    assert not set("^&~|") & set(escape(text))


@settings(deadline=None)
@given(st.text(max_size=60))
def test_text_that_xml_cannot_carry_is_cleaned(text: str) -> None:
    from lxml import etree

    element = etree.Element("a")
    element.text = escape(text)
    assert etree.fromstring(etree.tostring(element)).text in (element.text, None)


@settings(deadline=None)
@given(_TEXT, _OID, _TEXT)
def test_a_cx_is_read_as_it_was_written(value: str, authority: str, kind: str) -> None:
    cx = Cx(clean(value), authority, clean(kind))
    assert Cx.parse(cx.encode()) == cx


@settings(deadline=None)
@given(_TEXT, _TEXT, _TEXT)
def test_a_professional_is_read_as_written(identifier: str, family: str, given_name: str) -> None:
    person = Xcn.professional(clean(identifier), clean(family), clean(given_name))
    encoded = person.encode()
    assert Xcn.parse(encoded) == person
    assert encoded.count("^") == 12


@settings(deadline=None)
@given(_TEXT, _TEXT)
def test_a_structure_is_read_as_written(identifier: str, name: str) -> None:
    structure = Xon.structure(clean(identifier), clean(name))
    assert Xon.parse(structure.encode()) == structure


def test_the_forms_of_the_official_samples() -> None:
    assert (
        Xcn.device("899711256811", "DRIMBox", "ANS").encode()
        == "899711256811^DRIMBox^ANS^^^^^^&1.2.250.1.71.4.2.1&ISO^U^^^EI"
    )
    assert (
        Xcn.professional("899700367909", "DOC0036790", "KIT").encode()
        == "899700367909^DOC0036790^KIT^^^^^^&1.2.250.1.71.4.2.1&ISO^D^^^IDNPS"
    )
    assert (
        Xon.structure("499700367909006", "BCOM").encode() == "BCOM^^^^^&1.2.250.1.71.4.2.2&ISO^IDNST^^^499700367909006"
    )
    study = Cx("1.2.3", kind="urn:ihe:iti:xds:2016:studyInstanceUID")
    assert study.encode() == "1.2.3^^^^urn:ihe:iti:xds:2016:studyInstanceUID"


@settings(deadline=None)
@given(st.text(st.sampled_from("Aé^&\\"), max_size=2000), st.text(st.sampled_from("Bè|~"), max_size=2000))
def test_names_are_cut_and_identifiers_kept(family: str, given_name: str) -> None:
    person = Xcn.professional("801234560801", family, given_name).encode()
    assert len(person) <= 256
    assert person.startswith("801234560801^")
    assert person.endswith("^&1.2.250.1.71.4.2.1&ISO^D^^^IDNPS")
    assert family.startswith(Xcn.parse(person).family)
    structure = Xon.structure("1750803447", family).encode()
    assert len(structure) <= 256
    assert Xon.parse(structure).identifier == "1750803447"


def test_an_identifier_too_long_is_refused_not_cut() -> None:
    with pytest.raises(Refused, match="trop long"):
        Cx("9" * 257, "1.2.3", "PI").encode()
    with pytest.raises(Refused, match="trop long"):
        Xcn.professional("8" * 300, "N", "P").encode()


def test_a_patient_number_is_not_shown_by_repr() -> None:
    assert "279035" not in repr(Cx("279035121518989", "1.2.250.1.213.1.4.10", "NH"))


def test_times_are_utc_digits() -> None:
    paris = dt.datetime(2021, 1, 8, 10, 25, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert Dtm.of(paris) == Dtm("20210108092500")
    assert Dtm.parse("20210108102500+0100") == Dtm("20210108092500")
    assert Dtm.parse("202101081025+0100") == Dtm("202101080925")
    assert Dtm.parse("2021") == Dtm("2021")
    assert Dtm("20210107233000").paris_day() == dt.date(2021, 1, 8)
    assert Dtm("20210107").paris_day() == dt.date(2021, 1, 7)


@pytest.mark.parametrize("text", ["", "20211301", "20210230", "hier", "2021010", "202101081025001", "2021-01-08"])
def test_what_is_no_date_is_none(text: str) -> None:
    assert Dtm.parse(text) is None


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(dt.UTC)).filter(lambda instant: instant.year >= 1000))
def test_an_instant_is_kept_to_the_second(instant: dt.datetime) -> None:
    assert Dtm.of(instant).instant() == instant.replace(microsecond=0)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_hostile_values_never_raise(text: str) -> None:
    Cx.parse(text)
    Xcn.parse(text)
    Xon.parse(text)
    Dtm.parse(text)
