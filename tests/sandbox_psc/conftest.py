"""A provider on loopback TLS, a browser that keeps cookies, and services that log in with it."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urljoin, urlsplit

import pytest
import pytest_asyncio
from lxml import html
from starlette.types import ASGIApp, Receive, Scope, Send

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.foundation.http_server import serving
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import sample_users

SECRET = "s&cret: of a service+"
RETURN = "https://box.example/retour"
SUBJECT = "CN=drimbox-tls,OU=300000000000000,O=EXPLOITANT DU BAC A SABLE,ST=Paris (75),C=FR"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Browser:
    """Follows nothing by itself; keeps what cookies say."""

    http: HttpClient
    tls: ssl.SSLContext
    cookies: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    async def send(self, method: str, url: str, fields: dict[str, str] | None = None) -> Reply:
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        body = urlencode(fields).encode() if fields is not None else None
        reply = await self.http.send(method, url, tls=self.tls, headers=headers | (FORM if body else {}), body=body)
        for line in reply.headers.getall("Set-Cookie", []):
            self.seen.append(line)
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return reply

    async def choose(self, page: Reply, base: str, choice: dict[str, str]) -> Reply:
        """Submit the login form with one of its buttons."""
        form = html.fromstring(page.body).forms[0]
        fields = {k: v for k, v in form.fields.items() if v is not None} | choice
        return await self.send("POST", urljoin(base, form.action), fields)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a service keeps between the redirect and the return."""

    state: str
    nonce: str
    verifier: str


@dataclass(slots=True)
class Psc:
    """The provider under test, and how a service talks with it."""

    base: str
    clock: FixedClock
    http: HttpClient
    plain: ssl.SSLContext
    mutual: ssl.SSLContext
    told: list[tuple[str, str]]

    @property
    def issuer(self) -> str:
        return f"{self.base}/auth/realms/esante-wallet"

    def endpoint(self, name: str) -> str:
        return f"{self.issuer}/protocol/openid-connect/{name}"

    def browser(self) -> Browser:
        return Browser(self.http, self.plain)

    async def get(self, url: str, **headers: str) -> Reply:
        return await self.http.send("GET", url, tls=self.plain, headers=headers)

    async def json(self, method: str, path: str, content: Any = None) -> Reply:
        body = json.dumps(content).encode() if content is not None else None
        return await self.http.send(method, self.base + path, tls=self.plain, headers=JSON if body else {}, body=body)

    async def fault(self, **faults: Any) -> None:
        assert (await self.json("POST", "/sandbox/faults", faults)).status == 200

    def attempt(self, client_id: str = "drimbox-secret", **changes: str | None) -> tuple[str, Attempt]:
        """The address that starts a login; a change to None leaves the parameter out."""
        mine = Attempt(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        digest = hashlib.sha256(mine.verifier.encode()).digest()
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": RETURN,
            "scope": "openid scope_all",
            "acr_values": "eidas1",
            "state": mine.state,
            "nonce": mine.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        } | changes
        given = {k: v for k, v in parameters.items() if v is not None}
        return f"{self.base}/auth?{urlencode(given)}", mine

    async def code(
        self, browser: Browser | None = None, user: str = "doc0036790", client_id: str = "drimbox-secret"
    ) -> tuple[str, Attempt]:
        """Log in at the page; the code."""
        browser = browser or self.browser()
        url, mine = self.attempt(client_id)
        page = await browser.send("GET", url)
        assert page.status == 200, page.headers
        answer = await browser.choose(page, self.base, {"user": user})
        back = returned(answer)
        assert back["state"] == mine.state
        assert back["iss"] == self.issuer
        return back["code"], mine

    async def ask(self, endpoint: str, tls: bool = False, basic: str | None = None, **fields: str) -> Reply:
        """A form to an endpoint as a service: with the secret, or with the certificate."""
        headers = dict(FORM)
        if basic is None and not tls:
            basic = f"drimbox-secret:{quote_plus(SECRET)}"
        if basic:
            headers["Authorization"] = "Basic " + base64.b64encode(basic.encode()).decode()
        if tls:
            fields = {"client_id": "drimbox-tls"} | fields
        context = self.mutual if tls else self.plain
        return await self.http.send(
            "POST", self.endpoint(endpoint), tls=context, headers=headers, body=urlencode(fields).encode()
        )

    async def exchange(self, code: str, mine: Attempt, tls: bool = False, **changes: str) -> Reply:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": RETURN,
            "code_verifier": mine.verifier,
        }
        return await self.ask("token", tls=tls, **(fields | changes))

    async def tokens(
        self, user: str = "doc0036790", tls: bool = False, browser: Browser | None = None
    ) -> dict[str, Any]:
        code, mine = await self.code(browser, user, "drimbox-tls" if tls else "drimbox-secret")
        return content(await self.exchange(code, mine, tls=tls))

    async def active(self, token: str) -> bool:
        reply = await self.ask("token/introspect", token=token)
        assert reply.status == 200
        return bool(json.loads(reply.body)["active"])


