"""``drimbox bench trust``: what is measured, and how.

With and without revocation lists are measured in turn, in the same run, so that what else the machine does weighs on
both. The lists name 20,000 certificates: more than an issuer of organisations is likely to have revoked.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from drimbox.bench.rows import Row, ratio
from drimbox.bench.trust.server import Place
from drimbox.box.fronting import ClientJudge
from drimbox.foundation.clock import SystemClock
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust, server_context

REVOKED = 20_000
_SECONDS = 3.0
_CALLERS = 8
_RELOADS = 10
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class _Keys:
    authority: TestAuthority
    servers: tuple[PemPair, PemPair]
    client: PemPair


async def measure(rounds: int, say: Callable[[str], None] = lambda _text: None) -> list[Row]:
    """Every row. ``rounds`` is how often each pair of measurements is taken."""
    with tempfile.TemporaryDirectory(prefix="drimbox-bench-") as folder:
        keys = await asyncio.to_thread(_keys, Path(folder))
        say(f"lists of {REVOKED} revoked certificates made")
        found = await asyncio.to_thread(_in_memory, keys, rounds, say)
        found += await _connections(keys, Path(folder), rounds, say)
        found += await asyncio.to_thread(_judging, keys, rounds)
        found += await _reloading(keys, Path(folder), say)
        return found


def _keys(folder: Path) -> _Keys:
    authority = TestAuthority(folder / "pki")

    def issue(profile: Profile, name: str, *hosts: str) -> PemPair:
        return authority.issue(
            profile, name, common_name=name, unit="1750803447", organisation="BANC D'ESSAI", hosts=hosts
        )

    keys = _Keys(
        authority,
        (issue(Profile.SSL_SERV, "server-1", "localhost"), issue(Profile.SSL_SERV, "server-2", "localhost")),
        issue(Profile.ORG_AUTH_CLI, "client"),
    )
    publish(authority, edition=0)
    return keys


def publish(authority: TestAuthority, *, edition: int) -> None:
    """Lists of ``REVOKED`` certificates for each authority; a later ``edition`` is a newer list."""
    begun = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(days=1) + dt.timedelta(seconds=edition)
    for path in authority.revocation_lists:
        issuer, key = _issuer(authority, path)
        end = begun + dt.timedelta(days=30)
        builder = x509.CertificateRevocationListBuilder(issuer.subject, begun, end, revoked_certificates=_revoked())
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        draft = path.with_suffix(".new")
        draft.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        draft.replace(path)


@lru_cache(1)
def _revoked() -> list[x509.RevokedCertificate]:
    builder = x509.RevokedCertificateBuilder().revocation_date(dt.datetime.now(dt.UTC))
    return [builder.serial_number(2**100 + number).build() for number in range(REVOKED)]


def _issuer(authority: TestAuthority, path: Path) -> tuple[x509.Certificate, RSAPrivateKey]:
    name = path.name.partition(".")[0]
    key = load_pem_private_key((authority.folder / f"{name}.ca.key").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return x509.load_pem_x509_certificate((authority.folder / f"{name}.ca.pem").read_bytes()), key


# --- the handshake itself: both ends in memory, one thread ------------------------------------------------------------


def _in_memory(keys: _Keys, rounds: int, say: Callable[[str], None]) -> list[Row]:
    found: list[Row] = []
    for version, name in ((ssl.TLSVersion.TLSv1_3, "TLS 1.3"), (ssl.TLSVersion.TLSv1_2, "TLS 1.2")):
        rows = {
            checked: Row(f"{name} mutual handshakes, both ends, {_word(checked)}", "/s of processor")
            for checked in (True, False)
        }
        contexts = {checked: _contexts(keys, version, checked) for checked in rows}
        for _ in range(rounds):
            for checked, row in rows.items():
                row.values.append(_rate(lambda c=contexts[checked]: _shake(*c)))  # type: ignore[misc]
        say(f"{name} in memory")
        found += [rows[True], rows[False], ratio(f"{name}: with lists beside without", rows[True], rows[False])]
    return found


def _word(checked: bool) -> str:
    return f"lists of {REVOKED:,} checked by both" if checked else "no revocation"


def _contexts(keys: _Keys, version: ssl.TLSVersion, checked: bool) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    trust = load_trust([keys.authority.roots], keys.authority.revocation_lists if checked else ())
    server = server_context(load_credential(keys.servers[0].certificate, keys.servers[0].key), trust)
    client = client_context(trust, load_credential(keys.client.certificate, keys.client.key))
    server.minimum_version = server.maximum_version = version
    return server, client


def _shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname="localhost")
    done: set[ssl.SSLObject] = set()
    for _ in range(8):
        for side in (theirs, ours):
            if side not in done:
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                    done.add(side)
        if len(done) == 2:
            return
    raise AssertionError("the handshake did not end")


def _rate(work: Callable[[], None]) -> float:
    work()
    count, begun = 0, time.process_time()
    while time.process_time() - begun < _SECONDS / 4:
        work()
        count += 1
    return count / (time.process_time() - begun)


# --- connections to a listener ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Listener:
    port: int
    process: asyncio.subprocess.Process

    async def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n".encode())
        await self.process.stdin.drain()
        await self.process.stdout.readline()


@asynccontextmanager
async def _listener(keys: _Keys, folder: Path, checked: bool) -> AsyncIterator[_Listener]:
    pairs = [[str(pair.certificate), str(pair.key)] for pair in keys.servers]
    lists = [str(path) for path in keys.authority.revocation_lists] if checked else []
    file = folder / f"place-{checked}.json"
    file.write_text(json.dumps(asdict(Place(pairs, str(keys.authority.roots), lists))), "utf-8")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "drimbox.bench.trust.server", str(file), stdin=pipe, stdout=pipe, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        yield _Listener(int(await process.stdout.readline()), process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@dataclass(slots=True)
class _Load:
    """Callers, each of which opens a connection, asks and closes, again and again."""

    port: int
    context: ssl.SSLContext
    milliseconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self, until: asyncio.Event) -> None:
        async def caller() -> None:
            while not until.is_set():
                begun = time.perf_counter()
                try:
                    await self._ask()
                except (OSError, asyncio.IncompleteReadError, AssertionError) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    self.milliseconds.append((time.perf_counter() - begun) * 1000)

        await asyncio.gather(*(caller() for _ in range(_CALLERS)))

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname="localhost"
        )
        try:
            writer.write(_REQUEST)
            answer = await reader.read()
            assert answer.endswith(b"ok"), "answer cut short"
        finally:
            writer.close()


async def _connections(keys: _Keys, folder: Path, rounds: int, say: Callable[[str], None]) -> list[Row]:
    words = {True: f"lists of {REVOKED:,}", False: "no revocation"}
    rows = {c: Row(f"connection, mutual TLS 1.3, request, close; listener with {w}", "/s") for c, w in words.items()}
    client = client_context(
        load_trust([keys.authority.roots]), load_credential(keys.client.certificate, keys.client.key)
    )
    async with _listener(keys, folder, True) as checking, _listener(keys, folder, False) as open_to_all:
        for _ in range(rounds):
            for checked, listener in ((True, checking), (False, open_to_all)):
                load = await _for_a_while(_Load(listener.port, client))
                if load.failures:
                    raise AssertionError(load.failures[0])
                rows[checked].values.append(len(load.milliseconds) / _SECONDS)
    say("connections")
    return [rows[True], rows[False], ratio("connections: with lists beside without", rows[True], rows[False])]


async def _for_a_while(load: _Load) -> _Load:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(_SECONDS, stop.set)
    await load.run(stop)
    return load


# --- behind a proxy ---------------------------------------------------------------------------------------------------


def _judging(keys: _Keys, rounds: int) -> list[Row]:
    trust = load_trust([keys.authority.roots], keys.authority.revocation_lists)
    der = x509.load_pem_x509_certificate(keys.client.certificate.read_bytes()).public_bytes(Encoding.DER)
    first = Row("behind a proxy: a certificate judged for the first time", "µs")
    again = Row("behind a proxy: the same one on later requests", "µs")
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(20):
            ClientJudge(lambda: trust, SystemClock()).judge(der)
        first.values.append((time.perf_counter() - begun) / 20 * 1e6)
        judge = ClientJudge(lambda: trust, SystemClock())
        judge.judge(der)
        begun = time.perf_counter()
        for _ in range(20_000):
            judge.judge(der)
        again.values.append((time.perf_counter() - begun) / 20_000 * 1e6)
    return [first, again]


# --- reloads ----------------------------------------------------------------------------------------------------------


async def _reloading(keys: _Keys, folder: Path, say: Callable[[str], None]) -> list[Row]:
    """New lists and a new certificate again and again, while callers go on: not one may notice."""
    client = client_context(
        load_trust([keys.authority.roots]), load_credential(keys.client.certificate, keys.client.key)
    )
    async with _listener(keys, folder, True) as listener:
        calm = await _for_a_while(_Load(listener.port, client))
        load, stop = _Load(listener.port, client), asyncio.Event()
        running = asyncio.create_task(load.run(stop))
        took = Row(f"reload of lists of {3 * REVOKED:,} certificates in all, under load", "ms")
        for edition in range(1, _RELOADS + 1):
            await asyncio.to_thread(publish, keys.authority, edition=edition)
            begun = time.perf_counter()
            await listener.tell("lists")
            took.values.append((time.perf_counter() - begun) * 1000)
            await listener.tell("certificate")
        stop.set()
        await running
    say("reloads")
    return [
        took,
        Row(
            f"requests during {_RELOADS} reloads of lists and {_RELOADS} of the certificate",
            "",
            [len(load.milliseconds)],
        ),
        Row("of them failed", "", [len(load.failures)]),
        Row("request in calm, median", "ms", [_quantile(calm.milliseconds, 0.5)]),
        Row("request in calm, 99 %", "ms", [_quantile(calm.milliseconds, 0.99)]),
        Row("request during reloads, median", "ms", [_quantile(load.milliseconds, 0.5)]),
        Row("request during reloads, 99 %", "ms", [_quantile(load.milliseconds, 0.99)]),
        Row("request during reloads, slowest", "ms", [max(load.milliseconds)]),
    ]


def _quantile(values: list[float], at: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * at))]
