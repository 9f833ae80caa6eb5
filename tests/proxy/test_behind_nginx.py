"""TLS ended by nginx: who the client is comes from nginx alone; the box decides on it as if it had ended TLS itself."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from nginx_world import nginx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from box_settings import NATIONAL
from drimbox.box.config import load
from drimbox.box.fronting import served
from drimbox.box.nginx import nginx_configuration, write_authorities
from drimbox.box.places import places_of
from drimbox.box.settings.common import ProxySection, TlsServer
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_proxy import ADDRESS_FIELD, CERTIFICATE_FIELD
from drimbox.foundation.http_server import SocketFile, client_certificate, serving
from drimbox.keyring.keeper import Keyring
from drimbox.keyring.places import Place
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.fitness import Demand
from drimbox.trust.keystore import load_credential
from drimbox.trust.probe import probed
from drimbox.trust.tls import client_context, load_trust, server_context
from drimbox.trust.watch import TrustWatch

BIG = 3 * 2**20


def app() -> Starlette:
    """Tells what it sees of the client."""

    async def who(request: Request) -> Response:
        der = client_certificate(request)
        return JSONResponse(
            {
                "name": x509.load_der_x509_certificate(der).subject.rfc4514_string() if der else "",
                "address": request.client.host if request.client else "",
                "scheme": request.url.scheme,
                "host": request.headers.get("host", ""),
                "fields": [name for name, _ in request.headers.items() if name.startswith("x-drimbox")],
            }
        )

    async def images(_request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(BIG // 2**16):
                yield b"i" * 2**16

        return StreamingResponse(pieces())

    async def taken(request: Request) -> Response:
        return JSONResponse({"bytes": len(await request.body())})

    return Starlette(routes=[Route("/who", who), Route("/images", images), Route("/taken", taken, methods=["POST"])])


def pem(pair: PemPair) -> str:
    """How nginx gives a certificate."""
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    return quote(certificate.public_bytes(Encoding.PEM))


def client(pki: TestAuthority, pair: PemPair | None) -> ssl.SSLContext:
    credential = load_credential(pair.certificate, pair.key) if pair is not None else None
    return client_context(load_trust([pki.roots]), credential)


Issue = Callable[..., PemPair]


def section(server: PemPair, port: int, proxy: ProxySection | None, public: int = 0) -> TlsServer:
    return TlsServer.model_validate(
        {
            "port": port,
            "public_url": f"https://localhost:{public or port}",
            "tls": {"certificate": server.certificate, "key": server.key},
            "proxy": proxy,
        }
    )


def shown(one: TlsServer, trust: TrustWatch) -> AbstractAsyncContextManager[None]:
    """A listener that asks for certificates, as its section says."""
    ring = Keyring([Place("tls", "box", "db", one.tls.source, Demand)], SystemClock())
    return served(app(), one, trust, SystemClock(), ring, "tls", client_certificates=True)


def settings_toml(folder: Path, pki: TestAuthority, server: PemPair, auth: PemPair, sign: PemPair, port: int) -> Path:
    def pair(one: PemPair) -> str:
        return f'{{ certificate = "{one.certificate}", key = "{one.key}" }}'

    file = folder / "box.toml"
    file.write_text(
        f"""[box]
