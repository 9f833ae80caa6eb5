"""The INS put into images, and identifiers read from them, beside pydicom on every file that its packages ship."""

from __future__ import annotations

import contextlib
import io
import mmap
from pathlib import Path

import pydicom
import pytest
from files import named, part10_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from drimbox.dicom.files import Splice, read_meta, splice, syntax_edits
from drimbox.dicom.syntaxes import JPEG_2000, JPEG_2000_LOSSLESS
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins, key
from drimbox.images.header import PATIENT_GROUP_LENGTH, check_ins, read_header, with_ins

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
OTHER = Ins.of("279035121518" + "8" + key("2790351215188"), "1.2.250.1.213.1.4.10")
# Files whose bytes are not what their label says; pydicom guesses, we do not.
UNREADABLE = {
    "SC_rgb_jpeg.dcm": "dicom-syntax",
    "meta_missing_tsyntax.dcm": "dicom-part10",
    "image_dfl.dcm": "dicom-deflated",
    "SCImageStorage_Deflated.dcm": "dicom-deflated",
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def edited(original: bytes, change: Splice) -> bytes:
    return change.head + original[change.rest :]


@pytest.mark.requirement("DB.SO.39", "D23")
@pytest.mark.parametrize("path", part10_files(), ids=lambda p: p.name)
def test_the_ins_goes_in_and_every_other_byte_stays(path: Path) -> None:
    original = path.read_bytes()
    if path.name in UNREADABLE:
        with pytest.raises(Refused) as refused:
            with_ins(original, INS)
        assert refused.value.code == UNREADABLE[path.name]
        return
    change = with_ins(original, INS)
    new = edited(original, change)
    before, after = pydicom.dcmread(io.BytesIO(original)), pydicom.dcmread(io.BytesIO(new))
    assert change.size(len(original)) == len(new)

    # pydicom finds exactly one item more, and it is the one that the network expects.
    held = before.get("OtherPatientIDsSequence") or []
    assert list(after.OtherPatientIDsSequence[:-1]) == list(held)
    item = after.OtherPatientIDsSequence[-1]
    assert (item.PatientID, item.IssuerOfPatientID, item.TypeOfPatientID) == (
        INS.matricule,
        "ASIP-SANTE-INS-NIR",
        "TEXT",
    )
    qualifier = item.IssuerOfPatientIDQualifiersSequence[0]
    assert (qualifier.UniversalEntityID, qualifier.UniversalEntityIDType) == (INS.oid, "ISO")
    assert after.get("PatientID") == before.get("PatientID")

    # Taken out again, the file is the original, but for the lengths that had to grow.
    assert set(after.keys()) - set(before.keys()) <= {0x00101002}
    for tag in before.keys() - {0x00101002, PATIENT_GROUP_LENGTH}:
        assert after.get_item(tag) is not None
        if not (tag >> 16) % 2 and before[tag].VR != "SQ":
            assert after[tag].value == before[tag].value, tag
    growth = len(new) - len(original)
    if PATIENT_GROUP_LENGTH in before:
        assert after[PATIENT_GROUP_LENGTH].value == before[PATIENT_GROUP_LENGTH].value + growth
    assert original.endswith(new[len(change.head) :])
    differing = [a != b for a, b in zip(change.head[:-growth], original[: change.rest], strict=True)]
    assert sum(differing) <= 8

    # Once is enough.
    assert with_ins(new, INS) == Splice(b"", 0)


@pytest.mark.parametrize("path", part10_files(), ids=lambda p: p.name)
def test_identifiers_are_those_that_pydicom_reads(path: Path) -> None:
    if UNREADABLE.get(path.name, "dicom-deflated") != "dicom-deflated":
        with pytest.raises(Refused):
            read_header(path.read_bytes())
        return
    header, reference = read_header(path.read_bytes()), pydicom.dcmread(path)
    assert header.transfer_syntax == reference.file_meta.TransferSyntaxUID
    assert header.sop_instance_uid == reference.get("SOPInstanceUID", "")
    assert header.sop_class_uid == reference.get("SOPClassUID", "")
    assert header.study_uid == reference.get("StudyInstanceUID", "")
    assert header.series_uid == reference.get("SeriesInstanceUID", "")
    assert len(header.other_ids) == len(reference.get("OtherPatientIDsSequence") or [])


def sample(syntax: str, other_ids: list[Dataset] | None, *, undefined: bool = False, unknown: bool = False) -> bytes:
    dataset = pydicom.dcmread(named("CT_small.dcm"))
    del dataset.OtherPatientIDsSequence
    if other_ids is not None:
        dataset.OtherPatientIDsSequence = other_ids
        dataset["OtherPatientIDsSequence"].is_undefined_length = undefined
        for each in other_ids:
            each.is_undefined_length_sequence_item = undefined
        if unknown:
            # How a sequence looks after a hop through a node that does not know its tag: Implicit LE inside VR UN.
            content = io.BytesIO()
            pydicom.dcmwrite(content, dataset_of(other_ids), implicit_vr=True, little_endian=True)
            raw = content.getvalue()
            value = raw[raw.index(b"\xfe\xff\x00\xe0") :]
            dataset[0x00101002] = RawDataElement(Tag(0x00101002), "UN", len(value), value, 0, False, True)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    out = io.BytesIO()
    little = syntax != ExplicitVRBigEndian
    if not little:
        dataset.PixelData = b""
    pydicom.dcmwrite(
        out, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little, force_encoding=True
    )
    return out.getvalue()


def dataset_of(other_ids: list[Dataset]) -> Dataset:
    dataset = Dataset()
    dataset.OtherPatientIDsSequence = other_ids
    return dataset


def an_id(value: str, oid: str = "", issuer: str = "") -> Dataset:
    item = Dataset()
    item.PatientID = value
    if issuer:
        item.IssuerOfPatientID = issuer
    if oid:
        qualifier = Dataset()
        qualifier.UniversalEntityID, qualifier.UniversalEntityIDType = oid, "ISO"
        item.IssuerOfPatientIDQualifiersSequence = [qualifier]
    return item


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("held", [[], [an_id("L1")], [an_id("L1", "1.2.3"), an_id("L2", issuer="HOPITAL")]], ids=len)
def test_an_existing_sequence_keeps_its_items(syntax: str, undefined: bool, held: list[Dataset]) -> None:
    original = sample(syntax, held, undefined=undefined)
    new = edited(original, with_ins(original, INS))
    values = [i.PatientID for i in pydicom.dcmread(io.BytesIO(new)).OtherPatientIDsSequence]
    assert values == [*(i.PatientID for i in held), INS.matricule]
    header = read_header(new)
    assert [o.value for o in header.other_ids] == values
    check_ins(header, INS)


def test_a_sequence_of_unknown_vr_is_continued_as_it_began() -> None:
    original = sample(ExplicitVRLittleEndian, [an_id("L1", "1.2.3")], unknown=True)
    assert pydicom.dcmread(io.BytesIO(original)).get_item(0x00101002).VR == "UN"
    new = edited(original, with_ins(original, INS))
    assert [(o.value, o.universal_id) for o in read_header(new).other_ids] == [
        ("L1", "1.2.3"),
        (INS.matricule, INS.oid),
    ]
    assert [i.PatientID for i in pydicom.dcmread(io.BytesIO(new)).OtherPatientIDsSequence] == ["L1", INS.matricule]


@pytest.mark.requirement("DB.CO.68", "D23")
def test_an_image_of_another_person_is_never_labelled_with_this_ins() -> None:
    with pytest.raises(IdentityMismatch):
        with_ins(sample(ExplicitVRLittleEndian, [an_id(OTHER.matricule, OTHER.oid)]), INS)
    # The number of another authority (an earlier NIA) contradicts nothing.
    both = sample(ExplicitVRLittleEndian, [an_id(OTHER.matricule, "1.2.250.1.213.1.4.9")])
    check_ins(read_header(edited(both, with_ins(both, INS))), INS)


@pytest.mark.requirement("DB.CO.68")
@pytest.mark.parametrize(
    ("held", "code"),
    [
        ([an_id(INS.matricule, INS.oid)], ""),
        ([an_id("L1", "1.2.3"), an_id(INS.matricule, INS.oid)], ""),
        ([an_id(INS.matricule, issuer="ASIP-SANTE-INS-NIR")], ""),
        (None, "ins-absent"),
        ([], "ins-absent"),
        ([an_id("L1", "1.2.3")], "ins-absent"),
        ([an_id(INS.matricule, "1.2.3")], "ins-absent"),
        ([an_id(INS.matricule, "1.2.250.1.213.1.4.8")], "ins-absent"),
        ([an_id(OTHER.matricule, INS.oid)], "ins-differs"),
        ([an_id(INS.matricule, INS.oid), an_id(OTHER.matricule, INS.oid)], "ins-differs"),
    ],
)
def test_which_images_belong_to_the_patient(held: list[Dataset] | None, code: str) -> None:
    header = read_header(sample(ExplicitVRLittleEndian, held))
    if not code:
        check_ins(header, INS)
        return
    with pytest.raises(IdentityMismatch) as mismatch:
        check_ins(header, INS)
    assert mismatch.value.code == code
    assert INS.matricule not in str(mismatch.value)
    assert INS.matricule not in repr(header)


def test_the_retired_other_patient_ids_count_too() -> None:
    dataset = pydicom.dcmread(named("CT_small.dcm"))
    dataset.add_new(0x00101000, "LO", ["L1", INS.matricule])
    out = io.BytesIO()
    dataset.save_as(out)
    check_ins(read_header(out.getvalue()), INS)


def test_a_memory_mapped_file_is_edited_as_well() -> None:
    path = named("CT_small.dcm")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert edited(path.read_bytes(), with_ins(mapped, INS)) == edited(
            path.read_bytes(), with_ins(path.read_bytes(), INS)
        )
        assert with_ins(mapped, INS).rest < 2000


def test_another_label_on_the_file_changes_nothing_else() -> None:
    original = named("MR2_J2KR.dcm").read_bytes() if any(p.name == "MR2_J2KR.dcm" for p in part10_files()) else b""
    original = original or named("emri_small_jpeg_2k_lossless.dcm").read_bytes()
    meta = read_meta(original)
    assert meta.transfer_syntax == JPEG_2000_LOSSLESS
    new = edited(original, splice(original, syntax_edits(original, meta, JPEG_2000)))
    relabelled = pydicom.dcmread(io.BytesIO(new))
    assert relabelled.file_meta.TransferSyntaxUID == JPEG_2000
    assert new[read_meta(new).end :] == original[meta.end :]
    assert relabelled.file_meta.FileMetaInformationGroupLength == read_meta(new).end - 144
    both = edited(original, with_ins(original, INS, transfer_syntax="1.2.840.10008.1.2.4.91.1.2"))
    assert read_header(both).transfer_syntax == "1.2.840.10008.1.2.4.91.1.2"
    check_ins(read_header(both), INS)


SMALL = sample(ExplicitVRLittleEndian, [an_id("L1", "1.2.3")])[:1400]


@settings(max_examples=300)
@given(st.integers(132, len(SMALL) - 1), st.binary(min_size=1, max_size=8), st.integers(0, len(SMALL)))
def test_hostile_bytes_are_refused_and_nothing_worse(at: int, noise: bytes, cut: int) -> None:
    damaged = (SMALL[:at] + noise + SMALL[at + len(noise) :])[: max(cut, 140)]
    for work in (lambda: with_ins(damaged, INS), lambda: read_header(damaged)):
        with contextlib.suppress(Refused, IdentityMismatch):
            work()


@pytest.mark.parametrize("depth", [5, 31, 33, 100_000])
def test_nesting_is_bounded(depth: int) -> None:
    start = read_meta(SMALL).end
    nest = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    close = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0" * depth
    file = SMALL[:start] + nest + close
    if depth < 10:
        with_ins(file, INS)
        return
    with pytest.raises(Refused) as refused:
        with_ins(file, INS)
    assert refused.value.code == "dicom-depth"


def test_the_number_of_elements_is_bounded() -> None:
    start = read_meta(SMALL).end
    with pytest.raises(Refused) as refused:
        with_ins(SMALL[:start] + b"\x08\x00\x05\x00CS\0\0" * 50_000, INS)
    assert refused.value.code == "dicom-elements"
