"""What the site says of its exams after their publication, through the whole mesh: orders of the RIS, PACS notes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from mesh_world import NOW, World, control, eventually, official
from pydicom.dataset import Dataset

from drimbox.manifest.read import read_manifest
from drimbox.sandbox.pacs import orthanc, rejections
from drimbox.sandbox.pacs.exams import EXAMS, SampleStudy
from drimbox.sandbox.pacs.key_notes import write_note
from drimbox.sandbox.pacs.rejections import rejection_note, rejection_of_all
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam
from drimbox.sandbox.ris.orders import OrderLetter, omi

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


async def send_note(world: World, note: Dataset) -> int:
    """As an outside sender that is told of the listener by ``endpoints.json``; the status of the response."""
    told = world.endpoints["dicom"]["iocm_a"]
    [status] = await asyncio.to_thread(
        rejections.send, told["host"], told["port"], [note], calling="DEMO_CLIENT", called=told["ae_title"]
    )
    return status


async def gone(world: World, study_uid: str) -> None:
    async def none_left() -> bool:
        return not await world.kos(study_uid)

    await eventually(none_left, f"the KOS of {study_uid} is still in the DMP")
    await world.at_rest(study_uid)


async def listed(world: World, study: SampleStudy, expected: set[str]) -> None:
    """Wait until the one current KOS lists exactly these instances."""

    async def so() -> bool:
        [published] = await world.kos(study.study_uid) or [{"unique_id": ""}]
        rows = await world.sql("SELECT kos FROM publication WHERE kos_uid = %s", published["unique_id"])
        instances = {i.sop_instance_uid for r in rows for s in read_manifest(r["kos"]).series for i in s.instances}
        return instances == expected

    await eventually(so, f"the KOS of {study.study_uid} does not list what the PACS has")
    await world.at_rest(study.study_uid)


@pytest.mark.requirement("exam:W", "DB.SO.26", "DB.SO.97")
async def test_the_official_order_takes_the_exam_out_and_a_change_brings_it_back(world: World, samples: Path) -> None:
    [study] = await world.publish("W")
    answer = await world.accepted(official(samples / "hl7v2" / "CR_W_Suppression-OMI.hl7"))
    assert b"|ORI^O24^ORI_O24|" in answer
    await gone(world, study)
    [row] = await world.sql("SELECT state FROM publication WHERE study_uid = %s ORDER BY id DESC LIMIT 1", study)
    assert row["state"] == "depublished"
    assert await world.incidents(study) == []
    # The images are in the PACS all the while: once the order goes on, the exam is shared again.
    await world.accepted(omi(OrderLetter((exam("W"),), control(), control="SC"), NOW))
    await world.published(study)


@pytest.mark.requirement("exam:W", "D4")
async def test_an_order_about_another_patient_takes_nothing_out(world: World) -> None:
    [study] = await world.publish("X")
    other = replace(letters.Identity(), ins="274075176079430", family="DOE", given="JOHN", sex="M")
    await world.accepted(omi(OrderLetter((exam("X"),), control(), control="CA", identity=other), NOW))
    await world.at_rest(study)
    assert len(await world.kos(study)) == 1
    [incident] = await world.incidents(study)
    assert incident["code"].endswith("order-patient")


@pytest.mark.requirement("exam:U", "DB.SO.25", "DB.SO.26")
async def test_rejected_images_leave_the_kos_and_then_the_exam_leaves_the_dmp(world: World) -> None:
    [study] = EXAMS["U"]
    series = study.series[0]
    await world.publish("U")
    before = {uid for s in study.series for uid in study.instance_uids(s)}
    await listed(world, study, before)
    note = rejection_note(study, [(series, 1), (series, 2)])
    assert await send_note(world, note) == 0
    left = before - {study.instance_uid(series, n) for n in (1, 2)}
    await listed(world, study, left)
    versions = len(await world.kos(study.study_uid, current=False))
    # Once more: nothing new is sent.
    assert await send_note(world, note) == 0
    await world.at_rest(study.study_uid)
    assert len(await world.kos(study.study_uid, current=False)) == versions
    assert await send_note(world, rejection_of_all(study, title=rejections.PATIENT_SAFETY, index=2)) == 0
    await gone(world, study.study_uid)
    assert await world.incidents(study.study_uid) == []
    assert await world.swept()


@pytest.mark.requirement("DB.SO.25", "DB.SO.26")
async def test_a_note_that_a_real_pacs_sends_before_its_report(world: World, tmp_path: Path) -> None:
    """Orthanc stores the note, and forwards it as any object."""
    [study] = EXAMS["Y"]
    series = study.series[0]
    note = rejection_note(study, [(series, 1)], title=rejections.WRONG_WORKLIST_ENTRY)
    octets = write_note(note, tmp_path).read_bytes()
    pacs = world.mesh.pacs_a
    held = json.loads(await asyncio.to_thread(orthanc.rest, pacs, "POST", "/instances", octets))
    title = world.endpoints["dicom"]["iocm_a"]["ae_title"]
    await asyncio.to_thread(
        orthanc.rest, pacs, "POST", f"/modalities/{title}/store", json.dumps({"Resources": [held["ID"]]}).encode()
    )
    [kept] = await world.sql("SELECT caller, title FROM change_note WHERE study_uid = %s", study.study_uid)
    assert kept == {"caller": pacs.ae_title, "title": "113038"}
    await world.publish("Y")
    whole = {uid for s in study.series for uid in study.instance_uids(s)}
    await listed(world, study, whole - {study.instance_uid(series, 1)})
