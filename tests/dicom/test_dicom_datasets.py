"""The values of a data set: against pydicom on every real file there is, and on hostile bytes."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from drimbox.dicom.datasets import DataSet, read_data_set, read_file
from drimbox.foundation.errors import Refused

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
SHIPPED = sorted(
    Path(str(path))
    for folder in (files("pydicom") / "data" / "test_files", files("pydicom") / "data" / "charset_files")
    for path in Path(str(folder)).glob("*.dcm")
)
_TEXTS = ("CS", "LO", "SH", "UI", "DA", "TM", "LT", "UT", "ST")


def compare(found: DataSet, dataset: Dataset) -> int:
    """Every text and every item of a data set as pydicom has it; how many there were."""
    compared = 0
    for element in dataset:
        if element.VR == "SQ":
            items = list(found.items(element.tag))
            assert len(items) == len(element.value)
            compared += sum(compare(mine, theirs) for mine, theirs in zip(items, element.value, strict=True))
        elif element.VR in _TEXTS and element.VM == 1 and str(element.value).isascii():
            assert found.text(element.tag) == str(element.value).strip(" \0\r\n\t\f"), element.tag
            compared += 1
    return compared


def test_every_shipped_file_says_the_same_to_pydicom() -> None:
    compared = 0
    for path in SHIPPED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found, _ = read_file(path.read_bytes(), until=0x7FE00000)
                dataset = pydicom.dcmread(path, stop_before_pixels=True)
                compared += compare(found, dataset)
            except (Refused, pydicom.errors.InvalidDicomError):
                continue
    assert compared > 2500


def encoded(dataset: Dataset, syntax: str) -> bytes:
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(out, dataset)
    return out.getvalue()


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize("undefined", [False, True])
def test_items_within_items(syntax: str, undefined: bool) -> None:
    inner, outer, whole = Dataset(), Dataset(), Dataset()
    inner.UniversalEntityID = "1.2.250.1"
    outer.IssuerOfPatientIDQualifiersSequence = [inner]
    outer.PatientID = "IPPé"
    whole.SpecificCharacterSet = "ISO_IR 192"
    whole.OtherPatientIDsSequence = [outer, outer]
    for dataset, keyword in ((outer, "IssuerOfPatientIDQualifiersSequence"), (whole, "OtherPatientIDsSequence")):
        dataset[keyword].is_undefined_length = undefined
        for item in dataset[keyword].value:
            item.is_undefined_length_sequence_item = undefined
    found = read_data_set(encoded(whole, syntax), syntax)
    read = [
        (item.text(0x00100020), [x.text(0x00400032) for x in item.items(0x00100024)])
        for item in found.items(0x00101002)
    ]
    # The character set of the whole holds in its items (PS3.5 7.5.3).
    assert read == [("IPPé", ["1.2.250.1"])] * 2
    assert list(found.items(0x0040A730)) == []
    assert (found.text(0x00100010), 0x00100010 in found, 0x00101002 in found) == ("", False, True)


def test_a_sequence_that_lost_its_vr_is_read() -> None:
    """A sequence under VR UN is Implicit Little Endian, whatever is around it (PS3.5 6.2.2)."""
    inner = struct.pack("<HHI", 0x0040, 0x0032, 4) + b"1.2\0"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    data = struct.pack("<HH2sHI", 0x0008, 0x0051, b"UN", 0, len(item)) + item
    assert [x.text(0x00400032) for x in read_data_set(data, EXPLICIT).items(0x00080051)] == ["1.2"]


def test_order_matters_unless_it_is_said_not_to() -> None:
    level = struct.pack("<HH2sH", 0x0008, 0x0052, b"CS", 6) + b"STUDY "
    charset = struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", 10) + b"ISO_IR 192"
    name = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 4) + "É^".encode() + b" "
    data = name + level + charset
    with pytest.raises(Refused):
        read_data_set(data, EXPLICIT)
    found = read_data_set(data, EXPLICIT, ordered=False)
    assert (found.text(0x00080052), found.text(0x00100010)) == ("STUDY", "É^")


@given(st.sampled_from([IMPLICIT, EXPLICIT, BIG]), st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_or_refused(syntax: str, data: bytes, ordered: bool) -> None:
    with suppress(Refused):
        found = read_data_set(data, syntax, ordered=ordered)
        for tag in range(0x00080000, 0x00080060):
            assert isinstance(found.text(tag), str)
            for item in found.items(tag):
                item.text(0x00080100)


def test_nesting_is_limited() -> None:
    begin = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    begin += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(Refused) as refused:
        read_data_set(begin * 1000, EXPLICIT)
    assert refused.value.code == "dicom-depth"


def test_a_deflate_bomb_is_not_unpacked() -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    dataset.SOPClassUID = dataset.SOPInstanceUID = "1.2.3"
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    start = 144 + int.from_bytes(out.getvalue()[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    plain = encoded(dataset, EXPLICIT) + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 50_000_000) + bytes(50_000_000)
    bomb = out.getvalue()[:start] + packer.compress(plain) + packer.flush()
    found, _ = read_file(bomb, until=0x0020000E, most_inflated=10_000)
    assert found.text(0x00080018) == "1.2.3"
    with pytest.raises(Refused):
        read_file(out.getvalue()[:start] + b"\xff" * 100)


@pytest.mark.parametrize(
    ("value", "charset", "text"),
    [
        (b"H\xe9l\xe8ne^\xc9lodie ", "ISO_IR 100", "Hélène^Élodie"),
        ("Œuvre^Chloé".encode(), "ISO_IR 192", "Œuvre^Chloé"),
        (b"\xbduvre", "ISO_IR 203", "œuvre"),
        (b"Buc^J\xe9r\xf4me", "ISO 2022 IR 6\\ISO 2022 IR 100", "Buc^Jérôme"),
        (b"plain\0", "", "plain"),
        (b"\xe9", "NO SUCH SET", "é"),
        (b"\xe9", "ISO_IR 192", "\ufffd"),
    ],
)
def test_text_in_its_character_set(value: bytes, charset: str, text: str) -> None:
    assert _text(value, charset.encode()) == text


_SETS: Any = st.lists(st.sampled_from(["", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO_IR 192", "GB18030", "x"]))


@given(st.binary(max_size=30), st.text(max_size=20) | _SETS.map("\\".join))
def test_no_text_is_a_reason_to_fail(value: bytes, charset: str) -> None:
    assert isinstance(_text(value, charset.encode("utf-8", "replace")), str)


def _text(value: bytes, charset: bytes) -> str:
    data = struct.pack("<HHI", 0x0008, 0x0005, len(charset)) + charset
    return read_data_set(data + struct.pack("<HHI", 0x0010, 0x0010, len(value)) + value, IMPLICIT).text(0x00100010)
