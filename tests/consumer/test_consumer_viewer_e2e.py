"""The viewer in a real browser, on series that are still on their way: what is on the screen, and when."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import imagecodecs
import numpy as np
import pytest
from consumer_world import DOMINIQUE, PATIENCE, Site, make_study
from playwright.async_api import Frame, Page, expect
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from browsing import chromium_running, picture
from drimbox.foundation.errors import IdentityMismatch, Unavailable

pytestmark = pytest.mark.e2e
expect.set_options(timeout=PATIENCE)

CT = Path(get_testdata_file("CT_small.dcm"))
# A class of images that no viewer has on its list.
UNKNOWN = "1.2.840.10008.5.1.4.1.1.2.99"
STACK = """() => {
  const { viewportGridService, cornerstoneViewportService } = window.services ?? {};
  let ids = [];
  try { ids = [...viewportGridService.getState().viewports.keys()]; } catch { return []; }
  return ids.map((id) => {
    const viewport = cornerstoneViewportService.getCornerstoneViewport(id);
    const shown = viewport?.getImageIds?.().length ? viewport.getCurrentImageId() : null;
    const image = shown ? window.cornerstone.metaData.get("instance", shown) : null;
    const images = viewport?.getImageIds?.().length ?? 0;
    return { images, number: image?.InstanceNumber ?? 0, uid: image?.SOPInstanceUID };
  });
}"""
VOLUMES = """() => window.services.displaySetService.getActiveDisplaySets().map(
  (set) => [set.images.length, set.isReconstructable],
)"""


class Turnstile:
    """Lets images through as they are counted out."""

    def __init__(self) -> None:
        self._left = asyncio.Semaphore(0)

    async def wait(self) -> None:
        await self._left.acquire()

    def let(self, count: int) -> None:
        for _ in range(count):
            self._left.release()


@pytest.fixture
async def page(site: Site) -> AsyncIterator[Page]:
    async with chromium_running() as browser:
        context = await browser.new_context(
            ignore_https_errors=True, viewport={"width": 1600, "height": 1000}, locale="fr-FR"
        )
        context.set_default_timeout(PATIENCE)
        page = await context.new_page()
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        yield page
        await context.close()
        assert failures == []


async def listed(page: Page, site: Site) -> list[str]:
    """From the call of the RIS to the list; the addresses of the images, in its order."""
    inputs = "".join(f'<input name="{k}" value="{html.escape(v)}">' for k, v in DOMINIQUE.call().items())
    await page.set_content(f'<form method="post" action="{site.origin}/drim">{inputs}<button>Appeler</button></form>')
    await page.click("button")
    await page.wait_for_url(f"{site.origin}/appel/*")
    await page.click("a.psc")
    await page.check("input[name=lu]")
    await page.click("text=Continuer")
    await page.wait_for_selector("table.exams a[href*='/images/']")
    found: list[str] = await page.eval_on_selector_all("a[href*='/images/']", "links => links.map(one => one.href)")
    return list(dict.fromkeys(found))


async def viewer(page: Page) -> Frame:
    for _ in range(200):
        for frame in page.frames:
            if frame != page.main_frame and "/visionneuse/" in frame.url:
                return frame
        await asyncio.sleep(0.05)
    raise AssertionError("no viewer in the page")


async def stacks(frame: Frame, wanted: Any, patience: float = 40) -> list[dict[str, Any]]:
    """The stacks on the screen, once they are as wanted."""
    for _ in range(int(patience / 0.1)):
        found = cast(list[dict[str, Any]], await frame.evaluate(STACK))
        if wanted(found):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"on the screen: {found}")


async def likeness(frame: Frame, original: Path) -> float:
    """How much the first canvas looks like the image as its header wants it seen: 1 is the same."""
    canvas = frame.locator("canvas.cornerstone-canvas").first
    shot = imagecodecs.png_decode(await picture(canvas))[..., :3].mean(axis=2)
    dataset = dcmread(original)
    values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    side = min(shot.shape)
    top, left = (shot.shape[0] - side) // 2, (shot.shape[1] - side) // 2
    steps = (np.arange(side) * values.shape[0] / side).astype(int)
    expected = values[np.ix_(steps, steps)]
    middle = slice(side // 5, -side // 5)
    seen = shot[top : top + side, left : left + side][middle, middle]
    return float(np.corrcoef(seen.ravel(), expected[middle, middle].ravel())[0, 1])


def slices(folder: Path, count: int, sop_class: str = "1.2.840.10008.5.1.4.1.1.2") -> list[Path]:
    """Slices of one volume, each another picture."""
    made = []
    for number in range(count):
        dataset = dcmread(CT)
        dataset.PixelData = np.roll(dataset.pixel_array, 3 * number, axis=0).tobytes()
        dataset.ImagePositionPatient = [0, 0, 5 * number]
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        made.append(folder / f"slice{number}.dcm")
        dataset.save_as(made[-1])
    return made


@pytest.mark.requirement("DB.VI-CS.17", "DB.VI-CS.18", "DB.VI-CO.39", "DB.VI-CS.25", "DB.VI-CS.26")
async def test_a_series_is_seen_and_scrolled_while_it_arrives(site: Site, page: Page, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 24)])
    (files,) = study.files.values()
    site.hold(DOMINIQUE, study)
    gate = Turnstile()
    site.sources.gate = cast(asyncio.Event, gate)
    (address,) = await listed(page, site)
    gate.let(1)
    await page.goto(address)
    # One image of 24: it is on the screen, before the viewer itself has started, and says whose it is.
    picture = page.locator("#apercu img")
    await expect(picture).to_be_visible()
    await expect(page.locator("#apercu")).to_contain_text("PAT-TROIS")
    await expect(page.locator("#apercu")).to_contain_text("Ne pas utiliser pour le diagnostic")
    frame = await viewer(page)
    (one,) = await stacks(frame, lambda found: found and found[0]["images"] == 1)
    await expect(page.locator("#apercu")).to_have_count(0)
    assert one["uid"] == study.manifest.series[0].instances[0].sop_instance_uid
    await eventually_like(frame, files[0])
    await expect(page.locator(".advance .figure")).to_contain_text("4 % – 1 / 24 images")
    # More come, in the order of their arrival; what is looked at stays.
    gate.let(9)
    (one,) = await stacks(frame, lambda found: found[0]["images"] == 10)
    assert one["number"] == 1
    canvas = frame.locator("canvas.cornerstone-canvas").first
    await canvas.hover()
    for _ in range(4):
        await page.mouse.wheel(0, 100)
        await asyncio.sleep(0.1)
    (one,) = await stacks(frame, lambda found: found[0]["number"] == 5)
    await eventually_like(frame, files[4])
    gate.let(14)
    (one,) = await stacks(frame, lambda found: found[0]["images"] == 24)
    await expect(page.locator(".advance .figure")).to_contain_text("100 % – 24 / 24 images")
    assert one["uid"] == study.manifest.series[0].instances[4].sop_instance_uid
    await eventually_like(frame, files[4])
    # Whole, it is a volume like any other.
    for _ in range(100):
        if await frame.evaluate(VOLUMES) == [[24, True]]:
            break
        await asyncio.sleep(0.1)
    assert await frame.evaluate(VOLUMES) == [[24, True]]
    assert len(site.sources.asked) == 1


async def eventually_like(frame: Frame, original: Path) -> None:
    for _ in range(60):
        if (found := await likeness(frame, original)) > 0.9:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not the image that it should be: {found:.2f}")


@pytest.mark.requirement("DB.CO.68", "DB.VI-CO.27")
async def test_what_must_not_be_shown_leaves_the_screen(site: Site, page: Page, tmp_path: Path) -> None:
    """A source turns out to send another patient's images when some are on the screen already."""
    study = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 8)])
    (url,) = study.files
    site.hold(DOMINIQUE, study)
    gate = Turnstile()
    site.sources.gate = cast(asyncio.Event, gate)
    site.sources.failures[url] = IdentityMismatch("L'INS des images n'est pas celle du patient", code="ins-differs")
    (address,) = await listed(page, site)
    gate.let(3)
    await page.goto(address)
    frame = await viewer(page)
    await stacks(frame, lambda found: found and found[0]["images"] == 3)
    gate.let(8)
    await expect(page.locator("#pannes")).to_contain_text("L'INS des images n'est pas celle du patient")
    await expect(page.locator("iframe.viewer")).to_be_hidden()
    await expect(page.locator("#pannes form")).to_be_hidden()
    assert not list(site.folder.rglob("*.dcm"))


