"""A site and its authorities: Pebble as Debian ships it, and the viewer's doors, on this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from psycopg.rows import dict_row

from drimbox.certificates import records
from drimbox.certificates.accounts import Authority
from drimbox.certificates.acme.client import AcmeClient, ExternalAccount
from drimbox.certificates.acts import CertificateActs
from drimbox.certificates.doors import http_door
from drimbox.certificates.keeper import Keeper
from drimbox.certificates.ordering import HTTP_01, TLS_ALPN_01, Ordering
from drimbox.certificates.presenting import DATABASE_ERRORS, Presenting
from drimbox.certificates.records import Installed, Plan
from drimbox.certificates.rules import Rules
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.publication.incidents import Incident, Incidents
from drimbox.record.audit import Actor, Journal
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.store import database
from drimbox.store.database import Pool
from drimbox.trust.chain import TrustStore
from drimbox.trust.tls import client_context
from drimbox.trust.vault import Vault

HOST = "vi1.test.mesimagesmedicales.fr"
OPERATOR = Actor(person="local:admin", name="Admin Essai", system="console")
SECRET = bytes(range(32))


class MovedClock(SystemClock):
    """The machine's clock, some days away from the truth."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self):  # type: ignore[no-untyped-def]
        import datetime as dt

        return super().now() + dt.timedelta(days=self.ahead)


@dataclass
class Pebble:
    """One Pebble. It validates by ``http_port`` and ``tls_port`` of this machine."""

    directory: str
    management: str
    tls: ssl.SSLContext
    http_port: int
    tls_port: int
    process: subprocess.Popen[bytes]

    def roots(self, number: int = 0) -> tuple[x509.Certificate, ...]:
        """The root of its chain of that number; it makes new ones at each start."""
        with urllib.request.urlopen(f"{self.management}/roots/{number}", context=self.tls) as answer:
            return tuple(x509.load_pem_x509_certificates(answer.read()))

    def status(self, certificate: x509.Certificate) -> str:
        """``Valid`` or ``Revoked``, as the authority says it."""
        url = f"{self.management}/cert-status-by-serial/{certificate.serial_number:x}"
        with urllib.request.urlopen(url, context=self.tls) as answer:
            return str(json.loads(answer.read())["Status"])


@contextmanager
def running_pebble(
    folder: Path,
    pki: TestAuthority,
    *,
    http_port: int,
    tls_port: int,
    bindings: dict[str, str] | None = None,
    **environment: str,
) -> Iterator[Pebble]:
    """Pebble with a DNS for which every name is this machine."""
    if shutil.which("pebble") is None:
        pytest.skip("pebble is not installed (Debian package pebble)")
    folder.mkdir(parents=True, exist_ok=True)
    acme, management, dns, unused = free_ports(4)
    pair = pki.issue(
        Profile.SSL_SERV,
        "pebble",
        common_name="localhost",
        unit="x",
        organisation="x",
        hosts=("localhost", "127.0.0.1"),
    )
    settings = {
        "listenAddress": f"127.0.0.1:{acme}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(pair.certificate),
        "privateKey": str(pair.key),
        "httpPort": http_port,
        "tlsPort": tls_port,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": bindings is not None,
        "externalAccountMACKeys": bindings or {},
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    known = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    with (folder / "pebble.log").open("wb") as log:
        commands = [
            [
                *("pebble-challtestsrv", "-dns01", f"127.0.0.1:{dns}", "-http01", "", "-https01", "", "-tlsalpn01", ""),
                *("-management", f"127.0.0.1:{unused}", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""),
            ],
            ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}", "-strict"],
        ]
        started = [
            subprocess.Popen(c, stdout=log, stderr=log, env={**os.environ, **known, **environment}) for c in commands
        ]
        try:
            for port in (acme, management):
                wait_for(port)
            tls = client_context(TrustStore(tuple(x509.load_pem_x509_certificates(pki.roots.read_bytes()))))
            yield Pebble(
                f"https://localhost:{acme}/dir",
                f"https://localhost:{management}",
                tls,
                http_port,
                tls_port,
                started[1],
            )
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(10)


