"""The door with an identity provider of patients before it: the sandbox's, strict, and a patient who is known there."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from link_world import LINK, ORIGIN, Browser, Place, open_place
from lxml import html
from multidict import CIMultiDict, CIMultiDictProxy

from drimbox.foundation.clock import Clock, FixedClock
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.link.app import Federation
from drimbox.link.limits import Allowance, Attempts
from drimbox.link.vouched import CALLBACK_PATH, GOODBYE_PATH
from drimbox.national.oidc.client import IdentityProvider
from drimbox.national.oidc.service import PrivateKey, Proof, Registration, key_of
from drimbox.sandbox.citizens.app import Citizens, citizens_app
from drimbox.sandbox.citizens.services import Service
from drimbox.store.database import Pool
from drimbox.trust.tls import public_client_context
from publication.publication_examples import NOW

PROVIDER = "https://fc.test"
SCOPES = ("openid", "family_name", "given_name", "gender", "birthdate", "birthplace", "birthcountry")
SECRET = "s:é/+&=secret"


@cache
def decryption(kind: str) -> PrivateKey | None:
    if kind == "":
        return None
    made = rsa.generate_private_key(65537, 2048) if kind == "RSA" else ec.generate_private_key(ec.SECP256R1())
    return key_of(made, "test")


class AppHttp(HttpClient):
    """The one HTTP client, its wire being an application."""

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=PROVIDER)
        self.sent: list[tuple[str, str]] = []

    async def send(
        self,
        method: str,
        url: str,
        *,
        tls: object,
        headers: Mapping[str, str] | CIMultiDict[str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: float = 30.0,
        max_bytes: int = 64 * 2**20,
    ) -> Reply:
        self.sent.append((method, url))
        answer = await self._client.request(method, url, headers=dict(headers or {}), content=body)
        return Reply(answer.status_code, CIMultiDictProxy(CIMultiDict(answer.headers.items())), answer.content)


@dataclass
class Federated:
    """The sandbox's provider, the product's client of it, and what is between them."""

    citizens: Citizens
    client: IdentityProvider
    http: AppHttp

    def browser(self) -> httpx2.AsyncClient:
        """A browser at the provider's pages."""
        transport = httpx2.ASGITransport(app=citizens_app(self.citizens))
        return httpx2.AsyncClient(transport=transport, base_url=PROVIDER)

    async def logged_in(self, address: str, citizen: str = "dominique") -> str:
        """Choose an identity on the page at ``address``: where the browser is sent back to."""
        async with self.browser() as browser:
            page = await browser.get(address)
            assert page.status_code == 200, page.text
            form = html.fromstring(page.content).forms[0]
            [ticket] = form.xpath(".//input[@name='ticket']/@value")
            answer = await browser.post(form.action, data={"ticket": ticket, "citizen": citizen})
            assert answer.status_code == 303, answer.text
            return answer.headers["location"]


def federated(
    clock: Clock, *, proof: Proof = Proof.SECRET_POST, sealed: str = "EC", acr: str = "eidas2", **changes: Any
) -> Federated:
    key = decryption(sealed)
    signing = decryption("EC") if proof is Proof.PRIVATE_KEY else None
    registration = Registration(
        discovery_url=f"{PROVIDER}/api/v2/.well-known/openid-configuration",
        client_id="clinique",
        proof=proof,
        secret=SECRET if "secret" in proof.value else "",
        signing=signing,
        decryption=key,
        scopes=SCOPES,
        acr=acr,
        prompt="login",
        **changes,
    )

    async def keys() -> dict[str, Any]:
        return registration.public_keys()

    service = Service(
        "clinique",
        "Centre de radiologie Ambroise",
        (f"{ORIGIN}{CALLBACK_PATH}",),
        (f"{ORIGIN}{GOODBYE_PATH}",),
        keys,
        method=proof.value,
        secret=registration.secret,
        encrypted=key is not None,
    )
    citizens = Citizens(PROVIDER, {"clinique": service}, clock)
    http = AppHttp(citizens_app(citizens))
    return Federated(citizens, IdentityProvider(http, public_client_context(), registration, clock), http)


@dataclass
class Hall:
    """A door that lets patients in by their identity provider."""

    place: Place
    fed: Federated
    clock: FixedClock

    async def asked(self, browser: Browser, address: str = LINK) -> str:
        """The address of the provider's page, as the door's page links it."""
        page = await browser.as_patient(address)
        [to] = html.fromstring(page.content).xpath("//a[@class='psc']/@href")
        return str(to)

    async def back(self, browser: Browser, address: str = LINK, citizen: str = "dominique") -> str:
        """Log in; where the provider sends the browser, without the origin."""
        to = urlsplit(await self.fed.logged_in(await self.asked(browser, address), citizen))
        assert f"{to.scheme}://{to.netloc}" == ORIGIN
        return f"{to.path}?{to.query}"

    async def enter(self, browser: Browser, address: str = LINK) -> httpx2.Response:
        """A patient through the whole door: the first page inside, or why not."""
        return await browser.get(await self.back(browser, address))


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


@asynccontextmanager
async def open_hall(pool: Pool, *, allowance: Allowance | None = None, **settings: Any) -> AsyncIterator[Hall]:
    """Exam E is published, its patient is known to the provider, the clock stands still."""
    clock = FixedClock(NOW)
    fed = federated(clock, **{name: settings.pop(name) for name in ("acr", "sealed", "pkce") if name in settings})
    attempts = Attempts(pool, clock, allowance or Allowance(1000, 1000))
    offered = Federation("FranceConnect+", fed.client, attempts)
    async with open_place(pool, clock=settings.pop("door_clock", clock), patients=offered, **settings) as place:
        yield Hall(place, fed, clock)