@pytest.mark.requirement("DB.VI-CO.27", "DB.VI-CS.18", "DB.VI-CS.31")
async def test_what_came_before_a_cut_stays_and_the_rest_is_asked_again(site: Site, page: Page, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 8, UNKNOWN)])
    (url,) = study.files
    site.hold(DOMINIQUE, study)
    site.sources.failures[url] = Unavailable("Récupération des images interrompue", code="source-error")
    (address,) = await listed(page, site)
    await page.goto(address)
    await stacks(await viewer(page), lambda found: found and found[0]["images"] == 4)
    failures = page.locator("#pannes")
    await expect(failures).to_contain_text("(4 images sur 8)")
    await expect(failures).to_contain_text("interrompue")
    site.sources.failures.clear()
    await failures.get_by_role("button", name="Réessayer").click()
    await stacks(await viewer(page), lambda found: found and found[0]["images"] == 8)
    await expect(page.locator("#pannes")).to_be_hidden()


@pytest.mark.slow
@pytest.mark.requirement("DB.VI-CS.35", "DB.VI-CS.36", "DB.CO.107")
async def test_two_exams_side_by_side(site: Site, page: Page, tmp_path: Path) -> None:
    newer = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 6)], day="20240115")
    older = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 6)], day="20220110", accession="ACN102")
    site.hold(DOMINIQUE, newer, older)
    addresses = await listed(page, site)
    await page.goto(addresses[0])
    await page.click("text=Comparer avec…")
    await page.locator(".beside a").first.click()
    await page.wait_for_url("**/comparaison?*")
    frame = await viewer(page)
    both = await stacks(frame, lambda found: len(found) == 2 and all(each["images"] == 6 for each in found))
    listed_in = [{i.sop_instance_uid for i in each.manifest.series[0].instances} for each in (newer, older)]
    assert [[each["uid"] in uids for uids in listed_in] for each in both] == [[True, False], [False, True]]
    await eventually_like(frame, next(iter(newer.files.values()))[both[0]["number"] - 1])
    # Linked, one wheel moves both.
    await frame.locator('[data-cy="ImageSliceSync"]').first.click()
    await frame.locator("canvas.cornerstone-canvas").first.hover()
    for _ in range(2):
        await page.mouse.wheel(0, 100)
        await asyncio.sleep(0.2)
    begun = both[0]["number"]
    await stacks(frame, lambda found: {abs(each["number"] - begun) for each in found} == {2})


