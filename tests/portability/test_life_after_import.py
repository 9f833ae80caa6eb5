"""A box that took over an archive serves its images, and the next report replaces or depublishes its KOS."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from portability_examples import STUDY, TARGET, Box
from publication_examples import Held, letter_of, study_of, world_on
from world import Archive as HeldKos
from world import listening as wado_listening
from world import make_box, make_exam, make_keys

from drimbox.foundation.http_client import HttpClient
from drimbox.images.workers import worker_pool
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp.actor import VihfIdentity
from drimbox.publication.archive import Archive
from drimbox.publication.publish import Outcome
from drimbox.reports.report import Visibility
from drimbox.sandbox.pki import TestAuthority
from drimbox.store.database import Pool

DOCUMENT = "1.2.250.1.213.4.5.4.405"


@pytest.fixture
def other(box: Box, other_pool: Pool) -> Box:
    return Box(other_pool, box.maker)


@pytest.mark.requirement("DB.SO.30", "DB.SO.37", "DB.SO.38", "DB.SO.39")
async def test_the_box_serves_the_images_of_an_imported_kos(
    box: Box, other: Box, tmp_path: Path, authority: TestAuthority
) -> None:
    exam = make_exam(tmp_path / "pacs")
    kos_uid = await box.publish(study=exam.study())
    gone = make_exam(tmp_path / "pacs-gone")
    gone_uid = await box.publish(study=gone.study())
    await box.depublish(gone.study_uid)
    await box.export(tmp_path / "archive.zip")
    assert (await other.import_(tmp_path / "archive.zip")).imported == 2

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    async with worker_pool(size=1) as workers, HttpClient() as http:
        source = make_box(make_keys(authority), workers, scratch)
        source.pacs.exams.append(exam)
        assert isinstance(source.archive, HeldKos)
        source.archive = Archive(other.pool)  # type: ignore[assignment]
        async with wado_listening(source) as listening:
            ask = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}

            async def status(of: str, kos: str, series: str) -> tuple[int, bytes]:
                url = f"{listening.url}/studies/{of}/series/{series}"
                headers = listening.headers(exam) | ask | {"KOS-SOPInstanceUID": kos}
                reply = await http.send("GET", url, tls=listening.keys.client(), headers=headers)
                return reply.status, reply.body

            found, body = await status(exam.study_uid, kos_uid, exam.first_series)
            assert found == 200
            assert body.count(b"DICM") == 3
            assert body.count(b"279035121518989") == 3
            assert (await status(gone.study_uid, gone_uid, gone.first_series))[0] == 410
            assert (await status(exam.study_uid, gone_uid, exam.first_series))[0] == 404


@pytest.mark.requirement("DB.SO.30", "DB.SO.13", "DB.SO.97")
async def test_the_next_report_replaces_and_depublishes_an_imported_kos(box: Box, other: Box, tmp_path: Path) -> None:
    letter = letter_of("E", document_id=DOCUMENT)
    kos_uid = await box.publish(105, documents=(letter.document_id,), visibility=Visibility(hidden_from_patient=True))
    current = await box.archive.current(STUDY)
    assert current is not None
    await box.export(tmp_path / "archive")
    assert (done := await other.import_(tmp_path / "archive")).imported == 1, done.words()

    world = world_on(other.pool)
    world.pacs.hold(study_of(images=7))
    assert current.entry_uuid is not None
    world.dmp.documents[kos_uid] = Held(current.entry_uuid, current.ins, current.kos, current.visibility)

    outcome = await world.run(
        replace(letter, control_id="M2", operation="replace", replaces=letter.document_id, document_id="1.2.9.77")
    )
    assert outcome is Outcome.PUBLISHED
    assert await world.states() == ["replaced", "current"]
    [held] = world.dmp.standing(STUDY)
    assert held.manifest.instance_count == 7
    replaced = await world.archive.by_kos_uid(kos_uid)
    renewed = await world.current()
    assert replaced is not None
    assert renewed is not None
    assert renewed.replaces == replaced.id
    assert await other.standing() == ("1.2.9.77",)

    outcome = await world.run(replace(letter, control_id="M3", operation="delete", document_id="1.2.9.77"))
    assert outcome is Outcome.DEPUBLISHED
    assert world.dmp.standing(STUDY) == []


@pytest.mark.requirement("DB.SO.30", "D26")
async def test_the_reports_that_stand_on_a_study_came_with_it(box: Box, other: Box, tmp_path: Path) -> None:
    """One of two reports is taken away: the KOS stays. A box that knew of no report would have depublished it."""
    letter = letter_of("E", document_id=DOCUMENT)
    kos_uid = await box.publish(105, documents=("1.2.9.1", letter.document_id))
    current = await box.archive.current(STUDY)
    assert current is not None
    assert current.entry_uuid is not None
    await box.export(tmp_path / "archive")
    assert (done := await other.import_(tmp_path / "archive")).imported == 1, done.words()
    world = world_on(other.pool)
    world.dmp.documents[kos_uid] = Held(current.entry_uuid, current.ins, current.kos, current.visibility)

    assert await world.run(replace(letter, control_id="M2", operation="delete")) is Outcome.NOTHING
    assert len(world.dmp.standing(STUDY)) == 1
    last = replace(letter, control_id="M3", operation="delete", document_id="1.2.9.1")
    assert await world.run(last) is Outcome.DEPUBLISHED


@pytest.mark.requirement("DB.SO.30", "DB.SO.13")
async def test_the_same_report_again_changes_nothing(box: Box, other: Box, tmp_path: Path) -> None:
    """The new box knows what the KOS says and what its metadata said: it does not publish it once more."""
    letter = letter_of("E", document_id=DOCUMENT)
    kos_uid = await box.publish(105, documents=(letter.document_id,))
    current = await box.archive.current(STUDY)
    assert current is not None
    assert current.entry_uuid is not None
    await box.export(tmp_path / "archive.zip")
    assert (done := await other.import_(tmp_path / "archive.zip")).imported == 1, done.words()
    world = world_on(other.pool)
    world.pacs.hold(study_of(accession_number="ACN105"))
    world.dmp.documents[kos_uid] = Held(current.entry_uuid, current.ins, current.kos, current.visibility)
    assert await world.run(replace(letter, control_id="M2")) is Outcome.NOTHING
    assert world.dmp.provided == []


@pytest.mark.requirement("DB.SO.30")
async def test_an_update_by_the_pacs_finds_who_acted(box: Box, other: Box, tmp_path: Path) -> None:
    await box.publish(105, visibility=Visibility(secret_connection=True))
    await box.export(tmp_path / "archive")
    # Another product's importer kept the metadata, and none of our notes.
    file = tmp_path / "archive/KA202607/IHE_XDM/SS000001/METADATA.XML"
    file.write_text(file.read_text("utf-8").replace("urn:drimbox:xdm:", "urn:other:"), "utf-8")
    done = await other.import_(tmp_path / "archive", targets=[replace(TARGET, sector="SA05")], pacs="vna")
    assert dict(done.warnings) == {"identity": 1}
    kept = await other.archive.current(STUDY)
    assert kept is not None
    identity = VihfIdentity.from_json(kept.vihf_identity)
    sender = box.maker.report().signatory
    assert (identity.subject_id, identity.subject_name) == (sender.identifier, f"{sender.given} {sender.family}")
    assert (identity.structure_id, identity.sector, identity.mode) == ("1750803447", "SA05", "INDIRECTE")
    assert identity.speciality is None
    assert kept.fingerprint == ""
    assert read_manifest(kept.kos).study_uid == STUDY
    assert kept.replaces is None


async def test_the_folder_of_an_archive_may_be_moved_and_read_from_anywhere_in_it(
    box: Box, other: Box, tmp_path: Path
) -> None:
    await box.publish(105)
    await box.publish(106)
    await box.export(tmp_path / "archive")
    shutil.move(tmp_path / "archive", tmp_path / "moved")
    volume = tmp_path / "moved" / "KA202607"
    assert (await other.import_(volume / "IHE_XDM" / "SS000002")).imported == 1
    assert (await other.import_(volume / "IHE_XDM")).imported == 1
    assert (await other.import_(volume)).unchanged == 2
