"""The viewer on the real mesh, in Chromium: volumes in three planes, exams side by side, what is on each image."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import pytest_asyncio
from mesh_world import PATIENCE, World, eventually
from playwright.async_api import Browser, Frame, Page, async_playwright, expect
from test_mesh_browser import CHROMIUM, Watched, called, key_pin, listed, shot_of

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

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


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser(world: World) -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    national = world.mesh.state / "national" / "pki"
    pins = [key_pin(national / f"{name}.pem") for name in ("psc-serveur", "ris-serveur", "b-consumer")]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            env={**os.environ, "LANGUAGE": "fr"},
            args=[
                "--no-sandbox",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
                "--disable-background-networking",
                f"--ignore-certificate-errors-spki-list={','.join(pins)}",
            ],
        )
        yield browser
        await browser.close()


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
            shot = imagecodecs.png_decode(await canvases.nth(number).screenshot())[..., :3].mean(axis=2)
            if len(np.unique(shot)) < 48 or shot.std() < 10:
                return False
        return True

    await eventually(shown, f"{count} images were to be on the screen", 90, 0.5)


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
    await page.screenshot(path=shot_of("viewer-mpr", tmp_path))
    assert [kind for kind, _ in await frame.evaluate(_STACKS)] == ["orthographic"] * 3
    await page.context.close()


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
    await page.screenshot(path=shot_of("viewer-compare", tmp_path))
    await page.context.close()
