"""The viewer of a visit in a real browser, on a desk and on a phone: what is on the screen, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import axe_core
import imagecodecs
import numpy as np
import pydicom
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Frame, Page, expect
from visit_world import ROOT, Exam, Site, make_exam

from browsing import chromium_running, picture
from drimbox.link.visit import Visit, Visitor

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
expect.set_options(timeout=30_000)

FIRST = """() => performance.getEntriesByType('resource').map((one) => one.name)
  .filter((one) => one.includes('/apercu?serie='))"""
SHOWN = """() => {
  const { viewportGridService, cornerstoneViewportService } = window.services ?? {};
  try {
    const id = viewportGridService.getActiveViewportId();
    const viewport = cornerstoneViewportService.getCornerstoneViewport(id);
    return window.cornerstone.metaData.get("instance", viewport.getCurrentImageId()).SOPInstanceUID;
  } catch { return ""; }
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium_running() as launched:
        yield launched


async def opened(browser: Browser, site: Site, visit: Visit, size: tuple[int, int]) -> Page:
    phone = size[0] < 600
    context = await browser.new_context(
        ignore_https_errors=True,
        viewport={"width": size[0], "height": size[1]},
        locale="fr-FR",
        is_mobile=phone,
        has_touch=phone,
        accept_downloads=True,
    )
    await context.add_cookies([cast(Any, site.cookie(visit))])
    page = await context.new_page()
    page.set_default_timeout(60_000)
    return page


def watched(page: Page) -> list[str]:
    """What the page complains of, and every request that leaves for elsewhere."""
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda m: failures.append(m.text) if "Content Security Policy" in m.text else None)
    page.on(
        "request",
        lambda r: (
            failures.append(r.url)
            if not r.url.startswith(("https://localhost:", "blob:https://localhost:", "data:"))
            else None
        ),
    )
    return failures


def viewer(page: Page) -> Frame:
    return next(frame for frame in page.frames if frame != page.main_frame)


