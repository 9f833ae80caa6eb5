"""The pages about walks through the archive: for administrators alone, in French, and what they order happens."""

from __future__ import annotations

import csv
import io

import pytest
from console_world import Site, open_site, text_of
from lxml import html

from drimbox.console.walks import WalkRoom
from drimbox.foundation.clock import FixedClock
from drimbox.reconciliation import steps
from drimbox.reconciliation.acts import WalkActs
from drimbox.reconciliation.hours import parse_ranges
from drimbox.reconciliation.walk import Finding, Kind, State, Target, Walk
from drimbox.reconciliation.walks import Walks
from drimbox.record.audit import Journal
from drimbox.store.database import Pool
from publication.publication_examples import NOW, letter_of

BASE = "https://db1.test.mesimagesmedicales.fr/dicom-web-rs"


def room_on(pool: Pool) -> WalkRoom:
    suspended = ("lun-ven 07:30-19:00",)
    acts = WalkActs(pool, Journal(pool), FixedClock(NOW), BASE)
    return WalkRoom(acts, Walks(pool), parse_ranges(suspended), suspended, "report", 45)


async def walk_of(site: Site) -> Walk:
    return (await Walks(site.pool).latest())[0]


async def met(site: Site, walk: Walk, position: int, findings: dict[Finding, str]) -> None:
    async with site.pool.connection() as connection, connection.transaction():
        target = Target(position, "ambroise", f"1.2.3.{position}", "current")
        await steps.record(connection, walk, target, findings, now=NOW)
        await steps.count(connection, walk.id, {}, done=1)


@pytest.mark.requirement("DB.SO.28", "SSI/GEN.16")
async def test_an_administrator_orders_and_follows_a_walk(pool: Pool) -> None:
    async with open_site(pool, walk_room=room_on(pool)) as site:
        await site.world.run(letter_of())
        browser = await site.logged_in("administrator")
        page = await browser.get("/parcours")
        assert "Il se suspend de lui-même aux heures suivantes : lun-ven 07:30-19:00" in text_of(page)
        [form] = [f for f in html.fromstring(page.content).forms if f.fields.get("genre") == "reconciliation"]
        assert (form.fields["mode"], form.fields["debit"]) == ("report", "45")

        begun = await browser.post("/parcours", genre="reconciliation", mode="repair", debit="20")
        assert begun.status_code == 303
        walk = await walk_of(site)
        assert (walk.state, walk.rate, walk.mode, walk.total, walk.kind) == (
            State.RUNNING,
            20,
            "repair",
            1,
            Kind.RECONCILIATION,
        )
        assert walk.started_by == "Administrator Essai"
        shown = text_of(await browser.get("/parcours"))
        assert "Réconciliation n° 1 commencée : 1 examen." in shown
        assert "En cours : 0 examen sur 1 (0 %)" in shown
        assert "Fin prévue" in shown

        again = await browser.post("/parcours", genre="reconciliation", mode="repair", debit="20")
        assert again.status_code == 400
        assert "déjà en cours" in text_of(again)
        for debit in ("0", "", "abc", "99999", "-3"):
            answer = await browser.post("/parcours", genre="address", debit=debit)
            assert answer.status_code == 400
            assert "Le débit va de 1 à 6000" in text_of(answer)
        assert (await browser.post("/parcours", genre="autre", debit="3")).status_code == 400

        for act, state in (("pause", State.PAUSED), ("reprendre", State.RUNNING), ("arreter", State.STOPPED)):
            assert (await browser.post(f"/parcours/{walk.id}/{act}")).status_code == 303
            assert (await walk_of(site)).state is state
        # What is over cannot be stopped again, nor the next walk by an old page.
        assert (await browser.post(f"/parcours/{walk.id}/arreter")).status_code == 409
        assert (await browser.post("/parcours", genre="address", debit="60")).status_code == 303
        assert (await browser.post(f"/parcours/{walk.id}/arreter")).status_code == 409
        assert (await browser.post("/parcours/77/arreter")).status_code == 404
        assert (await walk_of(site)).state is State.RUNNING
        acts = [event.objects[0].detail.partition(":")[0] for event in await site.traced("ARCHIVE_WALKED")]
        assert acts == ["start", "pause", "resume", "stop", "start"]


@pytest.mark.requirement("DB.SO.28", "DB.SO.88")
async def test_what_a_walk_found_is_shown_a_page_at_a_time_and_downloaded_whole(pool: Pool) -> None:
    async with open_site(pool, walk_room=room_on(pool)) as site:
        browser = await site.logged_in("administrator")
        await browser.post("/parcours", genre="reconciliation", mode="report", debit="20")
        walk = await walk_of(site)
        for position in range(1, 260):
            await met(site, walk, position, {Finding.GONE: ""})
        await met(site, walk, 260, {Finding.CONTENT: "images (+2, -0)", Finding.SEVERAL: "=1+1"})
        page = await browser.get(f"/parcours/{walk.id}")
        assert "259 L'examen n'est plus dans le PACS" in text_of(page)
        rows = html.fromstring(page.content).xpath("//table//tbody/tr")
        assert len(rows) == 200
        [more] = html.fromstring(page.content).xpath("//a[text()='Suite']/@href")
        following = await browser.get(str(more))
        assert len(html.fromstring(following.content).xpath("//table//tbody/tr")) == 61
        assert "Le KOS ne dit pas ce que le PACS contient (images (+2, -0))" in text_of(following)
        only = await browser.get(f"/parcours/{walk.id}?constat=several")
        assert len(html.fromstring(only.content).xpath("//table//tbody/tr")) == 1
        for strange in ("?constat=x&apres=a-b", "?apres=9-gone", "?apres=-", "?apres=99999999999999999999-x"):
            assert (await browser.get(f"/parcours/{walk.id}{strange}")).status_code == 200

        sheet = await browser.get(f"/parcours/{walk.id}/constats.csv")
        assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
        lines = list(csv.reader(io.StringIO(sheet.content.decode("utf-8-sig")), delimiter=";"))
        assert len(lines) == 262
        assert lines[0] == ["structure", "study_uid", "finding", "detail", "at", "meaning"]
        assert lines[1][:3] == ["ambroise", "1.2.3.1", "gone"]
        assert ["several", "'=1+1"] in [line[2:4] for line in lines]
        assert "279035121518989" not in sheet.text


@pytest.mark.requirement("SSI/GEN.16")
async def test_only_for_administrators_of_a_source(pool: Pool) -> None:
    async with open_site(pool, walk_room=room_on(pool)) as site:
        for roles in ("operator", "reader", "nobody"):
            browser = await site.logged_in(roles)
            for path in ("/parcours", "/parcours/1", "/parcours/1/constats.csv"):
                assert (await browser.get(path)).status_code == 403
            assert (await browser.post("/parcours", genre="reconciliation", debit="3")).status_code == 403
        assert await Walks(pool).latest() == ()
        links = html.fromstring((await (await site.logged_in("administrator")).get("/")).content).xpath(
            "//nav//a/@href"
        )
        assert "/parcours" in links
    async with open_site(pool) as site:
        browser = await site.logged_in("administrator")
        assert (await browser.get("/parcours")).status_code == 404
