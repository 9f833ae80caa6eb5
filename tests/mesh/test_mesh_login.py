"""The way in on the real mesh, in a real browser: steps 01 and 02 of the official scenario (rem-consumer.md 15.1)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from pathlib import Path
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import psycopg
import pytest
from axe_core import complaints, script
from mesh_world import World
from playwright.async_api import Page, expect
from psycopg.rows import dict_row
from test_mesh_browser import Watched, called, chromium, installed, shot_of, watched

from browsing import picture
from drimbox.demo.visitor import Visitor
from drimbox.sandbox.listeners import caller_context

__all__ = ["chromium", "installed", "watched"]

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def axe() -> str:
    """What looks for faults of accessibility."""
    return script(Path(__file__).parents[2] / "var" / "axe").read_text("utf-8")


async def admitted(page: Page) -> None:
    """What is asked once: to take notice, and in which practice."""
    await page.wait_for_selector("header .who")
    if await page.locator("input[name=lu]").count():
        await page.check("input[name=lu]")
        await page.click("main button[type=submit]")
    await page.wait_for_selector("header .who")
    if await page.locator("input[name=situation]").count():
        await page.check("input[name=situation]:not(:disabled)")
        await page.click("main button[type=submit]")
    await page.wait_for_selector(".patient")


async def audit_of_b(world: World, event: str) -> list[dict[str, object]]:
    lines = (world.mesh.state / "b" / "postgres" / "postmaster.pid").read_text().splitlines()
    dsn = f"postgresql://postgres:@/postgres?host={lines[4]}"
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        return await (await connection.execute("SELECT * FROM audit WHERE event = %s ORDER BY id", (event,))).fetchall()


@pytest.mark.requirement("DB.CO.48", "DB.CO.63", "DB.CO.80", "DB.CO.123", "DB.CS.53", "DB.CO.50", "PSC.01")
async def test_steps_one_and_two_of_the_scenario(world: World, watched: Watched, axe: str, tmp_path: Path) -> None:
    asked: list[str] = []
    watched.context.on("request", lambda request: asked.append(unquote_plus(request.url)))
    page = await called(watched, world)
    assert re.fullmatch(r"https://localhost:\d+/appel/[A-Za-z0-9_-]{22,}", page.url)
    # Nothing of the patient is shown to a browser before somebody has logged in.
    assert "PAT-TROIS" not in await page.content()
    await picture(page, shot_of("login", tmp_path))
    assert await complaints(page, axe) == []
    calls = await audit_of_b(world, "110100/contextual-call")
    logins = len(await audit_of_b(world, "110114/110122"))
    await page.click("a.psc")
    await page.click("button[value=doc0036790]")
    await admitted(page)
    await expect(page.locator("header .person strong")).to_have_text("KIT DOC0036790")
    await expect(page.locator("header .number")).to_have_text("RPPS 99700367909")
    await expect(page.locator("header .since").first).to_contain_text(
        re.compile(r"Connecté le \d\d/\d\d/\d{4} à \d\d:\d\d")
    )
    await expect(page.locator("header .practice")).to_contain_text("CABINET M DOC0036790")
    await picture(page, shot_of("logged-in", tmp_path))
    # Health data are in no address, and neither are tokens; the browser holds one cookie that no script can read.
    for value in ("279035121518989", "PAT-TROIS", "DOMINIQUE", "19790328", "IPP", "51215", "63220"):
        assert not [url for url in asked if value in url]
    ours = [url for url in asked if urlsplit(url).port == urlsplit(page.url).port]
    assert not [url for url in ours if "token" in url or "eyJ" in url]
    origin = f"https://localhost:{urlsplit(page.url).port}"
    [cookie] = [c for c in await watched.context.cookies(origin) if c["name"].startswith("__Host-drimbox-")]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")
    # The viewer, started behind the list, keeps the language it is in; nothing else is kept.
    kept = await page.evaluate("[document.cookie, {...localStorage}, {...sessionStorage}]")
    assert kept[0] in ("", "i18next=fr")
    assert not [v for v in ("2790351", "PAT-TROIS", "IPP", "eyJ", "1.2.250") if v in str(kept[1])], kept[1]
    assert kept[2] == {}
    # The journal has the call and the login, and names no patient.
    assert calls
    assert not [row for row in calls if "279035121518989" in str(row) or "PAT-TROIS" in str(row)]
    written = await audit_of_b(world, "110114/110122")
    assert len(written) == logins + 1
    assert "899700367909" in str(written[-1])


@pytest.mark.requirement("DB.CO.63", "PSC.01")
async def test_a_login_on_ones_own_device(world: World, watched: Watched, axe: str, tmp_path: Path) -> None:
    """CIBA: asked for in the browser, confirmed on the e-CPS, which shows the same number."""
    page = await called(watched, world)
    await page.fill("input[name=rpps]", "99700367909")
    await page.click("button.psc")
    binding = await page.locator(".binding").inner_text()
    assert re.fullmatch(r"\d\d", binding)
    await picture(page, shot_of("device", tmp_path))
    assert await complaints(page, axe) == []
    device = await watched.page()
    wallet = urlsplit(world.mesh.national.psc_discovery)
    await device.goto(f"https://localhost:{world.mesh.ports.wallet}/auth/ecps")
    assert wallet.hostname == "localhost"
    await expect(device.locator(".binding")).to_have_text(binding)
    await device.click("button[name=confirmer]")
    await page.bring_to_front()
    await admitted(page)
    await expect(page.locator("header .person strong")).to_have_text("KIT DOC0036790")
    # Logging out ends PSC's session too, without a visit to its pages.
    await page.click("header nav a[href='/deconnexion']")
    await page.click("main button[type=submit]")
    await expect(page.locator("h1")).to_have_text("Vous êtes déconnecté")
    assert await page.locator(".warn").count() == 0
    watched.complaints.clear()


@pytest.mark.requirement("DB.CO.49", "DB.CO.50")
async def test_the_practice_is_asked_once(world: World, watched: Watched, axe: str, tmp_path: Path) -> None:
    """Two practices: chosen at the first login, remembered at the next, also after a restart of the browser."""
    for visit in range(2):
        await watched.context.clear_cookies()
        page = await called(watched, world)
        await page.click("a.psc")
        await page.click("button[value=bideault]")
        await page.wait_for_selector("header .who")
        if visit:
            assert await page.locator("input[name=situation]").count() == 0
            await page.get_by_text("Changer de situation d’exercice").click()
            await page.wait_for_selector("input[name=situation]")
            assert await complaints(page, axe) == []
            await picture(page, shot_of("practices", tmp_path))
        await admitted(page)
        await expect(page.locator("header .practice")).to_contain_text("CABINET M DOC0036790")
        await page.get_by_text("Changer de situation d’exercice").wait_for()
        await page.close()


async def id_token_of_site_a(world: World, page: Page) -> str:
    """Site A's service takes part in the PSC session of this browser; its id_token."""
    site = world.mesh.national.sites["a"]
    back, verifier = site.site.redirect_uris[0], secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": site.site.client_id,
        "redirect_uri": back,
        "scope": "openid scope_all",
        "acr_values": "eidas1",
        "state": secrets.token_urlsafe(32),
        "nonce": secrets.token_urlsafe(32),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    wallet = f"https://localhost:{world.mesh.ports.wallet}/auth?{urlencode(asked)}"
    # The login of the first service is enough for the second: one session for all (SSO).
    answer = await page.context.request.get(wallet, max_redirects=0, ignore_https_errors=True)
    assert answer.status == 303, await answer.text()
    fields = {
        "grant_type": "authorization_code",
        "client_id": site.site.client_id,
        "code": parse_qs(urlsplit(answer.headers["location"]).query)["code"][0],
        "redirect_uri": back,
        "code_verifier": verifier,
    }
    reply = await world.mesh.http.send(
        "POST",
        f"{world.mesh.national.psc_issuer}/protocol/openid-connect/token",
        tls=caller_context(world.authority, site.certificates.psc),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(fields).encode(),
    )
    assert reply.status == 200, reply.body
    given: str = json.loads(reply.body)["id_token"]
    return given


