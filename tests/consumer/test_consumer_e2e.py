"""The whole way in a real browser: from the call of the RIS to pixels on the canvas of OHIF."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from consumer_world import DOMINIQUE, PATIENCE, SECOND, Site, make_study, report_entry
from playwright.async_api import Browser, BrowserContext, Page, expect
from pydicom.data import get_testdata_file

from browsing import chromium_running, picture
from drimbox.foundation.errors import Unavailable
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam

pytestmark = pytest.mark.e2e

CT = Path(get_testdata_file("CT_small.dcm"))
J2K = Path(get_testdata_file("693_J2KR.dcm"))
CAPTURE = Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with chromium_running() as browser:
        yield browser


async def context(chromium: Browser) -> BrowserContext:
    made = await chromium.new_context(
        ignore_https_errors=True, viewport={"width": 1600, "height": 1000}, locale="fr-FR"
    )
    made.set_default_timeout(PATIENCE)
    return made


async def log_in(page: Page, site: Site, fields: dict[str, str]) -> None:
    await called_by_the_ris(page, site, fields)
    if await page.locator("a.psc").count():
        await page.click("a.psc")
    if await page.locator("input[name=lu]").count():
        await page.check("input[name=lu]")
        await page.click("main button[type=submit]")
    await page.wait_for_selector("table.exams")


async def called_by_the_ris(page: Page, site: Site, fields: dict[str, str]) -> None:
    """The RIS posts its call from a page of another site."""
    inputs = "".join(f'<input name="{name}" value="{html.escape(value)}">' for name, value in fields.items())
    await page.set_content(f'<form method="post" action="{site.origin}/drim">{inputs}<button>Appeler</button></form>')
    await page.click("button")
    await page.wait_for_url(f"{site.origin}/appel/*")


async def canvas_colours(page: Page) -> np.ndarray:
    """What the viewer's first canvas shows on the screen, without the overlays at its edges."""
    canvas = page.frame_locator("iframe.viewer").locator("canvas.cornerstone-canvas").first
    await canvas.wait_for(timeout=PATIENCE)
    shot = imagecodecs.png_decode(await picture(canvas))[..., :3]
    height, width, _ = shot.shape
    return shot[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4].astype(np.float64)


async def canvas_pixels(page: Page) -> np.ndarray:
    return (await canvas_colours(page)).mean(axis=2)


async def is_coloured(page: Page) -> bool:
    colours = await canvas_colours(page)
    return bool(colours.std(axis=2).mean() > 5)


async def shows_an_image(page: Page) -> None:
    for _ in range(60):
        pixels = await canvas_pixels(page)
        # A blank or single-coloured canvas has no spread; a real slice has hundreds of different neighbours.
        if pixels.std() > 10 and len(np.unique(pixels)) > 32:
            return
        await page.wait_for_timeout(250)
    raise AssertionError("the canvas stays blank")


