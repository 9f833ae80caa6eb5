"""Servers of public authorities: judged by the lists that their certificates name, never waited for."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from test_tls_contexts import shake_hands

from drimbox.box.certificates import public_tls
from drimbox.box.notifying import mail_channel, webhook_channel
from drimbox.box.settings.journal import SmtpSection, WebhookSection
from drimbox.box.trusting import fetching
from drimbox.foundation.clock import FixedClock, SystemClock
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.notification.notices import example
from drimbox.trust.chain import TrustStore
from drimbox.trust.keystore import Credential
from drimbox.trust.public import FORGOTTEN_AFTER, Mode, PublicLists
from drimbox.trust.tls import client_context, public_client_context, server_context

HOST = "hook.example.test"
NO_REVOCATION = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.56"), b"\x05\x00")
NOW = dt.datetime.now(dt.UTC)
pytestmark = pytest.mark.requirement("SSI/IE.43")


@dataclass(slots=True)
class Authority:
    """A public authority: a root, an intermediate, what they revoked, and where their lists are (``site``)."""

    name: str = "PUBLIC"
    base: str = "http://crl.public.test"
    site: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    certificates: dict[str, x509.Certificate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._certify("root", "root", authority=True, url="")
        self._certify("intermediate", "root", authority=True, url=self.url("root"))
        self.publish("root")
        self.publish("intermediate")

    def url(self, issuer: str) -> str:
        return f"{self.base}/{issuer}.crl"

    def server(
        self,
        *,
        url: str | None = None,
        extra: x509.ExtensionType | None = None,
        days: float = 90,
        hosts: Sequence[str] = (HOST,),
    ) -> Credential:
        """A certificate that names its issuer's list (``url``: another address, empty for none)."""
        name = f"leaf-{len(self.keys)}"
        where = self.url("intermediate") if url is None else url
        leaf = self._certify(name, "intermediate", url=where, extra=extra, days=days, hosts=hosts)
        return Credential(leaf, (self.certificates["intermediate"],), self.keys[name])

    def publish(
        self,
        issuer: str,
        *revoked: x509.Certificate,
        hours: float = 48,
        scope: x509.IssuingDistributionPoint | None = None,
        at: str = "",
    ) -> None:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificates[issuer].subject)
            .last_update(now)
            .next_update(now + dt.timedelta(hours=hours))
        )
        if scope is not None:
            builder = builder.add_extension(scope, critical=True)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(self.keys[issuer], hashes.SHA256())
        self.site[at or self.url(issuer)] = crl.public_bytes(Encoding.DER)

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.site:
            raise Unavailable("Serveur injoignable", code="unreachable")
        return self.site[url]

    def _certify(
        self,
        name: str,
        issuer: str,
        *,
        url: str,
        authority: bool = False,
        extra: x509.ExtensionType | None = None,
        days: float = 900,
        hosts: Sequence[str] = (),
    ) -> x509.Certificate:
        key = self.keys[name] = ec.generate_private_key(ec.SECP256R1())
        names = {n: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{self.name} {n}")]) for n in (name, issuer)}
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names[issuer])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(hours=1))
            .not_valid_after(NOW + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in hosts]), False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        if url:
            point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), False)
        if extra is not None:
            builder = builder.add_extension(extra, False)
        made = self.certificates[name] = builder.sign(self.keys[issuer], hashes.SHA256())
        return made


@dataclass(slots=True)
class Box:
    """What a box knows, and a way to call a server."""

    authority: Authority
    lists: PublicLists
    clock: FixedClock

    def call(self, credential: Credential) -> None:
        """One connection; raises ``ssl.SSLCertVerificationError``."""
        trust = TrustStore((self.authority.certificates["root"],))

        def at_that_time(chain: Sequence[x509.Certificate], _now: dt.datetime) -> None:
            self.lists.judge(chain, self.clock.now())

        shake_hands(server_context(credential), client_context(trust, judge=at_that_time), HOST)

    def refused(self, credential: Credential, words: str) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match=words):
            self.call(credential)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(dt.datetime.now(dt.UTC))


def box(authority: Authority, clock: FixedClock, folder: Path, mode: Mode = "known") -> Box:
    return Box(authority, PublicLists(authority.fetch, clock, folder, mode), clock)


async def test_a_revoked_server_is_refused_as_soon_as_its_list_is_there(
    authority: Authority, clock: FixedClock, tmp_path: Path
) -> None:
    good, bad = authority.server(), authority.server()
    authority.publish("intermediate", bad.certificate)
    one = box(authority, clock, tmp_path)
    woken: list[bool] = []
    one.lists.asked = lambda: woken.append(True)
    # The first connection does not wait: it tells where the lists are.
    one.call(good)
    assert authority.asked == []
    assert woken == [True, True]
    await one.lists.round()
    assert sorted(authority.asked) == [authority.url("intermediate"), authority.url("root")]
    one.call(good)
    one.refused(bad, "certificate-revoked: certificate revoked")
    # Nothing is asked for twice, and the next process knows as much.
    assert woken == [True, True]
    again = box(authority, clock, tmp_path)
    again.refused(bad, "certificate revoked")
    again.call(good)
    await again.lists.round()
    assert len(authority.asked) == 2


