"""The official scenario of the consumer (rem-consumer.md 15.1, SCN_CO.01), played in Chromium on the real mesh.

Step 14, images that carry another INS, needs a source that lies: it is played where the tests play the source
(``consumer/test_consumer_viewer_e2e.py``, ``consumer/test_consumer_bad_days.py``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import pydicom
import pytest
from mesh_world import World, eventually
from playwright.async_api import Frame, Page, expect
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from test_mesh_browser import (  # noqa: F401 - fixtures
    Watched,
    called,
    chromium,
    installed,
    listed,
    shot_of,
    watched,
)
from test_mesh_login import audit_of_b
from test_mesh_viewer import lit, viewer

from browsing import picture
from drimbox.demo.mesh import PATIENT_AT_B
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.orthanc import rest

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

# Two series each: A1 and A2, B1 and B2. The report on A is in the DMP.
A, B = EXAMS["E"][0], EXAMS["X"][0]
_SHOWN = """() => {
  try {
    const { viewportGridService, cornerstoneViewportService } = window.services;
    return [...viewportGridService.getState().viewports.keys()].map((id) => {
      const viewport = cornerstoneViewportService.getCornerstoneViewport(id);
      const image = window.cornerstone.metaData.get("instance", viewport.getCurrentImageId());
      return [image.SeriesInstanceUID, viewport.getImageIds().length];
    });
  } catch { return []; }
}"""


async def key_of(world: World, study_uid: str) -> str:
    """What names a KOS in the addresses of the list."""
    [entry] = await world.kos(study_uid)
    return hashlib.sha256(entry["unique_id"].encode()).hexdigest()[:20]


async def shows(frame: Frame, *wanted: tuple[str, int]) -> None:
    """These series are on the screen, each with so many images."""

    async def there() -> bool:
        return sorted(map(tuple, await frame.evaluate(_SHOWN))) == sorted(wanted)

    await eventually(there, f"not on the screen: {wanted}", 60, 0.25)


async def seen(page: Page) -> Frame:
    """The viewer in the page, once it is there."""

    async def there() -> bool:
        return any(frame != page.main_frame and "/visionneuse/" in frame.url for frame in page.frames)

    await eventually(there, "no viewer in the page", 30, 0.1)
    return viewer(page)


async def look_of(frame: Frame) -> bytes:
    shot = imagecodecs.png_decode(await picture(frame.locator("canvas.cornerstone-canvas").first))
    return bytes(shot[::6, ::6, :3].tobytes())


async def tried(page: Page, frame: Frame, tool: str) -> None:
    """The tool, dragged over the image, changes what is seen."""
    await frame.locator(f"[data-cy='{tool}']").first.click()
    before = await look_of(frame)
    box = await frame.locator("canvas.cornerstone-canvas").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    await page.mouse.move(x, y)
    await page.mouse.down()
    await page.mouse.move(x + 60, y + 90, steps=6)
    await page.mouse.up()

    async def changed() -> bool:
        return await look_of(frame) != before

    await eventually(changed, f"{tool} changes nothing", 20, 0.25)


def pixels(dataset: Dataset) -> Any:
    """What is seen, whatever form it lies in."""
    kind = dataset.file_meta.TransferSyntaxUID
    if kind == "1.2.840.10008.1.2.4.80":
        return imagecodecs.jpegls_decode(get_frame(dataset.PixelData, 0, number_of_frames=1))
    if kind == "1.2.840.10008.1.2.4.70":
        return imagecodecs.ljpeg_decode(get_frame(dataset.PixelData, 0, number_of_frames=1))
    return dataset.pixel_array


async def imported(page: Page, call: str, key: str, series_uid: str, count: int) -> None:
    """One series alone, by the page of its exam, to the end."""
    await page.goto(call)
    await page.click(f"#import-{key}")
    for box in await page.locator('input[name="serie"]').all():
        await box.set_checked(await box.get_attribute("value") == series_uid)
    await page.click("#importer")
    await expect(page.get_by_text(f"{count} sur {count} enregistrées et retrouvées").first).to_be_visible(
        timeout=60_000
    )


@pytest.mark.requirement(
    *("DB.CO.48", "DB.CO.54", "DB.CO.55", "DB.CO.57", "DB.CO.58", "DB.CO.59", "DB.CO.60", "DB.CO.77", "DB.CO.78"),
    *("DB.CO.82", "DB.CO.123", "DB.VI-CO.05", "DB.VI-CO.06", "DB.VI-CS.18", "DB.VI-CS.20", "DB.VI-CS.21"),
    *("DB.VI-CS.25", "DB.VI-CS.26", "DB.VI-CS.35", "DB.VI-CS.36", "DB.VI-CS.22", "exam:E", "exam:X"),
)
async def test_the_official_scenario(world: World, watched: Watched, tmp_path: Path) -> None:  # noqa: F811
    for letter in "EX":
        await world.publish(letter)
    key_a, key_b = await key_of(world, A.study_uid), await key_of(world, B.study_uid)
    fetched = len(await audit_of_b(world, "110104/RAD-107"))
    secrets: list[str] = []
    watched.context.on("request", lambda one: secrets.extend(h for h in one.headers if h == "authorization"))

    # 01 the call, 02 the login, 03 both KOS.
    page = await called(watched, world)
    await listed(page, "doc0036790")
    await expect(page.locator(f"#images-{key_a}")).to_be_visible()
    await expect(page.locator(f"#images-{key_b}")).to_be_visible()
    await expect(page.locator("header .number")).to_have_text("RPPS 99700367909")
    await expect(page.locator(".patient")).to_contain_text("PAT-TROIS")
    await expect(page.locator("th[aria-sort=descending]")).to_contain_text("Date")
    call = page.url

    # 04 KOS A, series A1; 05 the viewer; 06 and 07 asked and answered behind the browser's back.
    await page.click(f"#series-{key_a}")
    await expect(page.locator("table.exams tbody tr")).to_have_count(2)
    await page.locator("a[href$='?serie=0']").click()
    assert page.url.startswith("https://")
    # 08 as received, with its percentage and its traits.
    await expect(page.locator(".advance .figure")).to_contain_text("100 % – 26 / 26 images", timeout=60_000)
    await expect(page.locator(".diagnosis")).to_contain_text("Ne pas utiliser pour le diagnostic")
    frame = await seen(page)
    a1, a2 = (A.series_uid(series) for series in A.series)
    await shows(frame, (a1, 2))
    await lit(frame, 1)
    for words in ("PAT-TROIS", "28/03/1979", "Non destiné au diagnostic"):
        await expect(frame.locator("body")).to_contain_text(words)
    # 09 to A2 in the same session of the viewer.
    await frame.locator("[data-cy='study-browser-thumbnail']").nth(1).dblclick()
    await shows(frame, (a2, 24))
    await lit(frame, 1)
    # 10 zoom, move, contrast, slices.
    for tool in ("Zoom", "Pan", "WindowLevel"):
        await tried(page, frame, tool)
    before = await look_of(frame)
    await page.mouse.wheel(0, 300)

    async def scrolled() -> bool:
        return await look_of(frame) != before

    await eventually(scrolled, "the wheel does not scroll", 20, 0.25)
    # 11 the report beside the images, in one click.
    await page.get_by_role("button", name="À côté des images").first.click()
    await expect(page.locator("iframe.report")).to_be_visible()
    await expect(page.frame_locator("iframe.report").locator("body")).to_contain_text("imagerie")

    # 12 KOS B, series B1; 13 beside A.
    await page.goto(call)
    await page.click(f"#series-{key_b}")
    await page.locator("a[href$='?serie=0']").click()
    b1 = B.series_uid(B.series[0])
    frame = await seen(page)
    await shows(frame, (b1, 12))
    # 10 again: in the three planes, which planar images have not.
    await frame.locator("[data-cy='drimboxMpr']").first.click(timeout=60_000)
    await lit(frame, 3)
    await page.goto(call)
    await page.check(f"#choix-{key_a}")
    await page.check(f"#choix-{key_b}")
    await page.click("#bouton-comparer")
    await expect(page.locator(".advance .figure")).to_contain_text("50 / 50 images", timeout=60_000)
    await shows(await seen(page), (a1, 2), (b1, 12))
    await lit(await seen(page), 2)
    await picture(page, shot_of("scenario-compare", tmp_path))

    # 15 A1 and B1, asked for anew without loss, under the local number in the local PACS.
    asked = len(await audit_of_b(world, "110104/RAD-107"))
    assert asked - fetched == 4
    await imported(page, call, key_a, a1, 2)
    await imported(page, call, key_b, b1, 12)
    assert len(await audit_of_b(world, "110104/RAD-107")) - asked == 2
    for series_uid, count in ((a1, 2), (b1, 12)):
        query = json.dumps({"Level": "Instance", "Query": {"SeriesInstanceUID": series_uid}, "Expand": True}).encode()
        held = json.loads(await asyncio.to_thread(rest, world.mesh.pacs_b, "POST", "/tools/find", query))
        assert len(held) == count
        octets = await asyncio.to_thread(rest, world.mesh.pacs_b, "GET", f"/instances/{held[0]['ID']}/file")
        stored = pydicom.dcmread(BytesIO(octets))
        original = pydicom.dcmread(BytesIO(world.original(stored.SOPInstanceUID)))
        assert stored.PatientID == PATIENT_AT_B.ipp
        assert (pixels(stored) == pixels(original)).all()
    # No token ever came to the browser.
    assert secrets == []
    assert await page.evaluate("document.cookie") in ("", "i18next=fr")
