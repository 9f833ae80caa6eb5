"""Key-image notes on the sample studies, as a PACS holds them (PS3.3 A.35.4, PS3.16 TID 2010).

They are no part of the studies that the sandbox fills its PACSs with: who wants one stores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from drimbox.sandbox.pacs.exams import EXPLICIT, PATIENT_ISSUER, SERIES_ROOT, SampleSeries, SampleStudy

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
# The key-image note of the official sample is of series .299.
NOTE_SERIES = 299
OF_INTEREST = ("113000", "Of Interest")
FOR_REFERRING_PROVIDER = ("113002", "For Referring Provider")
FOR_SURGERY = ("113003", "For Surgery")
_CLASSES = {
    "ct": "1.2.840.10008.5.1.4.1.1.2",
    "mr": "1.2.840.10008.5.1.4.1.1.4",
    "nm": "1.2.840.10008.5.1.4.1.1.20",
    "xa": "1.2.840.10008.5.1.4.1.1.12.1",
}

Flagged = Sequence[tuple[SampleSeries, int]]


def key_note(
    study: SampleStudy,
    flagged: Flagged,
    *,
    index: int = 1,
    title: tuple[str, str] = OF_INTEREST,
    description: str = "",
    series_key: int = NOTE_SERIES,
) -> Dataset:
    """A note that flags instances of its study: ``(series, index of the instance from 1)`` each.

    ``title`` is a DCM code of CID 7010 with its meaning; notes of one study differ by ``index``.
    """
    dataset = _whose(study)
    dataset.SOPClassUID = KEY_OBJECT_SELECTION
    dataset.SOPInstanceUID = note_uid(study, index, series_key)
    dataset.Modality = "KO"
    dataset.SeriesInstanceUID = f"{SERIES_ROOT}.{study.number}.{series_key}"
    dataset.SeriesNumber, dataset.InstanceNumber = str(series_key - 200), str(index)
    dataset.SeriesDescription = "Images clés"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "20210108"
    dataset.SeriesTime = dataset.ContentTime = "111000"
    dataset.StudyTime = "102500"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [_code(*title)]
    dataset.ContentTemplateSequence = [_item(MappingResource="DCMR", TemplateIdentifier="2010")]
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(study, flagged)]
    content = [
        _item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[_reference(study, *one)])
        for one in flagged
    ]
    if description:
        name = [_code("113012", "Key Object Description")]
        content.insert(
            0,
            _item(RelationshipType="CONTAINS", ValueType="TEXT", ConceptNameCodeSequence=name, TextValue=description),
        )
    dataset.ContentSequence = content
    dataset.file_meta = _file_meta(dataset)
    return dataset


def note_uid(study: SampleStudy, index: int = 1, series_key: int = NOTE_SERIES) -> str:
    """The SOP Instance UID of a note."""
    return study.instance_uid(SampleSeries(series_key, "ko", "", 1), index)


def write_note(dataset: Dataset, folder: Path) -> Path:
    """A note as a file of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def _whose(study: SampleStudy) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.StudyInstanceUID = study.study_uid
    dataset.StudyDescription, dataset.StudyID = study.description, str(study.number)
    dataset.AccessionNumber = study.accession_number
    dataset.ReferringPhysicianName = "DOC0036790^KIT"
    dataset.Manufacturer, dataset.ManufacturerModelName = "drimbox", "Jeu d'essai"
    dataset.PatientName, dataset.PatientID = study.patient.name, study.patient.patient_id
    dataset.IssuerOfPatientID = "AUT-AFFECTATION"
    dataset.IssuerOfPatientIDQualifiersSequence = [_item(UniversalEntityID=PATIENT_ISSUER, UniversalEntityIDType="ISO")]
    dataset.PatientBirthDate, dataset.PatientSex = study.patient.birth_date, study.patient.sex
    return dataset


def _evidence(study: SampleStudy, flagged: Flagged) -> Dataset:
    series = [
        _item(
            SeriesInstanceUID=study.series_uid(one),
            ReferencedSOPSequence=[_reference(study, s, index) for s, index in flagged if s == one],
        )
        for one in dict.fromkeys(s for s, _ in flagged)
    ]
    return _item(StudyInstanceUID=study.study_uid, ReferencedSeriesSequence=series)


def _reference(study: SampleStudy, series: SampleSeries, index: int) -> Dataset:
    sop_class = _CLASSES[series.kind.partition("-")[0]]
    return _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=study.instance_uid(series, index))


def _code(value: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)


def _item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(EXPLICIT)
    meta.ImplementationClassUID = UID("2.25.210683517306249150187413026842137105863")
    return meta
