"""A listener's certificate is replaced under load without one failed request; validations beside visitors."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.responses import Response

from certificates.acme_world import HOST, OPERATOR, Pebble, box_on
from drimbox.certificates.doors import validation_credential
from drimbox.certificates.ordering import TLS_ALPN_01
from drimbox.certificates.presenting import Presenting
from drimbox.foundation import event_loop
from drimbox.foundation.http_server import serving
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.reload import ReloadableServerContext, reloadable, validation_context
from drimbox.trust.tls import server_context


def credentials(pki: TestAuthority, count: int) -> list[Credential]:
    pairs = [
        pki.issue(
            Profile.SSL_SERV, f"viewer-{n}", common_name=f"viewer-{n}", unit="x", organisation="x", hosts=("localhost",)
        )
        for n in range(count)
    ]
    return [load_credential(pair.certificate, pair.key) for pair in pairs]


def trusting(pki: TestAuthority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.roots))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


async def app(scope: Any, receive: Any, send: Any) -> None:
    # Long enough that answers are under way while certificates change.
    await asyncio.sleep(0.002)
    await Response(b"x" * 20_000)(scope, receive, send)


async def shown(port: int, context: ssl.SSLContext, host: str = "localhost") -> bytes:
    """The certificate of one connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return bytes(der)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert len(await reader.readexactly(20_000)) == 20_000


async def under_load(pki: TestAuthority, context: ReloadableServerContext, kept: list[Credential]) -> Counter[str]:
    """Visitors come and stay while the certificate is replaced again and again; what each request met."""
    client, met, done = trusting(pki), Counter[str](), asyncio.Event()
    made = [server_context(one) for one in kept]
    context.present(made[0])
    proof = validation_context(validation_credential(HOST, "token.proof", dt.datetime.now(dt.UTC)))

    async def comes_again() -> None:
        while not done.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            met[x509.load_der_x509_certificate(der).subject.rfc4514_string().split(",")[0]] += 1
            await ask(reader, writer)
            met["requests"] += 1
            writer.close()
            await writer.wait_closed()

    async def stays() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        while not done.is_set():
            await ask(reader, writer)
            met["requests"] += 1
        writer.close()
        await writer.wait_closed()
        met["stayed"] += 1

    async with serving(app, host="127.0.0.1", port=0, tls=context) as port:
        visitors = [asyncio.create_task(v()) for v in (comes_again, comes_again, comes_again, stays, stays)]
        for turn in range(1, 25):
            await asyncio.sleep(0.05)
            # Validations begin and end meanwhile.
            context.answer({HOST: proof} if turn % 2 else {})
            context.present(made[turn % len(made)])
            met["reloads"] += 1
        done.set()
        await asyncio.gather(*visitors)
    return met