@dataclass
class Box:
    """One node: its keeper, what it presents, its doors."""

    pool: Pool
    dsn: str
    keeper: Keeper
    presenting: Presenting
    incidents: Incidents
    acts: CertificateActs
    clock: MovedClock
    http: HttpClient
    pauses: list[float] = field(default_factory=list)

    async def work(self) -> bool:
        """One round, as the leader."""
        async with self.keeper.leading() as connection:
            assert connection is not None, "another node leads"
            return await self.keeper.round(connection)

    async def current(self) -> Installed | None:
        async with self.pool.connection() as connection:
            return await records.current(connection, self.keeper.host)

    async def served(self) -> Installed:
        found = await self.current()
        assert found is not None, await self.plan()
        return found

    async def plan(self) -> Plan:
        async with self.pool.connection() as connection:
            return await records.plan(connection, self.keeper.host)

    async def queue(self) -> tuple[Incident, ...]:
        return await self.incidents.list()


def client_of(pebble: Pebble, http: HttpClient, clock: MovedClock) -> AcmeClient:
    return AcmeClient(http, pebble.tls, pebble.directory, clock)


def authority_of(
    pebble: Pebble, http: HttpClient, clock: MovedClock, name: str = "Pebble", **more: object
) -> Authority:
    options: dict[str, object] = {"contact": ("exploitation@example.org",), "agreed": True, **more}
    return Authority(name, client_of(pebble, http, clock), **options)  # type: ignore[arg-type]


@asynccontextmanager
async def box_on(
    dsn: str,
    authorities: Sequence[Pebble | Authority],
    roots: Sequence[x509.Certificate],
    *,
    validation: str = HTTP_01,
    levels: Sequence[str] = (),
    http_port: int | None = None,
    patience: float = 20.0,
    key_kind: str = "P-256",
    external: ExternalAccount | None = None,
    preferred_chain: str = "",
    clock: MovedClock | None = None,
    host: str = HOST,
) -> AsyncIterator[Box]:
    """A node on a database; its HTTP-01 door listens when it is given a port."""
    clock = clock or MovedClock()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(database.opened(dsn, size=4))
        http = await stack.enter_async_context(HttpClient())
        rules = Rules(host, tuple(roots), tuple(levels))
        vault, incidents, journal = Vault(SECRET), Incidents(pool, clock), Journal(pool)
        presenting = Presenting(host, pool, vault, incidents, clock, validating=validation == TLS_ALPN_01)
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(min(seconds, 0.2))

        known = [
            a
            if isinstance(a, Authority)
            else authority_of(a, http, clock, external=external, preferred_chain=preferred_chain)
            for a in authorities
        ]
        ordering = Ordering(
            rules,
            vault,
            clock,
            validation=validation,
            key_kind=key_kind,
            patience=patience,
            announced=presenting.refresh,
            sleep=sleep,
        )
        keeper = Keeper(
            host, known, dsn, ordering, incidents, journal, clock, installed=presenting.refresh, poll=0.2, sleep=sleep
        )
        acts = CertificateActs(pool, rules, vault, clock, journal, incidents, known)
        if http_port is not None:
            door = http_door(host, lookup_on(pool, clock, host), DATABASE_ERRORS)
            await stack.enter_async_context(serving(door, host="127.0.0.1", port=http_port, tls=None, keep_alive=5))
        yield Box(pool, dsn, keeper, presenting, incidents, acts, clock, http, pauses)


def lookup_on(pool: Pool, clock: MovedClock, host: str):  # type: ignore[no-untyped-def]
    async def lookup(token: str) -> str | None:
        async with pool.connection() as connection:
            return await records.challenge(connection, token, host, clock.now())

    return lookup


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for(port: int, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


async def rows(dsn: str, query: str) -> list[dict[str, object]]:
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type]


__all__ = ["HOST", "OPERATOR", "Box", "Pebble", "box_on", "logging", "running_pebble"]