@pytest.mark.requirement(
    "DB.CO.48",
    "DB.CO.54",
    "DB.CO.57",
    "DB.VI-CS.01",
    "DB.VI-CS.02",
    "DB.VI-CS.25",
    "DB.VI-CS.26",
    "DB.VI-CS.29",
    "DB.VI-CO.05",
    "DB.VI-CO.06",
)
async def test_from_the_call_to_the_images(site: Site, chromium: Browser, tmp_path: Path) -> None:
    # The secondary capture, last by its number, is what was singled out: it is shown first (DB.CO.107).
    study = make_study(tmp_path, DOMINIQUE, [[CT] * 8, [J2K] * 2, [CAPTURE]])
    site.hold(DOMINIQUE, study)
    site.sources.gate = asyncio.Event()
    site.sources.held = {series.retrieve_url for series in study.manifest.series[:2]}
    browsing = await context(chromium)
    page = await browsing.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on(
        "request", lambda r: problems.append(r.url) if not r.url.startswith((site.origin, "data:", "blob:")) else None
    )
    await log_in(page, site, DOMINIQUE.call())
    await page.click("text=Ouvrir les images")
    await shows_an_image(page)
    assert await is_coloured(page)
    # The first image does not wait for the other series.
    await expect(page.locator(".advance .figure")).to_contain_text("9 % – 1 / 11 images")
    site.sources.gate.set()
    await expect(page.locator(".patient")).to_contain_text("PAT-TROIS")
    await expect(page.locator(".strip")).to_contain_text("Ne pas utiliser pour le diagnostic")
    await expect(page.locator(".advance .figure")).to_contain_text("100 % – 11 / 11 images")
    assert await page.title() == "PAT-TROIS DOMINIQUE – Images · DRIMbox"
    viewer = page.frame_locator("iframe.viewer")
    await expect(viewer.get_by_text("PAT-TROIS, DOMINIQUE").first).to_be_visible()
    await expect(viewer.get_by_text("Non destiné au diagnostic").first).to_be_visible()
    await expect(viewer.get_by_text("Examens").first).to_be_visible()
    # Another series, in the same viewer, by a double click: JPEG 2000, decoded in the browser.
    before = await canvas_pixels(page)
    thumbnails = viewer.locator("[data-cy^='study-browser-thumbnail']")
    await expect(thumbnails).to_have_count(3)
    for number in (0, 1):
        await thumbnails.nth(number).dblclick()
        await page.wait_for_timeout(500)
        await shows_an_image(page)
        assert not await is_coloured(page)
        after = await canvas_pixels(page)
        assert after.shape != before.shape or np.abs(after - before).mean() > 5, "the same image is still there"
        before = after
    assert problems == []


@pytest.mark.requirement("DB.CO.59")
async def test_two_tabs_two_patients_and_a_report(site: Site, chromium: Browser, tmp_path: Path) -> None:
    studies = {p: make_study(tmp_path, p, [[CT] * 2]) for p in (DOMINIQUE, SECOND)}
    for patient, study in studies.items():
        record = site.hold(patient, study)
        uid = f"1.2.250.1.213.{patient.ipp[-1]}"
        record.entries.append(report_entry(study, uid))
        letter = letters.Letter(exam("E"), "1", letters.Identity(ins=patient.matricule))
        record.contents[uid] = letters.clinical_document(letter)
    browsing = await context(chromium)
    tabs = {}
    for patient in studies:
        tabs[patient] = await browsing.new_page()
        # The second call finds the session of the first: nobody logs in twice.
        site.psc.down = len(tabs) > 1
        await log_in(tabs[patient], site, patient.call())
    for page in tabs.values():
        await page.click("text=Ouvrir les images")
    for patient, page in tabs.items():
        await page.bring_to_front()
        await shows_an_image(page)
        await page.locator("summary").click()
        matricule = (await page.locator(".patient").inner_text()).replace(" ", "")
        assert patient.matricule in matricule
        async with browsing.expect_page() as opening:
            await page.click("text=Lire le compte rendu")
        report = await opening.value
        await report.wait_for_load_state()
        # Chromium's own PDF viewer may add a frame of the same address.
        assert len({f.url for f in report.frames if f.url.endswith("/pdf")}) == 1
        assert await report.locator("iframe.pdf").count() == 1


@pytest.mark.requirement("DB.VI-CO.27")
async def test_what_fails_is_said_and_the_rest_is_shown(site: Site, chromium: Browser, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [[CT] * 2, [J2K] * 2])
    site.hold(DOMINIQUE, study)
    # The first series, the one that would be shown, fails: the second takes its place.
    broken = study.manifest.series[0].retrieve_url
    site.sources.failures[broken] = Unavailable("Récupération des images interrompue", code="source-error")
    page = await (await context(chromium)).new_page()
    await log_in(page, site, DOMINIQUE.call())
    await page.click("text=Ouvrir les images")
    await shows_an_image(page)
    await expect(page.locator("#pannes")).to_contain_text("Récupération des images interrompue")
    await expect(page.locator("#pannes li")).to_have_count(1)
    await expect(page.locator("#pannes li")).to_contain_text("Série 1 ")
    site.sources.failures.clear()
    await page.click("#pannes button")
    await shows_an_image(page)
    await expect(page.locator(".advance .figure")).to_contain_text("4 / 4 images")
    await expect(page.locator("#pannes")).to_be_hidden()