def returned(reply: Reply) -> dict[str, str]:
    """What the provider sends back to the service."""
    assert reply.status == 303, (reply.status, reply.body)
    location = reply.headers["Location"]
    assert location.startswith(RETURN + "?")
    return dict(parse_qsl(urlsplit(location).query, keep_blank_values=True))


def content(reply: Reply, status: int = 200) -> dict[str, Any]:
    """A JSON answer of that status."""
    assert reply.status == status, reply.body
    read: dict[str, Any] = json.loads(reply.body)
    return read


def refusal(reply: Reply, status: int = 400) -> str:
    """The error word of an OAuth refusal."""
    return str(content(reply, status)["error"])


def claims(token: str) -> dict[str, Any]:
    """The claims of a JWT, unverified."""
    part = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return read


@dataclass(slots=True)
class Listener:
    """One TLS listener for all tests; each puts its own fresh application behind it."""

    base: str
    http: HttpClient
    app: list[ASGIApp]


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the signing key lies: one for all tests, since making one takes long."""
    return tmp_path_factory.mktemp("psc")


@pytest.fixture(scope="session")
def operator(authority: TestAuthority) -> PemPair:
    """The ORG AUTH_CLI of the service that is known by its certificate."""
    return authority.issue(
        Profile.ORG_AUTH_CLI,
        "psc-operator",
        common_name="drimbox-tls",
        unit="300000000000000",
        organisation="EXPLOITANT DU BAC A SABLE",
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def listener(authority: TestAuthority) -> AsyncIterator[Listener]:
    server = authority.issue(
        Profile.SSL_SERV,
        "psc-server",
        common_name="localhost",
        unit="318751275100020",
        organisation="AGENCE DU NUMERIQUE EN SANTE",
        hosts=("localhost", "127.0.0.1"),
    )
    tls = listener_context(server, authority, ClientCertificate.OPTIONAL)
    app: list[ASGIApp] = []

    async def current(scope: Scope, receive: Receive, send: Send) -> None:
        await app[-1](scope, receive, send)

    async with HttpClient() as http, serving(current, host="127.0.0.1", port=0, tls=tls) as port:
        yield Listener(f"https://localhost:{port}", http, app)


@pytest.fixture
def psc(listener: Listener, authority: TestAuthority, operator: PemPair, key_folder: Path) -> Psc:
    """A provider nobody has logged in at yet."""
    clock = FixedClock(dt.datetime.now(dt.UTC))
    told: list[tuple[str, str]] = []

    async def notify(address: str, logout_token: str) -> None:
        told.append((address, logout_token))

    with_secret = Client(
        "drimbox-secret",
        "DRIMbox à secret",
        (RETURN, "https://box.example/autre?fixe=1"),
        secret=SECRET,
        post_logout_redirect_uris=("https://box.example/fin",),
        backchannel_logout="https://box.example/psc/fin",
    )
    with_certificate = Client(
        "drimbox-tls",
        "DRIMbox à certificat",
        (RETURN,),
        certificate_subject=SUBJECT,
        post_logout_redirect_uris=("https://autre.example/fin?x=1",),
        frontchannel_logout="https://autre.example/cadre",
        ciba=True,
    )
    app = psc_app(
        listener.base,
        (with_secret, with_certificate),
        sample_users(),
        clock=clock,
        state=key_folder,
        notify=notify,
        controls=True,
    )
    listener.app.append(app)
    plain, mutual = caller_context(authority), caller_context(authority, operator)
    return Psc(listener.base, clock, listener.http, plain, mutual, told)
