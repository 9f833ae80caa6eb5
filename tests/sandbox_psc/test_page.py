"""The login page in a real browser, by keyboard alone."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from browsing import CHROMIUM, chromium_running, picture
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_server import serving
from drimbox.sandbox.listeners import ClientCertificate, listener_context
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import sample_users

from .conftest import Listener

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.e2e]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")
@pytest.mark.requirement("DB.CO.63")
async def test_a_card_is_chosen_by_keyboard(
    listener: Listener, authority: TestAuthority, key_folder: Path, tmp_path: Path
) -> None:
    came: list[dict[str, str]] = []

    async def back(request: Request) -> Response:
        came.append(dict(request.query_params))
        return HTMLResponse("<!DOCTYPE html><title>Service</title><p>De retour")

    pair = authority.issue(
        Profile.SSL_SERV, "psc-rp", common_name="localhost", unit="1", organisation="X", hosts=("localhost",)
    )
    service = Starlette(routes=[Route("/retour", back)])
    tls = listener_context(pair, authority, ClientCertificate.UNASKED)
    # Screenshots are kept when DRIMBOX_SCREENSHOTS names a folder.
    shots = Path(os.environ.get("DRIMBOX_SCREENSHOTS", tmp_path))
    async with serving(service, host="127.0.0.1", port=0, tls=tls) as port, chromium_running() as browser:
        return_address = f"https://localhost:{port}/retour"
        client = Client("box", "DRIMbox du cabinet", (return_address,), secret="s")
        app = psc_app(listener.base, (client,), sample_users(), clock=SystemClock(), state=key_folder)
        listener.app.append(app)
        page = await browser.new_page(ignore_https_errors=True, viewport={"width": 1000, "height": 760})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))

        await page.goto(_address(listener.base, return_address))
        assert "bac à sable" in await page.title()
        await picture(page, shots / "psc-login.png")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        focused = await page.evaluate("document.activeElement.value")
        assert focused == "bideault"
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"
        await picture(page, shots / "psc-login-focus.png")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{return_address}?*")
        await page.goto(_address(listener.base, return_address))
        assert page.url.startswith(return_address), "the second login is silent"
        assert [set(query) for query in came] == [{"state", "session_state", "iss", "code"}] * 2

        await page.set_viewport_size({"width": 360, "height": 740})
        await page.emulate_media(color_scheme="dark")
        await page.goto(_address(listener.base, return_address, prompt="login"))
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
        await picture(page, shots / "psc-login-small.png")
        await page.goto(_address(listener.base, "https://ailleurs.example/"))
        assert await page.get_by_role("alert").count() == 1
        await picture(page, shots / "psc-refused.png")
    assert not [text for text in complaints if "Content Security Policy" in text or "Content-Security-Policy" in text]


def _address(base: str, redirect_uri: str, **more: str) -> str:
    digest = hashlib.sha256(secrets.token_bytes(32)).digest()
    parameters = {
        "response_type": "code",
        "client_id": "box",
        "redirect_uri": redirect_uri,
        "scope": "openid scope_all",
        "acr_values": "eidas1",
        "state": secrets.token_urlsafe(32),
        "nonce": secrets.token_urlsafe(32),
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    return f"{base}/auth?{urlencode(parameters | more)}"
