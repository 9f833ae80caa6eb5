"""Logins on a device: each rule that the provider holds its services to (CIBA Core, standards.md F.5)."""

from __future__ import annotations

import json
import re

import pytest

from drimbox.foundation.http_client import Reply

from .conftest import FORM, Psc, claims, content, refusal

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRANT = "urn:openid:params:grant-type:ciba"
GOOD = {
    "scope": "openid scope_all",
    "acr_values": "eidas1",
    "login_hint": "899700367909",
    "binding_message": "07",
    "channel": "MOBILE",
}


async def ring(psc: Psc, **changes: str | None) -> Reply:
    fields = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return await psc.ask("ext/ciba/auth", tls=True, **fields)


async def poll(psc: Psc, auth_req_id: str) -> Reply:
    return await psc.ask("token", tls=True, grant_type=GRANT, auth_req_id=auth_req_id)


async def answer(psc: Psc, *, confirmed: bool, user: str = "doc0036790") -> None:
    assert (await psc.json("POST", "/sandbox/devices", {"user": user, "confirmed": confirmed})).status == 200


async def test_the_whole_way(psc: Psc) -> None:
    asked = content(await ring(psc))
    assert (asked["expires_in"], asked["interval"]) == (120, 5)
    assert refusal(await poll(psc, asked["auth_req_id"])) == "authorization_pending"
    psc.clock.advance(5)
    await answer(psc, confirmed=True)
    given = content(await poll(psc, asked["auth_req_id"]))
    assert "nonce" not in claims(given["id_token"])
    assert claims(given["access_token"])["cnf"]
    assert await psc.active(given["access_token"])
    # Once only.
    assert refusal(await poll(psc, asked["auth_req_id"])) == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"scope": "openid"}, "invalid_scope"),
        ({"acr_values": None}, "invalid_request"),
        ({"acr_values": "eidas3"}, "invalid_request"),
        ({"login_hint": None}, "invalid_request"),
        ({"login_hint": "800000000000"}, "unknown_user_id"),
        ({"login_hint": "99700367909"}, "unknown_user_id"),
        ({"binding_message": None}, "invalid_binding_message"),
        ({"binding_message": "7"}, "invalid_binding_message"),
        ({"binding_message": "100"}, "invalid_binding_message"),
        ({"channel": None}, "invalid_request"),
        ({"channel": "SMS"}, "invalid_request"),
        ({"client_notification_token": "x" * 32}, "invalid_request"),
        ({"id_token_hint": "x.y.z"}, "invalid_request"),
    ],
)
async def test_a_request_that_is_not_as_it_should_be(psc: Psc, changes: dict[str, str | None], word: str) -> None:
    assert refusal(await ring(psc, **changes)) == word
    assert content_list(await psc.json("GET", "/sandbox/devices")) == []


async def test_a_secret_is_not_enough(psc: Psc) -> None:
    assert refusal(await psc.ask("ext/ciba/auth", **GOOD), 401) == "invalid_client"


async def test_polls_too_close_to_each_other_are_slowed_down(psc: Psc) -> None:
    asked = content(await ring(psc))
    assert refusal(await poll(psc, asked["auth_req_id"])) == "authorization_pending"
    psc.clock.advance(3)
    assert refusal(await poll(psc, asked["auth_req_id"])) == "slow_down"
    psc.clock.advance(5)
    assert refusal(await poll(psc, asked["auth_req_id"])) == "slow_down"
    psc.clock.advance(15)
    assert refusal(await poll(psc, asked["auth_req_id"])) == "authorization_pending"


async def test_refused_and_late(psc: Psc) -> None:
    asked = content(await ring(psc))
    await answer(psc, confirmed=False)
    assert refusal(await poll(psc, asked["auth_req_id"])) == "access_denied"
    asked = content(await ring(psc))
    psc.clock.advance(121)
    assert (await psc.json("POST", "/sandbox/devices", {"user": "doc0036790", "confirmed": True})).status == 400
    assert refusal(await poll(psc, asked["auth_req_id"])) == "expired_token"


async def test_another_services_request_is_not_found(psc: Psc) -> None:
    asked = content(await ring(psc))
    await answer(psc, confirmed=True)
    stolen = await psc.ask("token", grant_type=GRANT, auth_req_id=asked["auth_req_id"])
    assert refusal(stolen, 401) == "invalid_client"
    content(await poll(psc, asked["auth_req_id"]))


async def test_a_second_request_takes_the_place_of_the_first(psc: Psc) -> None:
    first = content(await ring(psc))
    second = content(await ring(psc, binding_message="08"))
    assert [r["binding"] for r in content_list(await psc.json("GET", "/sandbox/devices"))] == ["08"]
    assert refusal(await poll(psc, first["auth_req_id"])) == "invalid_grant"
    assert refusal(await poll(psc, second["auth_req_id"])) == "authorization_pending"


async def test_the_device_is_a_page(psc: Psc) -> None:
    asked = content(await ring(psc))
    page = await psc.get(f"{psc.base}/auth/ecps")
    assert b'<strong class="binding">07</strong>' in page.body
    [request] = re.findall(r'name="demande" value="([^"]+)"', page.body.decode())
    pressed = await psc.http.send(
        "POST",
        f"{psc.base}/auth/ecps",
        tls=psc.plain,
        headers=FORM,
        body=f"demande={request}&confirmer=1".encode(),
    )
    assert pressed.status == 303
    assert b'class="binding"' not in (await psc.get(f"{psc.base}/auth/ecps")).body
    content(await poll(psc, asked["auth_req_id"]))


async def test_discovery_tells_of_it(psc: Psc) -> None:
    told = content(await psc.get(f"{psc.issuer}/.well-known/wallet-openid-configuration"))
    assert told["backchannel_authentication_endpoint"] == psc.endpoint("ext/ciba/auth")
    assert told["backchannel_token_delivery_modes_supported"] == ["poll"]
    assert GRANT in told["grant_types_supported"]


def content_list(reply: Reply) -> list[dict[str, str]]:
    assert reply.status == 200
    read: list[dict[str, str]] = json.loads(reply.body)
    return read
