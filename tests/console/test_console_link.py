"""The console's page about the link in a report: the template for the RIS, one link with its QR code."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator

import pytest
from console_world import Site, open_site, text_of
from lxml import html

from drimbox.foundation import xml
from drimbox.link import address
from drimbox.link.drawing import qr_code
from drimbox.store.database import Pool

ORIGIN = "https://vi1.test.mesimagesmedicales.fr"
SAID = {"examen": "1.2.250.1.213.4.5.2.1.105", "numero": "ACN/105 é", "compte_rendu": "1.2.250.1_42", "serie": ""}


@pytest.fixture
async def linked(pool: Pool) -> AsyncIterator[Site]:
    async with open_site(pool, link_origin=ORIGIN) as opened:
        yield opened


@pytest.mark.requirement("DB.VI-SO.07")
async def test_an_administrator_copies_the_template_and_makes_a_link(linked: Site) -> None:
    browser = await linked.logged_in("administrator")
    page = await browser.get("/lien")
    [shown] = html.fromstring(page.content).xpath("//textarea/text()")
    assert shown == address.template(ORIGIN)
    made = await browser.submit(page, "/lien", **SAID)
    assert made.status_code == 200
    _, link, partial, segment = html.fromstring(made.content).xpath("//textarea/text()")
    wanted = address.Link(SAID["examen"], SAID["numero"], address.ReportId.of("1.2.250.1_42"))
    assert address.parse(link.partition("?")[2].encode()) == wanted
    assert link.startswith(partial)
    assert segment == address.partial_observation(1, partial)
    [picture] = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', made.text)
    drawn = base64.b64decode(picture)
    assert drawn == qr_code(link, ".svg")
    assert xml.parse(drawn).tag.endswith("svg")


async def test_without_the_report_there_is_a_partial_address_alone(linked: Site) -> None:
    browser = await linked.logged_in("administrator")
    made = await browser.submit(await browser.get("/lien"), "/lien", **SAID | {"compte_rendu": ""})
    assert len(html.fromstring(made.content).xpath("//textarea")) == 3
    assert "data:image/svg" not in made.text


WRONG = ({"examen": "x"}, {"examen": ""}, {"numero": ""}, {"compte_rendu": "<b>"}, {"serie": "../"})


async def test_what_no_link_may_have_is_said_so(linked: Site) -> None:
    browser = await linked.logged_in("administrator")
    for wrong in WRONG:
        made = await browser.submit(await browser.get("/lien"), "/lien", **SAID | wrong)
        assert made.status_code == 422, wrong
        assert "n'ont pas la forme attendue" in text_of(made)
        assert "<b>" not in made.text


async def test_a_box_that_opens_no_link_has_no_page_about_it(pool: Pool) -> None:
    async with open_site(pool) as site:
        browser = await site.logged_in("administrator")
        assert (await browser.get("/lien")).status_code == 404
        assert 'href="/lien"' not in (await browser.get("/reglages")).text
