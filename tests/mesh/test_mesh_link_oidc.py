"""A patient who comes by an identity provider, in a real browser on a mesh of its own: on a desk and on a phone."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from mesh_world import World
from playwright.async_api import Browser, async_playwright, expect
from test_mesh_browser import CHROMIUM, installed, key_pin
from test_mesh_link import INSIDE, SIZES, axe, left, looked_at

from drimbox.demo.mesh import running
from drimbox.demo.places import ports

__all__ = ["axe", "installed"]

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PATIENCE = 90_000


@pytest.mark.requirement("DB.VI-SO.04", "DB.VI-SO.08", "D19")
async def test_a_patient_opens_the_images_by_an_identity_provider(installed: None, axe: str, tmp_path: Path) -> None:
    # Not pytest's own folder: PostgreSQL runs under another account.
    with tempfile.TemporaryDirectory(prefix="drimbox-mesh-") as folder:
        state = Path(folder)
        ports(state, first=18000 + random.randrange(600) * 20)
        async with running(state, home=ROOT, say=lambda _: None, patients="oidc") as mesh, async_playwright() as play:
            world = World(mesh)
            await world.publish("E")
            pki = state / "national" / "pki"
            pins = ",".join(key_pin(pki / f"{name}.pem") for name in ("a-vi", "identite-serveur"))
            browser = await play.chromium.launch(
                executable_path=str(CHROMIUM),
                args=["--no-sandbox", f"--ignore-certificate-errors-spki-list={pins}"],
            )
            for size in SIZES:
                await _visit(world, browser, size, axe, tmp_path)
            await browser.close()


async def _visit(world: World, browser: Browser, size: str, axe: str, folder: Path) -> None:
    width, height = SIZES[size]
    phone = {"is_mobile": True, "has_touch": True} if size == "phone" else {}
    context = await browser.new_context(viewport={"width": width, "height": height}, locale="fr-FR", **phone)
    page = await context.new_page()
    name = f"vouched-{size}"
    await page.goto(world.endpoints["link"]["example"])
    await page.get_by_role("button", name="Je suis le patient").click()
    await expect(page.locator("h1")).to_have_text("Vérifions que c’est bien vous", timeout=PATIENCE)
    await looked_at(page, f"{name}-1-provider", axe, folder)
    await page.locator("a.psc").click()
    await page.get_by_role("button", name="Refuser").click()
    await expect(page.get_by_role("alert")).to_contain_text("n'a pas abouti", timeout=PATIENCE)
    await looked_at(page, f"{name}-2-refused", axe, folder)
    await page.goto(world.endpoints["link"]["example"])
    await page.get_by_role("button", name="Je suis le patient").click()
    await page.locator("a.psc").click()
    await page.get_by_role("button", name="Dominique").click()
    await page.wait_for_url(INSIDE, wait_until="commit", timeout=PATIENCE)
    assert await page.evaluate("document.cookie") == ""
    await left(page, name, axe, folder)
    await context.close()