def runs(loop: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return event_loop.run if loop == "uvloop" else asyncio.run


@pytest.mark.requirement("DB.SO.90", "DB.VI-SO.04")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_certificate_is_replaced_under_load_without_one_failed_request(authority: TestAuthority, loop: str) -> None:
    context, kept = reloadable(), credentials(authority, 3)
    met = runs(loop)(under_load(authority, context, kept))
    assert met["reloads"] == 24
    assert met["stayed"] == 2
    assert met["requests"] > 100
    # Every certificate had visitors.
    assert len([name for name in met if name.startswith("CN=viewer-")]) == 3, met


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_validation_and_a_visitor_at_the_same_time(authority: TestAuthority, loop: str) -> None:
    context, [one] = reloadable(), credentials(authority, 1)
    context.present(server_context(one))
    made = validation_credential(HOST, "token.proof", dt.datetime.now(dt.UTC))
    context.answer({HOST: validation_context(made)})
    own, proof = one.certificate.public_bytes(Encoding.DER), made.certificate.public_bytes(Encoding.DER)

    async def work() -> None:
        async with serving(app, host="127.0.0.1", port=0, tls=context) as port:
            for host, protocols, expected in (
                (HOST, ["acme-tls/1"], proof),
                (HOST.upper(), ["acme-tls/1"], proof),
                (HOST, ["http/1.1"], own),
                (HOST, ["acme-tls/1", "http/1.1"], own),
                (HOST, [], own),
                ("localhost", ["acme-tls/1"], own),
                ("localhost", ["h2", "http/1.1"], own),
            ):
                client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
                if protocols:
                    client.set_alpn_protocols(protocols)
                assert await shown(port, client, host) == expected, (host, protocols)
            # What is no TLS at all is refused and harms nobody.
            for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\x00\x00", b""):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(junk)
                writer.write_eof()
                assert b"200" not in await reader.read()
                writer.close()
            # A hello that comes octet by octet is waited for.
            assert await in_pieces(port) == own
            context.answer({})
            assert await shown(port, trusting(authority)) == own

    runs(loop)(work())


async def in_pieces(port: int) -> bytes:
    """A handshake whose first message comes in many pieces."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    first = True
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sent = outgoing.read()
            for place in range(0, len(sent), 40 if first else len(sent) or 1):
                writer.write(sent[place : place + (40 if first else len(sent))])
                await writer.drain()
                await asyncio.sleep(0.002)
            first = False
            incoming.write(await reader.read(65536))
    der = tls.getpeercert(binary_form=True)
    writer.close()
    assert der is not None
    return der


async def test_nothing_is_presented_before_there_is_a_certificate(authority: TestAuthority) -> None:
    async with serving(app, host="127.0.0.1", port=0, tls=reloadable()) as port:
        with pytest.raises((ssl.SSLError, OSError)):
            await shown(port, trusting(authority))


@pytest.mark.requirement("DB.SO.90")
async def test_a_site_that_opens_no_port_80_is_validated_on_443(dsn: str, pebble: Pebble) -> None:
    """TLS-ALPN-01 (RFC 8737): by Pebble, by openssl s_client, and before the first certificate is there."""
    async with (
        box_on(dsn, [pebble], pebble.roots(), validation=TLS_ALPN_01) as box,
        serving(app, host="127.0.0.1", port=pebble.tls_port, tls=box.presenting.context),
    ):
        assert await box.work()
        one = await box.served()
        client = ssl.create_default_context(cadata=pebble.roots()[0].public_bytes(Encoding.PEM).decode())
        client.verify_flags &= ~ssl.VERIFY_X509_STRICT
        assert await shown(pebble.tls_port, client, HOST) == one.leaf.public_bytes(Encoding.DER)
        # The next one, with visitors meanwhile.
        await box.acts.renew(OPERATOR)
        async with asyncio.TaskGroup() as group:
            group.create_task(box.work())
            for _ in range(20):
                await shown(pebble.tls_port, client, HOST)
        assert (await box.served()).id != one.id
        await announce(box.presenting, "token.another")
        told = await asyncio.to_thread(s_client, pebble.tls_port, "-alpn", "acme-tls/1")
        assert "ALPN protocol: acme-tls/1" in told
        extensions = x509.load_pem_x509_certificate(told.encode()).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName(HOST)]
        [identifier] = [e for e in extensions if e.oid.dotted_string == "1.3.6.1.5.5.7.1.31"]
        assert identifier.critical
        assert identifier.value.public_bytes() == b"\x04\x20" + hashlib.sha256(b"token.another").digest()
        usual = await asyncio.to_thread(s_client, pebble.tls_port, "-alpn", "http/1.1")
        assert x509.load_pem_x509_certificate(usual.encode()) == (await box.served()).leaf
        old = await asyncio.to_thread(s_client, pebble.tls_port, "-tls1_1")
        assert "BEGIN CERTIFICATE" not in old


async def announce(presenting: Presenting, proof: str) -> None:
    from drimbox.certificates import records

    expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    async with presenting.pool.connection() as connection:
        await records.announce(connection, records.Challenge("token", HOST, TLS_ALPN_01, proof, expires))
    await presenting.refresh()


def s_client(port: int, *options: str) -> str:
    """What OpenSSL's own client sees."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST, *options],
        input=b"",
        capture_output=True,
        check=False,
        timeout=20,
    ).stdout.decode("utf-8", "replace")


async def test_a_validation_is_answered_by_every_node(dsn: str, pebble: Pebble) -> None:
    async with (
        box_on(dsn, [pebble], pebble.roots(), validation=TLS_ALPN_01) as orders,
        box_on(dsn, [pebble], pebble.roots(), validation=TLS_ALPN_01) as answers,
        serving(app, host="127.0.0.1", port=pebble.tls_port, tls=answers.presenting.context),
    ):
        answers.presenting.poll = 0.05
        looking = asyncio.create_task(answers.presenting.run())
        try:
            object.__setattr__(orders.keeper.ordering, "spread", 0.2)
            assert await orders.work()
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        assert (await answers.served()).directory == pebble.directory
