"""The viewer's words: all that is read in it, menu after menu, dialog after dialog, is French."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from consumer_world import DOMINIQUE, PATIENCE, Site, make_study
from playwright.async_api import Error, Frame, Page, expect
from pydicom import dcmread
from pydicom.dataset import Dataset
from test_consumer_viewer_e2e import CT, as_pet, listed, page, slices, stacks, viewer

from browsing import picture
from drimbox.manifest.manifest import KeyMark
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION, Concept

__all__ = ["page"]

pytestmark = pytest.mark.e2e

# Everything that a person may read or hear: texts that are shown, and what stands for things without a text.
READ = """() => {
  const found = new Set();
  const shown = (element) => {
    const style = getComputedStyle(element);
    return element.getClientRects().length > 0 && style.visibility !== "hidden";
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const around = texts.currentNode.parentElement;
    if (around && !around.closest("script, style, noscript") && shown(around)) found.add(texts.currentNode.data.trim());
  }
  for (const element of document.querySelectorAll("*")) {
    if (!shown(element)) continue;
    for (const name of ["aria-label", "title", "placeholder", "alt", "aria-description"]) {
      const value = element.getAttribute(name);
      if (value) found.add(value.trim());
    }
  }
  return [...found].filter(Boolean);
}"""


Act = Callable[["Reader"], Awaitable[object]]


# Whose image it is, and what it is not for, that cannot be read whole.
CUT = """() => [...document.querySelectorAll(".overlay-top .overlay-item span")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflow === "hidden")
  .map((one) => one.textContent)"""


class Reader:
    def __init__(self, page: Page, frame: Frame, folder: Path) -> None:
        self.page, self.frame, self.folder = page, frame, folder
        self.read: dict[str, str] = {}
        self.missed: list[str] = []

    async def look(self, state: str) -> None:
        await asyncio.sleep(0.4)
        for text in await self.frame.evaluate(READ):
            if text not in self.read:
                self.read[text] = state
        await picture(self.page, self.folder / f"{len(list(self.folder.glob('*.png'))):02d}-{state}.png")

    async def each(self, selector: str, state: str, *, hover: bool) -> None:
        count = await self.frame.locator(selector).count()
        for number in range(count):
            item = self.frame.locator(selector).nth(number)
            name = await item.get_attribute("data-cy") or str(number)
            try:
                if hover:
                    await item.hover(timeout=2000)
                    await asyncio.sleep(0.5)
                else:
                    await item.click(timeout=2000)
            except Error as error:
                self.missed.append(f"{state} {name}: {str(error)[:80]}")
                continue
            await self.look(f"{state}-{name}"[:60].replace("/", "_"))
            if not hover:
                await self.page.keyboard.press("Escape")
                await asyncio.sleep(0.2)


# Words that no French sentence has; "image", "zoom" and their like are both languages'.
ENGLISH = re.compile(
    r"\b(?:about|add|all|and|are|area|axis|back|between|bone|brain|browser|cancel|change|circle|clear|click|"
    r"close|color|copy|create|data|date range|delete|description of|diagnostic use|disable|display|done|download|"
    r"drawing|edit|enable|ellipse tool|empty|enter|error|export as|fill|flip|for|frame|freehand|from|has|height|"
    r"help|hide|hotkeys?|hover|import|in|include|instances?|invert|is|it|keyboard|label|language|layout|left|length|"
    r"level|levels|list|liver|load|loading|lock|lung|magnify|mean|measure|measurements?|name|next|no|not|of|off|"
    r"opacity|open|outline|overlay|pan|please|preferences|presets?|preview|previous|rectangle tool|redo|reformat|"
    r"rename|reset|right|rotate|save|scroll|search|select|selected|series is|settings|shift|show|size|sort|stack|std|"
    r"studies|study|the|this|threshold|thumbnails?|toggle|tools?|track|tracked|tracking|true|undo|unlock|untrack\w*|"
    r"untracked|use|value|view|viewer|viewport|visibility|weight|width|window|with|yes|you|your|"
    r"jan|feb|apr|aug|january|february|march|april|june|july|august|october|december)\b",
    re.IGNORECASE,
)
# What is the images' own, and names.
THEIRS = re.compile(r"JFK IMAGING CENTER|EXAMEN DE TEST|[\d.\\^ ]+|ORIGINAL.*|e\+1|Im\. ?:|Non|Tag|[A-Z][A-Za-z]+UID")


def english(texts: dict[str, str]) -> dict[str, str]:
    """What is not French, with where it was read. The attributes of DICOM have their standard's names."""
    return {
        text: state
        for text, state in texts.items()
        if state != "tags" and not THEIRS.fullmatch(text) and ENGLISH.search(text)
    }


