"""The end of a session, and the faults that can be asked for."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet
from lxml import html
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.backchannel import backchannel
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import sample_users

from .conftest import RETURN, Psc, claims, content, refusal, returned

pytestmark = pytest.mark.asyncio(loop_scope="session")

END = "https://box.example/fin"


@pytest.mark.requirement("DB.CO.64", "PSC.01")
async def test_logout_ends_everything(psc: Psc) -> None:
    browser = psc.browser()
    tokens = await psc.tokens(browser=browser)
    query = urlencode({"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": END, "state": "s t"})
    psc.clock.advance(300)
    answer = await browser.send("GET", f"{psc.endpoint('logout')}?{query}")
    assert answer.status == 303
    assert answer.headers["Location"] == f"{END}?state=s+t"
    assert "psc_sandbox_session" not in browser.cookies
    assert not await psc.active(tokens["refresh_token"])
    reply = await psc.ask("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refusal(reply) == "invalid_grant"
    url, _ = psc.attempt()
    assert (await browser.send("GET", url)).status == 200


async def test_services_are_told_on_the_back_channel(psc: Psc) -> None:
    tokens = await psc.tokens()
    query = urlencode({"id_token_hint": tokens["id_token"]})
    page = await psc.browser().send("GET", f"{psc.endpoint('logout')}?{query}")
    assert page.status == 200
    assert "déconnecté" in page.body.decode()
    [(address, logout_token)] = psc.told
    assert address == "https://box.example/psc/fin"
    keys = KeySet.import_key_set(content(await psc.get(psc.endpoint("certs"))))
    read = jwt.decode(logout_token, keys, algorithms=["RS256"])
    assert read.header["typ"] == "logout+jwt"
    assert read.claims["sid"] == tokens["session_state"]
    assert read.claims["aud"] == "drimbox-secret"
    assert list(read.claims["events"]) == ["http://schemas.openid.net/event/backchannel-logout"]
    assert "nonce" not in read.claims
    await psc.browser().send("GET", f"{psc.endpoint('logout')}?{query}")
    assert len(psc.told) == 1


async def test_services_are_told_in_frames(psc: Psc) -> None:
    browser = psc.browser()
    tokens = await psc.tokens(browser=browser)
    url, mine = psc.attempt("drimbox-tls")
    content(await psc.exchange(returned(await browser.send("GET", url))["code"], mine, tls=True))
    page = await browser.send(
        "POST", psc.endpoint("logout"), {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": END}
    )
    assert page.headers["Refresh"] == f"2;url={END}"
    assert "frame-src https://autre.example" in page.headers["Content-Security-Policy"]
    [frame] = html.fromstring(page.body).iter("iframe")
    assert f"sid={tokens['session_state']}" in frame.get("src")


@pytest.mark.parametrize(
    "changes",
    [
        {"id_token_hint": "x"},
        {"id_token_hint": ""},
        {"post_logout_redirect_uri": "https://mal.example/"},
        {"post_logout_redirect_uri": "https://autre.example/fin?x=1"},
        {"client_id": "drimbox-tls"},
    ],
)
async def test_a_wrong_logout_changes_nothing(psc: Psc, changes: dict[str, str]) -> None:
    tokens = await psc.tokens()
    query = urlencode({"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": END} | changes)
    reply = await psc.browser().send("GET", f"{psc.endpoint('logout')}?{query}")
    assert reply.status == 400
    assert "Location" not in reply.headers
    assert await psc.active(tokens["access_token"])


async def test_an_access_token_is_no_hint(psc: Psc) -> None:
    tokens = await psc.tokens()
    query = urlencode({"id_token_hint": tokens["access_token"]})
    assert (await psc.browser().send("GET", f"{psc.endpoint('logout')}?{query}")).status == 400


async def test_the_back_channel_calls_over_tls_and_outlives_a_dead_service(authority: TestAuthority) -> None:
    received: list[dict[str, list[str]]] = []

    async def end(request: Request) -> Response:
        received.append(parse_qs((await request.body()).decode()))
        return Response()

    pair = authority.issue(
        Profile.SSL_SERV, "psc-rp", common_name="localhost", unit="1", organisation="X", hosts=("localhost",)
    )
    app = Starlette(routes=[Route("/fin", end, methods=["POST"])])
    tls = listener_context(pair, authority, ClientCertificate.UNASKED)
    async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        notify = backchannel(http, caller_context(authority), timeout=2)
        await notify(f"https://localhost:{port}/fin", "a.b.c")
        await notify(f"https://localhost:{port}/ailleurs", "a.b.c")
        await notify("https://localhost:9/fin", "a.b.c")
        untrusting = backchannel(http, ssl.create_default_context(), timeout=2)
        await untrusting(f"https://localhost:{port}/fin", "a.b.c")
    assert received == [{"logout_token": ["a.b.c"]}]


@pytest.mark.parametrize(
    ("endpoint", "path"), [("token", "token"), ("introspect", "token/introspect"), ("revoke", "revoke")]
)
async def test_an_endpoint_can_be_down(psc: Psc, endpoint: str, path: str) -> None:
    await psc.fault(**{endpoint: "down"})
    assert (await psc.ask(path, token="x")).status == 503
    await psc.json("DELETE", "/sandbox/faults")
    assert (await psc.ask(path, token="x")).status != 503


async def test_the_pages_documents_can_be_down(psc: Psc) -> None:
    await psc.fault(discovery="down", certs="down", authorization="down", userinfo="down")
    url, _ = psc.attempt()
    for address in (
        f"{psc.issuer}/.well-known/wallet-openid-configuration",
        psc.endpoint("certs"),
        psc.endpoint("userinfo"),
        url,
    ):
        assert (await psc.get(address)).status == 503


async def test_an_endpoint_can_be_slow(psc: Psc) -> None:
    await psc.fault(certs="slow", seconds=0.3)
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert (await psc.get(psc.endpoint("certs"))).status == 200
    assert loop.time() - started >= 0.3


@pytest.mark.parametrize(
    ("fault", "claim"),
    [("wrong-nonce", "nonce"), ("wrong-issuer", "iss"), ("wrong-audience", "aud"), ("wrong-acr", "acr")],
)
async def test_an_id_token_can_hold_a_wrong_claim(psc: Psc, fault: str, claim: str) -> None:
    await psc.fault(token=fault)
    code, mine = await psc.code()
    tokens = content(await psc.exchange(code, mine))
    right = {"nonce": mine.nonce, "iss": psc.issuer, "aud": "drimbox-secret", "acr": "eidas1"}
    wrong = {name for name, value in right.items() if claims(tokens["id_token"])[name] != value}
    assert wrong == {claim}


async def test_an_id_token_can_be_badly_signed_expired_or_unsigned(psc: Psc) -> None:
    keys = KeySet.import_key_set(content(await psc.get(psc.endpoint("certs"))))
    await psc.fault(token="wrong-signature")
    with pytest.raises(BadSignatureError):
        jwt.decode((await psc.tokens())["id_token"], keys, algorithms=["RS256"])
    await psc.fault(token="expired")
    assert claims((await psc.tokens())["id_token"])["exp"] < psc.clock.now().timestamp()
    await psc.fault(token="unsigned")
    assert (await psc.tokens())["id_token"].endswith(".")
    await psc.fault(token="no-refresh-token")
    assert "refresh_token" not in await psc.tokens()


async def test_introspection_and_userinfo_can_lie(psc: Psc) -> None:
    tokens = await psc.tokens()
    bearer = f"Bearer {tokens['access_token']}"
    await psc.fault(introspect="inactive")
    assert not await psc.active(tokens["access_token"])
    await psc.fault(introspect="other-certificate", userinfo="other-subject")
    assert "cnf" in content(await psc.ask("token/introspect", token=tokens["access_token"]))
    about = content(await psc.get(psc.endpoint("userinfo"), Authorization=bearer))
    assert about["sub"] != claims(tokens["id_token"])["sub"]
    await psc.fault(introspect="", userinfo="no-practices")
    assert "SubjectRefPro" not in content(await psc.get(psc.endpoint("userinfo"), Authorization=bearer))
    await psc.fault(userinfo="empty")
    assert set(content(await psc.get(psc.endpoint("userinfo"), Authorization=bearer))) == {"sub"}


async def test_authorization_can_be_denied_or_wrong(psc: Psc) -> None:
    browser = psc.browser()
    await psc.tokens(browser=browser)
    for fault, check in (("denied", "error"), ("wrong-state", "state"), ("wrong-issuer", "iss")):
        await psc.fault(authorization=fault)
        url, mine = psc.attempt()
        answer = returned(await browser.send("GET", url))
        right = {"error": None, "state": mine.state, "iss": psc.issuer}
        assert answer.get(check) != right[check]


@pytest.mark.parametrize("wanted", [{"token": "inconnu"}, {"inconnu": "down"}, {"seconds": 99}, {"token": 3}])
async def test_an_unknown_fault_is_refused(psc: Psc, wanted: dict[str, object]) -> None:
    assert refusal(await psc.json("POST", "/sandbox/faults", wanted)) == "invalid_request"
    assert content(await psc.json("GET", "/sandbox/faults"))["on"] == {}


async def test_helpers_exist_only_when_asked_for(authority: TestAuthority, key_folder: Path) -> None:
    client = Client("x", "X", (RETURN,), secret="s")
    app = psc_app("https://localhost", (client,), sample_users(), clock=SystemClock(), state=key_folder)
    assert not [r for r in app.routes if isinstance(r, Route) and r.path.startswith("/sandbox")]
