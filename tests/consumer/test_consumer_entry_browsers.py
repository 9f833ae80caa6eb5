"""The way in, in real browsers: many tabs, many patients, two users on one workstation; never mixed (DB.CO.48)."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from consumer_world import DOMINIQUE, KIT, OTHER, PATIENCE, SECOND, THIRD, Site, TestPatient
from playwright.async_api import Browser, BrowserContext, Page, expect

from browsing import chromium_running, picture

pytestmark = pytest.mark.e2e


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with chromium_running() as browser:
        yield browser


async def workstation(chromium: Browser) -> BrowserContext:
    """One browser of one user."""
    made = await chromium.new_context(ignore_https_errors=True, viewport={"width": 1400, "height": 900}, locale="fr-FR")
    made.set_default_timeout(PATIENCE)
    return made


async def called(browsing: BrowserContext, site: Site, patient: TestPatient) -> Page:
    """The RIS opens a tab and posts its call from a page of its own."""
    page = await browsing.new_page()
    inputs = "".join(f'<input name="{n}" value="{html.escape(v)}">' for n, v in patient.call().items())
    await page.set_content(f'<form method="post" action="{site.origin}/drim">{inputs}<button>Appeler</button></form>')
    await page.click("button")
    await page.wait_for_url(f"{site.origin}/appel/*")
    return page


async def log_in(page: Page) -> None:
    await page.click("a.psc")
    await page.wait_for_selector("header .who")
    if await page.locator("input[name=lu]").count():
        await page.check("input[name=lu]")
        await page.click("main button[type=submit]")
    await page.wait_for_selector(".patient")


async def shows(page: Page, patient: TestPatient, person: str) -> None:
    """The tab says whose it is, and whose it is not."""
    await expect(page.locator("header .person strong")).to_have_text(person)
    # The three test patients have one name: their matricule tells them apart.
    text = "".join((await page.locator(".patient").text_content() or "").split())
    assert patient.matricule in text
    for other in {DOMINIQUE, SECOND, THIRD} - {patient}:
        assert other.matricule not in text
        assert other.matricule not in "".join((await page.content()).split())


@pytest.mark.requirement("DB.CO.48", "DB.CS.53", "DB.CO.50", "DB.VI-CS.29")
async def test_two_users_and_three_patients_on_one_workstation(site: Site, chromium: Browser, tmp_path: Path) -> None:
    for patient in (DOMINIQUE, SECOND, THIRD):
        site.hold(patient)
    first, second = await workstation(chromium), await workstation(chromium)
    site.psc.next_user = KIT
    one = await called(first, site, DOMINIQUE)
    await log_in(one)
    two = await called(first, site, SECOND)
    site.psc.next_user = OTHER
    three = await called(second, site, THIRD)
    await log_in(three)
    four = await called(second, site, DOMINIQUE)
    for page in (one, two, three, four):
        await page.bring_to_front()
        await page.reload()
    await shows(one, DOMINIQUE, "KIT DOC0036790")
    await shows(two, SECOND, "KIT DOC0036790")
    await shows(three, THIRD, "PAUL TOUBIB0021889")
    await shows(four, DOMINIQUE, "PAUL TOUBIB0021889")
    await expect(one.locator("header .number")).to_have_text("RPPS 99700367909")
    await expect(one.locator("header .since").first).to_contain_text("Connecté le 01/03/2024 à 10:00")
    await expect(one.locator("header .practice")).to_contain_text("CENTRE DE RADIOLOGIE")
    # No address of the one opens anything in the browser of the other, nor without a session.
    stranger = await workstation(chromium)
    for owner, foreign in ((one, second), (three, first), (one, stranger)):
        page = await foreign.new_page()
        answer = await page.goto(owner.url)
        assert answer is not None
        assert answer.status == 404
        assert DOMINIQUE.family not in await page.content()
    # Whose consultation it is, the DMP was told each time.
    asked = {(structure, matricule) for _, structure, matricule in site.dmp.asked}
    assert {matricule for _, matricule in asked} == {p.matricule for p in (DOMINIQUE, SECOND, THIRD)}
    people = {(e.actor.person, e.patient.matricule) for e in site.journal.events if e.patient and e.actor.person}
    assert people == {
        (KIT.national_id, DOMINIQUE.matricule),
        (KIT.national_id, SECOND.matricule),
        (OTHER.national_id, THIRD.matricule),
        (OTHER.national_id, DOMINIQUE.matricule),
    }
    # The addresses carry nothing of anybody.
    for page in (one, two, three, four):
        for value in (*DOMINIQUE.call().values(), *SECOND.call().values()):
            assert len(value) < 6 or value not in page.url
    await picture(one, tmp_path / "one.png")


@pytest.mark.requirement("DB.CO.64", "DB.CS.53")
async def test_a_second_person_in_the_same_browser_empties_the_tabs_of_the_first(site: Site, chromium: Browser) -> None:
    for patient in (DOMINIQUE, SECOND):
        site.hold(patient)
    browsing = await workstation(chromium)
    site.psc.next_user = KIT
    one = await called(browsing, site, DOMINIQUE)
    await log_in(one)
    await shows(one, DOMINIQUE, "KIT DOC0036790")
    two = await called(browsing, site, SECOND)
    await shows(two, SECOND, "KIT DOC0036790")
    # The colleague's call opens in the same browser; the page says that it is not theirs, and they log in.
    site.psc.next_user = OTHER
    await two.goto(f"{two.url}/connexion")
    await two.wait_for_selector("input[name=lu]")
    # Of its own accord, and at once: the first tab knows no patient any more.
    await expect(one.locator("body")).to_contain_text("Page introuvable", timeout=5000)
    assert DOMINIQUE.family not in await one.content()
    await two.check("input[name=lu]")
    await two.click("main button[type=submit]")
    await shows(two, SECOND, "PAUL TOUBIB0021889")


@pytest.mark.requirement("DB.CO.64", "PSC.01")
async def test_logging_out_in_one_tab_empties_the_others(site: Site, chromium: Browser) -> None:
    for patient in (DOMINIQUE, SECOND):
        site.hold(patient)
    browsing = await workstation(chromium)
    one = await called(browsing, site, DOMINIQUE)
    await log_in(one)
    two = await called(browsing, site, SECOND)
    await two.wait_for_selector(".patient")
    await two.click("header nav a[href='/deconnexion']")
    await two.click("main button[type=submit]")
    await expect(two.locator("h1")).to_have_text("Vous êtes déconnecté")
    await expect(one.locator("body")).to_contain_text("Votre session est terminée", timeout=5000)
    assert DOMINIQUE.family not in await one.content()
    # Nor does the browser's history bring it back.
    await two.go_back()
    assert SECOND.family not in await two.content()


@pytest.mark.requirement("DB.CO.48")
async def test_logging_in_in_one_tab_opens_the_others(site: Site, chromium: Browser) -> None:
    for patient in (DOMINIQUE, SECOND):
        site.hold(patient)
    browsing = await workstation(chromium)
    one, two = await called(browsing, site, DOMINIQUE), await called(browsing, site, SECOND)
    await log_in(one)
    await expect(two.locator(".patient")).to_be_visible(timeout=5000)
    await shows(two, SECOND, "KIT DOC0036790")


@pytest.mark.requirement("DB.CO.48")
async def test_many_calls_at_once_keep_to_their_tabs(site: Site, chromium: Browser) -> None:
    people, patients = (KIT, OTHER), (DOMINIQUE, SECOND, THIRD)
    for patient in patients:
        site.hold(patient)
    stations = []
    for person in people:
        site.psc.next_user = person
        browsing = await workstation(chromium)
        await log_in(await called(browsing, site, DOMINIQUE))
        stations.append((person, browsing))
    pages = await asyncio.gather(*(called(browsing, site, patient) for _, browsing in stations for patient in patients))
    expected = [(person, patient) for person, _ in stations for patient in patients]
    for page, (person, patient) in zip(pages, expected, strict=True):
        await shows(page, patient, f"{person.given} {person.family}")
