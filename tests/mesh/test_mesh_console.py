"""The console of the demonstration in a real browser: a line of the queue, the button, the KOS in the DMP."""

from __future__ import annotations

import asyncio
import io
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
import pytest_asyncio
from mesh_world import NOW, PATIENCE, World, control
from playwright.async_api import Browser, Page, expect
from test_mesh_browser import key_pin, shot_of

from browsing import CHROMIUM, chromium_running, picture
from drimbox.demo import consoles
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium"),
]
# As the report of exam G2: a study that the PACS does not know, under the order of exam G.
LATE = "1.2.3.4.5.6.7.8.10"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chromium(world: World) -> AsyncIterator[Browser]:
    pins = [key_pin(world.mesh.state / "national" / "pki" / f"{name}.pem") for name in ("psc-serveur", "a-consumer")]
    async with chromium_running(*pins) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium: Browser) -> AsyncIterator[Page]:
    context = await chromium.new_context(viewport={"width": 1280, "height": 800}, locale="fr-FR")
    context.set_default_timeout(PATIENCE)
    yield await context.new_page()
    await context.close()


async def log_in(page: Page, world: World, role: str) -> None:
    """By the password that the demonstration tells."""
    told = world.endpoints["consoles"]["a"]
    [opener] = [one for one in told["accounts"] if role in one["roles"]]
    await page.goto(told["url"])
    await page.get_by_label("Identifiant").fill(opener["login"])
    await page.get_by_label("Mot de passe").fill(opener["password"])
    await page.keyboard.press("Enter")
    await page.wait_for_load_state()


def comes_into_the_pacs(world: World) -> int:
    """The images of exam G, as those of the late study; how many."""
    files = sorted((world.mesh.state / "samples" / "G").rglob("*.dcm"))
    for number, file in enumerate(files, 1):
        image = pydicom.dcmread(file)
        image.StudyInstanceUID, image.SeriesInstanceUID = LATE, f"{LATE}.1"
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{LATE}.1.{number}"
        out = io.BytesIO()
        image.save_as(out, enforce_file_format=True)
        orthanc.rest(world.mesh.pacs_a, "POST", "/instances", out.getvalue())
    return len(files)


@pytest.mark.requirement("DB.SO.15", "DB.SO.21", "DB.SO.45", "exam:G2")
async def test_a_study_that_comes_late_goes_through_at_the_press_of_a_button(
    world: World, page: Page, tmp_path: Path
) -> None:
    known = replace(exam("G"), studies=(LATE,), document_id="1.2.250.1.213.4.5.4.4099")
    await world.accepted(letters.oru(letters.Letter(known, control()), NOW))
    await world.at_rest(LATE)
    [incident] = await world.incidents(LATE)
    assert incident["code"] == "study-unknown"

    await log_in(page, world, "operateur")
    await expect(page).to_have_url(f"{world.endpoints['consoles']['a']['url']}/file")
    row = page.locator("tr", has_text=LATE)
    await expect(row).to_be_visible()
    await picture(page, shot_of("console", tmp_path))
    # Nothing of the patient is on the page: the queue speaks of studies.
    assert "PAT-TROIS" not in await page.content()
    await row.get_by_role("link").first.click()
    await expect(page.locator("h1")).to_contain_text(f"Incident {incident['id']}")

    # Too early: the PACS is asked again, and knows the study as little as before.
    await page.get_by_role("button", name="Réessayer").click()
    await world.at_rest(LATE)
    assert await world.kos(LATE, current=False) == []
    assert [i["code"] for i in await world.incidents(LATE)] == ["study-unknown"]

    count = await asyncio.to_thread(comes_into_the_pacs, world)
    assert count
    [again] = await world.incidents(LATE)
    await page.goto(f"{world.endpoints['consoles']['a']['url']}/file/{again['id']}")
    await page.get_by_role("button", name="Réessayer").click()
    await world.at_rest(LATE)
    assert await world.incidents(LATE) == []
    assert len(await world.kos(LATE)) == 1
    await page.goto(f"{world.endpoints['consoles']['a']['url']}/file")
    await expect(page.locator("h1")).to_be_visible()
    await expect(page.locator("tr", has_text=LATE)).to_have_count(0)
    # Who pressed is in the history.
    [closed] = [i for i in await world.incidents(LATE, opened=False) if i["id"] == again["id"]]
    [opener] = [one for one in world.endpoints["consoles"]["a"]["accounts"] if "operateur" in one["roles"]]
    assert opener["name"] in str(closed["history"])


async def test_the_administrator_sees_accounts_and_no_queue(world: World, page: Page) -> None:
    await log_in(page, world, "administrateur")
    await expect(page).to_have_url(f"{world.endpoints['consoles']['a']['url']}/comptes")
    for one in world.endpoints["consoles"]["a"]["accounts"]:
        await expect(page.locator("main")).to_contain_text(one["name"])
    answer = await page.goto(f"{world.endpoints['consoles']['a']['url']}/file")
    assert answer is not None
    assert answer.status in (403, 404)


async def test_pro_sante_connect_opens_the_console_too(world: World, page: Page) -> None:
    told = world.endpoints["consoles"]["a"]
    [opener] = [one for one in told["accounts"] if "operateur" in one["roles"]]
    await page.goto(told["url"])
    await page.click("text=S’identifier avec")
    await page.click(f"button[value={opener['login']}]")
    await expect(page).to_have_url(f"{told['url']}/file", timeout=15_000)
    await page.get_by_text("Se déconnecter").first.click()
    await page.get_by_role("button", name="Se déconnecter").click()
    await page.goto(f"{told['url']}/file")
    await expect(page).to_have_url(f"{told['url']}/connexion")


async def test_a_second_start_finds_the_accounts_as_they_were_left(world: World) -> None:
    again = await consoles.accounts(world.mesh.state, world.mesh.national.logins)
    assert again == world.mesh.consoles
    kept = world.mesh.state / "consoles.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    # Without that file nobody knows the passwords any more: new ones are given.
    told = kept.read_text("utf-8")
    kept.unlink()
    try:
        fresh = await consoles.accounts(world.mesh.state, world.mesh.national.logins)
        assert {one.login for one in fresh["a"]} == {one.login for one in again["a"]}
        assert not {one.password for one in fresh["a"]} & {one.password for one in again["a"]}
    finally:
        kept.write_text(told, "utf-8")
