"""The radiologist's way in a real browser, on the real mesh: from the RIS of site B to the pixels of site A."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mesh_world import PATIENCE, World, eventually
from playwright.async_api import Browser, BrowserContext, Page, expect

from browsing import CHROMIUM, chromium_running, picture

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

WITH_IMAGES = "ABCE"


def key_pin(certificate: Path) -> str:
    """The hash by which Chromium is told to believe a key of the test authority."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")


@dataclass
class Watched:
    """A browser of its own cookies, and whatever it complained about."""

    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    async def page(self) -> Page:
        return await self.context.new_page()


@pytest.fixture(scope="module")
def installed() -> None:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chromium(installed: None, world: World) -> AsyncIterator[Browser]:
    national = world.mesh.state / "national" / "pki"
    pins = [key_pin(national / f"{name}.pem") for name in ("psc-serveur", "ris-serveur", "b-consumer", "a-vi")]
    async with chromium_running(*pins) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def watched(world: World, chromium: Browser) -> AsyncIterator[Watched]:
    """A browser that must end without a complaint: no error in the console, nothing asked of anyone else."""
    for letter in WITH_IMAGES:
        await world.publish(letter)
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, locale="fr-FR")
    context.set_default_timeout(PATIENCE)
    watched = Watched(context)
    ours = re.compile(r"(https://localhost:\d+/|data:|blob:|about:|chrome:|chrome-extension:)")

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: watched.complaints.append(f"{page.url}: {error}"))
        page.on("console", lambda m: watched.complaints.append(f"{page.url}: {m.text}") if m.type == "error" else None)
        page.on("request", lambda r: None if ours.match(r.url) else watched.complaints.append(r.url))

    context.on("page", watch)
    yield watched
    await context.close()
    assert watched.complaints == []


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def shot_of(name: str, tmp_path: Path) -> Path:
    """Where a picture goes: to the folder that DRIMBOX_SCREENSHOTS names, if it names one."""
    return Path(os.environ.get("DRIMBOX_SCREENSHOTS", tmp_path)) / f"{name}.png"


async def called(watched: Watched, world: World) -> Page:
    """From the page of site B's RIS, one click opens the DRIMbox in a tab of its own."""
    ris = await watched.page()
    await ris.goto(world.endpoints["ris"]["b"])
    async with watched.context.expect_page() as opening:
        await ris.click("text=Images antérieures (DRIM-M)")
    page = await opening.value
    await page.wait_for_load_state()
    return page


async def listed(page: Page, login: str) -> None:
    await page.click("text=S’identifier avec")
    await page.click(f"button[value={login}]")
    await page.locator("input[name=lu], #liste").first.wait_for()
    # Asked once per user, not once per login (DMP/AIRS.07).
    if await page.locator("input[name=lu]").count():
        await page.check("text=J’en ai pris connaissance")
        await page.click("text=Continuer")


async def grey_levels(page: Page) -> int:
    """How many different levels the middle of the viewer's first canvas shows on the screen."""
    canvas = page.frame_locator("iframe.viewer").locator("canvas.cornerstone-canvas").first
    await canvas.wait_for(timeout=PATIENCE)
    shot = imagecodecs.png_decode(await picture(canvas))[..., :3].mean(axis=2)
    height, width = shot.shape
    return len(np.unique(shot[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]))


async def shows_pixels(page: Page) -> None:
    async def many() -> bool:
        return await grey_levels(page) > 48

    await eventually(many, "the viewer shows no image", 40, 0.25)


@pytest.mark.requirement("DB.CO.48", "DB.CO.54", "DB.CO.63", "DB.VI-CO.05", "exam:E")
async def test_from_the_ris_to_the_pixels(world: World, watched: Watched, tmp_path: Path) -> None:
    page = await called(watched, world)
    await listed(page, "doc0036790")
    rows = page.locator("table.exams tbody tr")
    await expect(rows.first).to_be_visible()
    assert await rows.count() >= len(WITH_IMAGES)
    await expect(page.locator(".patient")).to_contain_text("PAT-TROIS")
    await picture(page, shot_of("list", tmp_path))
    of_exam_e = page.locator("tr", has_text="Scintigraphie").filter(has_text="Lire le compte rendu")
    await of_exam_e.get_by_text("Ouvrir les images").click()
    await shows_pixels(page)
    await expect(page.locator(".advance .figure")).to_contain_text("26 / 26 images")
    await expect(page.locator(".strip")).to_contain_text("Ne pas utiliser pour le diagnostic")
    await page.wait_for_timeout(500)
    await picture(page, shot_of("viewer", tmp_path))
    # The report is next to its images, in a tab of its own.
    async with watched.context.expect_page() as opening:
        await page.click("text=Lire le compte rendu")
    report = await opening.value
    await report.wait_for_load_state()
    await expect(report.locator("h1")).to_contain_text("imagerie médicale")
    source = await report.locator("iframe.pdf").get_attribute("src")
    kind, beginning = await report.evaluate(
        "async a => { const r = await fetch(a); return [r.headers.get('content-type'), (await r.text()).slice(0, 5)] }",
        source,
    )
    assert (kind, beginning) == ("application/pdf", "%PDF-")

    async def white() -> bool:
        # The sheet of the report, on the grey ground of the browser's own reader.
        shot = imagecodecs.png_decode(await picture(report))
        return bool((shot[400:700, 200:1080, :3].min(axis=2) > 250).mean() > 0.3)

    await eventually(white, "the report is not shown", 20, 0.25)
    await picture(report, shot_of("report", tmp_path))


