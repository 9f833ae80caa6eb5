"""What a KOS manifest says, without any DICOM encoding (standards.md A.5, official-data.md 9.1)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.identity.ins import Ins
from drimbox.pacs.keynotes import Concept
from drimbox.pacs.study import Instance
from drimbox.reports.report import Order


@dataclass(frozen=True, slots=True)
class ManifestSeries:
    """One referenced series.

    ``retrieve_url`` is its WADO-RS address at the source, empty when the manifest gives none; ``modality``, ``region``
    and ``description`` come from the text of the manifest, or the modality from the SOP classes.
    """

    series_uid: str
    retrieve_url: str
    modality: str
    number: int | None
    description: str
    instances: tuple[Instance, ...]
    region: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class KeyMark:
    """A key-image note of the study flags one of its instances (standards.md A.5, KIN).

    ``note_uid`` and ``note_series_uid`` are the note's own object, which the manifest lists too; ``title`` says why
    (CID 7010: Of Interest, For Surgery...), None where a maker did not tell; ``text`` in words, perhaps in lines.
    """

    instance_uid: str
    note_uid: str
    note_series_uid: str
    title: Concept | None
    text: str = ""

    def __repr__(self) -> str:
        # The text is health data.
        return f"KeyMark({self.instance_uid}, {self.note_uid})"


@dataclass(frozen=True, slots=True, repr=False)
class Manifest:
    """One manifest: one patient, one study.

    Dates, times, names and the sex keep their DICOM form (``YYYYMMDD``, ``HHMMSS``, PN, ``F``; empty when unknown).
    ``birth_place`` is the INSEE code; ``other_names`` are PNs: the list of birth given names, then the used name.
    ``requests`` are the orders that the study answers. ``series_uid`` is the manifest's own series. ``marks`` tell
    which instances are key images, in the order of the instances.
    """

    kos_uid: str
    study_uid: str
    study_date: str
    description: str
    ins: Ins | None
    patient_name: str
    birth_date: str
    sex: str
    birth_place: str
    requests: tuple[Order, ...]
    series: tuple[ManifestSeries, ...]
    study_time: str = ""
    study_id: str = ""
    act: str = ""
    other_names: tuple[str, ...] = ()
    institution: str = ""
    manufacturer: str = ""
    series_uid: str = ""
    created: dt.datetime | None = None
    marks: tuple[KeyMark, ...] = ()

    @property
    def key_images(self) -> Mapping[str, tuple[KeyMark, ...]]:
        """The marks of each key image, by SOP Instance UID."""
        found: dict[str, tuple[KeyMark, ...]] = {}
        for mark in self.marks:
            found[mark.instance_uid] = (*found.get(mark.instance_uid, ()), mark)
        return found

    @property
    def instance_count(self) -> int:
        return sum(len(s.instances) for s in self.series)

    def __repr__(self) -> str:
        # The rest is health data.
        return f"Manifest({self.kos_uid}, {len(self.series)} series, {self.instance_count} instances)"
