"""The practice: chosen once, remembered, changed at any time; certificates, VIHF and connections follow (DB.CO.50)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from consumer_world import (
    DOMINIQUE,
    KIT,
    KIT_TWO_PLACES,
    OTHER,
    OTHER_STRUCTURE,
    STRUCTURE,
    Site,
    practice,
    text_of,
)

from drimbox.consumer.memory import StoredPractices
from drimbox.national.psc.userinfo import Practice, UserInfo
from drimbox.record.pseudonym import PatientKey
from drimbox.store.database import Pool

KEY = PatientKey(bytes(range(32)))
FIRST, SECOND = KIT_TWO_PLACES.practices


class FakeMemory:
    def __init__(self) -> None:
        self.kept: dict[str, Practice] = {}

    async def recall(self, info: UserInfo) -> Practice | None:
        return self.kept.get(info.national_id)

    async def keep(self, national_id: str, practice: Practice) -> None:
        self.kept[national_id] = practice


@pytest.fixture
def ways() -> dict[str, Any]:
    return {"memory": FakeMemory()}


@pytest.mark.requirement("DB.CO.49", "DB.CO.50", "DB.CO.91", "DB.CO.92")
async def test_chosen_once_remembered_and_changed_at_any_time(site: Site) -> None:
    site.hold(DOMINIQUE)
    site.psc.next_user = KIT_TWO_PLACES
    browser = site.browser()
    page = await site.log_in(browser)
    assert "Choisissez votre situation d’exercice" in text_of(page)
    assert site.dmp.asked == []
    page = await browser.submit(page, "/situation", situation="1")
    assert f"Situation d’exercice {SECOND.label}" in text_of(page)
    assert {structure for _, structure, _ in site.dmp.asked} == {OTHER_STRUCTURE}

    # Another day, another browser: nothing is asked.
    site.dmp.asked.clear()
    other = site.browser()
    page = await site.log_in(other)
    assert f"Situation d’exercice {SECOND.label}" in text_of(page)
    assert {structure for _, structure, _ in site.dmp.asked} == {OTHER_STRUCTURE}

    # Changed from the page, and everything follows.
    site.dmp.asked.clear()
    call = other.path
    page = await other.submit(await other.get(f"{call}/situation"), "/situation", situation="0")
    assert f"Situation d’exercice {FIRST.label}" in text_of(page)
    assert {structure for _, structure, _ in site.dmp.asked} == {STRUCTURE}
    # The first browser goes on in its own until it says otherwise.
    assert f"Situation d’exercice {SECOND.label}" in text_of(await browser.get(browser.path))


async def test_the_situation_of_the_call_goes_before_what_is_remembered(site: Site) -> None:
    site.hold(DOMINIQUE)
    site.psc.next_user = KIT_TWO_PLACES
    await site.log_in(site.browser(), Situation=STRUCTURE)
    browser = site.browser()
    page = await browser.submit(await site.log_in(browser), "/situation", situation="1")
    assert SECOND.label in text_of(page)
    page = await site.log_in(site.browser(), Situation=STRUCTURE)
    assert f"Situation d’exercice {FIRST.label}" in text_of(page)


async def test_what_was_on_its_way_for_the_former_practice_is_lost_with_it(site: Site) -> None:
    site.hold(DOMINIQUE)
    site.psc.next_user = KIT_TWO_PLACES
    browser = site.browser()
    page = await site.log_in(browser)
    page = await browser.submit(page, "/situation", situation="1")
    call = browser.path
    chooser = await browser.get(f"{call}/situation")
    # The DMP is slow to answer the second practice; meanwhile the first one is chosen.
    site.dmp.delay = 0.3
    await browser.submit(chooser, "/situation", situation="0")
    site.dmp.asked.clear()
    await asyncio.gather(browser.get(call), browser.submit(chooser, "/situation", situation="1"))
    await asyncio.sleep(0.4)
    page = await browser.get(call)
    assert f"Situation d’exercice {SECOND.label}" in text_of(page)
    assert site.dmp.asked[-1][1] == OTHER_STRUCTURE


@pytest.mark.requirement("DB.CO.50")
async def test_the_memory_names_nobody(pool: Pool) -> None:
    memory = StoredPractices(pool, KEY)
    assert await memory.recall(KIT_TWO_PLACES) is None
    await memory.keep(KIT.national_id, SECOND)
    assert await memory.recall(KIT_TWO_PLACES) == SECOND
    await memory.keep(KIT.national_id, FIRST)
    assert await memory.recall(KIT_TWO_PLACES) == FIRST
    # Of another person nothing is known, though they have the same practices.
    assert await memory.recall(replace(KIT_TWO_PLACES, national_id="899700218896")) is None
    # A practice that PSC no longer gives is asked again.
    assert await memory.recall(replace(KIT, practices=(practice("1990000001", "AILLEURS"),))) is None
    # Another key knows nobody.
    assert await StoredPractices(pool, PatientKey(bytes(32))).recall(KIT_TWO_PLACES) is None
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT chosen_practice::text AS line FROM chosen_practice")).fetchall()
    [line] = [str(row["line"]) for row in rows]
    for told in (KIT.national_id, KIT.family, STRUCTURE, OTHER_STRUCTURE, "CABINET", "SA05"):
        assert told not in line


async def test_who_has_not_come_for_long_is_forgotten(pool: Pool) -> None:
    memory = StoredPractices(pool, KEY, days=10)
    await memory.keep(KIT.national_id, SECOND)
    async with pool.connection() as connection:
        await connection.execute("UPDATE chosen_practice SET seen_at = now() - interval '9 days'")
    assert await memory.recall(KIT_TWO_PLACES) == SECOND
    async with pool.connection() as connection:
        await connection.execute("UPDATE chosen_practice SET seen_at = now() - interval '11 days'")
    assert await memory.recall(KIT_TWO_PLACES) is None


async def test_a_database_that_is_away_costs_a_question_only(pool: Pool) -> None:
    memory = StoredPractices(pool, KEY)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE chosen_practice RENAME TO elsewhere")
    assert await memory.recall(KIT_TWO_PLACES) is None
    await memory.keep(KIT.national_id, SECOND)


async def test_a_page_made_for_somebody_who_is_no_longer_there_is_not_shown(site: Site) -> None:
    """The list of the first person is slow to come; the second logs in, on the same browser, while it does."""
    site.hold(DOMINIQUE)
    browser = site.browser()
    await site.log_in(browser)
    call = browser.path
    slow = site.browser()
    slow.cookies = dict(browser.cookies)
    site.dmp.delay = 0.25
    forms = await browser.get(call)
    again = asyncio.create_task(browser.submit(forms, "/actualiser"))
    await again
    listing = asyncio.create_task(slow.send("GET", call, follow=False))
    await asyncio.sleep(0.05)
    site.psc.next_user = OTHER
    page = await browser.get(f"{call}/connexion")
    answer = await listing
    # The first person's cookie is worth nothing any more, and what was made for them was not handed over.
    assert answer.status in (303, 404)
    assert "DOC0036790" not in answer.body.decode()
    assert "TOUBIB0021889" in text_of(page)
