"""Revocation lists that the box fetches itself: taken in ahead of time, kept, refused when they are no good."""

import asyncio
import base64
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from test_tls_contexts import raw_client, shake_hands, usable

from drimbox.box.trusting import fetching
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import DrimboxError, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.chain import verify_client
from drimbox.trust.distribution import MAX_LIST_BYTES, ListKeeper, addresses
from drimbox.trust.keystore import read_certificates
from drimbox.trust.tls import client_context, server_context
from drimbox.trust.watch import TrustWatch

NOW = dt.datetime.now(dt.UTC)
HOUR = 3600.0


class Site:
    """Where an authority publishes its lists: gives what the test puts there, or fails."""

    def __init__(self) -> None:
        self.lists: dict[str, bytes] = {}
        self.asked = 0

    async def fetch(self, url: str) -> bytes:
        self.asked += 1
        if url not in self.lists:
            raise Unavailable("Serveur injoignable", code="unreachable")
        return self.lists[url]


@pytest.fixture
def own(tmp_path: Path) -> TestAuthority:
    """A PKI of this test alone."""
    return TestAuthority(tmp_path / "pki")


@pytest.fixture
def site(own: TestAuthority) -> Site:
    found = Site()
    publish(own, found)
    return found


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(dt.datetime.now(dt.UTC))


def der(path: Path) -> bytes:
    return x509.load_pem_x509_crl(path.read_bytes()).public_bytes(Encoding.DER)


def publish(own: TestAuthority, site: Site) -> None:
    for path in own.revocation_lists:
        site.lists[f"http://crl.test/{path.name}"] = der(path)


def keeper(own: TestAuthority, site: Site, clock: FixedClock, folder: Path) -> ListKeeper:
    return ListKeeper(tuple(site.lists), read_certificates(own.roots), site.fetch, clock, folder)


@pytest.mark.requirement("SSI/IE.43")
async def test_a_revoked_client_is_out_as_soon_as_the_list_says_so(
    own: TestAuthority, site: Site, clock: FixedClock, tmp_path: Path, make: Callable[..., PemPair]
) -> None:
    """The listener goes on with the same context; nothing is read from files."""
    lists = keeper(own, site, clock, tmp_path / "kept")
    trust = TrustWatch([own.roots], (), lists.lists)
    pair = make(own, Profile.SSL_SERV, "server", "db1.test")
    visitor = make(own, Profile.ORG_AUTH_CLI, "visitor")
    listener = trust.enrol(server_context(usable(pair), trust.trust))
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get certificate CRL"):
        shake_hands(listener, raw_client(own, visitor))

    assert await lists.round()
    trust.take_in(lists.lists)
    shake_hands(listener, raw_client(own, visitor))
    assert not await lists.round(), "nothing is due"

    await asyncio.sleep(1.1)
    own.revoke(visitor)
    publish(own, site)
    clock.advance(6 * HOUR + 1)
    assert await lists.round()
    trust.take_in(lists.lists)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        client = raw_client(own, visitor)
        client.maximum_version = version
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
            shake_hands(listener, client)


def test_a_context_does_not_grow_with_each_list(own: TestAuthority, make: Callable[..., PemPair]) -> None:
    """A box that runs for months is given a list a day: OpenSSL, which lets go of none, is given none."""
    trust = TrustWatch([own.roots], own.revocation_lists)
    pair = usable(make(own, Profile.SSL_SERV, "grown-server", "db1.test"))
    listener = trust.enrol(server_context(pair, trust.trust))
    for days in (2, 3, 4, 5):
        own.publish_revocations(valid=dt.timedelta(days=days))
        trust.refresh()
        assert listener.cert_store_stats()["crl"] == 0
        assert len(trust.trust.revocation.lists) == len(own.revocation_lists)


async def test_what_was_kept_serves_the_next_process(
    own: TestAuthority, site: Site, clock: FixedClock, tmp_path: Path
) -> None:
    first = keeper(own, site, clock, tmp_path / "kept")
    await first.round()
    fetched = site.asked
    second = keeper(own, site, clock, tmp_path / "kept")
    assert second.lists == first.lists
    assert not await second.round()
    assert site.asked == fetched, "what is on the disk is not due yet"


