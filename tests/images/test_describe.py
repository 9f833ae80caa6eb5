"""DICOM JSON written from bytes: the same as pydicom's, for every file at hand, however many came before."""

from __future__ import annotations

import base64
import io
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
import pytest
from files import named, part10_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from world import INS, another_ins

from drimbox.dicom.files import read_meta
from drimbox.dicom.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused
from drimbox.images.describe import MAX_INLINE, Describer
from drimbox.images.header import with_ins

FILES = [p for p in part10_files() if p.stat().st_size < 2**20]
_BINARY = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")


@cache
def _readable() -> list[Path]:
    return [p for p in FILES if _mine(Describer(), p) is not None]


def _mine(describer: Describer, path: Path) -> dict[str, Any] | None:
    try:
        described: dict[str, Any] = json.loads(describer.describe(path.read_bytes(), INS))
    except Refused:
        return None
    return described


def _theirs(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    change = with_ins(content, INS)
    dataset = pydicom.dcmread(io.BytesIO(change.head + content[change.rest :]), stop_before_pixels=True)

    def lighten(parent: Dataset, element: DataElement) -> None:
        if (element.VR in _BINARY and len(element.value or b"") > MAX_INLINE) or element.tag.element == 0:
            del parent[element.tag]

    dataset.walk(lighten)
    described: dict[str, Any] = dataset.to_json_dict(suppress_invalid_tags=True)
    return described


def _alike(described: dict[str, Any], *, big_endian: bool) -> dict[str, Any]:
    """Without what pydicom knows more of (private elements), and what it writes otherwise for the same thing."""

    def value(one: Any) -> Any:
        if isinstance(one, dict) and "00080005" not in one and set(one) <= {"vr", "Value", "InlineBinary"}:
            return one
        return _alike(one, big_endian=big_endian) if isinstance(one, dict) and "Alphabetic" not in one else one

    found: dict[str, Any] = {}
    for tag, element in described.items():
        if int(tag[:4], 16) & 1 or tag in ("00083002", "0000FFFF"):
            continue
        kept = dict(element)
        values = [value(v.strip() or None if isinstance(v, str) else v) for v in kept.pop("Value", ())]
        if values:
            kept["Value"] = values
        if big_endian and element["vr"] == "OW" and "InlineBinary" in kept:
            # PS3.18 F.2.7 asks for little endian; pydicom leaves it as it lies.
            kept["InlineBinary"] = len(base64.b64decode(kept["InlineBinary"]))
        found[tag] = kept
    return found


@pytest.mark.requirement("DB.SO.32")
@pytest.mark.filterwarnings("ignore")
def test_every_file_is_described_as_pydicom_does() -> None:
    assert len(_readable()) > 150
    one_after_the_other = Describer()
    for path in _readable():
        mine = _mine(one_after_the_other, path)
        assert mine is not None
        # What was remembered of other files changes nothing.
        assert mine == _mine(Describer(), path), path.name
        syntax = read_meta(path.read_bytes()).transfer_syntax
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                theirs = _theirs(path)
            except (ValueError, TypeError, AttributeError, NotImplementedError):
                continue
        big = syntax == EXPLICIT_BE
        mine_alike, theirs_alike = _alike(mine, big_endian=big), _alike(theirs, big_endian=big)
        # pydicom leaves out what it cannot convert; we say it as it stands.
        left_out = mine_alike.keys() - theirs_alike.keys()
        assert {k: v for k, v in mine_alike.items() if k not in left_out} == theirs_alike, path.name
        assert left_out <= {"00280008"}, path.name
        assert mine["00083002"]["Value"] == [EXPLICIT_LE if syntax.startswith("1.2.840.10008.1.2.2") else syntax] or (
            syntax == "1.2.840.10008.1.2"
        )


@pytest.mark.requirement("D23")
def test_the_ins_is_in_it_once() -> None:
    content = named("CT_small.dcm").read_bytes()
    change = with_ins(content, INS)
    carrying = change.head + content[change.rest :]
    first, again = (json.loads(Describer().describe(one, INS)) for one in (content, carrying))
    assert first == again
    values = [item["00100020"]["Value"] for item in first["00101002"]["Value"]]
    assert values.count([INS.matricule]) == 1
    with pytest.raises(IdentityMismatch):
        Describer().describe(carrying, another_ins(5))


def test_numbers_are_exact_and_what_is_none_is_text() -> None:
    dataset = pydicom.dcmread(named("CT_small.dcm"))
    dataset.RescaleSlope = "1.10000000000000"
    out = io.BytesIO()
    dataset.save_as(out)
    content = out.getvalue().replace(b"1.10000000000000", b"abcdefghijklmnop")
    described = json.loads(Describer().describe(content, INS))
    assert described["00281053"]["Value"] == ["abcdefghijklmnop"]
    assert b'"00281053":{"vr":"DS","Value":[1.10000000000000]}' in Describer().describe(out.getvalue(), INS)


def test_a_deflated_file_is_left_to_others() -> None:
    content = named("image_dfl.dcm").read_bytes()
    assert read_meta(content).transfer_syntax == DEFLATED_LE
    with pytest.raises(Refused):
        Describer().describe(content, INS)


_CT = named("CT_small.dcm").read_bytes()[:6000]
_SR = named("test-SR.dcm").read_bytes()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_headers_are_refused_or_described_in_good_json(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([_CT, _SR])))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(200, len(content)))]
    try:
        written = Describer().describe(bytes(content), INS)
    except DrimboxError:
        return
    assert isinstance(json.loads(written), dict)
