"""The sample studies: the official identifiers, real and valid images, the same each time."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.encaps import generate_frames

from drimbox.sandbox.pacs import exams
from drimbox.sandbox.pacs.exams import EXAMS, OTHER_STUDY
from drimbox.sandbox.pacs.objects import instances
from drimbox.sandbox.pacs.samples import write_all, write_exam

NUMBERS = dict(zip("ABCDE", range(101, 106), strict=True)) | dict(
    zip("GHIJKLMNOPQRSTUVWXYZ", range(108, 128), strict=True)
)
MODALITIES = {
    "E": "NM",
    "I": "NM",
    "M": "NM",
    "T": "NM",
    "G": "XA",
    "N": "XA",
    "B": "MR",
    "D": "MR",
    "F": "MR",
    "Q": "MR",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("samples")
    began = time.monotonic()
    files = write_all(folder)
    seconds, size = time.monotonic() - began, sum(file.stat().st_size for file in files)
    print(f"\n{len(files)} images, {size / 1e6:.0f} MB in {seconds:.1f} s")
    return files


def study_of(letter: str, written: list[Path]) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in written if path.parts[-4] == letter]


@pytest.mark.requirement(*(f"exam:{letter}" for letter in EXAMS))
def test_each_exam_has_its_identifiers(written: list[Path]) -> None:
    assert {path.parts[-4] for path in written} == {*EXAMS, "other"}
    for letter in EXAMS:
        numbers = (106, 107) if letter == "F" else (NUMBERS[letter],)
        headers = study_of(letter, written)
        assert sorted({h.StudyInstanceUID for h in headers}) == [f"1.2.250.1.213.4.5.2.1.{n}" for n in numbers]
        for header in headers:
            n = header.StudyInstanceUID.split(".")[-1]
            key = header.SeriesInstanceUID.split(".")[-1]
            assert header.SeriesInstanceUID == f"1.2.250.1.213.4.5.2.2.{n}.{key}"
            assert header.SOPInstanceUID == f"1.2.250.1.213.4.5.2.3.{n}.{key}.3{header.InstanceNumber}"
            assert key in ("201", "202")
            assert header.AccessionNumber == f"ACN{n}"
            assert header.PlacerOrderNumberImagingServiceRequest == f"OPN{n}"
            if "IssuerOfAccessionNumberSequence" in header:
                assert header.IssuerOfAccessionNumberSequence[0].UniversalEntityID == "1.2.250.1.925.994044.27"
            assert (header.PatientID, str(header.PatientName)) == ("IPP101", "PAT-TROIS^DOMINIQUE")
            assert (header.PatientSex, header.PatientBirthDate) == ("F", "19790328")
            assert header.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == "1.2.250.1.213.4.5.2.4"
            assert header.Modality == MODALITIES.get(letter, "CT")
            assert (header.StudyDate, header.StudyTime) == ("20210108", "102500")


def test_the_other_patient_is_someone_else(written: list[Path]) -> None:
    headers = study_of("other", written)
    assert {(h.PatientID, str(h.PatientName), h.StudyInstanceUID) for h in headers} == {
        ("IPP202", "PAT-DEUX^ALAIN", "1.2.250.1.213.4.5.2.1.902")
    }
    assert len(headers) == OTHER_STUDY.series[0].images


def test_the_catalogue_tells_what_is_written(written: list[Path]) -> None:
    told = {
        (study.study_uid, study.series_uid(series), uid)
        for studies in (*EXAMS.values(), (OTHER_STUDY,))
        for study in studies
        for series in study.series
        for uid in study.instance_uids(series)
    }
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in written]
    assert {(h.StudyInstanceUID, h.SeriesInstanceUID, h.SOPInstanceUID) for h in headers} == told
    assert len(written) == len(told)


def test_every_object_is_valid(written: list[Path]) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    firsts = {path.parent: path for path in reversed(written)}
    for path in firsts.values():
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False, timeout=30)
        errors = [line for line in said.stderr.splitlines() if line.startswith("Error")]
        assert errors == [], path


@pytest.mark.requirement("exam:A")
def test_the_ct_of_300_slices(written: list[Path]) -> None:
    headers = study_of("A", written)
    assert len(headers) == 300
    places = np.array([[float(v) for v in h.ImagePositionPatient] for h in headers])
    steps = np.diff(places, axis=0)
    assert np.allclose(steps, [0, 0, float(headers[0].SpacingBetweenSlices)], atol=1e-6)
    assert len({h.FrameOfReferenceUID for h in headers}) == 1
    assert {(h.Rows, h.Columns) for h in headers} == {(512, 512)}
    slices = [pydicom.dcmread(path).pixel_array for path in written if path.parts[-4] == "A"]
    # Head, not noise: bone, brain and air, in each slice; and no two slices are the same.
    for image in slices[::30]:
        assert image.max() > 1024 + 700
        assert (image < 1024 - 900).mean() > 0.3
        assert np.mean((image > 1024) & (image < 1024 + 80)) > 0.001
    assert all(not np.array_equal(a, b) for a, b in pairwise(slices))
    assert np.abs(slices[20].astype(int) - slices[200]).mean() > 50


def frames(dataset: pydicom.Dataset) -> list[npt.NDArray[np.generic]]:
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return [dataset.pixel_array]
    decode = {
        exams.JPEG_LS: imagecodecs.jpegls_decode,
        exams.JPEG_LOSSLESS: imagecodecs.ljpeg_decode,
        exams.JPEG_BASELINE: imagecodecs.jpeg8_decode,
    }[str(dataset.file_meta.TransferSyntaxUID)]
    return [
        decode(frame)
        for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1)))
    ]


def test_every_image_can_be_decoded_and_shows_something(written: list[Path]) -> None:
    syntaxes = set()
    for path in written:
        if path.parts[-4] == "A":
            continue
        dataset = pydicom.dcmread(path)
        syntaxes.add(str(dataset.file_meta.TransferSyntaxUID))
        for frame in frames(dataset):
            assert frame.shape[-2:] == (dataset.Rows, dataset.Columns)
            assert frame.max() < 2**dataset.BitsStored
            assert frame.std() > 0
    assert syntaxes == {exams.EXPLICIT, exams.IMPLICIT, exams.JPEG_BASELINE, exams.JPEG_LOSSLESS, exams.JPEG_LS}


def test_compressed_without_loss(tmp_path: Path) -> None:
    study = EXAMS["H"][0]
    plain = list(instances(study, replace(study.series[0], images=4, transfer_syntax=exams.EXPLICIT)))
    for syntax in (exams.JPEG_LS, exams.JPEG_LOSSLESS):
        packed = list(instances(study, replace(study.series[0], images=4, transfer_syntax=syntax)))
        for one, two in zip(packed, plain, strict=True):
            one.save_as(tmp_path / "one.dcm", enforce_file_format=True)
            two.save_as(tmp_path / "two.dcm", enforce_file_format=True)
            unpacked = frames(pydicom.dcmread(tmp_path / "one.dcm"))
            assert np.array_equal(unpacked[0], pydicom.dcmread(tmp_path / "two.dcm").pixel_array)


def test_the_same_each_time(written: list[Path], tmp_path: Path) -> None:
    for letter in "BCEFGIN":
        before = {path.relative_to(path.parents[3]): path.read_bytes() for path in written if path.parts[-4] == letter}
        again = {path.relative_to(tmp_path): path.read_bytes() for path in write_exam(letter, tmp_path)}
        assert again == before


def test_no_two_studies_share_pixels(written: list[Path]) -> None:
    seen: dict[bytes, str] = {}
    for path in written:
        dataset = pydicom.dcmread(path)
        assert seen.setdefault(dataset.PixelData, dataset.SOPInstanceUID) == dataset.SOPInstanceUID
