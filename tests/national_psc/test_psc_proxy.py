"""Logins on a device through a proxy e-Sante: our client, the sandbox's proxy, the sandbox's PSC behind it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from psc_double import box

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.national.psc.proxy import ProxyAddresses, ProxyLogin
from drimbox.sandbox.issuing import subject_of
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import sample_users
from drimbox.sandbox.psc.proxy import ProxyConfig, proxy_app

CLIENT = "exploitant"


@dataclass
class World:
    base: str
    proxy: str
    http: HttpClient
    tls: ssl.SSLContext
    plain: ssl.SSLContext

    def login(self, **changes: Any) -> ProxyLogin:
        addresses = ProxyAddresses(self.proxy, "psc/userinfo", changes.pop("token", "psc/token"))
        client_id = changes.pop("client_id", CLIENT)
        return ProxyLogin(self.http, changes.pop("tls", self.tls), addresses, client_id, SystemClock(), **changes)

    async def control(self, path: str, content: Any) -> bytes:
        reply = await self.http.send(
            "POST",
            f"{self.base}/sandbox/{path}",
            tls=self.plain,
            headers={"Content-Type": "application/json"},
            body=json.dumps(content).encode(),
        )
        assert reply.status == 200, reply.body
        return reply.body

    async def answer(self, user: str, *, confirmed: bool) -> None:
        """As soon as the device rings."""
        while True:
            reply = await self.http.send("GET", f"{self.base}/sandbox/devices", tls=self.plain)
            if user in [ringing["user"] for ringing in json.loads(reply.body)]:
                break
            await asyncio.sleep(0.02)
        await self.control("devices", {"user": user, "confirmed": confirmed})


@pytest.fixture
async def world(authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    server = authority.issue(
        Profile.SSL_SERV, "proxy-server", common_name="localhost", unit="0", organisation="ANS", hosts=("localhost",)
    )
    operator = authority.issue(
        Profile.ORG_AUTH_CLI, "proxy-operator", common_name=CLIENT, unit="300000000000000", organisation="PROXY"
    )
    ours = box(authority)
    apps: list[Any] = []

    def current(index: int) -> Callable[..., Any]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await apps[index](scope, receive, send)

        return app

    clock = SystemClock()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(HttpClient())
        optional = listener_context(server, authority, ClientCertificate.OPTIONAL)
        required = listener_context(server, authority, ClientCertificate.REQUIRED)
        port = await stack.enter_async_context(serving(current(0), host="127.0.0.1", port=0, tls=optional))
        behind = await stack.enter_async_context(serving(current(1), host="127.0.0.1", port=0, tls=required))
        base = f"https://localhost:{port}"
        client = Client(CLIENT, "Proxy", (), certificate_subject=subject_of(operator), ciba=True)
        key = tmp_path_factory.getbasetemp() / "psc-key"
        apps.append(psc_app(base, [client], sample_users(), clock=clock, state=key, controls=True, poll_seconds=1))
        config = ProxyConfig(base, {subject_of(ours): CLIENT}, pause=0.0)
        apps.append(proxy_app(http, caller_context(authority, operator), config, clock=clock))
        tls = caller_context(authority, ours)
        yield World(base, f"https://localhost:{behind}", http, tls, caller_context(authority))


@pytest.mark.requirement("DB.CO.63", "PSC.01")
async def test_a_whole_session_through_the_proxy(world: World) -> None:
    login = world.login()
    tokens, _ = await asyncio.gather(
        login.connect("801234560801", "07", "MOBILE"), world.answer("bideault", confirmed=True)
    )
    info = await login.identity(tokens)
    assert (info.national_id, len(info.practices)) == ("801234560801", 2)
    assert tokens.access_token
    again = await login.refresh(tokens)
    assert again.session_id == tokens.session_id
    assert again.authenticated_at == tokens.authenticated_at
    reply = await world.http.send("GET", f"{world.proxy}/traces", tls=world.tls)
    kinds = [trace["type"] for trace in json.loads(reply.body)]
    assert kinds[0] == "CONNECT_SUCCESS"
    assert set(kinds[1:]) == {"SEND"}
    assert tokens.refresh_token.encode() not in reply.body
    await login.leave(again)
    with pytest.raises(Rejected):
        await login.refresh(again)
    # Leaving twice is leaving.
    await login.leave(again)


async def test_a_refusal_on_the_device_is_told(world: World) -> None:
    with pytest.raises(Rejected) as refused:
        await asyncio.gather(
            world.login().connect("899700367909", "42", "MOBILE"), world.answer("doc0036790", confirmed=False)
        )
    assert refused.value.code == "login-refused"


async def test_a_proxy_that_gives_no_token(world: World) -> None:
    login = world.login(token="")
    tokens, _ = await asyncio.gather(
        login.connect("899700367909", "42", "CARD"), world.answer("doc0036790", confirmed=True)
    )
    assert tokens.access_token == ""
    assert (await login.identity(tokens)).family == "DOC0036790"
    await login.leave(tokens)


async def test_nobody_of_that_number(world: World) -> None:
    with pytest.raises(Rejected) as unknown:
        await world.login().connect("800000000000", "42", "MOBILE")
    assert unknown.value.code == "psc-device"


async def test_another_services_client_id_is_refused(world: World) -> None:
    with pytest.raises(Rejected):
        await world.login(client_id="un-autre").connect("899700367909", "42", "MOBILE")


async def test_a_binding_message_that_is_no_number_is_our_mistake(world: World) -> None:
    with pytest.raises(Misconfigured):
        await world.login().connect("899700367909", "4", "MOBILE")


async def test_an_outage_of_psc_behind_the_proxy_is_an_outage(world: World) -> None:
    await world.control("faults", {"ciba": "down"})
    with pytest.raises(Unavailable):
        await world.login().connect("899700367909", "42", "MOBILE")


async def test_a_session_belongs_to_the_certificate_that_made_it(world: World, authority: TestAuthority) -> None:
    login = world.login()
    tokens, _ = await asyncio.gather(
        login.connect("899700367909", "42", "MOBILE"), world.answer("doc0036790", confirmed=True)
    )
    stranger = authority.issue(
        Profile.ORG_AUTH_CLI, "proxy-stranger", common_name="autre", unit="300000000000000", organisation="AUTRE"
    )
    with pytest.raises(Rejected):
        await world.login(tls=caller_context(authority, stranger)).refresh(tokens)
    with pytest.raises(Rejected):
        await login.refresh(replace(tokens, refresh_token="A" * 43))
    await login.leave(tokens)