@pytest.mark.requirement("exam:A")
async def test_three_hundred_slices(world: World, watched: Watched) -> None:
    """Exam A, 157 MB; the wheel goes from slice to slice."""
    page = await called(watched, world)
    await listed(page, "doc0036790")
    of_exam_a = page.locator("tr", has_text="Scanner").filter(has_text="Lire le compte rendu")
    await of_exam_a.get_by_text("Ouvrir les images").click()
    await expect(page.locator(".advance .figure")).to_contain_text("300 / 300 images", timeout=PATIENCE)
    await shows_pixels(page)
    viewer = page.frame_locator("iframe.viewer")
    canvas = viewer.locator("canvas.cornerstone-canvas").first
    before = imagecodecs.png_decode(await picture(canvas))
    await canvas.hover()
    for _ in range(10):
        await page.mouse.wheel(0, 100)

    async def moved() -> bool:
        return not np.array_equal(imagecodecs.png_decode(await picture(canvas)), before)

    await eventually(moved, "the wheel does not scroll", 20, 0.25)
    await shows_pixels(page)


@pytest.mark.requirement("DB.CO.50", "DB.CO.63", "D22", "DMP/UX.08")
async def test_by_keyboard_alone(world: World, watched: Watched, tmp_path: Path) -> None:
    """Several practices, and no authorisation yet: chosen and recorded without touching the mouse."""
    page = await called(watched, world)

    async def tab_to(selector: str) -> None:
        await page.locator(selector).first.wait_for()
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"{selector} cannot be reached by keyboard")

    await tab_to("a.psc")
    await page.keyboard.press("Enter")
    await tab_to("button[value=bideault]")
    await page.keyboard.press("Enter")
    await page.locator("input[name=lu], input[name=situation], a[href$='/situation']").first.wait_for()
    if await page.locator("input[name=lu]").count():
        await tab_to("input[name=lu]")
        await page.keyboard.press("Space")
        await page.keyboard.press("Enter")
    # One practice at each site; this box serves one of them. It is asked once, and can be changed at any time.
    await page.locator("input[name=situation], a[href$='/situation']").first.wait_for()
    if not await page.locator("input[name=situation]").count():
        await tab_to("a[href$='/situation']")
        await page.keyboard.press("Enter")
    await tab_to("input[name=situation]:not(:disabled)")
    await page.keyboard.press("Space")
    assert "CABINET" in await page.locator("label:has(input:checked)").inner_text()
    await picture(page, shot_of("practices", tmp_path))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("pas encore autorisé à consulter le DMP")
    await picture(page, shot_of("authorisation", tmp_path))
    await tab_to("input[name=accord]")
    await page.keyboard.press("Space")
    await page.keyboard.press("Enter")
    await expect(page.locator("table.exams")).to_be_visible()
    await tab_to("td.acts a.button[href*='/images/']")
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    await page.keyboard.press("Enter")
    await shows_pixels(page)


@pytest.mark.requirement("DB.CO.64")
async def test_logged_out_nothing_is_shown_any_more(world: World, watched: Watched) -> None:
    sessions = world.mesh.state / "b" / "sessions"
    others = set(files_of(sessions))
    page = await called(watched, world)
    await listed(page, "doc0036790")
    await page.locator("tr", has_text="Scintigraphie").first.get_by_text("Ouvrir les images").click()
    await shows_pixels(page)
    address = page.url
    assert not set(files_of(sessions)) <= others
    await page.click("text=Se déconnecter")
    await page.click("button:has-text('Se déconnecter')")
    await expect(page.locator("h1")).to_contain_text("Vous êtes déconnecté")
    answer = await page.goto(address)
    assert answer is not None
    assert answer.status == 404
    assert "PAT-TROIS" not in await page.content()
    assert set(files_of(sessions)) <= others
    # The browser says in the console that the page is not found: as it should be.
    watched.complaints = [c for c in watched.complaints if not (address in c and "404" in c)]


@pytest.mark.requirement("D18")
@pytest.mark.parametrize(("consent", "words"), [("no", "ne porte pas le consentement"), ("unknown", "n’est pas connu")])
async def test_without_consent_nothing_is_asked(world: World, watched: Watched, consent: str, words: str) -> None:
    searches = len(await world.view("/dmp/log"))
    page = await watched.page()
    fields = "".join(
        f'<input name="{name}" value="{value}">'
        for name, value in world.call(InformationEtConsentement=consent).items()
    )
    await page.set_content(f'<form method="post" action="{world.mesh.call_url}">{fields}<button>Appel</button></form>')
    await page.click("button")
    await expect(page.locator("main")).to_contain_text(words)
    assert len(await world.view("/dmp/log")) == searches