async def test_a_list_is_renewed_well_before_its_end(own: TestAuthority, site: Site, tmp_path: Path) -> None:
    clock = FixedClock(dt.datetime.now(dt.UTC))
    own.publish_revocations(valid=dt.timedelta(hours=4))
    publish(own, site)
    lists = keeper(own, site, clock, tmp_path / "kept")
    await lists.round()
    for state in lists.states:
        assert state.ends_at is not None
        assert state.due < state.ends_at - dt.timedelta(hours=2)


async def test_the_last_good_list_stays_until_its_end_and_no_longer(
    own: TestAuthority, site: Site, clock: FixedClock, tmp_path: Path, make: Callable[..., PemPair]
) -> None:
    lists = keeper(own, site, clock, tmp_path / "kept")
    await lists.round()
    trust = TrustWatch([own.roots], (), lists.lists).trust
    visitor = read_certificates(make(own, Profile.ORG_AUTH_CLI, "late-visitor", days=(-2, 300)).certificate)[0]
    site.lists = dict.fromkeys(site.lists, b"down")
    clock.advance(20 * 24 * HOUR)
    assert not await lists.round()
    assert all(state.problem and state.failures == 1 for state in lists.states)
    verify_client(visitor, trust=trust, now=clock.now())
    clock.advance(11 * 24 * HOUR)
    with pytest.raises(Refused) as unknown:
        verify_client(visitor, trust=trust, now=clock.now())
    assert unknown.value.code == "revocation-unknown"


async def test_failures_are_tried_again_with_growing_pauses(
    own: TestAuthority, clock: FixedClock, tmp_path: Path
) -> None:
    site = Site()
    lists = ListKeeper(["http://crl.test/x"], read_certificates(own.roots), site.fetch, clock, tmp_path)
    pauses = []
    for _ in range(9):
        await lists.round(all_of_them=True)
        pauses.append((lists.states[0].due - clock.now()).total_seconds())
    assert pauses[:4] == [60, 120, 240, 480]
    assert max(pauses) == HOUR
    assert lists.lists.configured, "without its list, everyone is refused"
    assert not lists.lists.lists


@pytest.mark.parametrize("wrong", ["stranger", "expired", "older", "delta", "two", "garbage", "empty", "html"])
async def test_a_list_that_is_no_good_changes_nothing(
    wrong: str, own: TestAuthority, stranger: TestAuthority, site: Site, clock: FixedClock, tmp_path: Path
) -> None:
    url = f"http://crl.test/{own.revocation_lists[1].name}"
    lists = keeper(own, site, clock, tmp_path / "kept")
    await lists.round()
    before = lists.lists
    site.lists[url] = spoiled(wrong, own, stranger, tmp_path)
    assert not await lists.round(all_of_them=True)
    assert lists.lists == before
    assert next(state for state in lists.states if state.url == url).problem
    # Nor is it what the next process finds.
    assert keeper(own, site, clock, tmp_path / "kept").lists == before


def spoiled(wrong: str, own: TestAuthority, stranger: TestAuthority, folder: Path) -> bytes:
    path = own.revocation_lists[1]
    match wrong:
        case "stranger":
            return der(stranger.revocation_lists[1])
        case "expired":
            own.publish_revocations(valid=dt.timedelta(seconds=-5))
            return der(path)
        case "older":
            crl = x509.load_pem_x509_crl(path.read_bytes())
            key = own._organisations.key
            return made(crl.issuer, key, last=crl.last_update_utc - dt.timedelta(days=1))
        case "delta":
            crl = x509.load_pem_x509_crl(path.read_bytes())
            key = own._organisations.key
            return made(crl.issuer, key, x509.DeltaCRLIndicator(1))
        case "two":
            return path.read_bytes() + own.revocation_lists[0].read_bytes()
        case "garbage":
            return der(path)[:-20]
        case "empty":
            return b""
        case _:
            return b"<html>404</html>"


