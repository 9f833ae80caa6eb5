"""The sample images as DICOM objects (PS3.3: CT A.3, MR A.4, NM A.5, XA A.14)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID

from drimbox.sandbox.pacs import pixels
from drimbox.sandbox.pacs.exams import (
    EXPLICIT,
    IMPLICIT,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LS,
    PATIENT_ISSUER,
    SampleSeries,
    SampleStudy,
)

_CT = "1.2.840.10008.5.1.4.1.1.2"
_MR = "1.2.840.10008.5.1.4.1.1.4"
_NM = "1.2.840.10008.5.1.4.1.1.20"
_XA = "1.2.840.10008.5.1.4.1.1.12.1"
_DATE = "20210108"
_XA_FRAMES = 12
_NM_FRAMES = 30
Frame = npt.NDArray[np.uint16] | npt.NDArray[np.uint8]


def instances(study: SampleStudy, series: SampleSeries) -> Iterator[Dataset]:
    """The objects of a series, in order."""
    makers = {
        "ct": _ct,
        "mr-t1": _mr,
        "mr-pd": _mr,
        "nm-body": _nm_body,
        "nm-static": _nm_static,
        "nm-dynamic": _nm_dynamic,
        "xa": _xa,
    }
    return makers[series.kind](study, series)


def _phase(study: SampleStudy, series: SampleSeries) -> float:
    """No two studies have the same pixels."""
    return (study.number * 37 + series.key * 11) % 100 / 100


# ---------------------------------------------------------------------------------------------------------------- kinds


def _ct(study: SampleStudy, series: SampleSeries) -> Iterator[Dataset]:
    thickness = 180.0 / series.images
    spacing = pixels.CT_SPACING * 512 / series.rows
    for index, image in enumerate(pixels.ct_slices(series.images, series.rows, _phase(study, series)), start=1):
        dataset = _base(study, series, index, _CT)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        _place(study, series, dataset, spacing, thickness, [1, 0, 0, 0, 1, 0], (0, 0, (index - 1) * thickness - 90))
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
        dataset.KVP = "120"
        dataset.AcquisitionNumber = "1"
        dataset.WindowCenter, dataset.WindowWidth = "40", "100"
        yield _with_pixels(dataset, series, [image], bits=12)


def _mr(study: SampleStudy, series: SampleSeries) -> Iterator[Dataset]:
    proton = series.kind == "mr-pd"
    frames = pixels.mr_slices(series.images, series.rows, _phase(study, series), 0.6 if proton else 1.0)
    for index, image in enumerate(frames, start=1):
        dataset = _base(study, series, index, _MR)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        _place(study, series, dataset, 180 / series.rows, 3.5, [1, 0, 0, 0, 0, -1], (0, index * 3.5 - 35, 0))
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "SK", "FS" if proton else ""
        dataset.MRAcquisitionType = "2D"
        dataset.RepetitionTime, dataset.EchoTime = ("2800", "30") if proton else ("550", "12")
        dataset.EchoTrainLength = "1"
        dataset.MagneticFieldStrength = "1.5"
        dataset.WindowCenter, dataset.WindowWidth = "280", "560"
        yield _with_pixels(dataset, series, [image], bits=12)


def _nm_body(study: SampleStudy, series: SampleSeries) -> Iterator[Dataset]:
    for index, image in enumerate(pixels.body_views(), start=1):
        dataset = _nm(study, series, index, "WHOLE BODY", detectors=[1])
        dataset.PixelSpacing = ["2.26", "2.26"]
        dataset.ScanVelocity, dataset.ScanLength = "1.67", "1899"
        dataset.WindowCenter, dataset.WindowWidth = "35", "70"
        yield _with_pixels(dataset, series, [image], bits=16)


def _nm_static(study: SampleStudy, series: SampleSeries) -> Iterator[Dataset]:
    for index, image in enumerate(pixels.counting_frames(series.images, series.rows, study.number), start=1):
        dataset = _nm(study, series, index, "STATIC", detectors=[1])
        dataset.PixelSpacing = ["1.695", "1.695"]
        top = max(int(image.max() * 0.6), 2)
        dataset.WindowCenter, dataset.WindowWidth = str(top // 2), str(top)
        yield _with_pixels(dataset, series, [image], bits=16)


def _nm_dynamic(study: SampleStudy, series: SampleSeries) -> Iterator[Dataset]:
    frames = list(pixels.dynamic_frames(_NM_FRAMES, series.rows, study.number))
    dataset = _nm(study, series, 1, "DYNAMIC", detectors=[1] * len(frames))
    dataset.FrameIncrementPointer = [Tag(0x00540010), Tag(0x00540020), Tag(0x00540030), Tag(0x00540100)]
    del dataset.ActualFrameDuration
    phase = Dataset()
    phase.PhaseDelay, phase.ActualFrameDuration, phase.PauseBetweenFrames = "0", "10000", "0"
    phase.NumberOfFramesInPhase = len(frames)
    dataset.PhaseVector = [1] * len(frames)
    dataset.NumberOfPhases = 1
    dataset.PhaseInformationSequence = [phase]
    dataset.TimeSliceVector = list(range(1, len(frames) + 1))
    dataset.PixelSpacing = ["1.695", "1.695"]
    top = int(frames[-1].max() * 0.6)
    dataset.WindowCenter, dataset.WindowWidth = str(top // 2), str(top)
    yield _with_pixels(dataset, series, frames, bits=16)


def _nm(study: SampleStudy, series: SampleSeries, index: int, kind: str, *, detectors: list[int]) -> Dataset:
    dataset = _base(study, series, index, _NM)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", kind, "EMISSION"]
    dataset.FrameOfReferenceUID = f"{study.series_uid(series)}.1"
    dataset.PositionReferenceIndicator = ""
    dataset.CountsAccumulated = "3596452"
    dataset.ActualFrameDuration = "10000"
    dataset.FrameIncrementPointer = [Tag(0x00540010), Tag(0x00540020)]
    dataset.EnergyWindowVector = [1] * len(detectors)
    dataset.NumberOfEnergyWindows = 1
    dataset.DetectorVector = detectors
    dataset.NumberOfDetectors = 1
    window = Dataset()
    window.EnergyWindowLowerLimit, window.EnergyWindowUpperLimit = "126", "154"
    energy = Dataset()
    energy.EnergyWindowRangeSequence = [window]
    dataset.EnergyWindowInformationSequence = [energy]
    detector = Dataset()
    detector.CollimatorType, detector.CollimatorGridName = "PARA", "LEHR"
    detector.ImagePositionPatient = ["0", "0", "0"]
    detector.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    dataset.DetectorInformationSequence = [detector]
    dataset.RadiopharmaceuticalInformationSequence = []
    dataset.PatientOrientationCodeSequence = []
    dataset.PatientGantryRelationshipCodeSequence = []
    return dataset


def _xa(study: SampleStudy, series: SampleSeries) -> Iterator[Dataset]:
    for index in range(1, series.images + 1):
        dataset = _base(study, series, index, _XA)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "SINGLE PLANE"]
        dataset.PatientOrientation = ["L", "F"]
        dataset.PixelIntensityRelationship = "DISP"
        dataset.KVP, dataset.RadiationSetting, dataset.Exposure = "75", "GR", "5"
        dataset.PositionerMotion = "STATIC"
        dataset.PositionerPrimaryAngle, dataset.PositionerSecondaryAngle = str(10 * index), "0"
        dataset.ImagerPixelSpacing = ["0.4", "0.4"]
        dataset.FrameIncrementPointer = Tag(0x00181063)
        dataset.FrameTime = "66.7"
        dataset.CineRate = "15"
        dataset.WindowCenter, dataset.WindowWidth = "128", "256"
        frames = list(pixels.angiography_frames(_XA_FRAMES, series.rows, _phase(study, series) + index / 7))
        yield _with_pixels(dataset, series, frames, bits=8)


# ------------------------------------------------------------------------------------------------------ what is shared


def _base(study: SampleStudy, series: SampleSeries, index: int, sop_class: str) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = study.instance_uid(series, index)
    dataset.StudyInstanceUID = study.study_uid
    dataset.SeriesInstanceUID = study.series_uid(series)
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = _DATE
    dataset.StudyTime = "102500"
    dataset.SeriesTime = f"10{25 + 3 * (series.key - 200)}00"
    dataset.ContentTime = dataset.AcquisitionTime = dataset.SeriesTime
    dataset.Modality = study.modality
    dataset.Manufacturer = "drimbox"
    dataset.ManufacturerModelName = "Jeu d'essai"
    dataset.InstitutionName = "Centre de radiologie Ambroise"
    dataset.ReferringPhysicianName = "DOC0036790^KIT"
    dataset.StudyDescription = study.description
    dataset.SeriesDescription = series.description
    dataset.BodyPartExamined = study.body_part
    dataset.StudyID = str(study.number)
    dataset.SeriesNumber = str(series.key - 200)
    dataset.InstanceNumber = str(index)
    if study.body_part == "KNEE":
        dataset.Laterality = "L"
    _order(dataset, study)
    _patient(dataset, study)
    return dataset


def _order(dataset: Dataset, study: SampleStudy) -> None:
    dataset.AccessionNumber = study.accession_number
    if study.accession_issuer:
        dataset.IssuerOfAccessionNumberSequence = [_issuer(study.accession_issuer)]
    dataset.PlacerOrderNumberImagingServiceRequest = study.placer_order_number


def _patient(dataset: Dataset, study: SampleStudy) -> None:
    dataset.PatientName = study.patient.name
    dataset.PatientID = study.patient.patient_id
    dataset.IssuerOfPatientID = "AUT-AFFECTATION"
    dataset.IssuerOfPatientIDQualifiersSequence = [_issuer(PATIENT_ISSUER)]
    dataset.PatientBirthDate = study.patient.birth_date
    dataset.PatientSex = study.patient.sex


def _issuer(oid: str) -> Dataset:
    issuer = Dataset()
    issuer.UniversalEntityID = oid
    issuer.UniversalEntityIDType = "ISO"
    return issuer


def _place(
    study: SampleStudy,
    series: SampleSeries,
    dataset: Dataset,
    spacing: float,
    thickness: float,
    orientation: Sequence[int],
    origin: tuple[float, float, float],
) -> None:
    """Image Plane and Frame of Reference: the middle of the matrix is the origin of its plane."""
    half = spacing * series.rows / 2
    rows, columns = orientation[:3], orientation[3:]
    corner = [o - half * r - half * c for o, r, c in zip(origin, rows, columns, strict=True)]
    dataset.FrameOfReferenceUID = f"{study.study_uid}.1"
    dataset.PositionReferenceIndicator = ""
    dataset.PatientPosition = "HFS"
    dataset.PixelSpacing = [f"{spacing:.6f}"] * 2
    dataset.SliceThickness = f"{thickness:.3f}"
    dataset.SpacingBetweenSlices = f"{thickness:.3f}"
    dataset.ImageOrientationPatient = [str(value) for value in orientation]
    dataset.ImagePositionPatient = [f"{value:.3f}" for value in corner]


def _with_pixels(dataset: Dataset, series: SampleSeries, frames: Sequence[Frame], bits: int) -> Dataset:
    """Image Pixel module and pixel data in the series's transfer syntax, and the file meta information."""
    rows, columns = frames[0].shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if len(frames) > 1 or dataset.SOPClassUID in (_NM, _XA):
        dataset.NumberOfFrames = str(len(frames))
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.LossyImageCompression = "01" if series.transfer_syntax == JPEG_BASELINE else "00"
    if series.transfer_syntax in (EXPLICIT, IMPLICIT):
        dataset.PixelData = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    else:
        encoded = list(_encoded(frames, series.transfer_syntax, bits))
        if series.transfer_syntax == JPEG_BASELINE:
            raw = sum(frame.nbytes for frame in frames)
            dataset.LossyImageCompressionRatio = f"{raw / sum(map(len, encoded)):.2f}"
            dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.PixelData = encapsulate(encoded)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = _file_meta(dataset, series.transfer_syntax)
    return dataset


def _encoded(frames: Iterable[Frame], transfer_syntax: str, bits: int) -> Iterator[bytes]:
    for frame in frames:
        match transfer_syntax:
            case str(uid) if uid == JPEG_LS:
                coded = bytes(imagecodecs.jpegls_encode(frame))
                # The encoder puts a SPIFF header before the codestream: DICOM wants the codestream alone (PS3.5 8.2.3).
                yield coded[coded.index(b"\xff\xd8\xff\xf7") :]
            case str(uid) if uid == JPEG_LOSSLESS:
                yield bytes(imagecodecs.ljpeg_encode(frame, bitspersample=max(bits, 8)))
            case str(uid) if uid == JPEG_BASELINE:
                yield bytes(imagecodecs.jpeg8_encode(frame, level=92))
            case _:
                raise ValueError(f"no sample is written in {transfer_syntax}")


def _file_meta(dataset: Dataset, transfer_syntax: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID("2.25.210683517306249150187413026842137105863")
    return meta
