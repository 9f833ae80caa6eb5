"""Ways in and out with Pro Santé Connect: on one's own device, front-channel logout, the answer of another provider."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from dataclasses import replace
from typing import Any

import pytest
from consumer_world import DOMINIQUE, KIT, OTHER, SECOND, Browser, Site, text_of

from drimbox.consumer.professional import Professional
from drimbox.consumer.remote_login import national_id_of
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import DrimboxError, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo
from drimbox.record.audit import Outcome

ISSUER = "https://psc.example/auth/realms/esante-wallet"
NOW = dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC)


class FakeDevice:
    """The professional's telephone: rings, and waits for what the test answers."""

    def __init__(self) -> None:
        self.rung: list[tuple[str, str, str]] = []
        self.answered = asyncio.Event()
        self.refusal: DrimboxError | None = None
        self.confirmed_by: UserInfo = KIT
        self.left: list[str] = []

    async def connect(self, national_id: str, binding: str, channel: str) -> Tokens:
        self.rung.append((national_id, binding, channel))
        await self.answered.wait()
        if self.refusal is not None:
            raise self.refusal
        number = f"{len(self.rung)}"
        return Tokens(
            f"access-{number}",
            f"refresh-{number}",
            f"id-{number}",
            NOW + dt.timedelta(minutes=2),
            None,
            self.confirmed_by.subject,
            f"device-session-{number}",
            NOW,
        )

    async def identity(self, tokens: Tokens) -> UserInfo:
        return self.confirmed_by

    async def refresh(self, former: Tokens) -> Tokens:
        return replace(former, expires_at=former.expires_at + dt.timedelta(minutes=2))

    async def leave(self, tokens: Tokens) -> None:
        self.left.append(tokens.refresh_token)


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


@pytest.fixture
def ways(device: FakeDevice) -> dict[str, Any]:
    return {"remote": device}


async def ring(site: Site, browser: Browser, rpps: str = "99700367909", **more: str) -> Reply:
    """From the call to the page that waits for the device."""
    page = await browser.get(await site.call(DOMINIQUE))
    waiting = await browser.submit(page, "/connexion/appareil", rpps=rpps, moyen=more.get("moyen", "MOBILE"))
    # The device rings in a task of its own.
    await asyncio.sleep(0.02)
    return waiting


async def over(browser: Browser) -> bool:
    reply = await browser.get(browser.path.replace("/attente", "/etat"))
    told: bool = json.loads(reply.body)["over"]
    return told


@pytest.mark.requirement("DB.CO.63", "DB.CO.80", "PSC.01")
async def test_a_login_on_ones_own_device(site: Site, device: FakeDevice) -> None:
    site.hold(DOMINIQUE)
    browser = site.browser()
    page = await ring(site, browser)
    waits = browser.path
    assert waits.endswith("/connexion/attente")
    [(national_id, binding, channel)] = device.rung
    assert (national_id, channel) == (KIT.national_id, "MOBILE")
    assert f"Elle affiche ce nombre : {binding}" in text_of(page)
    assert not await over(browser)
    cookies = dict(browser.cookies)
    device.answered.set()
    await asyncio.sleep(0.02)
    page = await browser.get(waits)
    page = await browser.submit(page, "/information", lu="oui")
    assert "RPPS 99700367909" in text_of(page)
    # A login begins a new cookie; the former one is worth nothing.
    assert browser.cookies != cookies
    thief = site.browser()
    thief.cookies = cookies
    assert (await thief.get(browser.path)).status == 404
    assert "110114/110122" in site.journal.codes()
    # Nothing that says who it is stands in an address.
    assert not [url for url in browser.visited if "99700367909" in url]
    bye = await browser.submit(await browser.get("/deconnexion"), "/deconnexion")
    assert "n’a pas pu être terminée" not in text_of(bye)
    assert device.left == ["refresh-1"]
    assert site.psc.revoked == []


@pytest.mark.parametrize(
    ("refusal", "said", "status"),
    [
        (Rejected("Vous avez refusé la connexion", code="login-refused"), "Vous avez refusé la connexion", 403),
        (Unavailable("Pro Santé Connect ne répond pas", code="psc-unavailable"), "Réessayez", 503),
    ],
)
async def test_a_login_that_does_not_come_to_its_end(
    site: Site, device: FakeDevice, refusal: DrimboxError, said: str, status: int
) -> None:
    browser = site.browser()
    await ring(site, browser)
    device.refusal = refusal
    device.answered.set()
    await asyncio.sleep(0.02)
    page = await browser.get(browser.path)
    assert page.status == status
    assert said in text_of(page)
    assert site.journal.codes()[-1] == "110114/110122"
    assert site.journal.events[-1].outcome is not Outcome.SUCCESS
    # And once more from there.
    device.refusal = None
    again = await browser.submit(page, "/connexion/appareil", rpps="99700367909", moyen="CARD")
    assert again.status == 200


async def test_the_confirmation_of_somebody_else_is_refused(site: Site, device: FakeDevice) -> None:
    browser = site.browser()
    await ring(site, browser)
    device.confirmed_by = OTHER
    device.answered.set()
    await asyncio.sleep(0.02)
    page = await browser.get(browser.path)
    assert page.status == 403
    assert "par quelqu'un d'autre" in text_of(page)
    # Their session at PSC is not left open.
    assert device.left == ["refresh-1"]


async def test_a_device_answers_the_browser_that_asked(site: Site, device: FakeDevice) -> None:
    browser, other = site.browser(), site.browser()
    await ring(site, browser)
    waits = browser.path
    await other.get(await site.call(SECOND))
    device.answered.set()
    await asyncio.sleep(0.02)
    assert (await other.get(waits)).status == 404
    assert (await browser.get(waits)).status == 200


