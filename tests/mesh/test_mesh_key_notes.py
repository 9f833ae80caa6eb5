"""Key-image notes through the whole mesh: from site A's PACS into the KOS, and to site B with the images."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from mesh_world import World

from drimbox.manifest.read import read_manifest
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.key_notes import key_note, note_uid, write_note

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

EXAM = EXAMS["V"][0]
SERIES = EXAM.series[0]


@pytest.mark.requirement("DB.SO.18", "DB.SO.26", "D8", "exam:V")
async def test_a_noted_exam_is_published_with_its_key_images_and_seen_whole(world: World, tmp_path: Path) -> None:
    note = key_note(EXAM, [(SERIES, 2)], description="Lésion à revoir")
    octets = write_note(note, tmp_path).read_bytes()
    await asyncio.to_thread(orthanc.rest, world.mesh.pacs_a, "POST", "/instances", octets)
    await world.publish("V")
    published = await world.published(EXAM.study_uid)
    [row] = await world.sql("SELECT kos FROM publication WHERE kos_uid = %s", published["unique_id"])
    manifest = read_manifest(row["kos"])
    [mark] = manifest.marks
    assert (mark.instance_uid, mark.note_uid) == (EXAM.instance_uid(SERIES, 2), note_uid(EXAM))
    assert mark.text == "Lésion à revoir"
    # The note is an object of the exam like any other: site B gets it with the images, with the INS added.
    received = await world.seen(EXAM.study_uid)
    assert received.keys() == {*EXAM.instance_uids(SERIES), note_uid(EXAM)}
    given = pydicom.dcmread(BytesIO(received[note_uid(EXAM)]))
    assert given.ContentSequence[0].TextValue == "Lésion à revoir"
