"""Each rule of the judge, broken once."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import OutcomeUnknown, Unavailable
from drimbox.sandbox.listeners import caller_context
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.psc.tokens import Mint

from .conftest import FORM, JSON, RETURN, SECRET, Psc, claims, content, refusal, returned

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "inconnu"},
        {"client_id": None},
        {"redirect_uri": "https://box.example/retour/"},
        {"redirect_uri": "https://box.example/retour?x=1"},
        {"redirect_uri": "https://mal.example/retour"},
        {"redirect_uri": None},
        {"client_id": "drimbox-tls", "redirect_uri": "https://box.example/autre?fixe=1"},
    ],
)
async def test_nothing_is_sent_to_an_unregistered_address(psc: Psc, changes: dict[str, str | None]) -> None:
    url, _ = psc.attempt(**changes)
    reply = await psc.browser().send("GET", url)
    assert reply.status == 400
    assert "Location" not in reply.headers
    assert reply.headers["Content-Type"].startswith("text/html")


async def test_a_repeated_parameter_is_refused(psc: Psc) -> None:
    url, _ = psc.attempt()
    reply = await psc.browser().send("GET", f"{url}&redirect_uri={quote_plus(RETURN)}")
    assert reply.status == 400
    assert "Location" not in reply.headers


SAME = "x" * 30


@pytest.mark.requirement("PSC.08")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"scope": "scope_all"}, "invalid_scope"),
        ({"scope": "openid scope_all admin"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"acr_values": "eidas2"}, "invalid_request"),
        ({"acr_values": None}, "invalid_request"),
        ({"state": None}, "invalid_request"),
        ({"state": "court"}, "invalid_request"),
        ({"nonce": None}, "invalid_request"),
        ({"nonce": "court"}, "invalid_request"),
        ({"state": SAME, "nonce": SAME}, "invalid_request"),
        ({"state": "x" * 3000}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "trop-court"}, "invalid_request"),
        ({"code_challenge": "=" * 43}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"prompt": "consent"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"max_age": "99999999999"}, "invalid_request"),
        ({"request": "e30."}, "request_not_supported"),
        ({"request_uri": "https://x.example"}, "request_uri_not_supported"),
    ],
)
async def test_a_wrong_request_goes_back_with_its_error(psc: Psc, changes: dict[str, str | None], error: str) -> None:
    url, _ = psc.attempt(**changes)
    answer = returned(await psc.browser().send("GET", url))
    assert answer["error"] == error
    assert "code" not in answer


async def test_the_page_is_good_once(psc: Psc) -> None:
    browser = psc.browser()
    url, _ = psc.attempt()
    page = await browser.send("GET", url)
    assert "code" in returned(await browser.choose(page, psc.base, {"user": "eric"}))
    again = await browser.choose(page, psc.base, {"user": "bideault"})
    assert again.status == 400


async def test_the_page_belongs_to_its_browser(psc: Psc) -> None:
    url, _ = psc.attempt()
    page = await psc.browser().send("GET", url)
    other = psc.browser()
    await other.send("GET", url)
    stolen = await other.choose(page, psc.base, {"user": "eric"})
    assert stolen.status == 400
    without_cookie = await psc.browser().choose(page, psc.base, {"user": "eric"})
    assert without_cookie.status == 400


async def test_the_page_expires(psc: Psc) -> None:
    browser = psc.browser()
    url, _ = psc.attempt()
    page = await browser.send("GET", url)
    psc.clock.advance(600)
    assert (await browser.choose(page, psc.base, {"user": "eric"})).status == 400


async def test_only_the_cards_shown_can_be_chosen(psc: Psc) -> None:
    browser = psc.browser()
    url, _ = psc.attempt()
    page = await browser.send("GET", url)
    assert (await browser.choose(page, psc.base, {"user": "quelqu-un"})).status == 400


async def test_a_code_lives_sixty_seconds(psc: Psc) -> None:
    code, mine = await psc.code()
    psc.clock.advance(60)
    assert refusal(await psc.exchange(code, mine)) == "invalid_grant"


async def test_a_replayed_code_revokes_its_tokens(psc: Psc) -> None:
    code, mine = await psc.code()
    tokens = content(await psc.exchange(code, mine))
    assert await psc.active(tokens["access_token"])
    assert refusal(await psc.exchange(code, mine)) == "invalid_grant"
    assert not await psc.active(tokens["access_token"])
    assert not await psc.active(tokens["refresh_token"])


async def test_a_code_serves_its_client_alone(psc: Psc) -> None:
    code, mine = await psc.code()
    assert refusal(await psc.exchange(code, mine, tls=True)) == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uri": "https://box.example/autre?fixe=1"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_grant"),
        ({"code_verifier": secrets.token_urlsafe(48)}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"code_verifier": "court"}, "invalid_request"),
        ({"code_verifier": "é" * 50}, "invalid_request"),
        ({"code": "inconnu"}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
async def test_a_wrong_exchange_is_refused(psc: Psc, changes: dict[str, str], error: str) -> None:
    code, mine = await psc.code()
    reply = await psc.exchange(changes.pop("code", code), mine, **changes)
    assert refusal(reply) == error


async def test_a_code_that_failed_is_used_up(psc: Psc) -> None:
    code, mine = await psc.code()
    await psc.exchange(code, mine, code_verifier=secrets.token_urlsafe(48))
    assert refusal(await psc.exchange(code, mine)) == "invalid_grant"


@pytest.mark.parametrize(
    "basic",
    [
        "drimbox-secret:faux",
        "inconnu:secret",
        "drimbox-tls:",
        "drimbox-secret",
        f"drimbox-secret:{quote_plus(SECRET)}x",
    ],
)
@pytest.mark.parametrize("endpoint", ["token", "token/introspect", "revoke"])
async def test_a_client_must_know_its_secret(psc: Psc, basic: str, endpoint: str) -> None:
    reply = await psc.ask(endpoint, basic=basic, token="x", grant_type="refresh_token", refresh_token="x")
    assert refusal(reply, 401) == "invalid_client"
    assert reply.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("authorization", ["Bearer abc", "Basic", "Basic ???", "Basic " + "ÿ" * 4])
async def test_a_broken_authorization_is_refused(psc: Psc, authorization: str) -> None:
    reply = await psc.http.send(
        "POST", psc.endpoint("revoke"), tls=psc.plain, headers=FORM | {"Authorization": authorization}, body=b"token=x"
    )
    assert refusal(reply, 401) == "invalid_client"


async def test_a_client_proves_itself_in_one_way(psc: Psc) -> None:
    reply = await psc.ask("revoke", token="x", client_secret=SECRET)
    assert refusal(reply) == "invalid_request"
    posted = await psc.http.send(
        "POST",
        psc.endpoint("revoke"),
        tls=psc.plain,
        headers=FORM,
        body=f"token=x&client_id=drimbox-secret&client_secret={quote_plus(SECRET)}".encode(),
    )
    assert posted.status == 200


async def test_a_client_with_a_certificate_must_show_it(psc: Psc, authority: TestAuthority) -> None:
    async def ask(context: object) -> int:
        reply = await psc.http.send(
            "POST",
            psc.endpoint("token/introspect"),
            tls=context,  # type: ignore[arg-type]
            headers=FORM,
            body=b"client_id=drimbox-tls&token=x",
        )
        return reply.status

    other = authority.issue(
        Profile.ORG_AUTH_CLI, "psc-other", common_name="autre", unit="300000000000000", organisation="EXPLOITANT"
    )
    assert await ask(psc.plain) == 401
    assert await ask(caller_context(authority, other)) == 401
    assert await ask(psc.mutual) == 200


async def test_the_listener_takes_no_certificate_of_another_kind(
    psc: Psc, authority: TestAuthority, tmp_path: Path
) -> None:
    names = {"common_name": "drimbox-tls", "unit": "300000000000000", "organisation": "EXPLOITANT DU BAC A SABLE"}
    signing = authority.issue(Profile.ORG_SIGN, "psc-signing", **names)
    stranger = TestAuthority(tmp_path / "stranger").issue(Profile.ORG_AUTH_CLI, "stranger", **names)
    for pair in (signing, stranger):
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await psc.http.send("GET", psc.endpoint("certs"), tls=caller_context(authority, pair))


async def test_a_refresh_token_serves_once(psc: Psc) -> None:
    tokens = await psc.tokens()
    fields = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    fresh = content(await psc.ask("token", **fields))
    assert refusal(await psc.ask("token", **fields)) == "invalid_grant"
    assert not await psc.active(fresh["access_token"])
    assert refusal(await psc.ask("token", grant_type="refresh_token", refresh_token=fresh["refresh_token"]))


async def test_a_refresh_token_serves_its_client_alone(psc: Psc) -> None:
    tokens = await psc.tokens()
    reply = await psc.ask("token", tls=True, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refusal(reply) == "invalid_grant"


async def test_an_access_token_refreshes_nothing(psc: Psc) -> None:
    tokens = await psc.tokens()
    for wrong in (tokens["access_token"], tokens["id_token"], "x"):
        reply = await psc.ask("token", grant_type="refresh_token", refresh_token=wrong)
        assert refusal(reply) == "invalid_grant"
    wider = await psc.ask("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"], scope="openid")
    assert refusal(wider) == "invalid_scope"


@pytest.mark.requirement("DB.CO.65")
async def test_thirty_idle_minutes_end_the_session(psc: Psc) -> None:
    browser = psc.browser()
    tokens = await psc.tokens(browser=browser)
    psc.clock.advance(1800)
    reply = await psc.ask("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refusal(reply) == "invalid_grant"
    url, _ = psc.attempt()
    assert (await browser.send("GET", url)).status == 200


async def test_four_hours_end_the_session_however_busy(psc: Psc) -> None:
    tokens = await psc.tokens()
    started = claims(tokens["id_token"])["auth_time"]
    for _ in range(9):
        psc.clock.advance(1590)
        tokens = content(await psc.ask("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"]))
    assert tokens["refresh_expires_in"] == 4 * 3600 - 9 * 1590
    psc.clock.advance(85)
    last = content(await psc.ask("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"]))
    assert last["expires_in"] == 5
    assert claims(last["access_token"])["exp"] == started + 4 * 3600
    psc.clock.advance(5)
    reply = await psc.ask("token", grant_type="refresh_token", refresh_token=last["refresh_token"])
    assert refusal(reply) == "invalid_grant"


@pytest.mark.requirement("DB.SO.33")
async def test_introspection_says_inactive_to_anything_odd(psc: Psc) -> None:
    tokens = await psc.tokens()
    head, body, signature = tokens["access_token"].split(".")
    altered = claims(tokens["access_token"]) | {"SubjectNameID": "1"}
    forged = base64.urlsafe_b64encode(json.dumps(altered).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    odd = [
        "x",
        "..",
        tokens["id_token"],
        f"{head}.{forged}.{signature}",
        f"{none}.{body}.",
        f"{head}.{body}",
        tokens["access_token"] + "x" * 9000,
        Mint(psc.issuer, SystemClock(), None).logout("drimbox-secret", "f:x", "y"),
    ]
    for token in odd:
        assert not await psc.active(token), token[:40]
    assert await psc.active(tokens["access_token"])
    psc.clock.advance(120)
    assert not await psc.active(tokens["access_token"])
    assert await psc.active(tokens["refresh_token"])


async def test_introspection_is_for_services(psc: Psc) -> None:
    tokens = await psc.tokens()
    reply = await psc.http.send(
        "POST",
        psc.endpoint("token/introspect"),
        tls=psc.plain,
        headers=FORM,
        body=f"token={tokens['access_token']}".encode(),
    )
    assert refusal(reply, 401) == "invalid_client"
    assert refusal(await psc.ask("token/introspect")) == "invalid_request"


async def test_userinfo_is_for_bearers(psc: Psc) -> None:
    tokens = await psc.tokens()
    for authorization in (
        "",
        "Bearer",
        "Bearer x",
        f"Bearer {tokens['refresh_token']}",
        f"Bearer {tokens['id_token']}",
    ):
        reply = await psc.get(psc.endpoint("userinfo"), Authorization=authorization)
        assert refusal(reply, 401) == "invalid_token"
    psc.clock.advance(120)
    late = await psc.get(psc.endpoint("userinfo"), Authorization=f"Bearer {tokens['access_token']}")
    assert refusal(late, 401) == "invalid_token"


async def test_revocation_ends_the_owners_tokens_only(psc: Psc) -> None:
    tokens = await psc.tokens()
    assert (await psc.ask("revoke", tls=True, token=tokens["refresh_token"])).status == 200
    assert await psc.active(tokens["access_token"])
    assert (await psc.ask("revoke", token=tokens["access_token"])).status == 200
    assert not await psc.active(tokens["access_token"])
    assert await psc.active(tokens["refresh_token"])
    fresh = content(await psc.ask("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"]))
    assert (await psc.ask("revoke", token=fresh["refresh_token"])).status == 200
    assert not await psc.active(fresh["access_token"])
    assert (await psc.ask("revoke", token="inconnu")).status == 200
    assert refusal(await psc.ask("revoke")) == "invalid_request"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (JSON, b"{}"),
        ({}, b"token=x"),
        (FORM, b"token=x&token=y"),
        (FORM, b"token"),
        (FORM, "token=é".encode()),
        (FORM, b"token=%ff%fe"),
        (FORM, b"&".join(b"a%d=1" % i for i in range(60))),
        (FORM, b"token=" + b"x" * 70_000),
    ],
)
async def test_a_strange_form_is_refused(psc: Psc, headers: dict[str, str], body: bytes) -> None:
    reply = await psc.http.send("POST", psc.endpoint("token"), tls=psc.plain, headers=headers, body=body)
    assert refusal(reply) == "invalid_request"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (FORM, b"user=eric"),
        (JSON | {"Origin": "https://mal.example"}, b"{}"),
        (JSON, b"[]"),
        (JSON, b"{"),
        (JSON, b"[" * 60_000),
        (JSON, b'{"user": "eric", "client_id": "inconnu"}'),
        (JSON, b'{"user": ["eric"], "client_id": "drimbox-secret"}'),
    ],
)
async def test_helpers_take_clean_json_from_programs(psc: Psc, headers: dict[str, str], body: bytes) -> None:
    reply = await psc.http.send("POST", f"{psc.base}/sandbox/token", tls=psc.plain, headers=headers, body=body)
    assert refusal(reply) == "invalid_request"
