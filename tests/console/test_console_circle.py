"""The console's page about the network: the list in use, fetched now by an administrator, refused in plain words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from console_world import open_site, text_of

from drimbox.box.whitelisting import WhitelistDesk
from drimbox.console.circle import CircleRoom
from drimbox.foundation.clock import SystemClock
from drimbox.national.whitelist import Whitelist, WhitelistKeeper, verify
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.whitelist import ListedDomain, Publisher
from drimbox.store.database import Pool
from drimbox.trust.distribution import ListState
from drimbox.trust.tls import load_trust

CN, OU = "Liste Blanche DRIM-M", "318751275100020"
URL = "https://liste.example.test/liste-blanche.xml"


@dataclass
class Agency:
    publisher: Publisher
    unsigned: bool = False

    async def fetch(self) -> bytes:
        return self.publisher.unsigned() if self.unsigned else self.publisher.signed()


def agency_of(authority: TestAuthority) -> Agency:
    pair = authority.issue(
        Profile.ORG_SIGN, "console-agency", common_name=CN, unit=OU, organisation="AGENCE DU NUMERIQUE EN SANTE"
    )
    domain = ListedDomain(
        "1", "db1.test", "vi1.test", "<b>Site 1</b>", "CN=db1.test,C=FR", "a@b.fr", dt.datetime.now(dt.UTC)
    )
    return Agency(Publisher((domain,), pair, SystemClock()))


def room_of(pool: Pool, authority: TestAuthority, agency: Agency, lists: Sequence[ListState] = ()) -> CircleRoom:
    clock = SystemClock()

    def believed(document: bytes) -> Whitelist:
        trust = load_trust([authority.roots], authority.revocation_lists)
        return verify(document, trust=trust, signer_cn=CN, signer_ou=OU, now=clock.now())

    keeper = WhitelistKeeper(pool, agency.fetch, believed, clock)
    desk = WhitelistDesk(keeper, pool, Journal(pool), Incidents(pool, clock), clock, "box", dt.timedelta(days=1))
    return CircleRoom(desk.held, desk.renew, lambda: lists, URL, keeper.max_age)


@pytest.mark.requirement("D16")
async def test_an_administrator_fetches_the_list(pool: Pool, authority: TestAuthority) -> None:
    agency = agency_of(authority)
    state = ListState("http://crl.example.test/a.crl", problem="Serveur injoignable", failures=2)
    async with open_site(pool, circle_room=room_of(pool, authority, agency, [state])) as site:
        browser = await site.logged_in("administrator")
        page = await browser.get("/reseau")
        assert "Aucune image n’est servie" in text_of(page)
        assert "Aucune liste" in text_of(page)
        assert "Serveur injoignable" in text_of(page)

        page = await browser.submit(page, "/reseau/liste-blanche")
        assert page.status_code == 200
        assert "Liste blanche reçue et valable : 1 DRIMbox." in text_of(page)
        assert "première liste : 1 DRIMbox." in text_of(page)
        assert "CN=db1.test,C=FR" in text_of(page)
        assert "<b>Site 1" not in page.text
        [event] = await site.traced("WHITELIST_CHANGED")
        assert event.actor.name == "Administrator Essai"

        agency.unsigned = True
        page = await browser.submit(page, "/reseau/liste-blanche")
        assert page.status_code == 502
        assert "La liste blanche n’a pas été renouvelée" in text_of(page)
        assert "La précédente reste en service jusqu’au" in text_of(page)
        assert len(await site.traced("WHITELIST_REFUSED")) == 1


@pytest.mark.requirement("SSI/GEN.16")
@pytest.mark.parametrize("roles", ["operator", "auditor", "nobody"])
async def test_it_is_for_administrators_alone(pool: Pool, authority: TestAuthority, roles: str) -> None:
    async with open_site(pool, circle_room=room_of(pool, authority, agency_of(authority))) as site:
        browser = await site.logged_in(roles)
        assert (await browser.get("/reseau")).status_code == 403
        assert (await browser.post("/reseau/liste-blanche")).status_code == 403
        assert await site.traced("WHITELIST_CHANGED") == []