def made(issuer: x509.Name, key: object, *extensions: x509.ExtensionType, last: dt.datetime | None = None) -> bytes:
    from cryptography.hazmat.primitives import hashes

    begun = last or dt.datetime.now(dt.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(begun)
    builder = builder.next_update(dt.datetime.now(dt.UTC) + dt.timedelta(days=3))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_never_enters(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    own, good = _shared(tmp_path_factory)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    site = Site()
    site.lists["http://crl.test/x"] = bytes(bad)
    lists = ListKeeper(
        tuple(site.lists), read_certificates(own.roots), site.fetch, FixedClock(NOW), tmp_path_factory.mktemp("kept")
    )
    asyncio.run(lists.round())
    assert not lists.lists.lists
    assert lists.states[0].problem


_made: dict[str, tuple[TestAuthority, bytes]] = {}


def _shared(factory: pytest.TempPathFactory) -> tuple[TestAuthority, bytes]:
    if "pki" not in _made:
        own = TestAuthority(factory.mktemp("bytes"))
        _made["pki"] = (own, der(own.revocation_lists[1]))
    return _made["pki"]


async def test_a_folder_that_cannot_be_written_costs_a_download_and_nothing_else(
    own: TestAuthority, site: Site, clock: FixedClock, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("a file in the way")
    lists = keeper(own, site, clock, tmp_path / "kept")
    assert await lists.round()
    assert len(lists.lists.lists) == 3


async def test_what_another_process_fetched_is_taken_in(
    own: TestAuthority, site: Site, clock: FixedClock, tmp_path: Path
) -> None:
    running = keeper(own, site, clock, tmp_path / "kept")
    assert not running.reread()
    await keeper(own, site, clock, tmp_path / "kept").round()
    assert running.reread()
    assert len(running.lists.lists) == 3
    assert not running.reread()


@pytest.mark.requirement("D16")
def test_where_igc_sante_publishes(samples: Path) -> None:
    """The certificate of the list that the agency signed names its CRL by HTTP, by LDAP, and a delta list."""
    document = etree.parse(str(next((samples / "whitelist").glob("*.xml"))))
    found = [
        x509.load_der_x509_certificate(base64.b64decode(element.text or ""))
        for element in document.iter("{http://www.w3.org/2000/09/xmldsig#}X509Certificate")
    ]
    urls = addresses(found)
    assert "http://igc-sante.esante.gouv.fr/CRL/ACI-EL-ORG-TEST.crl" in urls
    assert all(url.startswith("http://igc-sante.esante.gouv.fr/CRL/") for url in urls)


@pytest.fixture
async def web() -> AsyncIterator[str]:
    """A server in the clear, as authorities have it."""

    async def answer(request: Request) -> Response:
        match request.path_params["what"]:
            case "good":
                return Response(b"list", media_type="application/pkix-crl")
            case "huge":
                return Response(b"x" * (MAX_LIST_BYTES + 1))
            case "moved":
                return RedirectResponse("http://127.0.0.1:1/elsewhere")
            case _:
                return Response(status_code=404)

    app = Starlette(routes=[Route("/{what}", answer)])
    async with serving(app, host="127.0.0.1", port=0, tls=None) as port:
        yield f"http://127.0.0.1:{port}"


async def test_lists_are_downloaded_in_the_clear_within_limits(web: str) -> None:
    async with HttpClient() as http:
        fetch = fetching(http)
        assert await fetch(f"{web}/good") == b"list"
        for path in ("huge", "moved", "nothing"):
            with pytest.raises((Rejected, Unavailable)):
                await fetch(f"{web}/{path}")
        with pytest.raises(DrimboxError):
            await fetch("http://127.0.0.1:1/closed")


async def test_lists_are_taken_in_under_load_without_one_failed_request(
    own: TestAuthority, clock: FixedClock, site: Site, tmp_path: Path, make: Callable[..., PemPair]
) -> None:
    lists = keeper(own, site, clock, tmp_path / "kept")
    await lists.round()
    trust = TrustWatch([own.roots], (), lists.lists)
    pair = usable(make(own, Profile.SSL_SERV, "loaded-server", "localhost"))
    visitor = usable(make(own, Profile.ORG_AUTH_CLI, "loaded-visitor"))
    tls = trust.enrol(server_context(pair, trust.trust))
    ours = trust.enrol(client_context(trust.trust, visitor))
    stop, answered = asyncio.Event(), 0

    async def caller(port: int) -> None:
        nonlocal answered
        while not stop.is_set():
            # A client of its own each time: a connection of its own.
            async with HttpClient() as http:
                assert (await http.send("GET", f"https://localhost:{port}/good", tls=ours)).body == b"list"
            answered += 1

    app = Starlette(routes=[Route("/good", lambda _request: Response(b"list"))])
    async with serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        callers = [asyncio.create_task(caller(port)) for _ in range(3)]
        for day in range(1, 8):
            own.publish_revocations(valid=dt.timedelta(days=day))
            publish(own, site)
            assert await lists.round(all_of_them=True)
            await asyncio.to_thread(trust.take_in, lists.lists)
            await asyncio.sleep(0.05)
        stop.set()
        await asyncio.gather(*callers)
    assert answered >= len(callers)