async def test_giving_up_and_asking_again(site: Site, device: FakeDevice) -> None:
    browser = site.browser()
    page = await ring(site, browser)
    page = await browser.submit(page, "/connexion/abandon")
    assert "S’identifier avec" in text_of(page)
    device.answered.set()
    await asyncio.sleep(0.02)
    assert "S’identifier avec" in text_of(await browser.get(f"{browser.path}/connexion/attente"))


async def test_nobody_rings_a_telephone_for_ever(site: Site, device: FakeDevice) -> None:
    browser = site.browser()
    await ring(site, browser)
    call = browser.path.removesuffix("/connexion/attente")
    for _ in range(4):
        page = await browser.submit(await browser.get(call), "/connexion/appareil", rpps="99700367909", moyen="CARD")
        assert page.status == 200
        await asyncio.sleep(0.01)
    page = await browser.submit(await browser.get(call), "/connexion/appareil", rpps="99700367909", moyen="CARD")
    assert page.status == 422
    assert "Trop de demandes" in text_of(page)
    assert len(device.rung) == 5


@pytest.mark.parametrize("typed", ["", "1234", "9970036790a", "799700367909", "<b>99700367909</b>"])
async def test_what_is_no_number_is_told_without_it(site: Site, device: FakeDevice, typed: str) -> None:
    browser = site.browser()
    page = await ring(site, browser, typed)
    assert page.status == 422
    assert "onze chiffres" in text_of(page)
    assert len(typed) < 3 or typed not in page.body.decode()
    assert device.rung == []


def test_both_ways_to_write_a_number() -> None:
    assert national_id_of("99 700 367 909") == national_id_of("899700367909") == "899700367909"
    with pytest.raises(Refused):
        national_id_of("８９９７００３６７９０９")


async def test_a_form_of_another_site_rings_nothing(site: Site, device: FakeDevice) -> None:
    browser = site.browser()
    await browser.get(await site.call(DOMINIQUE))
    path = f"{browser.path}/connexion/appareil"
    sent = await browser.send("POST", path, {"rpps": "99700367909", "moyen": "MOBILE", "jeton": "x"})
    assert sent.status == 403
    assert device.rung == []


async def test_both_ways_are_offered_side_by_side(site: Site) -> None:
    page = await site.browser().get(await site.call(DOMINIQUE))
    assert page.body.count(b'class="psc"') == 2


@pytest.mark.requirement("PSC.01", "DB.CO.64")
async def test_psc_ends_a_session_from_a_frame_of_its_page(site: Site) -> None:
    site.hold(DOMINIQUE)
    browser, frame = site.browser(), site.browser()
    await site.log_in(browser)
    call = browser.path
    path = "/psc/deconnexion-navigateur"
    for query in ("", f"?iss={ISSUER}", "?sid=session-code0", "?iss=https://autre.example&sid=session-code0"):
        assert (await frame.get(path + query)).status == 400
    assert (await frame.get(f"{path}?iss={ISSUER}&sid=une-autre")).status == 200
    assert (await browser.get(call)).status == 200
    told = await frame.get(f"{path}?iss={ISSUER}&sid=session-code0")
    assert told.status == 200
    assert told.body == b""
    # PSC's pages may show it, and no other.
    assert "frame-ancestors https://psc.example" in told.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in told.headers
    assert told.headers["Cache-Control"] == "no-store"
    assert (await browser.get(call)).status == 404
    assert site.journal.codes()[-1] == "110114/110123"
    assert site.psc.revoked


async def test_an_answer_of_another_provider_is_refused(site: Site) -> None:
    browser = site.browser()
    await browser.get(await site.call(DOMINIQUE))
    sent = await browser.send("GET", f"{browser.path}/connexion", follow=False)
    back = await browser.get(f"{sent.headers['Location']}&iss=https://autre.example")
    assert back.status == 403
    assert "autre fournisseur" in text_of(back)
    # The true one says who it is (RFC 9207).
    await browser.get(await site.call(DOMINIQUE))
    sent = await browser.send("GET", f"{browser.path}/connexion", follow=False)
    assert (await browser.get(f"{sent.headers['Location']}&iss={ISSUER}")).status == 200


async def test_a_page_of_somebody_else_is_told_so(site: Site) -> None:
    browser = site.browser()
    page = await site.log_in(browser)
    call = browser.path
    mark = page.body.decode().split('data-page="')[1].split('"')[0]
    assert mark not in browser.cookies.values()
    assert (await browser.send("POST", f"/presence?page={mark}", {})).status == 204
    site.psc.next_user = OTHER
    await browser.get(f"{call}/connexion")
    assert (await browser.send("POST", f"/presence?page={mark}", {})).status == 205


async def test_a_login_without_a_token_says_what_it_cannot_do() -> None:
    clock = FixedClock(NOW)
    tokens = Tokens("", "session", "", NOW + dt.timedelta(hours=1), None, "", "", NOW)
    professional = Professional(KIT, tokens, psc=FakeDevice(), clock=clock)
    with pytest.raises(Rejected) as refused:
        await professional.access_token()
    assert refused.value.code == "no-token"


async def test_many_browsers_do_not_ring_one_telephone_for_ever(site: Site, device: FakeDevice) -> None:
    for _ in range(5):
        assert (await ring(site, site.browser())).status == 200
    assert (await ring(site, site.browser())).status == 422
    assert len(device.rung) == 5
    # A colleague's may still ring; and so may theirs, later.
    assert (await ring(site, site.browser(), "99700218896")).status == 200
    site.clock.advance(601)
    assert (await ring(site, site.browser())).status == 200
