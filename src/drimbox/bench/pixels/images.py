"""What is moved: series of the official study's shape, and the other kinds of images that a site has.

The pixels are those of the sandbox's exams; a series longer than its different images repeats them under other UIDs.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from drimbox.sandbox.pacs import pixels
from drimbox.sandbox.pacs.exams import ACCESSION_ISSUER, PATIENT, PATIENT_ISSUER

EXPLICIT_LE = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
HTJ2K = "1.2.840.10008.1.2.4.201"

_CT = "1.2.840.10008.5.1.4.1.1.2"
_MR = "1.2.840.10008.5.1.4.1.1.4"
_US = "1.2.840.10008.5.1.4.1.1.3.1"
_MG = "1.2.840.10008.5.1.4.1.1.1.2"

OFFICIAL_STUDY = "1.2.250.1.213.4.5.2.1.199"
_OFFICIAL_IMAGES = 1330
_ROOT = "2.25.2718281828"
_DIFFERENT = 96
_NOISE = 4.0
# Every UID and number of a series has the same length, so that an image is another one's octets with these replaced.
_FIRST = 10_001

Pixels = npt.NDArray[np.uint16] | npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """One series on disk; ``bytes`` is the size of its files."""

    name: str
    study_uid: str
    series_uid: str
    files: tuple[Path, ...]
    instances: tuple[str, ...]
    bytes: int

    @property
    def megabytes(self) -> float:
        return self.bytes / 1e6


@dataclass(frozen=True, slots=True)
class Plan:
    """How many images of each kind."""

    reference: int = _OFFICIAL_IMAGES
    ct: int = 300
    mr: int = 1000
    frames: int = 120
    breast: int = 4096
    """Rows of the mammography."""
    crowd: int = 380
    """Images of each of the series that are pulled at once: 200 MB."""
    different: int = _DIFFERENT


QUICK = Plan(reference=12, ct=8, mr=12, frames=4, breast=512, crowd=4, different=4)


def reference(folder: Path, plan: Plan, shared: Path | None) -> Batch:
    """The official study where its folder is given and the plan asks for all of it, else one of its shape."""
    archive = shared / "data" / "reference-study" / "reference-study.tar.xz" if shared is not None else None
    if archive is None or not archive.is_file() or plan.reference != _OFFICIAL_IMAGES:
        return _ct(folder, "reference study (made)", 1, plan.reference, plan.different, JPEG_LS)
    with tarfile.open(archive, "r:xz") as opened:
        opened.extractall(folder, filter="data")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    heads = [
        dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "SeriesInstanceUID"]) for path in files
    ]
    instances = tuple(str(head.SOPInstanceUID) for head in heads)
    return _batch("reference study (official)", OFFICIAL_STUDY, str(heads[0].SeriesInstanceUID), files, instances)


def ct(folder: Path, plan: Plan) -> Batch:
    """CT of 512 x 512, uncompressed."""
    return _ct(folder, "CT", 2, plan.ct, plan.different, EXPLICIT_LE)


def mr(folder: Path, plan: Plan) -> Batch:
    """Small MR of 256 x 256, uncompressed."""
    different = min(plan.different, plan.mr)
    slices = pixels.mr_slices(different, 256, 0.3, 1.0)
    return _series(folder, "small MR", 3, plan.mr, _MR, "MR", EXPLICIT_LE, [[one] for one in slices])


def ultrasound(folder: Path, plan: Plan) -> Batch:
    """One multi-frame ultrasound, JPEG baseline."""
    frames = list(pixels.angiography_frames(plan.frames, 512, 0.1))
    return _series(folder, "ultrasound", 4, 1, _US, "US", JPEG_BASELINE, [frames])


def mammography(folder: Path, plan: Plan) -> Batch:
    """One image of the size of a mammography, uncompressed."""
    chest = next(pixels.angiography_frames(1, 512, 0.0)).astype(np.uint16)
    factor = -(-plan.breast // 512)
    grown = np.kron(chest * 16, np.ones((factor, factor), np.uint16))[: plan.breast, : plan.breast * 13 // 16]
    noise = np.random.default_rng(4).integers(0, 16, grown.shape, dtype=np.uint16)
    return _series(folder, "mammography", 5, 1, _MG, "MG", EXPLICIT_LE, [[np.ascontiguousarray(grown + noise)]])


def crowd(folder: Path, plan: Plan, count: int) -> list[Batch]:
    """As many studies of uncompressed CT, one series each."""
    slices = [[one] for one in _slices(min(plan.different, plan.crowd), 0.7)]
    return [
        _series(folder / str(n), f"series {n + 1}", 20 + n, plan.crowd, _CT, "CT", EXPLICIT_LE, slices)
        for n in range(count)
    ]


def _ct(folder: Path, name: str, number: int, count: int, different: int, syntax: str) -> Batch:
    slices = _slices(min(different, count), 0.3)
    return _series(folder, name, number, count, _CT, "CT", syntax, [[one] for one in slices])


def _slices(count: int, phase: float) -> Iterator[Pixels]:
    """With the noise of a scanner, so that they compress as those of the official study do: about 3.3 to 1."""
    rng = np.random.default_rng(3)
    for one in pixels.ct_slices(count, 512, phase):
        yield np.clip(one + rng.normal(0, _NOISE, one.shape), 0, 4095).astype(np.uint16)


def _series(
    folder: Path,
    name: str,
    number: int,
    count: int,
    sop_class: str,
    modality: str,
    syntax: str,
    different: Sequence[Sequence[Pixels]],
) -> Batch:
    folder.mkdir(parents=True, exist_ok=True)
    study = f"{_ROOT}.{100 + number}"
    templates = [_template(study, sop_class, modality, syntax, frames) for frames in different]
    files, instances = [], []
    for index in range(count):
        uid, path = f"{study}.1.{_FIRST + index}", folder / f"{_FIRST + index}.dcm"
        path.write_bytes(_numbered(templates[index % len(templates)], f"{study}.1.{_FIRST - 1}", uid))
        files.append(path)
        instances.append(uid)
    return _batch(name, study, f"{study}.1", files, tuple(instances))


def _batch(name: str, study: str, series: str, files: Sequence[Path], instances: tuple[str, ...]) -> Batch:
    return Batch(name, study, series, tuple(files), instances, sum(path.stat().st_size for path in files))


def _numbered(template: tuple[bytes, bytes], old: str, new: str) -> bytes:
    head, body = template
    numbered = head.replace(old.encode(), new.encode())
    return numbered.replace(str(_FIRST - 1).encode() + b" ", new[-5:].encode() + b" ") + body


def _template(study: str, sop_class: str, modality: str, syntax: str, frames: Sequence[Pixels]) -> tuple[bytes, bytes]:
    """A file in two pieces: what holds its numbers, and what does not."""
    one = _described(study, sop_class, modality)
    rows, columns = frames[0].shape
    eight = frames[0].dtype == np.uint8
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows, one.Columns, one.PixelRepresentation = rows, columns, 0
    one.BitsAllocated = 8 if eight else 16
    one.BitsStored = 8 if eight else 12
    one.HighBit = one.BitsStored - 1
    if len(frames) > 1:
        one.NumberOfFrames, one.FrameTime = str(len(frames)), "40"
        one.FrameIncrementPointer = 0x00181063
    if syntax == EXPLICIT_LE:
        one.PixelData = b"".join(frame.tobytes() for frame in frames)
    else:
        one.PixelData = encapsulate(list(_encoded(frames, syntax)))
        one["PixelData"].is_undefined_length = True
    one["PixelData"].VR = "OW" if syntax == EXPLICIT_LE and not eight else "OB"
    one.LossyImageCompression = "01" if syntax == JPEG_BASELINE else "00"
    one.file_meta = FileMetaDataset()
    one.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.file_meta.TransferSyntaxUID = UID(syntax)
    one.file_meta.ImplementationClassUID = UID("2.25.210683517306249150187413026842137105863")
    octets = BytesIO()
    one.save_as(octets, enforce_file_format=True)
    data = octets.getvalue()
    border = data.index(b"\xe0\x7f\x10\x00")
    return data[:border], data[border:]


def _described(study: str, sop_class: str, modality: str) -> Dataset:
    one = Dataset()
    one.SpecificCharacterSet = "ISO_IR 100"
    one.SOPClassUID, one.SOPInstanceUID = sop_class, f"{study}.1.{_FIRST - 1}"
    one.StudyInstanceUID, one.SeriesInstanceUID = study, f"{study}.1"
    one.StudyDate, one.StudyTime, one.StudyID = "20210108", "102500", "1"
    one.Modality, one.SeriesNumber = modality, "1"
    # Five digits and a blank: as long for every image.
    one.InstanceNumber = str(_FIRST - 1)
    one.ImageType = ["ORIGINAL", "PRIMARY"]
    one.AccessionNumber = study[-3:]
    one.IssuerOfAccessionNumberSequence = [_issuer(ACCESSION_ISSUER)]
    one.PatientName, one.PatientID = PATIENT.name, PATIENT.patient_id
    one.PatientBirthDate, one.PatientSex = PATIENT.birth_date, PATIENT.sex
    one.IssuerOfPatientIDQualifiersSequence = [_issuer(PATIENT_ISSUER)]
    one.ReferringPhysicianName = ""
    return one


def _issuer(oid: str) -> Dataset:
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = oid, "ISO"
    return issuer


def _encoded(frames: Sequence[Pixels], syntax: str) -> Iterator[bytes]:
    for frame in frames:
        if syntax == JPEG_BASELINE:
            yield bytes(imagecodecs.jpeg8_encode(frame, level=92))
            continue
        coded = bytes(imagecodecs.jpegls_encode(frame))
        # Without the SPIFF header that the encoder puts before the codestream (PS3.5 8.2.3).
        yield coded[coded.index(b"\xff\xd8\xff\xf7") :]


def shared_folder(home: Path) -> Path | None:
    """Where the official samples are (``DRIMBOX_SHARED``, else beside the project), if they are."""
    folder = Path(os.environ.get("DRIMBOX_SHARED") or home.parent / "shared")
    return folder if folder.is_dir() else None
