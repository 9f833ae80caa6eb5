"""Reading who an image is of: against pydicom on every real file there is, and on hostile bytes."""

from __future__ import annotations

import os
import struct
import warnings
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from drimbox.foundation.errors import Refused
from drimbox.pacs.header import parse_header, read_header

SHIPPED = sorted(
    Path(str(path))
    for folder in (
        files("pydicom") / "data" / "test_files",
        files("pydicom") / "data" / "charset_files",
        files("data_store") / "data",
    )
    for path in Path(str(folder)).glob("*.dcm")
)
# Broken on purpose: no file meta, or none that says the transfer syntax.
BROKEN = {"SC_rgb_jpeg.dcm", "meta_missing_tsyntax.dcm", "no_meta_group_length.dcm"}


def identifiers(path: Path) -> tuple[str, ...] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            return None
        tags = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")
        return tuple(str(dataset.get(tag) or "") for tag in tags)


def test_every_shipped_file_says_the_same_to_pydicom() -> None:
    compared = 0
    for path in SHIPPED:
        expected = identifiers(path)
        if expected is None or path.name in BROKEN:
            with suppress(Refused):
                read_header(path)
            continue
        header = read_header(path)
        ours = (header.sop_class_uid, header.sop_instance_uid, header.study_uid, header.series_uid, header.patient_id)
        assert ours == expected, path.name
        compared += 1
    assert compared > 150


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
)
@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_each_encoding(syntax: str, charset: str, tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SpecificCharacterSet = charset
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    inner = Dataset()
    inner.StudyInstanceUID = "9.9.9"
    inner.PatientID = "not this one"
    dataset.ReferencedStudySequence = [inner, inner]
    dataset["ReferencedStudySequence"].is_undefined_length = True
    for item in dataset.ReferencedStudySequence:
        item.is_undefined_length_sequence_item = True
    dataset.add_new(0x00091010, "UN", os.urandom(70_000))
    dataset.add_new(0x00090010, "LO", "PRIVATE")
    dataset.PatientID = "IPPé101"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
    path = tmp_path / "x.dcm"
    dataset.save_as(path, enforce_file_format=True)
    header = read_header(path)
    assert (header.study_uid, header.series_uid, header.patient_id) == ("1.2", "1.2.3", "IPPé101")
    assert header.transfer_syntax_uid == syntax


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for whole in (data, bytes(128) + b"DICM" + data, bytes(128) + b"DICM" + HEAD + data):
        with suppress(Refused):
            parse_header(memoryview(whole))


HEAD = struct.pack("<HH2sHI", 2, 0, b"UL", 4, 28) + struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