name = "a"
state_dir = "{folder}/state"
[trust]
roots = ["{pki.roots}"]
[[structures]]
id = "s"
name = "S"
identifier = "1750803447"
auth = {pair(auth)}
sign = {pair(sign)}
[[pacs]]
id = "p"
host = "127.0.0.1"
port = 4242
ae_title = "PACS"
[source]
[source.hl7]
port = 2575
[source.dicom]
port = 11112
[source.wado]
port = 9
public_url = "https://localhost:{port}"
tls = {pair(server)}
[source.wado.proxy]
socket = "{folder}/db.sock"
[console]
port = 10
public_url = "https://localhost:{port + 1}"
tls = {pair(server)}
[console.proxy]
socket = "{folder}/console.sock"
"""
        + NATIONAL,
        "utf-8",
    )
    return file


class Front:
    """nginx before two listeners: the ``db`` host at ``port``, the console at the next one."""

    def __init__(self, port: int, folder: Path, pki: TestAuthority, trust: TrustWatch) -> None:
        self.port, self.folder, self.pki, self.trust = port, folder, pki, trust

    async def ask(
        self, path: str, pair: PemPair | None, *, headers: dict[str, str] | None = None, console: bool = False
    ) -> tuple[int, dict[str, object]]:
        async with HttpClient() as http:
            reply = await http.send(
                "GET",
                f"https://localhost:{self.port + console}{path}",
                tls=client(self.pki, pair),
                headers=headers,
            )
        return reply.status, json.loads(reply.body) if reply.status == 200 else {}


@pytest.fixture
async def front(
    tmp_path: Path, pki: TestAuthority, server: PemPair, auth: PemPair, issue: Issue, free_port: int
) -> AsyncIterator[Front]:
    pki.publish_revocations()
    sign = issue(Profile.ORG_SIGN, "sign")
    settings = load(settings_toml(tmp_path, pki, server, auth, sign, free_port), {})
    trust = TrustWatch([pki.roots], pki.revocation_lists)
    assert settings.source is not None
    assert settings.console is not None
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        ring = Keyring(places_of(settings, lambda: trust.trust), clock)
        db = served(app(), settings.source.wado, trust, clock, ring, "source.wado.tls", client_certificates=True)
        await stack.enter_async_context(db)
        await stack.enter_async_context(served(app(), settings.console, trust, clock, ring, "console.tls"))
        stack.enter_context(nginx(tmp_path / "nginx", nginx_configuration(settings)))
        yield Front(free_port, tmp_path, pki, trust)


@pytest.mark.requirement("D15", "DB.SO.98")
async def test_the_client_and_its_address_reach_the_box(front: Front, auth: PemPair) -> None:
    status, seen = await front.ask("/who", auth)
    assert status == 200
    assert str(seen["name"]).startswith("CN=auth,OU=1750803447")
    assert seen["address"] == "127.0.0.1"
    assert seen["scheme"] == "https"
    assert seen["host"] == f"localhost:{front.port}"
    assert seen["fields"] == [], "the application is not told what only this box and nginx speak of"


@pytest.mark.requirement("D15")
async def test_no_certificate_no_entry_on_the_db_host(front: Front, pki: TestAuthority) -> None:
    status, _ = await front.ask("/who", None)
    assert status == 400


async def test_pages_for_browsers_ask_for_none_and_are_told_of_none(front: Front, auth: PemPair) -> None:
    for pair in (None, auth):
        status, seen = await front.ask("/who", pair, console=True)
        assert (status, seen["name"], seen["address"]) == (200, "", "127.0.0.1")


@pytest.mark.requirement("D15", "SSI/IE.43")
async def test_a_client_cannot_say_who_it_is(front: Front, auth: PemPair, issue: Issue) -> None:
    """The forgery: the fields of the proxy, sent by the client itself, in every case of letters."""
    other = issue(Profile.ORG_AUTH_CLI, "somebody-else")
    for name in (CERTIFICATE_FIELD, CERTIFICATE_FIELD.lower(), CERTIFICATE_FIELD.upper()):
        forged = {name: pem(other), ADDRESS_FIELD.upper(): "203.0.113.9"}
        status, seen = await front.ask("/who", auth, headers=forged)
        assert status == 200
        assert str(seen["name"]).startswith("CN=auth,")
        assert seen["address"] == "127.0.0.1"
        status, seen = await front.ask("/who", None, headers=forged, console=True)
        assert (status, seen["name"], seen["address"]) == (200, "", "127.0.0.1")
        status, _ = await front.ask("/who", None, headers=forged)
        assert status == 400


@pytest.mark.requirement("SSI/IE.43")
async def test_a_revoked_client_is_refused_by_the_box_whatever_nginx_knows(front: Front, issue: Issue) -> None:
    visitor = issue(Profile.ORG_AUTH_CLI, "to-be-revoked")
    assert (await front.ask("/who", visitor))[0] == 200
    await asyncio.sleep(1.1)
    front.pki.revoke(visitor)
    assert front.trust.refresh()
    assert (await front.ask("/who", visitor))[0] == 403


async def test_certificates_that_are_not_for_a_client(front: Front, issue: Issue) -> None:
    expired = front.pki.issue(
        Profile.ORG_AUTH_CLI,
        "expired",
        common_name="expired",
        unit="1750803447",
        organisation="SITE",
        not_before=_days(-20),
        not_after=_days(-1),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(front.pki.roots)
    context.load_cert_chain(expired.certificate, expired.key)
    async with HttpClient() as http:
        reply = await http.send("GET", f"https://localhost:{front.port}/who", tls=context)
        assert reply.status == 400
        context.load_cert_chain(issue(Profile.ORG_SIGN, "sign").certificate, issue(Profile.ORG_SIGN, "sign").key)
        reply = await http.send("GET", f"https://127.0.0.1:{front.port}/who", tls=context)
        assert reply.status in (400, 403)


async def test_images_and_bodies_pass_whole(front: Front, auth: PemPair) -> None:
    tls = client(front.pki, auth)
    async with HttpClient() as http:
        base = f"https://localhost:{front.port}"
        reply = await http.send("GET", f"{base}/images", tls=tls)
        assert reply.body == b"i" * BIG
        reply = await http.send("POST", f"{base}/taken", tls=tls, body=b"b" * 2**19)
        assert reply.body == b'{"bytes":%d}' % (2**19)


@pytest.mark.requirement("SSI/GEN.13")
async def test_nginx_speaks_tls_as_the_box_does(front: Front) -> None:
    for port in (front.port, front.port + 1):
        found = await asyncio.to_thread(probed, "127.0.0.1", port)
        assert found.versions == ("TLS 1.2", "TLS 1.3")
        assert found.suites == (
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-RSA-CHACHA20-POLY1305",
        )
        for group, accepted in (("X25519", True), ("P-384", True), ("ffdhe2048", False)):
            assert await asyncio.to_thread(_shakes, port, group) is accepted


def _shakes(port: int, group: str) -> bool:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    command = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-groups", group]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=10, check=False)
    return b"Cipher is TLS_" in done.stdout


async def test_the_socket_is_for_its_owner_and_its_group(front: Front) -> None:
    for name in ("db.sock", "console.sock"):
        mode = (front.folder / name).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660


@pytest.mark.requirement("D15")
async def test_a_listener_without_a_proxy_never_looks_at_its_fields(
    pki: TestAuthority, server: PemPair, issue: Issue
) -> None:
    pair = load_credential(server.certificate, server.key)
    async with (
        serving(app(), host="127.0.0.1", port=0, tls=server_context(pair)) as port,
        HttpClient() as http,
    ):
        forged = {CERTIFICATE_FIELD: pem(issue(Profile.ORG_AUTH_CLI, "somebody-else")), ADDRESS_FIELD: "203.0.113.9"}
        reply = await http.send("GET", f"https://localhost:{port}/who", tls=client(pki, None), headers=forged)
    seen = json.loads(reply.body)
    assert (seen["name"], seen["address"]) == ("", "127.0.0.1")


@pytest.mark.requirement("D15")
async def test_a_proxy_on_another_machine_proves_who_it_is(
    pki: TestAuthority, server: PemPair, auth: PemPair, issue: Issue, free_port: int
) -> None:
    """Over TLS: the address, the certificate's authority and its name must all be the proxy's."""
    proxy = issue(Profile.SSL_BOTH, "front", "front.example.test")
    stranger = issue(Profile.SSL_BOTH, "stranger", "stranger.example.test")
    trust = TrustWatch([pki.roots], pki.revocation_lists)
    fields = {CERTIFICATE_FIELD: pem(auth), ADDRESS_FIELD: "198.51.100.4"}

    async def status(pair: PemPair | None, address: str, headers: dict[str, str]) -> int:
        chosen = ProxySection(addresses=(address,), roots=(pki.roots,), names=("front.example.test",))
        one = section(server, free_port, chosen)
        async with shown(one, trust), HttpClient() as http:
            reply = await http.send("GET", f"https://localhost:{free_port}/who", tls=client(pki, pair), headers=headers)
            return reply.status

    assert await status(proxy, "127.0.0.1", fields) == 200
    assert await status(proxy, "203.0.113.1", fields) == 403, "not from there"
    assert await status(stranger, "127.0.0.1", fields) == 403, "another name"
    assert await status(auth, "127.0.0.1", fields) == 403, "another DRIMbox is not the proxy"
    with pytest.raises((Unavailable, Exception)):
        await status(None, "127.0.0.1", fields)
    assert await status(proxy, "127.0.0.1", {}) == 400, "a proxy that does not tell the client's address"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], 400),
        ([(ADDRESS_FIELD, "not-an-address")], 400),
        ([(ADDRESS_FIELD, "127.0.0.1"), (ADDRESS_FIELD, "127.0.0.2")], 400),
        ([(ADDRESS_FIELD, "127.0.0.1"), (CERTIFICATE_FIELD, "garbage")], 400),
        ([(ADDRESS_FIELD, "127.0.0.1"), (CERTIFICATE_FIELD, "%2D" * 30000)], 400),
        ([(ADDRESS_FIELD, "127.0.0.1"), (CERTIFICATE_FIELD, "GOOD"), (CERTIFICATE_FIELD, "GOOD")], 400),
        ([(ADDRESS_FIELD, "127.0.0.1"), (CERTIFICATE_FIELD, "GOOD")], 200),
        ([(ADDRESS_FIELD, "2001:db8::1"), (CERTIFICATE_FIELD, "")], 200),
        ([(ADDRESS_FIELD, "127.0.0.1"), (CERTIFICATE_FIELD, "SIGN")], 403),
    ],
)
async def test_what_a_proxy_may_say(
    fields: list[tuple[str, str]],
    status: int,
    tmp_path: Path,
    pki: TestAuthority,
    server: PemPair,
    auth: PemPair,
    issue: Issue,
) -> None:
    trust = TrustWatch([pki.roots], pki.revocation_lists)
    words = {"GOOD": pem(auth), "SIGN": pem(issue(Profile.ORG_SIGN, "sign"))}
    one = section(server, 9, ProxySection(socket=tmp_path / "x.sock"))
    async with shown(one, trust):
        lines = "".join(f"{name}: {words.get(value, value)}\r\n" for name, value in fields)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "x.sock"))
        writer.write(f"GET /who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert int(answer.split()[1]) == status
    assert not (tmp_path / "x.sock").exists()


async def test_a_socket_left_by_a_killed_box_does_not_stop_the_next_and_a_live_one_does(tmp_path: Path) -> None:
    place = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    async with serving(app(), tls=None, socket_file=SocketFile(place)):
        with pytest.raises(OSError, match="in use"):
            async with serving(app(), tls=None, socket_file=SocketFile(place)):
                pass
        assert place.is_socket()
    with pytest.raises(OSError, match="no group"):
        async with serving(app(), tls=None, socket_file=SocketFile(place, "no-such-group-here")):
            pass


def test_authorities_of_several_files_are_written_into_one(tmp_path: Path, pki: TestAuthority) -> None:
    from types import SimpleNamespace

    target = tmp_path / "all.pem"
    write_authorities(SimpleNamespace(trust=SimpleNamespace(roots=(pki.roots, pki.roots))), target)  # type: ignore[arg-type]
    assert len(x509.load_pem_x509_certificates(target.read_bytes())) == 3


def _days(days: int) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
