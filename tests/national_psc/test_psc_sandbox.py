"""Our client against the sandbox's strict provider: two hands that share no deciding code."""

import datetime as dt
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import html
from psc_double import box

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Misconfigured, Refused, Rejected
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.national.psc.ciba import DeviceLogin, Waiting
from drimbox.national.psc.client import PscClient
from drimbox.sandbox.listeners import ClientCertificate, listener_context
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.psc.app import psc_app
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.people import sample_users
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust

RETURN = "https://box.example/connexion/retour"
GOODBYE = "https://box.example/au-revoir"


@dataclass
class World:
    base: str
    clock: FixedClock
    http: HttpClient
    browser_tls: ssl.SSLContext
    certificate: bytes
    with_secret: PscClient
    with_certificate: PscClient

    async def code(self, client: PscClient, user: str) -> tuple[str, str, str]:
        """Log in at the page, as a browser does; the code, the verifier, the nonce."""
        state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
        page = await self._browse("GET", await client.authorization_url(RETURN, state, nonce, verifier), {})
        assert page.status == 200, page.body
        cookies = {
            name: m.value for line in page.headers.getall("Set-Cookie", []) for name, m in SimpleCookie(line).items()
        }
        form = html.fromstring(page.body).forms[0]
        fields = {name: value for name, value in form.fields.items() if value is not None} | {"user": user}
        back = await self._browse("POST", urljoin(self.base, form.action), cookies, urlencode(fields).encode())
        query = parse_qs(urlsplit(back.headers["Location"]).query)
        assert query["state"] == [state]
        return query["code"][0], verifier, nonce

    async def answer(self, user: str, *, confirmed: bool) -> list[dict[str, str]]:
        """The professional answers on their device; what it showed."""
        reply = await self.http.send(
            "POST",
            f"{self.base}/sandbox/devices",
            tls=self.browser_tls,
            headers={"Content-Type": "application/json"},
            body=json.dumps({"user": user, "confirmed": confirmed}).encode(),
        )
        assert reply.status == 200, reply.body
        shown: list[dict[str, str]] = json.loads(reply.body)
        return shown

    def device(self, events: Iterator[Callable[[], Awaitable[object]]]) -> DeviceLogin:
        """Logins on a device: at each pause the clock moves on, and the next event happens."""

        async def pause(seconds: float) -> None:
            self.clock.advance(seconds)
            happens = next(events, None)
            if happens is not None:
                await happens()

        return DeviceLogin(self.with_certificate, self.clock, pause=pause)

    async def _browse(self, method: str, url: str, cookies: dict[str, str], body: bytes | None = None):  # type: ignore[no-untyped-def]
        headers = {"Cookie": "; ".join(f"{n}={v}" for n, v in cookies.items())} if cookies else {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return await self.http.send(method, url, tls=self.browser_tls, headers=headers, body=body)


@pytest.fixture
async def world(authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    server = authority.issue(
        Profile.SSL_SERV,
        "psc-sandbox",
        common_name="localhost",
        unit="318751275100020",
        organisation="ANS",
        hosts=("localhost",),
    )
    trust = load_trust([authority.roots], authority.revocation_lists)
    pair = box(authority)
    ours = load_credential(pair.certificate, pair.key)
    clock = FixedClock(dt.datetime.now(dt.UTC))
    apps: list[object] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        await apps[0](scope, receive, send)  # type: ignore[operator]

    tls = listener_context(server, authority, ClientCertificate.OPTIONAL)
    async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        base = f"https://localhost:{port}"
        registered = [
            Client("box-secret", "Boîte", (RETURN,), secret="s&cret", post_logout_redirect_uris=(GOODBYE,)),
            Client(
                "drimbox test",
                "Boîte",
                (RETURN,),
                certificate_subject=ours.certificate.subject.rfc4514_string(),
                ciba=True,
            ),
        ]
        apps.append(
            psc_app(
                base,
                registered,
                sample_users(),
                clock=clock,
                state=tmp_path_factory.getbasetemp() / "psc-key",
                controls=True,
            )
        )
        at = f"{base}/auth/realms/esante-wallet/.well-known/wallet-openid-configuration"
        yield World(
            base,
            clock,
            http,
            client_context(trust),
            ours.certificate.public_bytes(Encoding.DER),
            PscClient(http, client_context(trust), at, "box-secret", "s&cret", clock),
            PscClient(http, client_context(trust, ours), at, "drimbox test", None, clock),
        )


@pytest.mark.requirement("DB.CO.63", "DB.CO.65", "DB.SO.33")
async def test_a_whole_session(world: World) -> None:
    client = world.with_secret
    code, verifier, nonce = await world.code(client, "bideault")
    tokens = await client.exchange(code, RETURN, verifier, nonce)
    info = await client.userinfo(tokens.access_token, subject=tokens.subject)
    assert info.national_id == "801234560801"
    assert [p.structure_id for p in info.practices] == ["1750803447", "499700367909006"]
    seen = await world.with_certificate.introspect(tokens.access_token)
    assert seen.active
    assert (seen.national_id, seen.subject) == (info.national_id, tokens.subject)
    assert seen.expires_at is not None
    assert seen.expires_at <= tokens.expires_at + dt.timedelta(seconds=1)

    world.clock.advance(110)
    fresh = await client.refresh(tokens)
    assert fresh.access_token != tokens.access_token
    world.clock.advance(30)
    assert not (await client.introspect(tokens.access_token)).active
    assert (await client.introspect(fresh.access_token)).active
    assert not (await client.introspect(fresh.refresh_token)).active
    with pytest.raises(Rejected):
        await client.exchange(code, RETURN, verifier, nonce)


@pytest.mark.requirement("DB.CO.63")
async def test_a_code_is_good_for_its_own_login_only(world: World) -> None:
    client = world.with_secret
    code, _, nonce = await world.code(client, "doc0036790")
    with pytest.raises(Rejected) as wrong:
        await client.exchange(code, RETURN, secrets.token_urlsafe(48), nonce)
    assert wrong.value.peer_code == "invalid_grant"
    code, verifier, _ = await world.code(client, "doc0036790")
    with pytest.raises(Refused):
        await client.exchange(code, RETURN, verifier, secrets.token_urlsafe(48))


@pytest.mark.requirement("DB.CO.91", "D17")
async def test_a_session_by_certificate_binds_its_tokens(world: World) -> None:
    client = world.with_certificate
    code, verifier, nonce = await world.code(client, "doc0036790")
    tokens = await client.exchange(code, RETURN, verifier, nonce)
    assert (await client.userinfo(tokens.access_token, subject=tokens.subject)).family == "DOC0036790"
    seen = await world.with_secret.introspect(tokens.access_token)
    assert seen.confirmation
    assert seen.allows(world.certificate)
    assert not seen.allows(b"another certificate")


@pytest.mark.requirement("PSC.01", "DB.CO.64")
async def test_after_logging_out_nothing_is_left(world: World) -> None:
    client = world.with_secret
    code, verifier, nonce = await world.code(client, "doc0036790")
    tokens = await client.exchange(code, RETURN, verifier, nonce)
    page = await world._browse("GET", await client.logout_url(tokens.id_token, GOODBYE), {})
    assert page.status in (200, 302, 303)
    with pytest.raises(Rejected):
        await client.refresh(tokens)
    assert not (await client.introspect(tokens.access_token)).active


async def test_a_wrong_secret_is_a_setting_to_mend(world: World) -> None:
    at = f"{world.base}/auth/realms/esante-wallet/.well-known/wallet-openid-configuration"
    stranger = PscClient(world.http, world.browser_tls, at, "box-secret", "wrong", world.clock)
    with pytest.raises(Misconfigured):
        await stranger.introspect("some-token-to-ask-about")


async def nothing() -> None:
    return None


@pytest.mark.requirement("DB.CO.63", "PSC.01")
async def test_a_login_on_a_device_is_confirmed_there(world: World) -> None:
    shown: list[dict[str, str]] = []

    async def confirm() -> None:
        shown.extend(await world.answer("bideault", confirmed=True))

    device = world.device(iter((nothing, nothing, confirm)))
    tokens = await device.connect("801234560801", "07", "MOBILE")
    assert shown == [{"user": "bideault", "binding": "07", "channel": "MOBILE"}]
    info = await device.identity(tokens)
    assert (info.national_id, len(info.practices)) == ("801234560801", 2)
    # Bound to the certificate of the box, like any token it gets (RFC 8705).
    seen = await world.with_secret.introspect(tokens.access_token)
    assert seen.active
    assert seen.allows(world.certificate)
    assert not seen.allows(b"another certificate")
    world.clock.advance(100)
    fresh = await device.refresh(tokens)
    assert (fresh.subject, fresh.session_id) == (tokens.subject, tokens.session_id)
    await device.leave(fresh)
    assert not (await world.with_secret.introspect(fresh.access_token)).active
    with pytest.raises(Rejected):
        await device.refresh(fresh)


async def test_a_login_on_a_device_is_refused_there(world: World) -> None:
    device = world.device(iter((nothing, lambda: world.answer("doc0036790", confirmed=False))))
    with pytest.raises(Rejected) as refused:
        await device.connect("899700367909", "42", "CARD")
    assert refused.value.code == "login-refused"


async def test_a_login_on_a_device_that_nobody_confirms_ends(world: World) -> None:
    began = world.clock.now()
    with pytest.raises(Rejected) as late:
        await world.device(iter(())).connect("899700367909", "42", "MOBILE")
    assert late.value.code == "login-late"
    assert world.clock.now() - began <= dt.timedelta(seconds=130)


async def test_nobody_of_that_number_has_a_device(world: World) -> None:
    with pytest.raises(Rejected) as unknown:
        await world.device(iter(())).connect("800000000000", "42", "MOBILE")
    assert (unknown.value.code, unknown.value.peer_code) == ("psc-device", "unknown_user_id")


async def test_psc_is_asked_no_more_often_than_it_wants(world: World) -> None:
    request = await world.with_certificate.ask_device("899700367909", "42", "MOBILE")
    assert request.interval == 5
    assert await world.with_certificate.device_tokens(request) is Waiting.PENDING
    world.clock.advance(1)
    assert await world.with_certificate.device_tokens(request) is Waiting.SLOW_DOWN
    world.clock.advance(9)
    assert await world.with_certificate.device_tokens(request) is Waiting.SLOW_DOWN
    world.clock.advance(15)
    assert await world.with_certificate.device_tokens(request) is Waiting.PENDING


async def test_an_outage_while_the_device_is_asked_is_waited_out(world: World) -> None:
    async def fault(**faults: str) -> None:
        reply = await world.http.send(
            "POST",
            f"{world.base}/sandbox/faults",
            tls=world.browser_tls,
            headers={"Content-Type": "application/json"},
            body=json.dumps(faults).encode(),
        )
        assert reply.status == 200

    async def confirm() -> None:
        await world.answer("doc0036790", confirmed=True)

    device = world.device(iter((lambda: fault(token="down"), confirm, lambda: fault(token=""))))
    tokens = await device.connect("899700367909", "42", "MOBILE")
    assert (await device.identity(tokens)).national_id == "899700367909"


async def test_a_device_is_asked_by_certificate_only(world: World) -> None:
    with pytest.raises(Misconfigured):
        await world.with_secret.ask_device("899700367909", "42", "MOBILE")


async def test_an_answer_says_whose_it_is(world: World) -> None:
    client = world.with_certificate
    await client.check_issuer(f"{world.base}/auth/realms/esante-wallet")
    for other in (None, "", "https://autre.example", f"{world.base}/auth/realms/esante-wallet/"):
        with pytest.raises(Refused) as refused:
            await client.check_issuer(other)
        assert refused.value.code == "psc-issuer"
