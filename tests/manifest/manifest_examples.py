"""Reports and studies that the tests of the manifest share."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from drimbox.manifest.build import build_manifest
from drimbox.manifest.read import Manifest, read_manifest
from drimbox.pacs.study import Instance, Series, Study
from drimbox.reports import hl7
from drimbox.reports.reading import read_report
from drimbox.reports.report import Order, Report
from drimbox.sandbox.ris import exams, letters

CT = "1.2.840.10008.5.1.4.1.1.2"
ECG = "1.2.840.10008.5.1.4.1.1.9.1.1"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
CREATED = dt.datetime(2026, 7, 14, 9, 30, 12, tzinfo=dt.UTC)
BASE = "https://db1.test.mesimagesmedicales.fr/dicom-web-rs"


def report_of(letter: str = "E", **changes: object) -> Report:
    """The report of an official exam, with some fields changed."""
    message = letters.oru(letters.Letter(exams.exam(letter), "M1"), CREATED)
    return replace(read_report(hl7.parse(message)), **changes)  # type: ignore[arg-type]


def study_of(sizes: tuple[int, ...] = (3,), *, sop_class: str = CT, **changes: object) -> Study:
    """The study of exam E with series of the given sizes."""
    root = "1.2.250.1.213.4.5.2"
    series = tuple(
        Series(
            series_uid=f"{root}.2.105.{201 + s}",
            modality="CT",
            number=s + 1,
            description=f"Série {s + 1}",
            body_part="HEAD",
            instances=tuple(Instance(sop_class, f"{root}.3.105.{201 + s}.3{i}", i + 1) for i in range(size)),
        )
        for s, size in enumerate(sizes)
    )
    study = Study(
        study_uid=f"{root}.1.105",
        patient_id="IPP101",
        patient_id_issuer="1.2.250.1.213.4.5.2.4",
        patient_name="PAT-TROIS^DOMINIQUE",
        birth_date="19790328",
        sex="F",
        accession_number="ACN105",
        accession_issuer="1.2.250.1.925.994044.27",
        study_id="EX105",
        study_date="20210108",
        study_time="102500",
        description="Tête sans injection",
        referring_physician="KIT^DOC0036790",
        series=series,
    )
    return replace(study, **changes)  # type: ignore[arg-type]


def build(report: Report | None = None, study: Study | None = None, orders: tuple[Order, ...] | None = None) -> bytes:
    """The KOS of a report and a study."""
    report = report or report_of()
    return build_manifest(
        report,
        study or study_of(),
        orders=report.orders if orders is None else orders,
        retrieve_base=BASE,
        kos_uid="2.25.1001",
        series_uid="2.25.1002",
        created=CREATED,
        manufacturer="drimbox",
    )


def built(report: Report | None = None, study: Study | None = None) -> Manifest:
    """What the KOS of a report and a study says, read back."""
    return read_manifest(build(report, study))
