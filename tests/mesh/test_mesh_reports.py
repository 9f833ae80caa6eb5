"""Reports in at site A, images out at site B: the official exams on the real mesh."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mesh_world import APPROVED, NOW, World, control, document_of, official, with_document

from drimbox.demo import story
from drimbox.demo.visitor import Visitor
from drimbox.manifest.read import read_manifest
from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.exams import exam

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

STUDY = "1.2.250.1.213.4.5.2.1."


@pytest.mark.requirement("DB.SO.03", "DB.SO.11", "DB.CO.48", "D23", "exam:E")
async def test_the_story_of_exam_e(world: World) -> None:
    timings = story.Timings()
    before = await story.current_kos(world.mesh)
    control_id = await story.send_report(world.mesh, None, timings, world.said.append)
    await story.published(world.mesh, control_id, {f"{STUDY}105"}, before, timings, world.said.append)
    assert len(await world.seen(f"{STUDY}105")) == 26


async def test_the_story_does_not_tell_what_is_not_so(world: World, samples: Path) -> None:
    """A report that was refused, or whose study could not be published, ends the story with the reason."""
    timings = story.Timings()
    with pytest.raises(story.Untrue, match="n'est pas accepté"):
        await story.send_report(world.mesh, b"rubbish", timings, world.said.append)
    # Exam E is in the DMP already: that must not pass for the publication of a report about somebody else.
    await world.publish("E")
    before = await story.current_kos(world.mesh)
    carrier = official(samples / "hl7v2" / "CR_E-ORU.hl7").replace(b"||19790328|F|", b"||19790329|F|")
    control_id = await story.send_report(world.mesh, carrier, timings, world.said.append)
    with pytest.raises(story.Untrue, match="date de naissance"):
        await story.published(world.mesh, control_id, {f"{STUDY}105"}, before, timings, world.said.append)
    # And once more the same report says nothing new.
    await story.send_report(world.mesh, official(samples / "hl7v2" / "CR_E-ORU.hl7"), timings, world.said.append)
    await world.at_rest(f"{STUDY}105")
    before = await story.current_kos(world.mesh)
    again = official(samples / "hl7v2" / "CR_E-ORU.hl7")
    control_id = await story.send_report(world.mesh, again, timings, world.said.append)
    await story.published(world.mesh, control_id, {f"{STUDY}105"}, before, timings, world.said.append)
    assert "rien de nouveau" in world.said[-1]


@pytest.mark.requirement("DB.SO.11", "D2", "D23")
@pytest.mark.parametrize(
    ("letter", "images"),
    [
        pytest.param("A", (300,), id="A, 300 CT"),
        pytest.param("B", (20,), id="B, MR"),
        pytest.param("C", (48,), id="C, JPEG lossless"),
        pytest.param("D", (24,), id="D, implicit VR"),
        pytest.param("F", (12, 10), id="F, two studies"),
        pytest.param("H", (20,), id="H, JPEG-LS"),
        pytest.param("N", (2,), id="N, JPEG baseline"),
    ],
)
async def test_each_exam_is_one_current_kos_and_its_images_are_the_pacs_s(
    world: World, letter: str, images: tuple[int, ...]
) -> None:
    for study, expected in zip(await world.publish(letter), images, strict=True):
        kos = await world.published(study)
        content = await world.mesh.http.send(
            "GET", f"{world.mesh.national.dmp_view}/documents/{kos['unique_id']}", tls=world.mesh.tls
        )
        manifest = read_manifest(content.body)
        assert manifest.kos_uid == kos["unique_id"]
        received = await world.seen(study)
        assert len(received) == expected
        assert set(received) == {i.sop_instance_uid for s in manifest.series for i in s.instances}
        assert await world.incidents(study) == []


@pytest.mark.requirement("DB.SO.03", "D2", "exam:E")
@pytest.mark.parametrize("carrier", ["CR_E-ORU.hl7", "CR_E-MDM.hl7"])
async def test_exam_e_by_either_official_message(world: World, samples: Path, carrier: str) -> None:
    await world.publish("E")
    await world.accepted(official(samples / "hl7v2" / carrier))
    await world.at_rest(f"{STUDY}105")
    kos = await world.published(f"{STUDY}105")
    # Both official messages hide the report from the patient and from the legal representatives.
    assert "INVISIBLE_PATIENT" in kos["confidentiality"]
    assert await world.incidents(f"{STUDY}105") == []
    assert len(await world.seen(f"{STUDY}105")) == 26


@pytest.mark.requirement("DB.SO.97", "D6", "exam:G")
async def test_an_updated_report_replaces_its_kos(world: World, samples: Path) -> None:
    study = f"{STUDY}108"
    await world.accepted(official(samples / "hl7v2" / "CR_G1-ORU.hl7"))
    first = await world.published(study)
    assert "INVISIBLE_PATIENT" in first["confidentiality"]
    await world.accepted(official(samples / "hl7v2" / "CR_G1_MAJ-ORU.hl7"))
    await world.at_rest(study)
    second = await world.published(study)
    assert second["unique_id"] != first["unique_id"]
    assert "INVISIBLE_PATIENT" not in second["confidentiality"]
    statuses = {d["unique_id"]: d["status"] for d in await world.kos(study, current=False)}
    assert statuses[first["unique_id"]] != APPROVED
    assert await world.incidents(study) == []
    await world.seen(study)


@pytest.mark.requirement("DB.SO.16", "D4", "exam:K")
async def test_the_official_message_of_exam_k(world: World, samples: Path) -> None:
    """Byte exact, 833 kB, the INS alone in PID-3; its report gives another patient number than the PACS's."""
    study, message = f"{STUDY}112", (samples / "hl7v2" / "PFI_ORU_R01_K.hl7").read_bytes()
    await world.accepted(message)
    await world.at_rest(study)
    assert [i["code"] for i in await world.incidents(study)] == ["pacs-ipp"]
    assert await world.kos(study, current=False) == []
    # The same with the number under which the PACS knows the patient: published, and the matter is closed.
    number = b'extension="IPP101" root="1.2.250.1.213.4.5.2.4"'
    document = document_of(message).replace(b'extension="1234567890121" root="1.2.3.4.567.8.9.10"', number)
    await world.accepted(with_document(message, document).replace(b"|id|P|", f"|{control()}|P|".encode()))
    await world.at_rest(study)
    await world.published(study)
    assert await world.incidents(study) == []
    await world.seen(study)


