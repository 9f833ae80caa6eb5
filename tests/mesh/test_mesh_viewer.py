"""The viewer on the real mesh, in Chromium: volumes in three planes, exams side by side, what is on each image."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import pytest_asyncio
from axe_core import complaints, script
from mesh_world import PATIENCE, World, eventually
from playwright.async_api import Browser, Error, Frame, Page, expect
from test_mesh_browser import Watched, called, key_pin, listed, shot_of

from browsing import CHROMIUM, chromium_running, picture
from drimbox.demo.mesh import PATIENT_AT_B
from drimbox.foundation.uids import new_uid
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.samples import write_study

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

ROOT = Path(__file__).parents[2]
LOGIN = "doc0036790"
_STACKS = """() => {
  const { viewportGridService, cornerstoneViewportService } = window.services ?? {};
  let ids = [];
  try { ids = [...viewportGridService.getState().viewports.keys()]; } catch { return []; }
  return ids.map((id) => {
    const viewport = cornerstoneViewportService.getCornerstoneViewport(id);
    return [viewport?.type ?? "", viewport?.getImageIds?.().length ?? 0];
  });
}"""


@pytest.fixture(scope="module")
def axe() -> str:
    return script(ROOT / "var" / "axe").read_text("utf-8")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser(world: World) -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    national = world.mesh.state / "national" / "pki"
    pins = [key_pin(national / f"{name}.pem") for name in ("psc-serveur", "ris-serveur", "b-consumer")]
    async with chromium_running(*pins) as browser:
        yield browser


async def opened(world: World, browser: Browser) -> Page:
    """The 300 slices of exam A on the screen of site B's radiologist."""
    for letter in "AE":
        await world.publish(letter)
    context = await browser.new_context(viewport={"width": 1600, "height": 1000}, locale="fr-FR")
    context.set_default_timeout(PATIENCE)
    watched = Watched(context)
    page = await called(watched, world)
    await listed(page, LOGIN)
    of_exam_a = page.locator("tr", has_text="Scanner").filter(has_text="Lire le compte rendu").first
    await of_exam_a.get_by_text("Ouvrir les images").click()
    await expect(page.locator("iframe.viewer")).to_be_visible()
    return page


def viewer(page: Page) -> Frame:
    return next(frame for frame in page.frames if frame != page.main_frame and "/visionneuse/" in frame.url)


async def lit(frame: Frame, count: int) -> None:
    """So many canvases, each with an image in it and not a plain ground."""

    async def shown() -> bool:
        canvases = frame.locator("canvas.cornerstone-canvas")
        if await canvases.count() != count:
            return False
        for number in range(count):
            try:
                shot = imagecodecs.png_decode(await picture(canvases.nth(number)))[..., :3].mean(axis=2)
            except Error:
                # OHIF has put another canvas in its place just now.
                return False
            if len(np.unique(shot)) < 48 or shot.std() < 10:
                return False
        return True

    await eventually(shown, f"{count} images were to be on the screen", 90, 0.5)


@pytest.mark.slow
@pytest.mark.requirement("DB.VI-CS.19", "DB.VI-CS.20", "DB.VI-CS.21", "DB.VI-CS.22", "DB.VI-CS.25", "exam:A")
async def test_a_volume_in_three_planes(world: World, browser: Browser, tmp_path: Path) -> None:
    page = await opened(world, browser)
    await expect(page.locator(".advance .figure")).to_contain_text("300 / 300 images", timeout=PATIENCE)
    frame = viewer(page)
    await lit(frame, 1)

    async def whole() -> bool:
        return bool(await frame.evaluate(_STACKS) == [["stack", 300]])

    await eventually(whole, "the stack is not whole", 60, 0.25)
    corner = frame.locator(".overlay-top.left-viewport, [data-cy='viewport-overlay-top-left']").first
    await expect(corner).to_contain_text("PAT-TROIS")
    await expect(corner).to_contain_text("28/03/1979")
    await expect(frame.locator("body")).to_contain_text("Non destiné au diagnostic")
    # The toolbar is in French, and ours.
    await expect(frame.locator("body")).to_contain_text("DRIMbox")
    await frame.locator("[data-cy='drimboxMpr']").first.click(timeout=PATIENCE)
    await lit(frame, 3)
    await picture(page, shot_of("viewer-mpr", tmp_path))
    assert [kind for kind, _ in await frame.evaluate(_STACKS)] == ["orthographic"] * 3
    await page.context.close()


@pytest.mark.requirement("DB.VI-CO.39", "DB.VI-CS.17", "exam:A")
async def test_the_viewer_that_was_started_behind_the_list_shows_the_exam(world: World, browser: Browser) -> None:
    await world.publish("A")
    context = await browser.new_context(viewport={"width": 1600, "height": 1000}, locale="fr-FR")
    watched = Watched(context)
    page = await called(watched, world)
    await listed(page, LOGIN)
    link = page.locator("tr", has_text="Scanner").filter(has_text="Lire le compte rendu").first
    await expect(page.locator(".ahead iframe")).to_be_attached(timeout=30_000)

    def ahead() -> Frame | None:
        return next((frame for frame in page.frames if frame.url.endswith("/visionneuse/attente/viewer")), None)

    async def waits() -> bool:
        frame = ahead()
        return frame is not None and bool(await frame.evaluate("Boolean(window.services?.displaySetService)"))

    await eventually(waits, "no viewer was started behind the list", 60, 0.25)
    # What waits there knows of nobody, and takes no part in what the user does.
    frame = ahead()
    assert frame is not None
    assert "PAT-TROIS" not in await frame.content()
    assert await page.locator(".ahead").evaluate("box => box.inert")
    documents: list[str] = []
    page.on("request", lambda one: documents.append(one.url) if one.is_navigation_request() else None)
    await link.get_by_text("Ouvrir les images").click()
    await page.wait_for_url("**/images/*")
    assert documents == []
    await expect(page.locator("#liste")).to_have_count(0)
    await expect(page.locator(".advance .figure")).to_contain_text("300 / 300 images", timeout=60_000)
    await lit(frame, 1)
    await expect(page.locator("#apercu")).to_have_count(0)
    await expect(frame.locator("body")).to_contain_text("PAT-TROIS")
    assert await page.title() == await page.evaluate("document.title")
    # The list is where it was.
    await page.go_back()
    await expect(page.locator("#liste table.exams").first).to_be_visible(timeout=30_000)
    await context.close()


