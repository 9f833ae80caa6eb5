"""The console in a real browser: by keyboard, without scripts, readable, on wide and narrow screens."""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from console_world import INSTALLER, OTHER_PASSWORD, PASSWORD, STUDY, Site, open_site
from playwright.async_api import Browser, Page

from browsing import CHROMIUM, chromium_running, picture
from drimbox.console.passwords import hashed
from drimbox.console.psc import CALLBACK_PATH, GOODBYE_PATH
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.national.psc.client import PscClient
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import sample_users
from drimbox.store.database import Pool
from publication.publication_examples import letter_of

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")]

# Every text that is seen, against the colour behind it (WCAG 2.1, 1.4.3), and every field without a name.
_UNREADABLE = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; }
    return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!text || !e.checkVisibility() || e.closest('.unseen')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) bad.push(e.outerHTML.slice(0, 80));
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]):not([hidden]), select, textarea'))
    if (!e.labels.length && !e.getAttribute('aria-label')) bad.push('no label: ' + e.outerHTML);
  for (const e of document.querySelectorAll('button, a[href]'))
    if (!e.textContent.trim() && !e.getAttribute('aria-label')) bad.push('no name: ' + e.outerHTML);
  if (document.querySelectorAll('h1').length !== 1) bad.push('not one h1');
  if (document.querySelectorAll('main').length !== 1 || !document.documentElement.lang) bad.push('landmarks');
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  if (new Set(ids).size !== ids.length) bad.push('the same id twice');
  return bad;
}"""


@dataclass
class Scene:
    site: Site
    origin: str
    browser: Browser
    shots: Path
    complaints: list[str]

    async def page(self, width: int = 1280) -> Page:
        """A page without scripts: nothing here may need one."""
        context = await self.browser.new_context(
            ignore_https_errors=True, java_script_enabled=True, viewport={"width": width, "height": 900}
        )
        context.set_default_timeout(90_000)
        page = await context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        return page

    async def looked_at(self, page: Page, name: str) -> None:
        """Readable as it is, and narrow; kept as a picture when DRIMBOX_SCREENSHOTS names a folder."""
        await picture(page, self.shots / f"console-{name}.png", full_page=True)
        assert await page.evaluate(_UNREADABLE) == [], name
        wide = page.viewport_size
        await page.set_viewport_size({"width": 360, "height": 740})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360, name
        await picture(page, self.shots / f"console-{name}-small.png", full_page=True)
        assert wide is not None
        await page.set_viewport_size(wide)

    async def log_in(self, page: Page, login: str, password: str = PASSWORD) -> None:
        await page.goto(f"{self.origin}/connexion")
        await page.get_by_label("Identifiant").fill(login)
        await page.get_by_label("Mot de passe").fill(password)
        await page.keyboard.press("Enter")
        await page.wait_for_load_state()


@pytest.fixture
async def scene(pool: Pool, authority: TestAuthority, tmp_path: Path) -> AsyncIterator[Scene]:
    pair = authority.issue(
        Profile.SSL_SERV,
        "console-browser",
        common_name="localhost",
        unit="1",
        organisation="X",
        hosts=("localhost", "127.0.0.1"),
    )
    tls = listener_context(pair, authority, ClientCertificate.UNASKED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    origin = f"https://localhost:{port}"
    clock = FixedClock(dt.datetime.now(dt.UTC))
    apps: list[object] = []

    async def provider(scope, receive, send):  # type: ignore[no-untyped-def]
        await apps[0](scope, receive, send)  # type: ignore[operator]

    async def health() -> dict[str, bool]:
        return {"PACS pacs-a": True, "PACS archive": False, "DMP": True}

    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpClient())
        # Another site than the console's, as the real one is: 127.0.0.1 is not localhost.
        psc_port = await stack.enter_async_context(serving(provider, host="127.0.0.1", port=0, tls=tls))
        base = f"https://127.0.0.1:{psc_port}"
        ours = Client(
            "console",
            "Console du site A",
            (origin + CALLBACK_PATH,),
            secret="s",
            post_logout_redirect_uris=(origin + GOODBYE_PATH,),
        )
        apps.append(psc_app(base, (ours,), sample_users(), clock=clock, state=tmp_path / "psc"))
        discovery = f"{base}/auth/realms/esante-wallet/.well-known/wallet-openid-configuration"
        psc = PscClient(http, caller_context(authority), discovery, "console", "s", clock)
        site = await stack.enter_async_context(open_site(pool, public_url=origin, psc=psc, health=health, clock=clock))
        await stack.enter_async_context(serving(site.app, host="localhost", port=port, tls=tls))
        browser = await stack.enter_async_context(chromium_running())
        complaints: list[str] = []
        yield Scene(site, origin, browser, Path(os.environ.get("DRIMBOX_SCREENSHOTS", tmp_path)), complaints)
        assert not [text for text in complaints if "Content Security Policy" in text]


@pytest.mark.requirement("DB.SO.15", "DB.SO.21")
async def test_an_operator_works_through_the_queue(scene: Scene) -> None:
    site = scene.site
    await site.accounts.add(
        login="jacques.bideault",
        name="Jacques Bideault",
        roles=["operateur", "lecture-messages"],
        by=INSTALLER,
        password=hashed(PASSWORD, site.desk.passwords.hasher.cost),
    )
    await site.world.run(letter_of())
    site.world.pacs.studies.clear()
    await site.world.run(letter_of("M", "M2"))
    number = await site.incident(
        "dmp-rejected",
        reason="Le DMP a refusé le lot de soumission",
        peer_code="XDSPatientIdDoesNotMatch",
        study_uid="1.2.250.1.213.4.5.2.1.112",
    )
    await site.incident("birth-place-differs", severity="warning", reason="Le lieu de naissance diffère")
    page = await scene.page()

    # In, by keyboard alone, and a password of one's own.
    await page.goto(f"{scene.origin}/file")
    assert page.url.endswith("/connexion")
    await scene.looked_at(page, "login")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.get_by_label("Identifiant").focus()
    await page.keyboard.type("jacques.bideault")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/mot-de-passe")
    await scene.looked_at(page, "password")
    await page.get_by_label("Mot de passe actuel").fill(PASSWORD)
    await page.get_by_label("Nouveau mot de passe", exact=True).fill(OTHER_PASSWORD)
    await page.get_by_label("Nouveau mot de passe, encore une fois").fill(OTHER_PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/file")

    # The queue, one line, its buttons.
    assert await page.get_by_role("row").count() == 4
    await scene.looked_at(page, "queue")
    await page.get_by_label("Gravité").select_option("erreur")
    await page.get_by_role("button", name="Filtrer").click()
    assert await page.get_by_role("row").count() == 3
    await page.get_by_role("link", name=f"Ouvrir l’incident {number}").click()
    await scene.looked_at(page, "incident")
    await page.get_by_role("button", name="Classer sans suite").click()
    assert page.url.endswith(f"/file/{number}"), "the browser itself asks for the reason"
    await page.get_by_label("Motif").fill("Patient en cours de fusion, vu avec le SIH")
    await page.get_by_role("button", name="Classer sans suite").click()
    await page.get_by_role("status").wait_for()
    assert "classé sans suite" in await page.inner_text("main")
    await scene.looked_at(page, "closed")

    # The raw message, unfolded by keyboard.
    await page.goto(f"{scene.origin}/file")
    await page.get_by_role("link", name="Ouvrir l’incident 1").click()
    await page.get_by_role("button", name="Réessayer").click()
    assert "remis en file" in await page.inner_text("main")
    await page.get_by_role("link", name="Voir le message brut").click()
    assert "PAT-TROIS" in await page.inner_text("main")
    assert not await page.locator("details pre").is_visible()
    await scene.looked_at(page, "message")
    await page.locator("summary").focus()
    await page.keyboard.press("Enter")
    assert await page.locator("details pre").is_visible()

    # The study, all its versions.
    await page.goto(f"{scene.origin}/examens")
    await page.get_by_label("Identifiant d’examen").fill(STUDY)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/examens/{STUDY}")
    assert "en vigueur au DMP" in await page.inner_text("main")
    await scene.looked_at(page, "study")
    await page.get_by_role("link", name="Se déconnecter").click()
    await page.get_by_role("button", name="Se déconnecter").click()
    await page.goto(f"{scene.origin}/file")
    assert page.url.endswith("/connexion")


@pytest.mark.requirement("SSI/GEN.16")
async def test_an_administrator_opens_an_account(scene: Scene) -> None:
    await scene.site.person("administrator")
    await scene.site.person("operator", national_id="899700367909")
    page = await scene.page()
    await scene.log_in(page, "administrator.essai")
    await scene.looked_at(page, "accounts")
    await page.get_by_label("Identifiant, celui d’une personne").fill("thomas.eric")
    await page.get_by_label("Prénom et nom").fill("Thomas Eric")
    await page.get_by_label("Opérateur : la file").check()
    await page.get_by_role("button", name="Ouvrir le compte").click()
    assert "Mot de passe provisoire de Thomas Eric" in await page.inner_text("main")
    await scene.looked_at(page, "account")
    await page.get_by_role("link", name="Réglages").click()
    await scene.looked_at(page, "settings")
    await page.goto(f"{scene.origin}/file")
    assert "n'a pas ce droit" in await page.inner_text("main")
    await scene.looked_at(page, "forbidden")


@pytest.mark.requirement("PSC.01")
async def test_a_strict_cookie_survives_the_way_back_from_another_site(scene: Scene) -> None:
    await scene.site.person("operator", national_id="899700367909")
    page = await scene.page()
    await page.goto(f"{scene.origin}/connexion")
    await page.get_by_role("link", name="Pro Santé Connect").click()
    await page.get_by_role("button", name="KIT DOC0036790").click()
    await page.wait_for_url("**/file")
    assert "Operator Essai" in await page.inner_text("header")
    [cookie] = [c for c in await page.context.cookies(scene.origin) if c["name"].endswith("-session")]
    assert (cookie["sameSite"], cookie["httpOnly"], cookie["secure"]) == ("Strict", True, True)
    # A link on another site opens no page of the session: it asks who is there.
    await page.goto(scene.origin.replace("localhost", "127.0.0.1") + "/connexion")
    answer = await page.request.get(f"{scene.origin}/file", max_redirects=0)
    assert answer.status in (200, 303)
    await page.goto(f"{scene.origin}/deconnexion")
    await page.get_by_role("button", name="Se déconnecter").click()
    await page.wait_for_url("**/au-revoir")
    await page.goto(f"{scene.origin}/connexion")
    await page.get_by_role("link", name="Pro Santé Connect").click()
    await page.get_by_role("button", name="KIT DOC0036790").wait_for()
