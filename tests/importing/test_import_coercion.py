"""The local identity put into images as bytes, judged by pydicom and DCMTK."""

from __future__ import annotations

import datetime as dt
import io
import subprocess
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.images.header import check_ins, read_header, with_ins
from drimbox.importing.coercion import Coercion, Renaming, coerced, to_implicit

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
AT = dt.datetime(2024, 3, 1, 9, 30, tzinfo=dt.UTC)
LOCAL = Coercion("IPP-B-4711", "2.25.1740066", "CABINET ÉTÉ", modified_by="site-b", at=AT)
EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
PIXELS = bytes(range(256)) * 2


def image(syntax: str = EXPLICIT, *, undefined: bool = False, change: object = None) -> bytes:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    ds.SOPInstanceUID = UID("1.2.3.4.5")
    ds.AccessionNumber = "ACN107"
    ds.InstitutionName = "CENTRE ÉLOIGNÉ"
    reference = Dataset()
    reference.ReferencedSOPClassUID = ds.SOPClassUID
    reference.ReferencedSOPInstanceUID = UID("1.2.3.4.6")
    ds.ReferencedImageSequence = Sequence([reference])
    ds.PatientName = "PAT-TROIS^DOMINIQUE"
    ds.PatientID = "IPP-A-1"
    ds.IssuerOfPatientID = "CENTRE A"
    other = Dataset()
    other.PatientID = "OTHER-1"
    ds.OtherPatientIDsSequence = Sequence([other])
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID("1.2.3.4"), UID("1.2.3.4.1")
    ds.Rows = ds.Columns = 16
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    block = ds.private_block(0x0029, "MAKER", create=True)
    block.add_new(0x01, "OB", b"\x01\x02\x03\x04" * 10)
    ds.PixelData = PIXELS
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for sequence in (ds["OtherPatientIDsSequence"], ds["ReferencedImageSequence"]):
        sequence.is_undefined_length = undefined
        for item in sequence.value:
            item.is_undefined_length_sequence_item = undefined
    if callable(change):
        change(ds)
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def edited(content: bytes, coercion: Coercion = LOCAL) -> bytes:
    change = coerced(content, coercion)
    return change.head + content[change.rest :]


@pytest.mark.requirement("DB.CO.77")
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("undefined", [False, True])
def test_local_identity_in_place_of_the_sources_which_is_kept(syntax: str, undefined: bool, tmp_path: Path) -> None:
    before = bytes(coerced_ins(image(syntax, undefined=undefined)))
    after = edited(before)
    ds = pydicom.dcmread(io.BytesIO(after))
    assert ds.PatientID == "IPP-B-4711"
    assert ds.IssuerOfPatientID == "CABINET ETE"
    (qualifiers,) = ds.IssuerOfPatientIDQualifiersSequence
    assert (qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType) == ("2.25.1740066", "ISO")
    # Original Attributes, by the book (PS3.3 C.12.1.1.9).
    (original,) = ds.OriginalAttributesSequence
    assert original.ReasonForTheAttributeModification == "COERCE"
    assert original.ModifyingSystem == "site-b"
    assert original.SourceOfPreviousValues == "CENTRE ÉLOIGNÉ"
    assert original.AttributeModificationDateTime == "20240301093000.000000+0000"
    (former,) = original.ModifiedAttributesSequence
    assert (former.PatientID, former.IssuerOfPatientID) == ("IPP-A-1", "CENTRE A")
    assert "AccessionNumber" not in former
    # Other Patient IDs: what was there, the INS, and the source's number.
    numbers = {item.PatientID: item for item in ds.OtherPatientIDsSequence}
    assert set(numbers) == {"OTHER-1", INS.matricule, "IPP-A-1"}
    assert (numbers["IPP-A-1"].IssuerOfPatientID, numbers["IPP-A-1"].TypeOfPatientID) == ("CENTRE A", "TEXT")
    # Nothing else changed, down to the last private byte.
    same = pydicom.dcmread(io.BytesIO(before))
    for each in (ds, same):
        for name in ("PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence",
                     "OtherPatientIDsSequence", "OriginalAttributesSequence"):  # fmt: skip
            if name in each:
                delattr(each, name)
    assert ds == same
    assert after.endswith(before[before.index(PIXELS) - 8 :])
    check_ins(read_header(after), INS)
    file = tmp_path / "after.dcm"
    file.write_bytes(after)
    dump = subprocess.run(["/usr/bin/dcmdump", "-q", file], capture_output=True, check=False)
    assert dump.returncode == 0, dump.stderr