@pytest.mark.requirement("DB.VI-CS.35", "DB.VI-CS.36", "exam:A", "exam:E")
async def test_two_exams_beside_each_other(world: World, browser: Browser, tmp_path: Path) -> None:
    page = await opened(world, browser)
    await page.click("text=Comparer avec…")
    await page.locator(".beside a", has_text="Scintigraphie").first.click()
    await page.wait_for_url("**/comparaison?*")
    # Where a report of exam E that is not for the patient's eyes has come before, that is asked first.
    heard = page.get_by_role("button", name="J’ai compris")
    await heard.or_(page.locator("iframe.viewer")).first.wait_for()
    if await heard.count():
        await heard.click()
    # More than the 300 of the one, and all of them.
    whole = re.compile(r"\b(3(?!00)\d\d) / \1 images")
    await expect(page.locator(".advance .figure")).to_contain_text(whole, timeout=PATIENCE)
    frame = viewer(page)
    await lit(frame, 2)
    await expect(page.locator(".patient")).to_contain_text("PAT-TROIS")
    await picture(page, shot_of("viewer-compare", tmp_path))
    await page.context.close()


def of_site_b(folder: Path) -> tuple[str, list[bytes]]:
    """A scanner of today at site B, of the same patient under site B's own number; its UID and its files."""
    scanners = (study for studies in EXAMS.values() for study in studies if study.modality == "CT")
    sample = min(scanners, key=lambda each: sum(one.images for one in each.series))
    study = new_uid()
    series: dict[str, str] = {}
    made = []
    for path in write_study(sample, folder):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = study
        dataset.SeriesInstanceUID = series.setdefault(dataset.SeriesInstanceUID, new_uid())
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = new_uid()
        dataset.PatientID = PATIENT_AT_B.ipp
        dataset.StudyDate, dataset.AccessionNumber = "20261123", "ACNB1"
        dataset.StudyDescription, dataset.InstitutionName = "Scanner du jour, site B", "Cabinet du site B"
        dataset.pop("IssuerOfPatientIDQualifiersSequence", None)
        octets = BytesIO()
        dataset.save_as(octets, enforce_file_format=True)
        made.append(octets.getvalue())
    return study, made


@pytest_asyncio.fixture(loop_scope="session")
async def scanned_today(world: World, tmp_path: Path) -> AsyncIterator[int]:
    """Site B's PACS holds an exam of today, which no DMP knows: how many images."""
    if not world.mesh.pacs_b.rest_url:
        pytest.skip("the stand-in for Orthanc is not given files")
    study, files = await asyncio.to_thread(of_site_b, tmp_path)
    for octets in files:
        await asyncio.to_thread(orthanc.rest, world.mesh.pacs_b, "POST", "/instances", octets)
    yield len(files)
    query = json.dumps({"Level": "Study", "Query": {"StudyInstanceUID": study}}).encode()
    for held in json.loads(await asyncio.to_thread(orthanc.rest, world.mesh.pacs_b, "POST", "/tools/find", query)):
        await asyncio.to_thread(orthanc.rest, world.mesh.pacs_b, "DELETE", f"/studies/{held}")


@pytest.mark.requirement("DB.VI-CS.35", "DB.VI-CS.36", "exam:A")
async def test_todays_local_exam_beside_one_of_another_site(
    world: World, browser: Browser, scanned_today: int, axe: str, tmp_path: Path
) -> None:
    page = await opened(world, browser)
    await expect(page.locator(".advance .figure")).to_contain_text("300 / 300 images", timeout=60_000)
    await page.click("text=Comparer avec…")
    await picture(page, shot_of("viewer-compare-choice", tmp_path))
    await page.locator(".beside a", has_text="Scanner du jour, site B").click()
    await page.wait_for_url("**/comparaison?*")
    await expect(page.locator(".advance .figure")).to_contain_text(
        f"{300 + scanned_today} / {300 + scanned_today} images", timeout=60_000
    )
    await expect(page.locator(".strip .exam")).to_contain_text("PACS local (pacs-b)")
    frame = viewer(page)
    await lit(frame, 2)
    await picture(page, shot_of("viewer-compare-local", tmp_path))
    # Our page around OHIF; what is inside is OHIF's own.
    assert await complaints(page, axe) == []
    await page.click("text=Liste des examens")
    await page.click("#voisins summary")
    await expect(page.locator("#voisins table")).to_contain_text("Scanner du jour, site B")
    assert await complaints(page, axe) == []
    await picture(page, shot_of("list-local", tmp_path), full_page=True)
    await page.context.close()
