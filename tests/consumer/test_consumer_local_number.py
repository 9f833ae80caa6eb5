"""What is handed to another program names the patient by the local number of the call."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from drimbox.consumer.local_number import file_of
from drimbox.importing.coercion import Coercion

LOCAL = Coercion("IPP-B-4711", "2.25.1740066", "CABINET ÉTÉ", at=dt.datetime(2024, 3, 1, 9, 30, tzinfo=dt.UTC))
SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2")
_IDENTITY = (
    "PatientID",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "OriginalAttributesSequence",
)
words = st.text("ABCDEÉ123 ", max_size=12).map(str.strip)
numbers = st.sampled_from(["", "IPP-A-1", "IPP-B-4711", "4711"])
oids = st.sampled_from(["", "2.25.1740066", "1.2.250.1.999.1"])


def issuer_of(oid: str) -> list[Dataset]:
    item = Dataset()
    item.UniversalEntityID, item.UniversalEntityIDType = oid, "ISO"
    return [item]


@st.composite
def images(draw: st.DrawFn) -> bytes:
    ds = Dataset()
    ds.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 100", "ISO_IR 192"]))
    ds.SOPClassUID, ds.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.7"), UID("1.2.3.4.5")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID("1.2.3.4"), UID("1.2.3.4.1")
    if institution := draw(words):
        ds.InstitutionName = institution
    if draw(st.booleans()):
        ds.PatientID = draw(numbers)
    if issuer := draw(words):
        ds.IssuerOfPatientID = issuer
    if draw(st.booleans()):
        ds.TypeOfPatientID = "TEXT"
    if oid := draw(oids):
        ds.IssuerOfPatientIDQualifiersSequence = issuer_of(oid)
    if draw(st.booleans()):
        other = Dataset()
        other.PatientID, other.IssuerOfPatientIDQualifiersSequence = "279035121518989", issuer_of("1.2.250.1.213.1.4.8")
        ds.OtherPatientIDsSequence = [other]
    if draw(st.booleans()):
        original = Dataset()
        original.ReasonForTheAttributeModification = "CORRECT"
        ds.OriginalAttributesSequence = [original]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(draw(st.sampled_from(SYNTAXES)))
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.requirement("DB.CO.77")
@settings(max_examples=150, deadline=None)
@given(
    images(), st.sampled_from([LOCAL, Coercion("4711", at=LOCAL.at), Coercion("4711", "1.2.250.1.999.1", at=LOCAL.at)])
)
def test_a_file_is_given_the_local_number(content: bytes, local: Coercion) -> None:
    with TemporaryDirectory() as folder:
        source, changed = Path(folder) / "source.dcm", Path(folder) / "changed.dcm"
        source.write_bytes(content)
        changed.write_bytes(file_of(source, local))
        assert source.read_bytes() == content
        before, after = pydicom.dcmread(source), pydicom.dcmread(changed)
    assert after.PatientID == local.patient_id
    former = before.get("PatientID", "")
    if former and former != local.patient_id:
        assert former in [item.PatientID for item in after.OtherPatientIDsSequence]
    for one in (before, after):
        for name in _IDENTITY:
            if name in one:
                delattr(one, name)
    assert before == after


def test_without_a_local_number_nothing_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(b"anything")
    assert file_of(file, None) == b"anything"
