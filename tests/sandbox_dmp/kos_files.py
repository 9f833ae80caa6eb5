"""A KOS manifest made by hand with pydicom, in the form of the official samples."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

KOS_CLASS = "1.2.840.10008.5.1.4.1.1.88.59"
MR_CLASS = "1.2.840.10008.5.1.4.1.1.4"


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, Sequence(value) if isinstance(value, list) else value)
    return made


def issuer(oid: str) -> list[Dataset]:
    return [item(UniversalEntityID=oid, UniversalEntityIDType="ISO")]


def kos_file(
    *,
    uid: str,
    study: str,
    created: dt.datetime,
    ins: str,
    oid: str,
    accession: tuple[str, str],
    order: tuple[str, str],
    bend: Callable[[FileDataset], None] | None = None,
) -> bytes:
    """A Part 10 file; ``bend`` may change the data set before it is written."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = KOS_CLASS
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = KOS_CLASS, uid
    local = created.astimezone(dt.timezone(dt.timedelta(hours=2)))
    ds.InstanceCreationDate, ds.InstanceCreationTime = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    ds.TimezoneOffsetFromUTC = "+0200"
    ds.StudyDate, ds.StudyTime, ds.StudyInstanceUID = "20210108", "102500", study
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = f"{uid}.1", 59, 1
    ds.Modality, ds.ValueType, ds.ContinuityOfContent = "KO", "CONTAINER", "SEPARATE"
    ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "PAT-TROIS^DOMINIQUE", ins, "19790328", "F"
    ds.IssuerOfPatientID = "ASIP-SANTE-INS-NIR"
    ds.IssuerOfPatientIDQualifiersSequence = Sequence(issuer(oid))
    ds.ConceptNameCodeSequence = Sequence(
        [item(CodeValue="113030", CodingSchemeDesignator="DCM", CodeMeaning="MANIFEST")]
    )
    ds.ReferencedRequestSequence = Sequence(
        [
            item(
                StudyInstanceUID=study,
                AccessionNumber=accession[0],
                IssuerOfAccessionNumberSequence=issuer(accession[1]),
                PlacerOrderNumberImagingServiceRequest=order[0],
                OrderPlacerIdentifierSequence=issuer(order[1]),
            )
        ]
    )
    series = {f"{study}.2{n}": [f"{study}.3{n}{i}" for i in range(3)] for n in range(2)}
    evidence = [
        item(
            SeriesInstanceUID=series_uid,
            RetrieveURL=f"https://db1.example.test/dicom-web-rs/studies/{study}/series/{series_uid}",
            ReferencedSOPSequence=[reference(sop) for sop in sops],
        )
        for series_uid, sops in series.items()
    ]
    ds.CurrentRequestedProcedureEvidenceSequence = Sequence(
        [item(StudyInstanceUID=study, ReferencedSeriesSequence=evidence)]
    )
    content = [
        item(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[reference(sop)])
        for sops in series.values()
        for sop in sops
    ]
    ds.ContentSequence = Sequence([*content, item(RelationshipType="CONTAINS", ValueType="TEXT", TextValue="Examen")])
    if bend is not None:
        bend(ds)
    written = BytesIO()
    ds.save_as(written, enforce_file_format=True)
    return written.getvalue()


def reference(sop_uid: str) -> Dataset:
    return item(ReferencedSOPClassUID=MR_CLASS, ReferencedSOPInstanceUID=sop_uid)


def with_note(
    ds: Dataset,
    *,
    value_type: str = "COMPOSITE",
    listed: bool = True,
    title: str = "113000",
    times: int = 1,
    **changes: object,
) -> None:
    """Add a key-image note of the study and let it flag the first instance, as in the official KIN sample."""
    study = str(ds.StudyInstanceUID)
    note = item(ReferencedSOPClassUID=KOS_CLASS, ReferencedSOPInstanceUID=f"{study}.99.1")
    [evidence] = ds.CurrentRequestedProcedureEvidenceSequence
    values: dict[str, object] = {
        "ReferencedSOPInstanceUID": f"{study}.99.1",
        "SeriesInstanceUID": f"{study}.99",
        "ConceptNameCodeSequence": [item(CodeValue=title, CodingSchemeDesignator="DCM", CodeMeaning="Of Interest")],
        "ContentSequence": [item(TextValue="Image clé")],
        **changes,
    }
    flagged = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    flagged.ReferencedSOPSequence = Sequence([item(**values) for _ in range(times)])
    if listed:
        url = f"https://db1.example.test/dicom-web-rs/studies/{study}/series/{study}.99"
        evidence.ReferencedSeriesSequence.append(
            item(SeriesInstanceUID=f"{study}.99", RetrieveURL=url, ReferencedSOPSequence=[note])
        )
        ds.ContentSequence.insert(
            0, item(RelationshipType="CONTAINS", ValueType=value_type, ReferencedSOPSequence=[note])
        )