@pytest.mark.slow
@pytest.mark.requirement("DB.VI-CS.24")
async def test_pet_and_ct_are_fused(site: Site, page: Page, tmp_path: Path) -> None:
    """OHIF's own mode for it, opened from our page where an exam has both."""
    study = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 12), slices(tmp_path, 12)])
    ct, pet = study.manifest.series
    for number, path in enumerate(study.files[pet.retrieve_url]):
        as_pet(path, number)
    manifest = replace(study.manifest, series=(ct, replace(pet, modality="PT")))
    site.hold(DOMINIQUE, replace(study, manifest=manifest))
    (address,) = await listed(page, site)
    await page.goto(address)
    await stacks(await viewer(page), lambda found: found and found[0]["images"] == 12)
    await page.get_by_role("link", name="Fusion TEP-TDM").click()
    canvases = page.frame_locator("iframe.viewer").locator("canvas.cornerstone-canvas")
    # Three planes of each, three of both, and the projection.
    await expect(canvases).to_have_count(10, timeout=PATIENCE)
    assert any("/tmtv" in frame.url for frame in page.frames)


def as_pet(path: Path, number: int) -> None:
    """A slice of activity concentration, as a PET scanner describes it."""
    dataset = dcmread(path)
    dataset.Modality = "PT"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
    dataset.Units, dataset.DecayCorrection, dataset.PatientWeight = "BQML", "START", 70
    dataset.CorrectedImage = ["ATTN", "DECY"]
    dataset.SeriesDate = dataset.AcquisitionDate = "20240115"
    dataset.SeriesTime = dataset.AcquisitionTime = "101500"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.FrameReferenceTime, dataset.ActualFrameDuration, dataset.ImageIndex = 0, 60000, number + 1
    dose = Dataset()
    dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = 370000000, 6586.2
    dose.RadiopharmaceuticalStartTime = "091500"
    dataset.RadiopharmaceuticalInformationSequence = [dose]
    dataset.save_as(path)


def tomosynthesis(folder: Path, frames: int) -> Path:
    """A breast tomosynthesis object: one file, many slices (PS3.3 A.55), made of a real image."""
    dataset = dcmread(CT)
    picture = (dataset.pixel_array.astype(np.int32) + 1024).clip(0, 4095).astype(np.uint16)
    for name in ("RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, name)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.13.1.3"
    dataset.ImageType = ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
    dataset.ImageLaterality, dataset.PresentationIntentType = "L", "FOR PRESENTATION"
    dataset.NumberOfFrames, dataset.PixelRepresentation = frames, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = b"".join(np.roll(picture, 4 * number, axis=1).tobytes() for number in range(frames))
    measures, orientation, lut, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.1, 0.1], 1
    orientation.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    lut.RescaleIntercept, lut.RescaleSlope, lut.RescaleType = 0, 1, "US"
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 1200, 1600
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence, shared.FrameVOILUTSequence = [lut], [window]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number in range(frames):
        place, content, group = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [number, 0, 0]
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number + 1, [1, number + 1]
        group.PlanePositionSequence, group.FrameContentSequence = [place], [content]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.save_as(folder / "tomosynthesis.dcm")
    return folder / "tomosynthesis.dcm"


@pytest.mark.slow
@pytest.mark.requirement("DB.VI-CS.30", "DB.VI-CS.31", "DB.CS.86")
async def test_a_breast_tomosynthesis_is_a_stack_of_its_slices(site: Site, page: Page, tmp_path: Path) -> None:
    site.hold(DOMINIQUE, make_study(tmp_path, DOMINIQUE, [[tomosynthesis(tmp_path, 12)]], modality="MG"))
    (address, *_) = await listed(page, site)
    await page.goto(address)
    frame = await viewer(page)
    await stacks(frame, lambda shown: shown and shown[0]["images"] == 12)
    canvas = frame.locator("canvas.cornerstone-canvas").first

    async def levels() -> bytes:
        shot = imagecodecs.png_decode(await picture(canvas))[..., :3]
        assert shot.std() > 10
        return bytes(shot[::8, ::8].tobytes())

    first = await levels()
    await canvas.hover()
    for _ in range(6):
        await page.mouse.wheel(0, 120)
        await asyncio.sleep(0.1)
    for _ in range(100):
        if await levels() != first:
            break
        await asyncio.sleep(0.1)
    assert await levels() != first