async def test_a_revoked_intermediate_refuses_what_it_issued(
    authority: Authority, clock: FixedClock, tmp_path: Path
) -> None:
    authority.publish("root", authority.certificates["intermediate"])
    one, server = box(authority, clock, tmp_path), authority.server()
    one.call(server)
    await one.lists.round()
    one.refused(server, "certificate revoked")


async def test_a_list_is_renewed_ahead_and_fails_closed_past_its_end(
    authority: Authority, clock: FixedClock, tmp_path: Path
) -> None:
    one, server = box(authority, clock, tmp_path), authority.server()
    one.call(server)
    await one.lists.round()
    assert one.lists.next_due is not None
    assert one.lists.next_due <= clock.now() + dt.timedelta(hours=6)
    authority.site.clear()
    clock.advance(47 * 3600)
    await one.lists.round()
    one.call(server)
    clock.advance(2 * 3600)
    one.refused(server, "revocation-unknown: CRL has expired")
    # A restart does not make it forget that there was a list.
    box(authority, clock, tmp_path).refused(server, "CRL has expired")


@pytest.mark.parametrize("mode", ["known", "required"])
async def test_a_list_that_cannot_be_had(authority: Authority, clock: FixedClock, tmp_path: Path, mode: Mode) -> None:
    held = dict(authority.site)
    authority.site.clear()
    one, server = box(authority, clock, tmp_path, mode), authority.server()
    for _ in range(2):
        if mode == "known":
            one.call(server)
        else:
            one.refused(server, "revocation-unknown: unable to get certificate CRL")
        await one.lists.round(all_of_them=True)
    assert [state.problem for state in one.lists.states] == ["Serveur injoignable"] * 2
    authority.site.update(held)
    await one.lists.round(all_of_them=True)
    one.call(server)


@pytest.mark.parametrize("kind", ["no address", "LDAP", "noRevAvail", "short-lived"])
async def test_certificates_without_a_list(authority: Authority, clock: FixedClock, tmp_path: Path, kind: str) -> None:
    server = {
        "no address": lambda: authority.server(url=""),
        "LDAP": lambda: authority.server(url="ldap://directory.test/cn=list"),
        "noRevAvail": lambda: authority.server(extra=NO_REVOCATION),
        "short-lived": lambda: authority.server(url="", days=6),
    }[kind]()
    lenient, strict = box(authority, clock, tmp_path / "a"), box(authority, clock, tmp_path / "b", "required")
    for one in (lenient, strict):
        if one is strict:
            # That of the intermediate is needed first.
            one.refused(server, "unable to get")
        else:
            one.call(server)
        await one.lists.round()
    lenient.call(server)
    if kind in ("noRevAvail", "short-lived"):
        strict.call(server)
    else:
        strict.refused(server, "unable to get certificate CRL")
    assert authority.url("intermediate") not in authority.asked


@pytest.mark.parametrize("wrong", ["stranger", "other point", "authorities alone", "garbage", "another issuer's"])
async def test_a_list_that_says_nothing_of_the_certificate_is_no_answer(
    authority: Authority, clock: FixedClock, tmp_path: Path, wrong: str
) -> None:
    """Of a list in shards, the absence of a number says nothing about the certificates of another shard."""
    url = authority.url("intermediate")
    server = authority.server()
    point = {"only_some_reasons": None, "relative_name": None, "only_contains_attribute_certs": False}
    match wrong:
        case "stranger":
            other = Authority()
            other.publish("intermediate", at=url)
            authority.site[url] = other.site[url]
        case "other point" | "authorities alone":
            named = (
                [x509.UniformResourceIdentifier(f"{authority.base}/shard-2.crl")] if wrong == "other point" else None
            )
            scope = x509.IssuingDistributionPoint(
                full_name=named,
                only_contains_user_certs=False,
                only_contains_ca_certs=wrong == "authorities alone",
                indirect_crl=False,
                **point,  # type: ignore[arg-type]
            )
            authority.publish("intermediate", scope=scope)
        case "garbage":
            authority.site[url] = b"<html>Not here</html>"
        case "another issuer's":
            authority.site[url] = authority.site[authority.url("root")]
    strict = box(authority, clock, tmp_path, "required")
    strict.refused(server, "unable to get")
    await strict.lists.round()
    strict.refused(server, "unable to get certificate CRL|CRL has expired")
    authority.publish("intermediate")
    await strict.lists.round(all_of_them=True)
    strict.call(server)


async def test_a_shard_answers_for_its_own_certificates(
    authority: Authority, clock: FixedClock, tmp_path: Path
) -> None:
    servers = {}
    for number in (1, 2):
        url = f"{authority.base}/shard-{number}.crl"
        servers[number] = [authority.server(url=url) for _ in range(2)]
        scope = x509.IssuingDistributionPoint(
            [x509.UniformResourceIdentifier(url)], None, True, False, None, False, False
        )
        authority.publish("intermediate", servers[number][0].certificate, scope=scope, at=url)
    one = box(authority, clock, tmp_path, "required")
    for number in (1, 2):
        one.refused(servers[number][1], "unable to get")
    await one.lists.round()
    for number in (1, 2):
        one.refused(servers[number][0], "certificate revoked")
        one.call(servers[number][1])