async def likeness(frame: Frame, original: Path) -> float:
    """How much the canvas looks like the image: 1 is the same."""
    shot = imagecodecs.png_decode(await picture(frame.locator("canvas.cornerstone-canvas").first))[..., :3]
    grey = shot.mean(axis=2)
    cells = pydicom.dcmread(original).pixel_array.astype(float)
    side = min(grey.shape)
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    steps = (np.arange(side) * cells.shape[0] / side).astype(int)
    middle = slice(side // 5, -side // 5)
    seen = grey[top : top + side, left : left + side][middle, middle]
    return float(np.corrcoef(seen.ravel(), cells[np.ix_(steps, steps)][middle, middle].ravel())[0, 1])


async def on_screen(page: Page, exam: Exam, series: int) -> None:
    """An image of that series is on the canvas, pixel by pixel."""
    paths = {pydicom.dcmread(p).SOPInstanceUID: p for p in exam.series[list(exam.series)[series]]}
    found = 0.0
    for _ in range(300):
        # The frame comes a moment after the page.
        uid = await viewer(page).evaluate(SHOWN) if len(page.frames) > 1 else ""
        if uid in paths:
            found = await likeness(viewer(page), paths[uid])
            if found > 0.9:
                return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not the image that it should be: {found:.2f}")


@pytest.mark.requirement(
    *("DB.VI-SO.05", "DB.VI-SO.06", "DB.VI-SO.37", "DB.VI-CS.01", "DB.VI-CS.02", "DB.VI-CS.25"),
    *("DB.VI-CS.26", "DB.VI-CS.29", "DB.CS.53"),
)
@pytest.mark.parametrize(
    ("size", "visitor"),
    [((1400, 900), Visitor.PROFESSIONAL), ((390, 844), Visitor.PATIENT)],
    ids=["desk", "phone"],
)
async def test_a_visit_on_the_screen(
    browser: Browser, site: Site, tmp_path: Path, size: tuple[int, int], visitor: Visitor
) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", series=3, images=6))
    visit = site.enter(exam, visitor, series_uid=list(exam.series)[1])
    page = await opened(browser, site, visit, size)
    failures = watched(page)
    await page.goto(site.url(visit), wait_until="commit")
    # The picture of the first image is there before OHIF is.
    picture = page.locator("#apercu img")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("async (one) => { await one.decode(); return one.naturalWidth; }") == 128
    assert len(await page.evaluate(FIRST)) == 1
    await expect(page.locator(".diagnosis")).to_be_visible()
    traits = page.locator("section.patient")
    for text in ("PAT-TROIS", "DOMINIQUE", "28/03/1979", "Féminin", "63220", "2 79 03 51 215 189 89"):
        await expect(traits).to_contain_text(text)
    who = page.locator(".who")
    if visitor is Visitor.PROFESSIONAL:
        await expect(who).to_contain_text("RPPS 899700218896")
        await expect(who).to_contain_text("Connecté le 04/05/2026 à 14:00")
    else:
        await expect(who).to_contain_text("Vous consultez votre examen")
    await expect(page.locator("#apercu")).to_have_count(0, timeout=60_000)
    # The series that the link names is opened; one click opens another.
    await on_screen(page, exam, 1)
    buttons = page.locator("button[data-series]")
    assert await buttons.count() == 3
    await expect(buttons.nth(1)).to_have_attribute("aria-current", "true")
    await buttons.nth(2).click()
    await on_screen(page, exam, 2)
    await expect(buttons.nth(2)).to_have_attribute("aria-current", "true")
    await expect(page.locator(".advance .figure")).to_contain_text("100 % – 18 / 18 images")
    thumbnails = viewer(page).locator('[data-cy^="study-browser-thumbnail"]')
    if visitor is Visitor.PROFESSIONAL:
        await viewer(page).locator('[data-cy="study-browser-thumbnail"][data-series="1"]').click()
        await on_screen(page, exam, 0)
        await expect(buttons.nth(0)).to_have_attribute("aria-current", "true")
    else:
        # On a phone the image has the width of the screen, and nothing is wider than it.
        await expect(thumbnails.first).to_be_hidden()
        box = await viewer(page).locator("canvas.cornerstone-canvas").first.bounding_box()
        assert box is not None
        assert box["width"] > 360
        assert box["height"] > 300
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    assert await axe_core.complaints(page, axe_core.script(ROOT / "var" / "axe").read_text("utf-8")) == []
    assert failures == []
    await page.context.close()


@pytest.mark.requirement("DB.VI-SO.28")
async def test_nothing_stays_on_the_screen_once_the_visit_is_over(browser: Browser, site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=4))
    visit = site.enter(exam)
    page = await opened(browser, site, visit, (1200, 800))
    await page.clock.install()
    await page.goto(site.url(visit))
    await expect(page.locator(".advance .figure")).to_contain_text("4 / 4 images")
    del site.doors[visit.key]
    await page.clock.run_for(21_000)
    await expect(page.locator("h1")).to_have_text("Visite terminée")
    await expect(page.locator("iframe")).to_have_count(0)
    await expect(page.locator("body")).not_to_contain_text("PAT-TROIS")
    await page.context.close()


@pytest.mark.requirement("DB.VI-SO.28")
async def test_a_patient_reads_why_there_are_no_images_and_asks_again(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=4))
    site.pacs.fail_at = 0
    visit = site.enter(exam)
    page = await opened(browser, site, visit, (390, 844))
    await page.goto(site.url(visit))
    failures = page.locator("#pannes")
    await expect(failures).to_contain_text("réessayez dans quelques minutes")
    await expect(page.locator("iframe.viewer")).to_be_hidden()
    assert await axe_core.complaints(page, axe_core.script(ROOT / "var" / "axe").read_text("utf-8")) == []
    site.pacs.fail_at = None
    await failures.get_by_role("button", name="Réessayer").click()
    await on_screen(page, exam, 0)
    # The exam comes home as the page offers it.
    await page.locator(".take summary").click()
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name="Les images").click()
    download = await waiting.value
    assert download.suggested_filename == "examen-images.zip"
    path = await download.path()
    assert path.read_bytes()[:2] == b"PK"
    assert await page.locator("main").count() == 1
    await page.context.close()
