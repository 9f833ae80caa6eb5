"""A study as the PACS describes it. The domain reads this and knows nothing of DIMSE."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instance:
    """One SOP instance."""

    sop_class_uid: str
    sop_instance_uid: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One series with the instances that the PACS lists, in instance-number order."""

    series_uid: str
    modality: str
    number: int | None
    description: str
    body_part: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """One study with all of its series and instances, as one successful query gave them.

    Dates and times keep their DICOM form (``YYYYMMDD``, ``HHMMSS.FFF``); names keep the DICOM PN form.
    """

    study_uid: str
    patient_id: str
    patient_id_issuer: str
    patient_name: str
    birth_date: str
    sex: str
    accession_number: str
    accession_issuer: str
    study_id: str
    study_date: str
    study_time: str
    description: str
    referring_physician: str
    series: tuple[Series, ...]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Distinct modalities of the images, in series order."""
        return tuple(dict.fromkeys(s.modality for s in self.series if s.modality))

    @property
    def instance_count(self) -> int:
        return sum(len(s.instances) for s in self.series)
