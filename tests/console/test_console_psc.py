"""Coming in with Pro Santé Connect: our own client against the sandbox's strict provider."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
from console_world import ORIGIN, Browser, Site, open_site, text_of
from lxml import html

from drimbox.console.psc import CALLBACK_PATH, GOODBYE_PATH
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.national.psc.client import PscClient
from drimbox.record.audit import Outcome
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import sample_users
from drimbox.store.database import Pool

KIT = "899700367909"


@dataclass
class Provider:
    """PSC, and the cookies that a browser keeps for it."""

    base: str
    http: HttpClient
    tls: ssl.SSLContext
    cookies: dict[str, str] = field(default_factory=dict)

    async def visit(self, method: str, url: str, fields: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
        headers = {"Cookie": "; ".join(f"{n}={v}" for n, v in self.cookies.items())} if self.cookies else {}
        body = urlencode(fields).encode() if fields is not None else None
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        reply = await self.http.send(method, url, tls=self.tls, headers=headers, body=body)
        for line in reply.headers.getall("Set-Cookie", []):
            self.cookies |= {name: m.value for name, m in SimpleCookie(line).items()}
        return reply

    async def log_in(self, address: str, user: str = "doc0036790") -> str:
        """Choose a person on the login page; the path that PSC sends the browser back to."""
        page = await self.visit("GET", address)
        if page.status == 200:
            form = html.fromstring(page.body).forms[0]
            fields = {name: value for name, value in form.fields.items() if value is not None} | {"user": user}
            page = await self.visit("POST", urljoin(self.base, form.action), fields)
        location = page.headers["Location"]
        assert location.startswith(ORIGIN + CALLBACK_PATH), location
        return location.removeprefix(ORIGIN)


@dataclass
class Scene:
    site: Site
    psc: Provider
    clock: FixedClock

    async def to_psc(self, browser: Browser) -> str:
        answer = await browser.send("GET", "/connexion/psc", follow=False)
        assert answer.status_code == 303
        return str(answer.headers["location"])

    async def log_in(self, browser: Browser, user: str = "doc0036790"):  # type: ignore[no-untyped-def]
        return await browser.get(await self.psc.log_in(await self.to_psc(browser), user))


@pytest.fixture
async def scene(pool: Pool, authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    pair = authority.issue(
        Profile.SSL_SERV,
        "console-psc",
        common_name="localhost",
        unit="318751275100020",
        organisation="ANS",
        hosts=("localhost",),
    )
    apps: list[object] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        await apps[0](scope, receive, send)  # type: ignore[operator]

    clock = FixedClock(dt.datetime.now(dt.UTC))
    tls = listener_context(pair, authority, ClientCertificate.OPTIONAL)
    async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        base = f"https://localhost:{port}"
        ours = Client(
            "console",
            "Console",
            (ORIGIN + CALLBACK_PATH,),
            secret="s&cret",
            post_logout_redirect_uris=(ORIGIN + GOODBYE_PATH,),
        )
        state = tmp_path_factory.mktemp("psc")
        apps.append(psc_app(base, (ours,), sample_users(), clock=clock, state=state))
        context = caller_context(authority)
        discovery = f"{base}/auth/realms/esante-wallet/.well-known/wallet-openid-configuration"
        client = PscClient(http, context, discovery, "console", "s&cret", clock)
        async with open_site(pool, psc=client, clock=clock) as site:
            site.clock = clock
            yield Scene(site, Provider(base, http, context), clock)


@pytest.mark.requirement("PSC.01", "PSC.02", "IAM.91")
async def test_whoever_has_an_account_with_that_national_id_comes_in(scene: Scene) -> None:
    account = await scene.site.person("operator", national_id=KIT)
    browser = scene.site.browser()
    door = await browser.get("/connexion")
    assert "S’identifier avec Pro Santé Connect" in text_of(door)
    page = await scene.log_in(browser)
    # The cookie is strict: the page goes on by itself, so that the next request is of our own site.
    assert page.status_code == 200
    assert html.fromstring(page.content).xpath("//meta[@http-equiv='refresh']/@content") == ["0; url=/"]
    await browser.get("/")
    assert browser.path == "/file"
    assert (await scene.site.accounts.by_id(account.id)).last_login_at is not None  # type: ignore[union-attr]
    [event] = await scene.site.traced("LOGIN")
    assert (event.actor.person, event.objects[0].detail) == (KIT, "Pro Santé Connect")
    # Neither a code nor a token is kept in the journal or in addresses of ours.
    assert "code=" not in browser.path


@pytest.mark.requirement("PSC.01")
async def test_others_stay_outside_and_the_journal_knows_who_they_are(scene: Scene) -> None:
    await scene.site.accounts.lock((await scene.site.person("operator", national_id=KIT)).id, _by())
    for user, person in (("doc0036790", KIT), ("bideault", None)):
        browser = scene.site.browser()
        scene.psc.cookies.clear()
        page = await scene.log_in(browser, user)
        assert page.status_code == 403
        assert "aucun accès à cette console" in text_of(page)
        assert not [name for name in browser.cookies if name.endswith("-session")]
        event = (await scene.site.traced("LOGIN"))[-1]
        assert event.outcome is not Outcome.SUCCESS
        assert event.actor.person
        assert person is None or event.actor.person == person


async def test_an_answer_is_good_once_in_the_browser_that_asked(scene: Scene) -> None:
    await scene.site.person("operator", national_id=KIT)
    browser, thief = scene.site.browser(), scene.site.browser()
    back = await scene.psc.log_in(await scene.to_psc(browser))
    await scene.to_psc(thief)
    for other in (thief, scene.site.browser()):
        page = await other.get(back)
        assert page.status_code == 400
    # Whoever took it has also spent it.
    assert (await browser.get(back)).status_code == 400
    fresh = await scene.psc.log_in(await scene.to_psc(browser))
    assert (await browser.get(fresh)).status_code == 200
    assert (await browser.get(fresh)).status_code == 400
    assert len(scene.site.desk.sessions) == 1


async def test_an_answer_that_comes_late_or_says_no(scene: Scene) -> None:
    await scene.site.person("operator", national_id=KIT)
    browser = scene.site.browser()
    back = await scene.psc.log_in(await scene.to_psc(browser))
    scene.clock.advance(601)
    assert (await browser.get(back)).status_code == 400
    state = str(urlsplit(await scene.to_psc(browser)).query).split("state=")[1].split("&")[0]
    refused = await browser.get(f"{CALLBACK_PATH}?state={state}&error=access_denied&error_description=%3Cscript%3E")
    assert refused.status_code == 403
    assert "vous pouvez recommencer" in text_of(refused)
    for query in ("", "?state=x&code=y", "?state=%00&code=%00", "?state=" + "x" * 5000):
        assert (await browser.get(CALLBACK_PATH + query)).status_code == 400


async def test_logins_on_their_way_take_bounded_memory(scene: Scene) -> None:
    desk = scene.site.desk.psc
    assert desk is not None
    for _ in range(600):
        await desk.begin("x")
    assert len(desk._pending) == 500


@pytest.mark.requirement("PSC.01", "SSI/IE.38")
async def test_logout_ends_the_session_of_psc_too(scene: Scene) -> None:
    await scene.site.person("operator", national_id=KIT)
    browser = scene.site.browser()
    await scene.log_in(browser)
    # As long as PSC's session lasts its login is silent.
    assert (await scene.psc.visit("GET", await scene.to_psc(scene.site.browser()))).status == 303
    page = await browser.submit(await browser.get("/deconnexion"), "/deconnexion")
    [elsewhere] = html.fromstring(page.content).xpath("//a[contains(., 'Terminer')]/@href")
    answer = await scene.psc.visit("GET", str(elsewhere))
    assert answer.headers["Location"] == ORIGIN + GOODBYE_PATH
    assert (await browser.get(GOODBYE_PATH)).status_code == 200
    assert (await scene.psc.visit("GET", await scene.to_psc(scene.site.browser()))).status == 200


async def test_a_session_of_psc_lasts_four_hours_at_the_most(scene: Scene) -> None:
    await scene.site.person("operator", national_id=KIT)
    browser = scene.site.browser()
    await scene.log_in(browser)
    for _ in range(16):
        scene.clock.advance(880)
        await browser.get("/file")
    assert browser.path == "/file"
    scene.clock.advance(400)
    await browser.get("/file")
    assert browser.path == "/connexion"


async def test_psc_being_down_leaves_the_other_way_open(pool: Pool, authority: TestAuthority) -> None:
    clock = FixedClock(dt.datetime.now(dt.UTC))
    async with HttpClient() as http:
        psc = PscClient(http, caller_context(authority), "https://localhost:9/x", "console", "s", clock)
        async with open_site(pool, psc=psc) as site:
            await site.person()
            browser = site.browser()
            page = await browser.send("GET", "/connexion/psc", follow=False)
            assert page.status_code == 503
            await browser.submit(page, "/connexion", identifiant="operator.essai", secret="Vert-de-gris 1950 !")
            assert browser.path == "/file"


async def test_without_psc_its_pages_are_not_there(site: Site) -> None:
    browser = site.browser()
    assert "Pro Santé" not in (await browser.get("/connexion")).text
    for path in ("/connexion/psc", CALLBACK_PATH):
        assert (await browser.get(path)).status_code == 404


def _by():  # type: ignore[no-untyped-def]
    from console_world import INSTALLER

    return INSTALLER
