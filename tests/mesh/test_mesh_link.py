"""The link in a report in a real browser, on the real mesh: a patient and a professional, on a desk and on a phone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from axe_core import complaints, script
from mesh_world import World, eventually
from playwright.async_api import Browser, BrowserContext, Page, expect
from test_mesh_browser import chromium, installed

from browsing import picture
from drimbox.demo import story
from drimbox.demo.visitor import Visitor
from drimbox.sandbox.phone import PATH

__all__ = ["chromium", "installed"]

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

# A machine that does much else is slow.
PATIENCE = 30_000
INSIDE = re.compile(r".*/visite/[A-Za-z0-9_-]+/?$")
SIZES = {"desk": (1280, 800), "phone": (360, 740)}


@pytest.fixture(scope="module")
def axe() -> str:
    """What looks for faults of accessibility."""
    return script(Path(__file__).parents[2] / "var" / "axe").read_text("utf-8")


@pytest_asyncio.fixture(params=SIZES, loop_scope="session")
async def context(
    world: World, chromium: Browser, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[str, BrowserContext]]:
    """A browser of a size of its own; exam E is published."""
    await world.publish("E")
    width, height = SIZES[request.param]
    phone = {"is_mobile": True, "has_touch": True} if request.param == "phone" else {}
    context = await chromium.new_context(viewport={"width": width, "height": height}, locale="fr-FR", **phone)
    yield request.param, context
    await context.close()


async def looked_at(page: Page, name: str, axe: str, tmp_path: Path) -> None:
    """Accessible, no wider than the screen, its buttons large enough for a thumb; kept as a picture."""
    folder = Path(os.environ.get("DRIMBOX_SCREENSHOTS", tmp_path))
    await picture(page, folder / f"link-{name}.png", full_page=True)
    assert await complaints(page, axe) == [], name
    width = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, name
    for button in await page.locator("button:visible, a.psc:visible, a.button:visible").all():
        box = await button.bounding_box()
        assert box is not None
        assert box["height"] >= 44, name


async def codes_of(world: World) -> list[dict[str, str]]:
    reply = await world.mesh.http.send("GET", world.endpoints["link"]["phone"] + PATH, tls=world.mesh.tls)
    found: list[dict[str, str]] = json.loads(reply.body)
    return found


async def left(page: Page, name: str, axe: str, tmp_path: Path) -> None:
    """The way out, and that it is one."""
    inside = page.url.rstrip("/")
    await page.goto(f"{inside}/fin")
    await looked_at(page, f"{name}-leave", axe, tmp_path)
    await page.get_by_role("button", name="Fermer").click()
    await expect(page.locator("h1")).to_have_text("Les images sont fermées", timeout=PATIENCE)
    await looked_at(page, f"{name}-goodbye", axe, tmp_path)
    await page.goto(f"{inside}/fin")
    await expect(page.locator("h1")).to_have_text("Page introuvable", timeout=PATIENCE)


@pytest.mark.requirement("DB.VI-SO.04", "DB.VI-SO.07", "DB.VI-SO.08", "D19")
async def test_a_patient_opens_the_images_of_the_report(
    world: World, context: tuple[str, BrowserContext], axe: str, tmp_path: Path
) -> None:
    size, browser = context
    name = f"patient-{size}"
    page = await browser.new_page()
    await page.goto(world.endpoints["link"]["example"])
    await looked_at(page, f"{name}-1-choice", axe, tmp_path)
    await page.get_by_role("button", name="Je suis le patient").click()
    await looked_at(page, f"{name}-2-identity", axe, tmp_path)
    await page.get_by_label("Date de naissance").fill("28/03/79")
    await page.get_by_label("Féminin").check()
    await page.get_by_label("Lieu de naissance").fill("Dompremy")
    await page.get_by_role("button", name="Recevoir un code").click()
    await expect(page.get_by_role("alert")).to_contain_text("28/03/1979", timeout=PATIENCE)
    await looked_at(page, f"{name}-3-again", axe, tmp_path)
    await page.get_by_label("Date de naissance").fill("28/03/1979")
    before = len(await codes_of(world))
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("Saisissez votre code", timeout=PATIENCE)
    await looked_at(page, f"{name}-4-code", axe, tmp_path)

    async def arrived() -> bool:
        return len(await codes_of(world)) > before

    await eventually(arrived, "no code on the phone")
    [message, *_] = await codes_of(world)
    await page.get_by_label("Code reçu").fill("0")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("vérifiez-le", timeout=PATIENCE)
    await page.get_by_label("Code reçu").fill(f"{message['code'][:4]} {message['code'][4:]}")
    await page.get_by_role("button", name="Voir les images").click()
    await page.wait_for_url(INSIDE, wait_until="commit", timeout=PATIENCE)
    await left(page, name, axe, tmp_path)


@pytest.mark.requirement("DB.VI-SO.08", "DB.VI-SO.09")
async def test_a_professional_opens_the_images_of_the_report(
    world: World, context: tuple[str, BrowserContext], axe: str, tmp_path: Path
) -> None:
    size, browser = context
    name = f"professional-{size}"
    page = await browser.new_page()
    await page.goto(world.endpoints["link"]["example"])
    await page.get_by_role("button", name="Je suis un professionnel").click()
    await looked_at(page, f"{name}-1-login", axe, tmp_path)
    await page.locator("a.psc").click()
    await page.click(f'button[value="{story.LOGIN}"]')
    await page.wait_for_url(INSIDE, wait_until="commit", timeout=PATIENCE)
    # Nothing of the study is in the addresses that stay in the history, nor in what the page may read.
    assert not urlsplit(page.url).query
    assert await page.evaluate("document.cookie") == ""
    await left(page, name, axe, tmp_path)


@pytest.mark.requirement("DB.VI-SO.28")
async def test_a_wrong_link_is_told_in_plain_words(
    world: World, context: tuple[str, BrowserContext], axe: str, tmp_path: Path
) -> None:
    size, browser = context
    page = await browser.new_page()
    await page.goto(world.endpoints["link"]["invoke"] + "?requestType=STUDY&studyUID=1.2.3")
    await expect(page.locator("h1")).to_have_text("Lien non valable", timeout=PATIENCE)
    await looked_at(page, f"wrong-{size}", axe, tmp_path)


@pytest.mark.requirement("DB.VI-SO.09")
async def test_the_end_of_the_session_at_psc_ends_the_other_visits(world: World) -> None:
    """Two links in two tabs, one session at Pro Santé Connect: it is ended from one, and the other closes."""
    await world.publish("E")
    visitor = Visitor(world.mesh.http, world.mesh.tls)
    doors = []
    for _ in range(2):
        page = await visitor.press(await visitor.get(world.endpoints["link"]["example"]), "Je suis un professionnel")
        page = await visitor.follow(page, "Pro Santé Connect")
        if "visite" not in page.address:
            page = await visitor.press(page, "KIT DOC0036790")
        assert page.status == 200, page.title
        doors.append(page.address.rstrip("/"))
    first, second = doors
    assert first != second
    assert (await visitor.get(f"{second}/presence")).status == 204
    page = await visitor.press(await visitor.get(f"{first}/fin"), "Fermer")
    assert (await visitor.get(f"{second}/presence")).status == 204, "a visit that is left ends no other"
    await visitor.follow(page, "Pro Santé Connect")
    assert (await visitor.get(f"{second}/presence")).status == 404
    told = await world.sql("SELECT session, subject FROM link_logout")
    assert len(told) == 1