def coerced_ins(content: bytes) -> bytes:
    change = with_ins(content, INS)
    return change.head + content[change.rest :]


def test_an_image_that_is_ours_already_does_not_change() -> None:
    ours = edited(image())
    assert edited(ours) == ours


def test_a_second_coercion_keeps_the_first() -> None:
    twice = pydicom.dcmread(io.BytesIO(edited(edited(image()), Coercion("IPP-C", "2.25.7", at=AT))))
    assert [i.ModifiedAttributesSequence[0].PatientID for i in twice.OriginalAttributesSequence] == [
        "IPP-A-1",
        "IPP-B-4711",
    ]
    assert [i.PatientID for i in twice.OtherPatientIDsSequence] == ["OTHER-1", "IPP-A-1", "IPP-B-4711"]


def test_an_image_without_any_number_is_given_one() -> None:
    def nobody(ds: Dataset) -> None:
        del ds.PatientID, ds.IssuerOfPatientID, ds.OtherPatientIDsSequence

    ds = pydicom.dcmread(io.BytesIO(edited(image(change=nobody))))
    assert ds.PatientID == "IPP-B-4711"
    assert "OtherPatientIDsSequence" not in ds
    assert len(ds.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]) == 0


def test_the_issuer_of_the_source_never_stays_beside_our_number() -> None:
    ds = pydicom.dcmread(io.BytesIO(edited(image(), Coercion("IPP-B", at=AT))))
    assert "IssuerOfPatientID" not in ds
    assert ds.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].IssuerOfPatientID == "CENTRE A"


@pytest.mark.parametrize(("accession", "issuer"), [("", ""), ("LOCAL-9", "2.25.9")])
def test_accession_number_replaced(accession: str, issuer: str) -> None:
    wanted = Coercion("IPP-B", accession=accession, accession_issuer=issuer, at=AT)
    ds = pydicom.dcmread(io.BytesIO(edited(image(), wanted)))
    assert ds.AccessionNumber == accession
    assert ("IssuerOfAccessionNumberSequence" in ds) == bool(issuer)
    assert ds.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].AccessionNumber == "ACN107"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_uids_replaced_alike_wherever_they_stand(syntax: str) -> None:
    renaming = Renaming("1.2.3.4")
    ds = pydicom.dcmread(io.BytesIO(edited(image(syntax), Coercion("IPP-B", renaming=renaming, at=AT))))
    assert ds.StudyInstanceUID == renaming("1.2.3.4")
    assert ds.SeriesInstanceUID == renaming("1.2.3.4.1")
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == renaming("1.2.3.4.5")
    assert ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID == renaming("1.2.3.4.6")
    assert ds.ReferencedImageSequence[0].ReferencedSOPClassUID == ds.SOPClassUID
    former = ds.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
    assert (former.SOPInstanceUID, former.StudyInstanceUID, former.SeriesInstanceUID) == (
        "1.2.3.4.5", "1.2.3.4", "1.2.3.4.1"
    )  # fmt: skip
    assert ds.PixelData == PIXELS
    assert len({renaming(f"1.2.{n}") for n in range(100)}) == 100
    assert Renaming("1.2.3.4", "9.9")("1.2.3.4") == "9.9"


def test_numbers_that_no_image_can_hold_are_refused() -> None:
    for number in ("É1", "a\\b", "x" * 65, "a\nb"):
        with pytest.raises(Refused):
            coerced(image(), Coercion(number))


@pytest.mark.parametrize("undefined", [False, True])
def test_explicit_becomes_implicit(undefined: bool) -> None:
    explicit = image(undefined=undefined)
    head, rest = to_implicit(explicit)
    made = pydicom.dcmread(io.BytesIO(head + explicit[rest:]))
    assert made.file_meta.TransferSyntaxUID == IMPLICIT
    assert made.PixelData == PIXELS
    original = pydicom.dcmread(io.BytesIO(explicit))
    for element in original:
        if not element.tag.is_private:
            assert made[element.tag].value == element.value, element.tag


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_hostile_bytes_are_refused_or_edited_never_worse(data: st.DataObject) -> None:
    content = bytearray(image(data.draw(st.sampled_from([EXPLICIT, IMPLICIT]))))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(100, len(content))) :]
    for coercion in (LOCAL, Coercion("IPP-B", renaming=Renaming("1.2.3.4"))):
        try:
            change = coerced(bytes(content), coercion)
        except Refused:
            continue
        after = change.head + bytes(content[change.rest :])
        assert coerced(after, LOCAL).rest >= 0
