"""The official performance study in site A's PACS, as the demonstration's patient's, and its report."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from drimbox.bench.pixels import images, storing
from drimbox.bench.pixels.images import Batch, Plan
from drimbox.demo import story
from drimbox.demo.mesh import Mesh
from drimbox.sandbox.pacs.exams import PATIENT, PATIENT_ISSUER
from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.exams import Exam, exam

#: The official study is no exam of the official set: a report on it, as that set's are.
REPORT = replace(
    exam("A"),
    document_id="1.2.250.1.213.4.5.4.499",
    studies=(images.OFFICIAL_STUDY,),
    orders=(("OPN199", "ACN199"),),
)


def given(folder: Path, plan: Plan, shared: Path | None) -> Batch:
    """The study's files with the identifiers of the exam that they are published as; pixels untouched."""
    batch = images.reference(folder / "as-published", plan, shared)
    study = REPORT.studies[0]
    target = folder / "as-given"
    target.mkdir()
    files = []
    for number, path in enumerate(batch.files):
        dataset = dcmread(path)
        _identify(dataset, study, number + 1)
        files.append(target / f"{number:05d}.dcm")
        dataset.save_as(files[-1])
        path.unlink()
    size = sum(path.stat().st_size for path in files)
    return Batch(batch.name, study, batch.series_uid, tuple(files), batch.instances, size)


def _identify(dataset: Dataset, study: str, number: int) -> None:
    dataset.StudyInstanceUID = study
    dataset.AccessionNumber = REPORT.orders[0][1]
    dataset.PatientID, dataset.PatientName = PATIENT.patient_id, PATIENT.name
    dataset.PatientBirthDate, dataset.PatientSex = PATIENT.birth_date, PATIENT.sex
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = PATIENT_ISSUER, "ISO"
    dataset.IssuerOfPatientIDQualifiersSequence = [issuer]
    dataset.InstanceNumber = number


async def published(mesh: Mesh, batch: Batch, report: Exam = REPORT) -> None:
    """Store the study, send its report, and wait for its KOS. Raises ``story.Untrue``."""
    await asyncio.to_thread(storing.send, (mesh.pacs_a.ae_title, mesh.ports.pacs_a), batch.files)
    message = letters.oru(letters.Letter(report, f"BENCHZ{os.getpid()}"), dt.datetime.now(dt.UTC))
    [answer] = await wire.send("127.0.0.1", mesh.ports.mllp_a, [message])
    if wire.verdict(answer) != "AA":
        raise story.Untrue("the report on the reference study was not accepted")
    begun = time.monotonic()
    while report.studies[0] not in await story.current_studies(mesh):
        if time.monotonic() - begun > 120:
            raise story.Untrue("the reference study is not in the DMP")
        await asyncio.sleep(0.1)