@pytest.mark.requirement("DB.SO.12", "D3", "exam:F")
async def test_the_official_report_on_two_studies(world: World, samples: Path) -> None:
    """Each study has its own KOS, with the order and the accession number of that study."""
    carrier = official(samples / "hl7v2" / "CR_E-ORU.hl7")
    await world.accepted(with_document(carrier, (samples / "cda" / "CR_F.xml").read_bytes()))
    for number in ("106", "107"):
        kos = await world.published(f"{STUDY}{number}")
        references = [r.split("^")[0] for r in kos["references"]]
        assert f"ACN{number}" in references
        assert {"ACN106": "ACN107", "ACN107": "ACN106"}[f"ACN{number}"] not in references
        await world.seen(f"{STUDY}{number}")


@pytest.mark.requirement("exam:I")
async def test_a_depublication_takes_the_kos_away(world: World, samples: Path) -> None:
    study = f"{STUDY}110"
    carrier = official(samples / "hl7v2" / "CR_E-ORU.hl7")
    await world.accepted(with_document(carrier, (samples / "cda" / "CR_I.xml").read_bytes()))
    await world.published(study)
    await world.accepted(official(samples / "hl7v2" / "CR_I_Depublication-ORU.hl7"))
    await world.at_rest(study)
    assert await world.kos(study) == []
    assert await world.incidents(study) == []
    with pytest.raises(story.Untrue):
        await world.opened(study)


@pytest.mark.requirement("DB.SO.35", "DB.CO.59")
async def test_visitors_at_once_each_get_their_own_images(world: World) -> None:
    """Several radiologists open different exams at the same moment; every image is compared with its own original."""
    studies = [study for letter in "BCDFHN" for study in await world.publish(letter)]
    counts = [len(images) for images in await asyncio.gather(*map(world.seen, studies))]
    assert counts == [20, 48, 24, 12, 10, 20, 2]


@pytest.mark.requirement("DB.CO.59", "DB.CO.64")
async def test_the_address_of_an_exam_is_worth_nothing_to_anyone_else(world: World) -> None:
    """Another browser, logged in or not, gets neither the page, nor the images, nor the report."""
    await world.publish("B")
    mine = await world.opened(f"{STUDY}102")
    addresses = [mine.page.address, f"{mine.dicomweb}/studies", mine.dicomweb.removesuffix("/dicomweb") + "/etat"]
    assert [(await mine.visitor.get(a)).status for a in addresses] == [200, 200, 200]
    other, _ = await world.listed()
    for visitor in (other, Visitor(world.mesh.http, world.mesh.tls)):
        for address in addresses:
            page = await visitor.get(address)
            assert page.status == 404
            assert b"PAT-TROIS" not in page.body


@pytest.mark.requirement("DMP/UX.08")
async def test_another_patient_is_shown_nothing_of_this_one(world: World) -> None:
    """The same radiologist calls for a patient who has no DMP: that is said, and nothing else is shown."""
    await world.publish("B")
    visitor, listed = await world.listed()
    assert "Ouvrir les images" in listed.text
    call = world.call(**{"Patient.identifier.value": "207058575627097", "Patient.name.family": "PAT-AUTRE"})
    page = await visitor.post(world.mesh.call_url, call)
    assert "PAT-AUTRE" in page.text
    while 'aria-busy="true"' in page.body.decode():
        page = await visitor.get(page.address)
    assert "pas de DMP" in page.text
    assert "Ouvrir les images" not in page.text
    assert "PAT-TROIS" not in page.text


@pytest.mark.requirement("DB.SO.03")
async def test_many_reports_at_once(world: World) -> None:
    """Reports from several connections of the RIS, each published once: what is published already, not again."""
    studies = [study for letter in "JLNOPQRTZ" for study in exam(letter).studies]
    before = {study: len(await world.kos(study, current=False)) for study in studies}
    reports = [letters.oru(letters.Letter(exam(letter), control()), NOW) for letter in "JLNOPQRTZ"]
    answers = await asyncio.gather(*(world.send(report) for report in reports))
    assert [wire.verdict(answer) for [answer] in answers] == ["AA"] * len(reports)
    for study in studies:
        await world.published(study)
        assert len(await world.kos(study, current=False)) == max(before[study], 1)
