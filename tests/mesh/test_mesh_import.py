"""The import in a real browser on the real mesh: from the list of site B into its own PACS, and onto a disc."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from mesh_world import World
from playwright.async_api import Page, expect
from test_mesh_browser import (  # noqa: F401 - fixtures
    Watched,
    called,
    chromium,
    installed,
    listed,
    shot_of,
    watched,
)

from browsing import picture
from drimbox.demo.mesh import PATIENT_AT_B
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.orthanc import rest

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

EXAM = EXAMS["D"][0]


async def at_the_list(world: World, watched: Watched) -> Page:  # noqa: F811
    await world.publish("D")
    page = await called(watched, world)
    await listed(page, "doc0036790")
    await expect(page.locator("table.exams tbody tr").first).to_be_visible()
    return page


async def to_import(page: Page) -> None:
    # Whether it was imported before or not; the copy in the local PACS has a line of its own, without this link.
    there = page.locator('[id^="import-"]')
    await page.locator("table.exams tbody tr", has_text="IRM du genou").filter(has=there).first.locator(there).click()
    await expect(page.get_by_role("heading", name="Importer dans le PACS")).to_be_visible()


@pytest.mark.requirement("DB.CO.60", "DB.CO.61", "DB.CO.76", "DB.CO.77", "DB.CO.78", "DB.CO.79", "exam:D")
async def test_from_the_list_into_the_local_pacs(world: World, watched: Watched, tmp_path: Path) -> None:  # noqa: F811
    page = await at_the_list(world, watched)
    uid = EXAM.study_uid
    await picture(page, shot_of("import-list", tmp_path), full_page=True)
    row = page.locator("table.exams tbody tr").filter(has=page.locator('[id^="import-"]')).filter(has_text="genou")
    assert await row.count()
    # The exam by what its KOS says: of the knees in the list, the one with two series of twelve.
    for number in range(await row.count()):
        await row.nth(number).get_by_role("link", name="Importer").click()
        await expect(page.get_by_role("heading", name="Importer dans le PACS")).to_be_visible()
        if await page.locator(f'input[name="serie"][value^="{EXAM.series_uid(EXAM.series[0])}"]').count():
            break
        await page.go_back()
    await picture(page, shot_of("import-choice", tmp_path), full_page=True)
    # With the keyboard alone.
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Imports")).to_be_visible()
    await expect(page.get_by_text("24 sur 24 enregistrées et retrouvées")).to_be_visible(timeout=120_000)
    await picture(page, shot_of("imports", tmp_path), full_page=True)
    await page.get_by_role("link", name="Détail").first.click()
    await expect(page.get_by_text("enregistrée et retrouvée").first).to_be_visible()
    await expect(page.get_by_text("0000H").first).to_be_visible()
    await picture(page, shot_of("import-detail", tmp_path))
    await page.get_by_role("link", name="Liste des examens").click()
    await expect(page.get_by_text("Importé", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Imports").click()
    await expect(page.get_by_role("heading", name="Imports")).to_be_visible()
    # What the PACS of site B says of it.
    found = json.loads(
        rest(world.mesh.pacs_b, "POST", "/tools/find",
             json.dumps({"Level": "Instance", "Query": {"StudyInstanceUID": uid}, "Expand": True}).encode())
    )  # fmt: skip
    assert len(found) == 24
    content = rest(world.mesh.pacs_b, "GET", f"/instances/{found[0]['ID']}/file")
    ds = pydicom.dcmread(BytesIO(content))
    assert ds.PatientID == PATIENT_AT_B.ipp
    assert ds.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == PATIENT_AT_B.ipp_issuer
    former = ds.OriginalAttributesSequence[-1].ModifiedAttributesSequence[0]
    assert former.PatientID == EXAM.patient.patient_id
    original = pydicom.dcmread(BytesIO(world.original(ds.SOPInstanceUID)))
    assert ds.PixelData == original.PixelData


@pytest.mark.requirement("DB.CO.71", "exam:D")
async def test_from_the_list_onto_a_disc(world: World, watched: Watched, tmp_path: Path) -> None:  # noqa: F811
    page = await at_the_list(world, watched)
    await to_import(page)
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Télécharger").click()
    path = tmp_path / "examen.zip"
    await (await downloading.value).save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {"DICOMDIR", "README.TXT", "INDEX.HTM", "IHE_PDI/INDEX.HTM"} <= set(archive.namelist())
        directory = pydicom.dcmread(BytesIO(archive.read("DICOMDIR")))
        listed_files = [
            "/".join(r.ReferencedFileID) for r in directory.DirectoryRecordSequence if "ReferencedFileID" in r
        ]
        assert listed_files
        for name in listed_files:
            assert pydicom.dcmread(BytesIO(archive.read(name))).PatientID == PATIENT_AT_B.ipp


@pytest.mark.requirement("DB.CO.76")
async def test_an_import_goes_on_in_a_closed_tab_and_logout_warns(
    world: World,
    watched: Watched,  # noqa: F811
    tmp_path: Path,
) -> None:
    await world.publish("A")
    page = await called(watched, world)
    await listed(page, "doc0036790")
    await expect(page.locator("table.exams tbody tr").first).to_be_visible()
    address = page.url
    # The longest of the exams: three hundred images.
    links = await page.get_by_role("link", name="Import").evaluate_all("found => found.map(a => a.href)")
    for link in links:
        if "/import/" not in link:
            continue
        await page.goto(link)
        if await page.get_by_text("300 images").count():
            break
    await page.get_by_role("button", name="Importer").click()
    await expect(page.get_by_role("heading", name="Imports")).to_be_visible()
    await page.goto(page.url.split("/appel/")[0] + "/deconnexion")
    await expect(page.get_by_text("import en cours")).to_be_visible()
    await picture(page, shot_of("import-logout", tmp_path))
    await page.close()
    again = await watched.page()
    await again.goto(f"{address}/imports")
    await expect(again.get_by_text("300 sur 300 enregistrées et retrouvées")).to_be_visible(timeout=120_000)