@pytest.mark.slow
@pytest.mark.requirement("DB.VI-CS.20", "DB.VI-CS.21", "DB.VI-CS.22", "DB.VI-CS.23", "DB.VI-CS.24", "DB.VI-CO.41")
async def test_every_menu_and_dialog_is_french(site: Site, page: Page, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 12), slices(tmp_path, 12)])
    ct, pet = study.manifest.series
    for number, path in enumerate(study.files[pet.retrieve_url]):
        as_pet(path, number)
    site.hold(DOMINIQUE, replace(study, manifest=replace(study.manifest, series=(ct, replace(pet, modality="PT")))))
    (address,) = await listed(page, site)
    await page.goto(address)
    frame = await viewer(page)
    await stacks(frame, lambda found: found and found[0]["images"] == 12)
    reader = Reader(page, frame, tmp_path)
    await reader.look("start")
    await reader.each("button[data-cy]:visible", "hover", hover=True)
    await reader.each("[data-cy$='-split-button-secondary']", "menu", hover=False)
    await reader.each("[data-cy='Layout'], button[aria-haspopup]:visible", "popup", hover=False)
    for state, act in STATES.items():
        try:
            await act(reader)
        except Error as error:
            reader.missed.append(f"{state}: {error}")
        await reader.look(state)
        assert await reader.frame.evaluate(CUT) == [], state
    await page.get_by_role("link", name="Fusion TEP-TDM").click()
    canvases = page.frame_locator("iframe.viewer").locator("canvas.cornerstone-canvas")
    await expect(canvases).to_have_count(10, timeout=PATIENCE)
    reader.frame = await viewer(page)
    await reader.look("fusion")
    await reader.each("button[data-cy]:visible", "fusion", hover=True)
    print(reader.missed)
    assert english(reader.read) == {}
    # What was to be opened was opened.
    assert {"Préférences utilisateur", "Attributs DICOM", "Suivre les mesures pour cette série ?"} <= reader.read.keys()
    assert not [missed for missed in reader.missed if missed.split(":")[0] in STATES]


def note_of(folder: Path) -> Path:
    """A key-image note with an author, as a PACS keeps it."""
    dataset = dcmread(CT)
    for name in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, name)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = KEY_OBJECT_SELECTION
    dataset.ContentDate = "20240115"
    observer, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "121008", "DCM", "Person Observer Name"
    observer.RelationshipType, observer.ValueType, observer.PersonName = "HAS OBS CONTEXT", "PNAME", "BIDEAULT^JACQUES"
    observer.ConceptNameCodeSequence = [code]
    dataset.ContentSequence = [observer]
    dataset.save_as(folder / "note.dcm")
    return folder / "note.dcm"


@pytest.mark.requirement("DB.VI-CS.34", "DB.CO.107")
async def test_why_an_image_was_flagged_is_told_beside_it_and_by_whom(site: Site, page: Page, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [slices(tmp_path, 3), [note_of(tmp_path)]])
    images, note = study.manifest.series
    flagged, [said] = images.instances[-1].sop_instance_uid, note.instances
    title = Concept("113003", "DCM", "For Surgery")
    mark = KeyMark(flagged, said.sop_instance_uid, note.series_uid, title, "Lésion à revoir\navant l’intervention")
    manifest = replace(study.manifest, series=(images, replace(note, modality="KO")), marks=(mark,))
    site.hold(DOMINIQUE, replace(study, manifest=manifest))
    addresses = await listed(page, site)
    await page.goto(addresses[0])
    frame = await viewer(page)
    await stacks(frame, lambda found: found and found[0]["uid"] == flagged)
    assert await frame.evaluate("window.drimboxFrench.i18n.language") == "fr"
    await expect(frame.locator("[data-cy='studyBrowser-panel']")).to_contain_text("15/01/2024")
    told = "Image clé : Pour la chirurgie – Lésion à revoir avant l’intervention"
    await expect(frame.locator("[data-cy='viewport-overlay-top-right']")).to_contain_text(told)
    await page.get_by_text("Images clés (1)").focus()
    await page.keyboard.press("Enter")
    keys = page.locator("details.keys li")
    await expect(keys).to_contain_text("Pour la chirurgie Série 1, image 3")
    await expect(keys.locator(".who")).to_have_text("Signalée par BIDEAULT JACQUES, le 15/01/2024")
    await picture(page, tmp_path / "key-images.png")
    for width, height in ((1280, 800), (1366, 768), (3840, 2160), (1600, 1000)):
        await page.set_viewport_size({"width": width, "height": height})
        for place in (page, frame):
            assert await place.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), (width, place)
        await picture(page, tmp_path / f"key-images-{width}.png")
    await page.keyboard.press("Enter")
    await frame.locator("canvas.cornerstone-canvas").first.hover()
    await page.mouse.wheel(0, 100)
    await stacks(frame, lambda found: found[0]["uid"] != flagged)
    await expect(frame.locator("[data-cy='viewport-overlay-top-right']")).not_to_contain_text("Image clé")


