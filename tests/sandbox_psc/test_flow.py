"""The whole flow, as a service and a browser live it."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from lxml import html

from .conftest import Psc, claims, content, returned

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.requirement("PSC.01")
async def test_discovery_is_the_wallets(psc: Psc) -> None:
    document = content(await psc.get(f"{psc.issuer}/.well-known/wallet-openid-configuration"))
    assert document["issuer"] == psc.issuer
    assert document["authorization_endpoint"] == f"{psc.base}/auth"
    for name, path in (
        ("token_endpoint", "token"),
        ("userinfo_endpoint", "userinfo"),
        ("introspection_endpoint", "token/introspect"),
        ("end_session_endpoint", "logout"),
        ("jwks_uri", "certs"),
        ("revocation_endpoint", "revoke"),
    ):
        assert document[name] == psc.endpoint(path)
    assert document["tls_client_certificate_bound_access_tokens"] is True
    assert "tls_client_auth" in document["token_endpoint_auth_methods_supported"]
    assert document["mtls_endpoint_aliases"]["token_endpoint"] == document["token_endpoint"]
    assert (await psc.get(f"{psc.issuer}/.well-known/openid-configuration")).status == 404


@pytest.mark.requirement("DB.CO.63", "PSC.08")
async def test_login_gives_tokens_that_hold_together(psc: Psc) -> None:
    code, mine = await psc.code()
    tokens = content(await psc.exchange(code, mine))
    assert tokens["expires_in"] == 120
    assert tokens["refresh_expires_in"] == 1800
    assert tokens["token_type"] == "Bearer"
    keys = KeySet.import_key_set(content(await psc.get(psc.endpoint("certs"))))
    identity = jwt.decode(tokens["id_token"], keys, algorithms=["RS256"]).claims
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    now = int(psc.clock.now().timestamp())
    assert identity["iss"] == psc.issuer
    assert identity["aud"] == identity["azp"] == "drimbox-secret"
    assert identity["nonce"] == mine.nonce
    assert identity["acr"] == "eidas1"
    assert identity["auth_time"] == identity["iat"] == now
    assert identity["exp"] == now + 120
    assert identity["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()
    access = jwt.decode(tokens["access_token"], keys, algorithms=["RS256"]).claims
    assert access["typ"] == "Bearer"
    assert access["sub"] == identity["sub"]
    assert access["sid"] == identity["sid"] == tokens["session_state"]
    assert "cnf" not in access


async def test_userinfo_tells_one_practice(psc: Psc) -> None:
    tokens = await psc.tokens()
    about = content(await psc.get(psc.endpoint("userinfo"), Authorization=f"Bearer {tokens['access_token']}"))
    assert about["sub"] == claims(tokens["id_token"])["sub"]
    assert about["SubjectNameID"] == "899700367909"
    assert about["Secteur_Activite"] == "SA07^1.2.250.1.71.4.2.4"
    assert about["SubjectRole"] == ["10^1.2.250.1.213.1.1.5.5"]
    [exercise] = about["SubjectRefPro"]["exercices"]
    assert (exercise["codeProfession"], exercise["codeSavoirFaire"]) == ("10", "SM26")
    [activity] = exercise["activities"]
    assert activity["ancienIdentifiantDeLaStructure"] == "499700367909006"
    assert activity["raisonSocialeSite"] == "CABINET M DOC0036790"


async def test_userinfo_tells_several_practices(psc: Psc) -> None:
    tokens = await psc.tokens(user="bideault")
    about = content(await psc.get(psc.endpoint("userinfo"), Authorization=f"Bearer {tokens['access_token']}"))
    [exercise] = about["SubjectRefPro"]["exercices"]
    first, second = exercise["activities"]
    assert first["ancienIdentifiantDeLaStructure"] == "1750803447"
    assert first["numeroFinessSite"] == "750803447"
    assert first["identifiantTechniqueDeLaStructure"] == about["SubjectOrganizationID"] == "F750803447"
    assert second["ancienIdentifiantDeLaStructure"] == "499700367909006"
    assert second["numeroFinessSite"] == ""


async def test_userinfo_of_one_without_a_profession(psc: Psc) -> None:
    tokens = await psc.tokens(user="eric")
    about = content(await psc.get(psc.endpoint("userinfo"), Authorization=f"Bearer {tokens['access_token']}"))
    assert about["SubjectRole"] == ["SECRETARIAT_MEDICAL^1.2.250.1.213.1.1.4.6"]
    assert about["SubjectRefPro"]["exercices"][0]["codeProfession"] == ""
    assert about["SubjectRefPro"]["exercices"][0]["activities"][0]["codeRole"] == "SECRETARIAT_MEDICAL"


async def test_userinfo_as_jwt(psc: Psc) -> None:
    tokens = await psc.tokens()
    reply = await psc.get(
        psc.endpoint("userinfo"), Authorization=f"Bearer {tokens['access_token']}", Accept="application/jwt"
    )
    assert reply.headers["Content-Type"] == "application/jwt"
    keys = KeySet.import_key_set(content(await psc.get(psc.endpoint("certs"))))
    about = jwt.decode(reply.body, keys, algorithms=["RS256"]).claims
    assert (about["iss"], about["aud"], about["SubjectNameID"]) == (psc.issuer, "drimbox-secret", "899700367909")


@pytest.mark.requirement("DB.SO.33")
async def test_introspection_tells_who_and_how_long(psc: Psc) -> None:
    tokens = await psc.tokens()
    answer = content(await psc.ask("token/introspect", token=tokens["access_token"]))
    assert answer["active"] is True
    assert answer["SubjectNameID"] == "899700367909"
    assert answer["SubjectRole"] == ["10^1.2.250.1.213.1.1.5.5"]
    assert answer["typ"] == "Bearer"
    assert answer["client_id"] == answer["azp"] == "drimbox-secret"
    assert answer["exp"] == int(psc.clock.now().timestamp()) + 120
    assert answer["iss"] == psc.issuer
    of_refresh = content(await psc.ask("token/introspect", token=tokens["refresh_token"]))
    assert of_refresh["active"] is True
    assert "SubjectNameID" not in of_refresh


@pytest.mark.requirement("D17")
async def test_a_client_with_a_certificate_gets_bound_tokens(psc: Psc) -> None:
    tokens = await psc.tokens(tls=True)
    answer = content(await psc.ask("token/introspect", tls=True, token=tokens["access_token"]))
    assert answer["cnf"] == claims(tokens["access_token"])["cnf"]
    assert len(answer["cnf"]["x5t#S256"]) == 43
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    held = await psc.http.send("GET", psc.endpoint("userinfo"), tls=psc.mutual, headers=headers)
    assert content(held)["SubjectNameID"] == "899700367909"
    stolen = await psc.http.send("GET", psc.endpoint("userinfo"), tls=psc.plain, headers=headers)
    assert stolen.status == 401
    assert "invalid_token" in stolen.headers["WWW-Authenticate"]


@pytest.mark.requirement("DB.CO.65")
async def test_refresh_rotates_and_keeps_the_session(psc: Psc) -> None:
    tokens = await psc.tokens()
    psc.clock.advance(110)
    fresh = content(await psc.ask("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"]))
    assert fresh["session_state"] == tokens["session_state"]
    assert fresh["refresh_token"] != tokens["refresh_token"]
    assert claims(fresh["id_token"])["auth_time"] == claims(tokens["id_token"])["auth_time"]
    assert "nonce" not in claims(fresh["id_token"])
    psc.clock.advance(20)
    assert not await psc.active(tokens["access_token"])
    assert await psc.active(fresh["access_token"])


async def test_second_login_in_the_session_is_silent(psc: Psc) -> None:
    browser = psc.browser()
    first = await psc.tokens(browser=browser)
    url, mine = psc.attempt("drimbox-tls")
    code = returned(await browser.send("GET", url))["code"]
    second = content(await psc.exchange(code, mine, tls=True))
    assert second["session_state"] == first["session_state"]
    assert claims(second["id_token"])["aud"] == "drimbox-tls"


async def test_the_page_is_asked_for_again_by_prompt_or_age(psc: Psc) -> None:
    browser = psc.browser()
    await psc.tokens(browser=browser)
    psc.clock.advance(61)
    for change in ({"prompt": "login"}, {"max_age": "60"}):
        url, _ = psc.attempt(**change)
        assert (await browser.send("GET", url)).status == 200
    url, _ = psc.attempt(max_age="62")
    assert "code" in returned(await browser.send("GET", url))


async def test_prompt_none_shows_no_page(psc: Psc) -> None:
    url, mine = psc.attempt(prompt="none")
    answer = returned(await psc.browser().send("GET", url))
    assert (answer["error"], answer["state"]) == ("login_required", mine.state)


async def test_the_page_says_who_asks_and_runs_nothing(psc: Psc) -> None:
    url, _ = psc.attempt()
    browser = psc.browser()
    page = await browser.send("GET", url)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self' https://box.example;" in policy
    assert "script" not in policy
    tree = html.fromstring(page.body)
    assert tree.get("lang") == "fr"
    assert "DRIMbox à secret" in tree.findtext(".//h1/span")
    assert [b.get("value") for b in tree.iter("button")] == ["doc0036790", "bideault", "eric", "1"]
    assert not list(tree.iter("script"))
    style = await browser.send("GET", psc.base + tree.find(".//link").get("href"))
    assert style.headers["Content-Type"].startswith("text/css")


async def test_cookies_are_closed(psc: Psc) -> None:
    browser = psc.browser()
    await psc.tokens(browser=browser)
    assert set(browser.cookies) == {"psc_sandbox_session", "psc_sandbox_browser"}
    for line in browser.seen:
        assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= {part.strip() for part in line.split(";")}


async def test_the_user_may_refuse(psc: Psc) -> None:
    browser = psc.browser()
    url, mine = psc.attempt()
    answer = returned(await browser.choose(await browser.send("GET", url), psc.base, {"cancel": "1"}))
    assert (answer["error"], answer["state"]) == ("access_denied", mine.state)


async def test_a_return_address_with_a_query_keeps_it(psc: Psc) -> None:
    browser = psc.browser()
    url, mine = psc.attempt(redirect_uri="https://box.example/autre?fixe=1")
    answer = await browser.choose(await browser.send("GET", url), psc.base, {"user": "doc0036790"})
    assert answer.headers["Location"].startswith(f"https://box.example/autre?fixe=1&state={mine.state}&")


async def test_helper_gives_a_genuine_token(psc: Psc) -> None:
    given = content(await psc.json("POST", "/sandbox/token", {"user": "bideault", "client_id": "drimbox-secret"}))
    answer = content(await psc.ask("token/introspect", token=given["access_token"]))
    assert answer["SubjectNameID"] == "801234560801"
    assert "cnf" not in answer
    psc.clock.advance(121)
    assert not await psc.active(given["access_token"])


async def test_helper_binds_its_token_to_the_callers_certificate(psc: Psc) -> None:
    body = json.dumps({"user": "bideault", "client_id": "drimbox-secret"}).encode()
    reply = await psc.http.send(
        "POST", f"{psc.base}/sandbox/token", tls=psc.mutual, headers={"Content-Type": "application/json"}, body=body
    )
    assert "x5t#S256" in claims(content(reply)["access_token"])["cnf"]


async def test_helper_lists_the_logins(psc: Psc) -> None:
    listed = json.loads((await psc.json("GET", "/sandbox/users")).body)
    assert [(u["login"], u["userinfo"]["SubjectNameID"]) for u in listed] == [
        ("doc0036790", "899700367909"),
        ("bideault", "801234560801"),
        ("eric", "801234564895"),
    ]
