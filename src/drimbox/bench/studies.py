"""Studies for a PACS to hold: as many instances as wanted, and no pixels, for no one looks at them here."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from drimbox.bench.messages import accession, study_uid
from drimbox.pacs.study import Instance, Series, Study
from drimbox.sandbox.pacs.exams import ACCESSION_ISSUER, EXPLICIT, PATIENT, PATIENT_ISSUER

_CT = "1.2.840.10008.5.1.4.1.1.2"
# A large CT or MR exam comes in series of some hundred instances.
_SERIES = 250


def write_study(folder: Path, number: int, instances: int = 1) -> list[Path]:
    """The study of the report of that number, one file per instance."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, dataset in enumerate(_instances(number, instances), 1):
        path = folder / f"{number}-{index}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def zipped(files: Iterable[Path]) -> bytes:
    """Files as Orthanc takes many at once."""
    octets = BytesIO()
    with zipfile.ZipFile(octets, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
    return octets.getvalue()


def described(number: int, instances: int = 3) -> Study:
    """What a PACS says of such a study, without a PACS."""
    study = study_uid(number)
    images = tuple(Instance(_CT, f"{study}.3.{i}", i) for i in range(1, instances + 1))
    return Study(
        study_uid=study,
        patient_id=PATIENT.patient_id,
        patient_id_issuer=PATIENT_ISSUER,
        patient_name=PATIENT.name,
        birth_date=PATIENT.birth_date,
        sex=PATIENT.sex,
        accession_number=accession(number),
        accession_issuer=ACCESSION_ISSUER,
        study_id=str(number),
        study_date="20210108",
        study_time="102500",
        description="Crâne",
        referring_physician="",
        series=(Series(f"{study}.2.1", "CT", 1, "Axial", "HEAD", images),),
    )


def _instances(number: int, count: int) -> Iterator[Dataset]:
    study = study_uid(number)
    for index in range(count):
        series = index // _SERIES + 1
        one = Dataset()
        one.SpecificCharacterSet = "ISO_IR 100"
        one.SOPClassUID = _CT
        one.SOPInstanceUID = f"{study}.3.{index + 1}"
        one.StudyInstanceUID = study
        one.SeriesInstanceUID = f"{study}.2.{series}"
        one.StudyDate, one.StudyTime, one.StudyID = "20210108", "102500", str(number)
        one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", str(series), str(index % _SERIES + 1)
        one.StudyDescription, one.SeriesDescription, one.BodyPartExamined = "Crâne", "Axial", "HEAD"
        one.AccessionNumber = accession(number)
        one.IssuerOfAccessionNumberSequence = [_issuer(ACCESSION_ISSUER)]
        one.PatientName, one.PatientID = PATIENT.name, PATIENT.patient_id
        one.PatientBirthDate, one.PatientSex = PATIENT.birth_date, PATIENT.sex
        one.IssuerOfPatientIDQualifiersSequence = [_issuer(PATIENT_ISSUER)]
        one.ReferringPhysicianName = ""
        one.file_meta = FileMetaDataset()
        one.file_meta.MediaStorageSOPClassUID = UID(_CT)
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        one.file_meta.ImplementationClassUID = UID("2.25.210683517306249150187413026842137105863")
        yield one


def _issuer(oid: str) -> Dataset:
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = oid, "ISO"
    return issuer