async def test_what_no_certificate_names_any_more_is_forgotten(
    authority: Authority, clock: FixedClock, tmp_path: Path
) -> None:
    one, server = box(authority, clock, tmp_path), authority.server()
    one.call(server)
    await one.lists.round()
    assert len(one.lists.states) == 2
    for _ in range(5):
        clock.advance(FORGOTTEN_AFTER.total_seconds() / 3)
        authority.publish("root", hours=24 * 365)
        authority.publish("intermediate", hours=24 * 365)
        await one.lists.round(all_of_them=True)
        one.call(server)
    assert len(one.lists.states) == 2, "in use"
    await one.lists.round()
    clock.advance(FORGOTTEN_AFTER.total_seconds() + 3600)
    await one.lists.round()
    assert one.lists.states == ()
    assert box(authority, clock, tmp_path).lists.states == ()


@settings(max_examples=60, deadline=None)
@given(
    noise=st.one_of(
        st.binary(max_size=200), st.text(max_size=100).map(lambda t: b'{"url": "x", "issuer": "%s"}' % t.encode())
    )
)
def test_whatever_lies_in_the_folder_a_box_starts(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    (folder / f"{'0' * 32}.json").write_bytes(noise)
    (folder / f"{'0' * 32}.crl").write_bytes(noise)

    async def fetch(_url: str) -> bytes:
        return noise

    assert PublicLists(fetch, SystemClock(), folder, "known").states == ()


# ------------------------------------------------------------------------------------------- each client, over the wire


async def test_each_client_of_public_servers_refuses_a_revoked_one(tmp_path: Path) -> None:
    """An ACME authority, a webhook and an SMTP relay; the list comes over plain HTTP, once for all."""
    authority = Authority()

    async def list_of(request: Request) -> Response:
        return Response(authority.site[f"{authority.base}{request.url.path}"])

    async def taken(_request: Request) -> Response:
        return Response(status_code=204)

    lists_app = Starlette(routes=[Route("/{name}", list_of)])
    hook = Starlette(routes=[Route("/hook", taken, methods=["GET", "POST"])])
    async with serving(lists_app, host="127.0.0.1", port=0, tls=None) as lists_port, HttpClient() as http:
        authority.base = f"http://127.0.0.1:{lists_port}"
        authority.site.clear()
        authority.__post_init__()
        good, bad = authority.server(hosts=("localhost",)), authority.server(hosts=("localhost",))
        authority.publish("intermediate", bad.certificate)
        for issuer in ("root", "intermediate"):
            authority.site[authority.url(issuer)] = authority.site.pop(authority.url(issuer))
        roots = tmp_path / "root.pem"
        roots.write_bytes(authority.certificates["root"].public_bytes(Encoding.PEM))
        known = PublicLists(fetching(http), SystemClock(), tmp_path / "lists", "known")
        secret = tmp_path / "secret"
        secret.write_bytes(b"s" * 32)
        async with (
            serving(hook, host="127.0.0.1", port=0, tls=server_context(good)) as good_port,
            serving(hook, host="127.0.0.1", port=0, tls=server_context(bad)) as bad_port,
        ):

            async def tell_hook(port: int) -> None:
                url = f"https://localhost:{port}/hook"
                section = WebhookSection.model_validate({"url": url, "roots": [roots], "secret_file": secret})
                await webhook_channel(section, http, known.judge).tell(example("box", "", NOW))

            async def tell_acme(port: int) -> None:
                tls = public_tls((authority.certificates["root"],), known.judge)
                await http.send("GET", f"https://localhost:{port}/hook", tls=tls)

            async def tell_mail(port: int) -> None:
                section = SmtpSection.model_validate(
                    {"host": "localhost", "port": port, "security": "tls", "sender": "a@b.fr", "roots": [roots]}
                )
                await mail_channel(section, ["a@b.fr"], SystemClock(), known.judge).tell(example("box", "", NOW))

            await tell_hook(good_port)
            await known.round()
            assert all(state.ends_at is not None for state in known.states), known.states
            assert len(known.states) == 2
            await tell_hook(good_port)
            for client in (tell_hook, tell_acme):
                with pytest.raises(Unavailable) as refusal:
                    await client(bad_port)
                assert (refusal.value.code, "certificate revoked" in refusal.value.peer_code) == ("tls", True)
            with pytest.raises(Rejected, match="certificat du serveur SMTP"):
                await asyncio.wait_for(tell_mail(bad_port), 60)


def test_a_public_client_without_a_judge_is_as_before(authority: Authority, tmp_path: Path) -> None:
    roots = tmp_path / "root.pem"
    roots.write_bytes(authority.certificates["root"].public_bytes(Encoding.PEM))
    bad = authority.server()
    authority.publish("intermediate", bad.certificate)
    shake_hands(server_context(bad), public_client_context([roots]), HOST)