@pytest.mark.requirement("PSC.01", "DB.CO.64")
async def test_a_logout_at_another_service_ends_ours(world: World, watched: Watched) -> None:
    """Front- and back-channel: PSC tells us of its session's end, server to server and in a frame of its page."""
    page = await called(watched, world)
    await page.click("a.psc")
    await page.click("button[value=doc0036790]")
    await admitted(page)
    hint = await id_token_of_site_a(world, page)
    framed: list[tuple[str, int]] = []
    leaving = await watched.page()
    leaving.on("response", lambda r: framed.append((urlsplit(r.url).path, r.status)))
    issuer = world.mesh.national.psc_issuer
    await leaving.goto(f"{issuer}/protocol/openid-connect/logout?{urlencode({'id_token_hint': hint})}")
    await expect(leaving.locator("iframe")).to_have_count(1)
    assert watched.complaints == []
    assert ("/psc/deconnexion-navigateur", 200) in framed
    await page.bring_to_front()
    answer = await page.reload()
    assert answer is not None
    assert answer.status == 404
    await expect(page.locator("body")).to_contain_text("Votre session est terminée")
    assert "PAT-TROIS" not in await page.content()
    watched.complaints.clear()


@pytest.mark.requirement("DB.CO.63")
@pytest.mark.parametrize(("fault", "status"), [("wrong-issuer", 403), ("wrong-state", 404), ("denied", 403)])
async def test_an_answer_that_is_not_the_one_asked_for_logs_nobody_in(world: World, fault: str, status: int) -> None:
    visitor = Visitor(world.mesh.http, world.mesh.tls)
    page = await visitor.post(world.mesh.call_url, world.call())
    logins = len(await audit_of_b(world, "110114/110122"))
    try:
        await world.psc_faults(authorization=fault)
        page = await visitor.follow(page, "Pro Santé Connect")
        if "/auth" in page.address:
            page = await visitor.press(page, "", user="doc0036790")
    finally:
        await world.psc_faults()
    assert page.status == status
    assert "DOC0036790" not in page.text
    # Written down where this browser had asked for it; an answer that it never asked for is nobody's login.
    written = await audit_of_b(world, "110114/110122")
    assert len(written) == logins + (status == 403)
    assert status == 404 or written[-1]["outcome"] != 0
