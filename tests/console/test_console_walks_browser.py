"""The pages about walks in a real browser: by keyboard, readable, on wide and narrow screens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_console_browser import Scene, scene  # noqa: F401 - a fixture
from test_console_walks import met, room_on, walk_of

from browsing import CHROMIUM
from drimbox.foundation.http_guard import Guard
from drimbox.reconciliation.walk import Finding
from publication.publication_examples import letter_of

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")]


@pytest.mark.requirement("DB.SO.28", "DB.SO.31", "DB.SO.88")
async def test_an_administrator_walks_through_the_archive(scene: Scene) -> None:  # noqa: F811
    site = scene.site
    assert isinstance(site.app, Guard)
    site.app._app.state.desk = replace(site.desk, walks=room_on(site.pool))  # type: ignore[attr-defined]
    await site.world.run(letter_of())
    await site.person("administrator")
    page = await scene.page()
    await scene.log_in(page, "administrator.essai")
    await page.get_by_role("link", name="Parcours").click()
    await scene.looked_at(page, "walks")

    card = page.get_by_role("region", name="Réconciliation")
    await card.get_by_label("Signaler seulement").check()
    await card.get_by_label("Examens par minute").fill("20")
    await page.keyboard.press("Enter")
    await page.get_by_role("status").first.wait_for()
    assert "commencée : 1 examen" in await page.inner_text("main")
    assert await page.get_by_role("progressbar", name="Réconciliation").count() == 1
    await met(site, await walk_of(site), 1, {Finding.GONE: ""})
    await page.get_by_role("link", name="Actualiser").click()
    await scene.looked_at(page, "walk-under-way")
    await page.get_by_role("link", name="1 constat").click()
    assert "L'examen n'est plus dans le PACS" in await page.inner_text("table")
    await scene.looked_at(page, "walk")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Télécharger les constats").click()
    assert (await download.value).suggested_filename == "drimbox-parcours-1.csv"
    await page.get_by_role("navigation", name="Fil d’Ariane").get_by_role("link").click()
    await page.get_by_role("button", name="Mettre en pause").click()
    assert "En pause" in await page.inner_text("main")
    await page.get_by_role("button", name="Arrêter").click()
    assert "arrêtée après 1 examen" in await page.inner_text("main")
    await scene.looked_at(page, "walks-ended")
