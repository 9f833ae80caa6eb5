"""Pairs are replaced on both sides of a mutual TLS under load without one failed request; work keeps its own."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from keyring_world import UNIT, World, brought, loaded
from starlette.requests import Request
from starlette.responses import Response

from drimbox.box.keys import client_tls, listener_context
from drimbox.box.settings.box import StructureSection
from drimbox.box.settings.common import KeyPair
from drimbox.box.structures import serve
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import client_certificate, serving
from drimbox.keyring.keeper import Keyring
from drimbox.national.dmp.actor import INDIRECT, VihfIdentity
from drimbox.reports.report import Coded
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.watch import TrustWatch

DB, AUTH = "source.wado.tls", "structures.ambroise.auth"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says which certificate the client showed, slowly enough that answers are under way while pairs change."""
    await asyncio.sleep(0.002)
    shown = x509.load_der_x509_certificate(client_certificate(Request(scope)) or b"")
    await Response(f"{shown.serial_number:x}".encode() + b" " * 20_000)(scope, receive, send)


def side(pki: TestAuthority, folder: Path, profile: Profile, name: str) -> tuple[World, list[PemPair]]:
    folder.mkdir()
    hosts = ("localhost",) if profile is Profile.SSL_SERV else ()
    pairs = [brought(pki, profile, issued=30 - n, hosts=hosts) for n in range(4)]
    world = World(pki, folder, profile, name)
    world.put(pairs[0])
    return world, pairs


@pytest.mark.requirement("DB.SO.89", "DB.SO.98")
async def test_no_request_fails_while_both_sides_are_replaced(pki: TestAuthority, tmp_path: Path) -> None:
    server, served = side(pki, tmp_path / "db", Profile.SSL_SERV, DB)
    client, shown = side(pki, tmp_path / "auth", Profile.ORG_AUTH_CLI, AUTH)
    ring = Keyring([server.place(), client.place()], SystemClock())
    trust = TrustWatch([pki.roots], pki.revocation_lists)
    met, done = Counter[str](), asyncio.Event()
    async with (
        serving(app, host="127.0.0.1", port=0, tls=listener_context(ring, DB, trust)) as port,
        HttpClient() as kept,
    ):
        calling = client_tls(ring, AUTH, trust)

        async def stays() -> None:
            while not done.is_set():
                reply = await kept.send("GET", f"https://localhost:{port}/", tls=calling)
                assert reply.status == 200
                met["requests"] += 1

        async def comes_again() -> None:
            while not done.is_set():
                async with HttpClient() as fresh:
                    reply = await fresh.send("GET", f"https://localhost:{port}/", tls=calling)
                assert reply.status == 200
                met[reply.body.strip().decode()] += 1
                met["requests"] += 1

        visitors = [asyncio.create_task(visit()) for visit in (stays, stays, comes_again, comes_again)]
        for turn in range(1, 8):
            # Each of the newest in turn, then ever the same bytes again: a look that finds nothing new.
            server.put(served[min(turn, 3)])
            client.put(shown[min(turn, 3)])
            for _ in range(2):
                await ring.refresh({}, None)
            # As long as a few exchanges take.
            for _ in range(6):
                await kept.send("GET", f"https://localhost:{port}/", tls=calling)
        done.set()
        await asyncio.gather(*visitors)
    assert ring.pair(DB).certificate == loaded(served[3]).certificate
    # Every client certificate was seen by the listener, the last one too.
    assert all(met[f"{loaded(pair).certificate.serial_number:x}"] for pair in shown), met
    assert met["requests"] > 80


@pytest.mark.requirement("DB.SO.89", "DB.SO.19")
async def test_a_publication_under_way_keeps_its_pair(pki: TestAuthority, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    folder.mkdir()
    auth, sign = World(pki, folder, Profile.ORG_AUTH_CLI), World(pki, folder)

    def put(name: str, pair: PemPair) -> KeyPair:
        files = folder / f"{name}.pem", folder / f"{name}.key"
        files[0].write_bytes(pair.certificate.read_bytes())
        files[1].write_bytes(pair.key.read_bytes())
        return KeyPair(certificate=files[0], key=files[1])  # type: ignore[call-arg]

    pairs = [(brought(pki, auth.profile, issued=n), brought(pki, sign.profile, issued=n)) for n in (30, 5)]
    section = StructureSection(  # type: ignore[call-arg]
        id="ambroise", name="Ambroise", identifier=UNIT, auth=put("auth", pairs[0][0]), sign=put("sign", pairs[0][1])
    )
    one = serve(section, TrustWatch([pki.roots], pki.revocation_lists), SystemClock())
    practice = Coded("10", "x")
    now = dt.datetime.now(dt.UTC)
    identity = VihfIdentity("801234560801", "J B", practice, None, UNIT, "A", "SA05", INDIRECT, now, "urn:x")
    before = one.actor(identity)
    put("auth", pairs[1][0])
    put("sign", pairs[1][1])
    for _ in range(2):
        one.keyring.look()
    after = one.actor(identity)
    assert before.sign.certificate == loaded(pairs[0][1]).certificate
    assert after.sign.certificate == loaded(pairs[1][1]).certificate
    assert before.tls is not after.tls
    # What lasts as long as the box goes over to the new one.
    assert one.keys is not None
    assert one.keys.tls is not after.tls
    # A structure that could not act does as soon as its pairs are right, without a restart.
    (folder / "sign.key").unlink()
    late = serve(section, TrustWatch([pki.roots], pki.revocation_lists), SystemClock())
    assert late.keys is None
    put("sign", pairs[1][1])
    for _ in range(2):
        late.keyring.look()
    assert late.actor(identity).sign.certificate == loaded(pairs[1][1]).certificate
