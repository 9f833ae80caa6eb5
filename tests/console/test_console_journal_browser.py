"""The journal and the statistics in a real browser: by keyboard, readable, on wide and narrow screens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_console_browser import Scene, scene  # noqa: F401 - a fixture
from test_console_journal import MATRICULE, room_on, served

from browsing import CHROMIUM
from drimbox.foundation.http_guard import Guard
from publication.publication_examples import letter_of

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")]


@pytest.mark.requirement("DB.CS.10", "DB.SO.87")
async def test_an_auditor_searches_and_an_administrator_counts(scene: Scene) -> None:  # noqa: F811
    site = scene.site
    assert isinstance(site.app, Guard)
    site.app._app.state.desk = replace(site.desk, journal_room=room_on(site.pool))  # type: ignore[attr-defined]
    await site.world.run(letter_of())
    await served(site.pool, 3)
    await site.person("auditor")
    page = await scene.page()
    await scene.log_in(page, "auditor.essai")
    await scene.looked_at(page, "journal-empty")
    await page.get_by_label("Patient : matricule INS").fill(MATRICULE)
    await page.keyboard.press("Enter")
    await page.get_by_role("table").wait_for()
    assert await page.get_by_role("row").count() >= 4
    assert MATRICULE not in page.url
    await scene.looked_at(page, "journal")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Exporter").click()
    assert (await download.value).suggested_filename.startswith("drimbox-journal-")
    await page.get_by_label("Patient : matricule INS").fill("279035121518980")
    await page.get_by_role("button", name="Chercher").click()
    await page.get_by_role("alert").wait_for()
    await scene.looked_at(page, "journal-refused")

    await site.person("administrator")
    page = await scene.page()
    await scene.log_in(page, "administrator.essai")
    await page.get_by_role("link", name="Statistiques").click()
    await page.get_by_label("Du", exact=True).fill("2020-01-01")
    await page.get_by_label("Au (inclus)").fill("2029-12-31")
    await page.get_by_label("Par", exact=True).select_option("month")
    await page.get_by_role("button", name="Compter").click()
    await page.get_by_role("table").first.wait_for()
    await scene.looked_at(page, "statistics")
    # The refused search is a page of status 400.
    assert len(scene.complaints) == 1
    assert "400" in scene.complaints[0]
