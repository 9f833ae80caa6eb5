"""Key-image notes in the KOS: written as in the agency's sample, read back, compared."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_examples import BASE, CREATED, CT, build, report_of, study_of
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.manifest import read
from drimbox.manifest.build import build_manifest, encode
from drimbox.manifest.compare import Change, compare
from drimbox.manifest.manifest import KeyMark, Manifest, ManifestSeries
from drimbox.manifest.marks import MAX_TEXT
from drimbox.manifest.read import read_manifest
from drimbox.pacs.keynotes import Concept, KeyNote
from drimbox.pacs.study import Instance, Series, Study
from drimbox.reports.report import Identifier, Order

KO = "1.2.840.10008.5.1.4.1.1.88.59"
ROOT = "1.2.250.1.213.4.5.2"
NOTE, NOTE_SERIES = f"{ROOT}.3.105.299.31", f"{ROOT}.2.105.299"
OF_INTEREST = Concept("113000", "DCM", "Of Interest")
FIRST, SECOND = f"{ROOT}.3.105.201.30", f"{ROOT}.3.105.201.31"


def noted_study(notes: int = 1) -> Study:
    """The study of exam E with some key-object notes in a series of their own."""
    study = study_of((3, 2))
    held = tuple(Instance(KO, f"{ROOT}.3.105.299.3{n}", n) for n in range(1, notes + 1))
    return replace(study, series=(*study.series, Series(NOTE_SERIES, "KO", 99, "Images clés", "", held)))


def note(*selected: str, uid: str = NOTE, title: Concept = OF_INTEREST, description: str = "Lésion") -> KeyNote:
    return KeyNote(uid, NOTE_SERIES, f"{ROOT}.1.105", "IPP101", title, description, (), frozenset(selected))


def kos(*notes: KeyNote, study: Study | None = None) -> bytes:
    report = report_of()
    return build_manifest(
        report,
        study or noted_study(max(len(notes), 1)),
        orders=report.orders,
        retrieve_base=BASE,
        kos_uid="2.25.1001",
        series_uid="2.25.1002",
        created=CREATED,
        manufacturer="drimbox",
        notes=notes,
    )


# --- the official sample ----------------------------------------------------------------------------------------------

# The manifest of the agency's KIN sample (exam A, informatif/KIN): an instance of the second series is flagged.
_A = "1.2.250.1.213.4.5.2"
_TEXT = f"Definition of key instance {_A}.3.101.202.31 associated with series {_A}.2.101.202"
_URL = f"{BASE}/studies/{_A}.1.101/series/{_A}.2.101."
SAMPLE = Manifest(
    kos_uid=f"{_A}.3.101.259.31",
    study_uid=f"{_A}.1.101",
    study_date="20220822",
    study_time="083117.658000",
    description="Examen A",
    act="MN glande thyroïde ; incidences avec I-131 IV",
    ins=Ins.of("279035121518989", "1.2.250.1.213.1.4.10"),
    patient_name="PAT-TROIS^DOMINIQUE",
    other_names=("^DOMINIQUE", "PAT-TROIS^DOMINIQUE"),
    birth_date="19790328",
    sex="F",
    birth_place="63220",
    institution="Centre de radiologie Ambroise^^^^^^^^^101235555",
    manufacturer="ANS",
    requests=(Order(Identifier("OPN101", f"{_A}.6"), Identifier("ACN101", f"{_A}.5")),),
    series=tuple(
        ManifestSeries(f"{_A}.2.101.{key}", f"{_URL}{key}", modality, number, "", (instance,))
        for key, modality, number, instance in (
            (201, "CT", 1000, Instance(CT, f"{_A}.3.101.201.31", 1)),
            (202, "CT", 1001, Instance(CT, f"{_A}.3.101.202.31", 1)),
            (299, "KO", 1003, Instance(KO, f"{_A}.3.101.299.31", 1)),
        )
    ),
    series_uid=f"{_A}.2.101.259",
    created=dt.datetime(2024, 8, 28, 14, 23, 26, tzinfo=dt.UTC),
    marks=(KeyMark(f"{_A}.3.101.202.31", f"{_A}.3.101.299.31", f"{_A}.2.101.299", OF_INTEREST, _TEXT),),
)
_ROOT_OF_THE_SAMPLE = """SpecificCharacterSet InstanceCreationDate InstanceCreationTime SOPClassUID SOPInstanceUID
StudyDate SeriesDate ContentDate StudyTime SeriesTime ContentTime AccessionNumber Modality Manufacturer InstitutionName
ReferringPhysicianName TimezoneOffsetFromUTC StudyDescription ReferencedPerformedProcedureStepSequence PatientName
PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence PatientBirthDate PatientSex OtherPatientNames
OtherPatientIDsSequence PatientComments StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber InstanceNumber ValueType
ConceptNameCodeSequence ContinuityOfContent ReferencedRequestSequence CurrentRequestedProcedureEvidenceSequence
ContentSequence"""
_REQUEST_OF_THE_SAMPLE = """AccessionNumber IssuerOfAccessionNumberSequence ReferencedStudySequence StudyInstanceUID
RequestedProcedureDescription RequestedProcedureCodeSequence OrderPlacerIdentifierSequence RequestedProcedureID
PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest"""


def flat(ds: Dataset, path: str = "") -> Iterator[tuple[str, object]]:
    """Every element below a data set, by its path."""
    for element in ds:
        name = f"{path}{element.keyword}"
        if element.VR != "SQ":
            yield name, element.value
            continue
        for n, item in enumerate(element.value):
            yield from flat(item, f"{name}[{n}].")


def sample_series(key: int, number: int, sop_class: str) -> Dataset:
    """A series of the evidence as it stands in the sample."""
    made = Dataset()
    made.RetrieveURL = f"{_URL}{key}"
    made.ReferencedSOPSequence = Sequence([sample_reference(key, sop_class)])
    made.SeriesInstanceUID, made.SeriesNumber = f"{_A}.2.101.{key}", number
    return made


def sample_reference(key: int, sop_class: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, f"{_A}.3.101.{key}.31"
    made.InstanceNumber = 1
    return made


def sample_evidence() -> Dataset:
    """The study item of the sample, attribute by attribute."""
    note = Dataset()
    note.ReferencedSOPInstanceUID, note.SeriesInstanceUID = f"{_A}.3.101.299.31", f"{_A}.2.101.299"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113000", "DCM", "Of Interest"
    note.ConceptNameCodeSequence = Sequence([title])
    text = Dataset()
    text.TextValue = _TEXT
    note.ContentSequence = Sequence([text])
    series = [sample_series(201, 1000, CT), sample_series(202, 1001, CT), sample_series(299, 1003, KO)]
    series[1].ReferencedSOPSequence[0].ReferencedSOPSequence = Sequence([note])
    made = Dataset()
    made.ReferencedSeriesSequence, made.StudyInstanceUID = Sequence(series), f"{_A}.1.101"
    return made


@pytest.mark.requirement("DB.SO.18", "D8", "exam:A")
def test_notes_are_written_as_in_the_official_sample() -> None:
    ours = pydicom.dcmread(BytesIO(encode(SAMPLE)))
    [evidence] = ours.CurrentRequestedProcedureEvidenceSequence
    assert list(flat(evidence)) == list(flat(sample_evidence()))
    *references, text = ours.ContentSequence
    assert [(i.RelationshipType, i.ValueType, *flat(i.ReferencedSOPSequence[0])) for i in references] == [
        ("CONTAINS", kind, *flat(sample_reference(key, sop_class)))
        for key, kind, sop_class in ((201, "IMAGE", CT), (202, "IMAGE", CT), (299, "COMPOSITE", KO))
    ]
    assert text.TextValue.splitlines()[:3] == [
        "Examen : Examen A",
        "Acte = MN glande thyroïde ; incidences avec I-131 IV",
        f"Série-{_A}.2.101.201 : CT @ : ",
    ]


@pytest.mark.requirement("DB.SO.18", "D8", "exam:A")
def test_the_whole_of_the_official_sample_is_there_and_one_sequence_more() -> None:
    ours = pydicom.dcmread(BytesIO(encode(SAMPLE)))
    # Decision 8 adds the template.
    assert [e.keyword for e in ours if e.keyword != "ContentTemplateSequence"] == _ROOT_OF_THE_SAMPLE.split()
    [request] = ours.ReferencedRequestSequence
    assert [e.keyword for e in request] == _REQUEST_OF_THE_SAMPLE.split()
    assert (ours.StudyDate, ours.StudyTime, ours.TimezoneOffsetFromUTC) == ("20220822", "083117.658000", "+0200")
    assert (ours.InstanceCreationDate, ours.InstanceCreationTime) == ("20240828", "162326")
    assert (ours.SeriesNumber, ours.InstanceNumber, ours.Modality) == (59, 1, "KO")


@pytest.mark.requirement("DB.SO.18", "D8", "exam:A")
def test_the_official_sample_is_read_back_in_either_syntax() -> None:
    explicit = encode(SAMPLE)
    file = pydicom.dcmread(BytesIO(explicit))
    file.CurrentRequestedProcedureEvidenceSequence = Sequence([sample_evidence()])
    implicit = BytesIO()
    file.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(implicit, file, implicit_vr=True, little_endian=True, enforce_file_format=True)
    for octets in (explicit, implicit.getvalue()):
        found = read_manifest(octets)
        assert found == SAMPLE
        assert found.key_images == {f"{_A}.3.101.202.31": SAMPLE.marks}
    assert _TEXT not in repr(SAMPLE.marks)


# --- what is carried --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.18", "D8")
def test_several_notes_on_several_instances() -> None:
    surgery = Concept("113003", "DCM", "For Surgery")
    other = note(SECOND, uid=f"{ROOT}.3.105.299.32", title=surgery, description="")
    found = read_manifest(kos(other, note(FIRST, SECOND)))
    assert {uid: [m.title for m in marks] for uid, marks in found.key_images.items()} == {
        FIRST: [OF_INTEREST],
        SECOND: [OF_INTEREST, surgery],
    }
    assert [m.text for m in found.key_images[SECOND]] == ["Lésion", ""]
    # The notes themselves are listed like any object of the study.
    assert [i.sop_instance_uid for i in found.series[-1].instances] == [NOTE, f"{ROOT}.3.105.299.32"]
    # Without a text there is no empty content in its place.
    [evidence] = pydicom.dcmread(BytesIO(kos(note(FIRST, description="")))).CurrentRequestedProcedureEvidenceSequence
    [item] = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPSequence
    assert "ContentSequence" not in item


@pytest.mark.requirement("DB.SO.18", "DB.SO.26", "D8")
@pytest.mark.parametrize(
    "absent",
    [
        note("2.25.1", f"{ROOT}.3.105.201.399"),  # of another study; no longer in this one
        note(NOTE),  # itself
        note(),
        note(FIRST, uid="2.25.2"),  # the note is not an object of the study (any more)
        *(note(FIRST, title=Concept(code, "DCM", "x")) for code in ("113001", "113037", "113038", "113039")),
        *(note(FIRST, title=Concept(code, "DCM", "x")) for code in ("113030", "113031", "113032")),  # inventories
        note(FIRST, title=Concept("", "", "")),
        note(FIRST, title=Concept("X" * 17, "99X", "a code that would be cut")),
    ],
)
def test_only_what_flags_images_of_this_study_is_carried(absent: KeyNote) -> None:
    assert read_manifest(kos(absent)).marks == ()
    assert read_manifest(kos(absent, study=noted_study(1))) == read_manifest(kos(study=noted_study(1)))


def test_a_study_without_notes_is_written_as_before() -> None:
    study = noted_study(1)
    assert kos(study=study) == build(study=study)


@given(
    description=st.text(max_size=2000),
    meaning=st.text(max_size=90),
    code=st.text(min_size=1, max_size=16, alphabet="0123456789ABC-._"),
    selected=st.sets(st.sampled_from([FIRST, SECOND, f"{ROOT}.3.105.202.30", "2.25.7", NOTE])),
)
@settings(max_examples=80, deadline=None)
def test_whatever_the_words_of_a_note_they_are_read_back(
    description: str, meaning: str, code: str, selected: set[str]
) -> None:
    octets = kos(note(*selected, title=Concept(code, "99TEST", meaning), description=description))
    found = read_manifest(octets)
    assert set(found.key_images) == selected - {"2.25.7", NOTE}
    assert all(len(mark.text) <= MAX_TEXT for mark in found.marks)
    assert all(mark.title is not None and mark.title.code == code for mark in found.marks)
    assert read_manifest(encode(found)) == found
    # pydicom sees the same.
    [evidence] = pydicom.dcmread(BytesIO(octets)).CurrentRequestedProcedureEvidenceSequence
    flagged = {
        str(i.ReferencedSOPInstanceUID)
        for s in evidence.ReferencedSeriesSequence
        for i in s.ReferencedSOPSequence
        if "ReferencedSOPSequence" in i
    }
    assert flagged == set(found.key_images)


def test_a_long_text_is_cut_in_the_open() -> None:
    [mark] = read_manifest(kos(note(FIRST, description="Nodule de 4 mm. " * 200))).marks
    assert len(mark.text) <= MAX_TEXT
    assert mark.text.endswith(" (...)")
    [lines] = read_manifest(kos(note(FIRST, description=" Un\r\ndeux\rtrois\x07 \n"))).marks
    assert lines.text == "Un\ndeux\ntrois"


# --- comparing --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.13", "DB.SO.26")
@pytest.mark.parametrize(
    "after",
    [
        kos(study=noted_study(1)),
        kos(note(SECOND)),
        kos(note(FIRST, SECOND)),
        kos(note(FIRST, description="Autre")),
        kos(note(FIRST, title=Concept("113003", "DCM", "For Surgery"))),
    ],
)
def test_a_changed_note_is_a_change(after: bytes) -> None:
    before = read_manifest(kos(note(FIRST)))
    found = compare(before, read_manifest(after))
    assert found.changes == {Change.NOTES}
    assert found.words() == "notes d'images clés"
    assert compare(before, read_manifest(kos(note(FIRST)))).same


# --- hostile or odd manifests -----------------------------------------------------------------------------------------


def test_what_is_nested_and_no_note_is_passed_over() -> None:
    file = pydicom.dcmread(BytesIO(kos(note(FIRST))))
    [evidence] = file.CurrentRequestedProcedureEvidenceSequence
    flagged = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    state = Dataset()
    state.ReferencedSOPClassUID, state.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.11.1", "2.25.5"
    flagged.ReferencedSOPSequence = Sequence([Dataset(), state])
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    assert read_manifest(buffer.getvalue()).marks == ()


def test_marks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_MARKS", 2)
    assert len(read_manifest(kos(note(FIRST, SECOND))).marks) == 2
    with pytest.raises(Refused) as refused:
        read_manifest(kos(note(FIRST, SECOND, f"{ROOT}.3.105.202.30")))
    assert refused.value.code == "manifest-size"


_NOTED = kos(note(FIRST, SECOND, description="Lésion de PAT-TROIS"))


@given(st.lists(st.tuples(st.integers(0, len(_NOTED) - 1), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_damaged_manifest_with_notes_is_read_or_refused(flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(_NOTED)
    for position, value in flips:
        damaged[position] = value
    try:
        read_manifest(bytes(damaged))
    except Refused as error:
        assert "PAT-TROIS" not in error.reason  # noqa: PT017


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize(
    "octets",
    [kos(note(FIRST, SECOND)), kos(note(FIRST, description="")), kos(note(FIRST, description="Œ\nœ")), encode(SAMPLE)],
    ids=["text", "no text", "utf-8", "official"],
)
@pytest.mark.requirement("DB.SO.18", "D8")
def test_dciodvfy_finds_no_error_in_a_kos_with_notes(octets: bytes, tmp_path: Path) -> None:
    file = tmp_path / "kos.dcm"
    file.write_bytes(octets)
    found = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, errors="replace", check=False)
    assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []
    assert "KeyObjectSelectionDocument" in found.stdout + found.stderr