async def drag(reader: Reader, lower: int) -> None:
    box = await reader.frame.locator("canvas.cornerstone-canvas").first.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - lower
    await reader.page.mouse.move(x - 100, y)
    await reader.page.mouse.down()
    await reader.page.mouse.move(x, y, steps=4)
    await reader.page.mouse.move(x + 80, y + 40, steps=4)
    await reader.page.mouse.up()
    await asyncio.sleep(0.5)


async def draw(reader: Reader) -> None:
    await press(reader, "[data-cy='MeasurementTools-split-button-primary']")
    await drag(reader, 0)


async def press(reader: Reader, selector: str) -> None:
    await reader.frame.locator(selector).first.click(timeout=5000)


def pressing(*selectors: str) -> Act:
    async def act(reader: Reader) -> None:
        for selector in selectors:
            await press(reader, selector)
            await asyncio.sleep(0.5)

    return act


async def escape(reader: Reader) -> None:
    await reader.page.keyboard.press("Escape")


async def on_the_measurement(reader: Reader) -> None:
    line = reader.frame.locator("svg.svg-layer text, svg text").last
    box = await line.bounding_box()
    assert box
    await reader.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, button="right")


async def ellipse(reader: Reader) -> None:
    await press(reader, "[data-cy='MeasurementTools-split-button-secondary']")
    await press(reader, "[data-cy='EllipticalROI']")
    await drag(reader, -60)


STATES: dict[str, Act] = {
    "length": draw,
    "track": pressing("text=Oui"),
    "ellipse": ellipse,
    "measurements": pressing("[data-cy='trackedMeasurements-btn']"),
    "row-hover": lambda reader: reader.frame.locator("[data-cy='data-row']").first.hover(),
    "row-menu": pressing("[data-cy='data-row'] button[aria-haspopup=menu]"),
    "row-menu-closed": escape,
    "context": on_the_measurement,
    "label": pressing("text=Ajouter un libellé"),
    "label-closed": escape,
    "segmentation": pressing("[data-cy='panelSegmentation-btn']"),
    "orientation": pressing("[data-cy='orientationMenu-btn']"),
    "orientation-closed": escape,
    "overlay": pressing("[data-cy='dataOverlayMenu-default-btn']"),
    "overlay-closed": escape,
    "window": pressing("[data-cy='windowLevelMenu-btn']"),
    "window-closed": escape,
    "about": pressing("[data-cy='redo-btn'] >> xpath=following::button[1]", "text=À propos"),
    "about-closed": escape,
    "preferences": pressing("[data-cy='redo-btn'] >> xpath=following::button[1]", "text=Préférences"),
    "preferences-closed": escape,
    "capture": pressing("[data-cy='Capture-btn']"),
    "capture-closed": escape,
    "tags": pressing("[data-cy='MoreTools-split-button-secondary']", "[data-cy='TagBrowser']"),
    "tags-closed": escape,
    "cine": pressing("[data-cy='Cine-btn']"),
    "cine-again": pressing("[data-cy='Cine-btn']"),
    "thumbnail-menu": pressing("[data-cy='study-browser-thumbnail'] button"),
    "thumbnail-menu-closed": escape,
    "mpr": pressing("[data-cy='drimboxMpr-btn']"),
    "mpr-menu": pressing("[data-cy='windowLevelMenu-btn']"),
    "mpr-menu-closed": escape,
    "mpr-orientation": pressing("[data-cy='orientationMenu-btn']"),
    "mpr-orientation-closed": escape,
    "mip": pressing("[data-cy='drimboxMip-btn']"),
}
