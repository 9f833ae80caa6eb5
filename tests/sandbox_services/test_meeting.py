"""The box's own clients meet the services: two readings of one specification that must agree."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urljoin, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from lxml import html
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.national.psc.client import PscClient
from drimbox.national.psc.tokens import Tokens
from drimbox.national.whitelist.document import verify
from drimbox.sandbox.issuing import service_certificate
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import TestAuthority
from drimbox.sandbox.services import Endpoints, run_services
from drimbox.sandbox.sites import ServicesConfig
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust

from .conftest import END, RETURN


def psc_client(endpoints: Endpoints, http: HttpClient, key: str) -> PscClient:
    known = endpoints.sites[key]
    trust = load_trust((endpoints.roots,), endpoints.revocation_lists)
    credential = load_credential(known.certificates.psc.certificate, known.certificates.psc.key)
    tls = client_context(trust, credential)
    return PscClient(http, tls, endpoints.psc_discovery, known.site.client_id, None, SystemClock())


async def logged_in(client: PscClient, endpoints: Endpoints, http: HttpClient, user: str) -> Tokens:
    """Log in as a browser would: the page, its form, the redirect."""
    tls = caller_context(TestAuthority(endpoints.roots.parent))
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    address = await client.authorization_url(RETURN, state, nonce, verifier)
    page = await http.send("GET", address, tls=tls)
    cookies = SimpleCookie(page.headers["Set-Cookie"])
    form = html.fromstring(page.body).forms[0]  # type: ignore[attr-defined]
    fields = {name: value for name, value in form.fields.items() if value is not None} | {"user": user}
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Cookie": "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items()),
    }
    body = urlencode(fields).encode()
    answer = await http.send("POST", urljoin(address, form.action), tls=tls, headers=headers, body=body)
    back = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
    assert back["state"] == state
    return await client.exchange(back["code"], RETURN, verifier, nonce)


async def faults(endpoints: Endpoints, http: HttpClient, body: bytes) -> None:
    tls = caller_context(TestAuthority(endpoints.roots.parent))
    headers = {"Content-Type": "application/json"}
    reply = await http.send("POST", f"{endpoints.psc_helpers}/faults", tls=tls, headers=headers, body=body)
    assert reply.status == 200


@pytest.mark.requirement("DB.CO.63", "DB.CO.64", "DB.CO.65", "DB.SO.33", "D17")
async def test_a_login_from_end_to_end(config: ServicesConfig) -> None:
    async with notices(config.state) as (address, received):
        site_b = replace(config.sites[1], backchannel_logout=address)
        async with run_services(replace(config, sites=(config.sites[0], site_b))) as endpoints, HttpClient() as http:
            consumer, source = (psc_client(endpoints, http, key) for key in ("b", "a"))
            tokens = await logged_in(consumer, endpoints, http, "bideault")
            told = await consumer.userinfo(tokens.access_token, subject=tokens.subject)
            assert (told.national_id, told.family) == ("801234560801", "BIDEAULT")
            assert [p.structure_id for p in told.practices] == ["1750803447", "499700367909006"]

            seen = await source.introspect(tokens.access_token)
            assert (seen.active, seen.national_id, seen.profession) == (True, "801234560801", "10")
            assert seen.allows(_der(endpoints.sites["b"].certificates.psc.certificate.read_bytes()))
            assert not seen.allows(_der(endpoints.sites["a"].certificates.psc.certificate.read_bytes()))

            fresh = await consumer.refresh(tokens)
            assert fresh.session_id == tokens.session_id
            with pytest.raises(Rejected):
                await consumer.refresh(tokens)
            assert not (await source.introspect(fresh.access_token)).active

            tokens = await logged_in(consumer, endpoints, http, "eric")
            assert (await source.introspect(tokens.access_token)).profession == "SECRETARIAT_MEDICAL"
            tls = caller_context(TestAuthority(endpoints.roots.parent))
            over = await http.send("GET", await consumer.logout_url(tokens.id_token, END), tls=tls)
            assert over.headers["Location"] == END
            assert (await consumer.logout_notice(received.pop())).session_id == tokens.session_id
            assert not (await source.introspect(tokens.access_token)).active


FALSE = ("wrong-signature", "unsigned", "wrong-nonce", "wrong-issuer", "wrong-audience", "wrong-acr", "expired")


async def test_a_false_id_token_logs_nobody_in(config: ServicesConfig) -> None:
    async with run_services(config) as endpoints, HttpClient() as http:
        client = psc_client(endpoints, http, "b")
        for fault in FALSE:
            await faults(endpoints, http, f'{{"token": "{fault}"}}'.encode())
            with pytest.raises(Refused):
                await logged_in(client, endpoints, http, "doc0036790")
        await faults(endpoints, http, b'{"token": ""}')
        assert (await logged_in(client, endpoints, http, "doc0036790")).subject.endswith(":899700367909")


async def test_a_service_that_is_down_is_not_a_no(config: ServicesConfig) -> None:
    async with run_services(config) as endpoints, HttpClient() as http:
        client = psc_client(endpoints, http, "b")
        tokens = await logged_in(client, endpoints, http, "doc0036790")
        await faults(endpoints, http, b'{"introspect": "down", "token": "down", "userinfo": "other-subject"}')
        with pytest.raises(Unavailable):
            await client.introspect(tokens.access_token)
        with pytest.raises(Unavailable):
            await client.refresh(tokens)
        with pytest.raises(Refused):
            await client.userinfo(tokens.access_token, subject=tokens.subject)


@pytest.mark.requirement("D16")
async def test_the_list_is_believed_or_not(config: ServicesConfig) -> None:
    async with run_services(config) as endpoints, HttpClient() as http:
        tls = caller_context(TestAuthority(endpoints.roots.parent))
        trust = load_trust((endpoints.roots,), endpoints.revocation_lists)
        helper = endpoints.whitelist.replace("/liste-blanche.xml", "/sandbox/faults")
        for fault in ("unsigned", "altered", "not-xml", ""):
            headers = {"Content-Type": "application/json"}
            await http.send("POST", helper, tls=tls, headers=headers, body=f'{{"whitelist": "{fault}"}}'.encode())
            document = (await http.send("GET", endpoints.whitelist, tls=tls)).body
            told = {
                "trust": trust,
                "signer_cn": endpoints.whitelist_signer_cn,
                "signer_ou": endpoints.whitelist_signer_ou,
                "now": SystemClock().now(),
            }
            if fault:
                with pytest.raises(DrimboxError):
                    verify(document, **told)
                continue
            whitelist = verify(document, **told)
            found = whitelist.domain_of(_der(endpoints.sites["b"].certificates.auth.certificate.read_bytes()))
            assert found is not None
            assert found.name == "CABINET M DOC0036790"


@asynccontextmanager
async def notices(state: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """A service that waits for back-channel logouts. Its certificate is of the services' own PKI."""
    received: list[str] = []

    async def end(request: Request) -> Response:
        received.append(parse_qs((await request.body()).decode())["logout_token"][0])
        return Response()

    app = Starlette(routes=[Route("/fin", end, methods=["POST"])])
    authority = TestAuthority(state / "pki")
    pair = service_certificate(authority, "notices", "localhost")
    tls = listener_context(pair, authority, ClientCertificate.UNASKED)
    async with serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        yield f"https://localhost:{port}/fin", received


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
