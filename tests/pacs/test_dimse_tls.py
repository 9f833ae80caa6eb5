"""DICOM over TLS, both ways: certificates, their names, and the AE titles that go with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drimbox.box.listeners import listener_tls
from drimbox.box.settings.common import KeyPair
from drimbox.box.settings.source import DicomListener
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.keyring.keeper import Keyring
from drimbox.keyring.places import Place
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.dimse.storage import StoreOffer, StoreRefused
from drimbox.pacs.header import outgoing
from drimbox.pacs.site import PacsLink
from drimbox.pacs.store import PacsStore
from drimbox.sandbox.pacs.peer import PacsPeer
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.fitness import Demand
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust, server_context
from drimbox.trust.watch import TrustWatch
from pacs.conftest import free_port, pacs_of
from pacs.test_get import wait_for

STORESCP = "/usr/bin/storescp"


class Nobody:
    """A handler that expects nothing."""

    def admit(self, offer: StoreOffer) -> object:
        raise StoreRefused(0x0124, "not expected")


@pytest.fixture(scope="module")
def server(authority: TestAuthority) -> PemPair:
    return authority.issue(
        Profile.SSL_SERV, "tls-server", common_name="localhost", unit="U", organisation="O", hosts=["localhost"]
    )


@pytest.fixture(scope="module")
def client(authority: TestAuthority) -> PemPair:
    return authority.issue(
        Profile.ORG_AUTH_CLI, "tls-client", common_name="modality.example", unit="U", organisation="O"
    )


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    """Another PKI, which nobody here believes."""
    return TestAuthority(tmp_path_factory.mktemp("foreign"))


@contextmanager
def listening(authority: TestAuthority, server: PemPair, names: dict[str, frozenset[str]] | None) -> Iterator[PacsPeer]:
    settings = ReceiverSettings(
        destinations={"DRIMBOX": uids.AS_STORED},
        allowed_callers=frozenset({"MODALITY", "OTHER"}),
        certificate_names=names,
    )
    tls = server_context(load_credential(server.certificate, server.key), load_trust([authority.roots]))
    with receiving(settings, Nobody(), tls=tls) as receiver:  # type: ignore[arg-type]
        yield PacsPeer("DRIMBOX", "127.0.0.1", receiver.port)


async def echo(peer: PacsPeer, tls: ssl.SSLContext | None, calling: str = "MODALITY", name: str = "localhost") -> None:
    link = PacsLink(
        pacs_of(peer, calling_ae_title=calling, tls_name=name, answer_timeout=2.0, connect_timeout=2.0), tls=tls
    )
    try:
        await link.echo()
    finally:
        link.close()


def ours(authority: TestAuthority, client: PemPair | None) -> ssl.SSLContext:
    pair = load_credential(client.certificate, client.key) if client else None
    return client_context(load_trust([authority.roots]), pair)


NAMES = {"MODALITY": frozenset({"Modality.example", "10.0.0.1"}), "OTHER": frozenset({"other.example"})}


async def test_who_proves_its_name_may_call_itself_so(
    authority: TestAuthority, server: PemPair, client: PemPair
) -> None:
    with listening(authority, server, NAMES) as peer:
        await echo(peer, ours(authority, client))
        # A certificate that all believe, under the AE title of somebody else.
        with pytest.raises(Rejected) as error:
            await echo(peer, ours(authority, client), calling="OTHER")
        assert error.value.peer_code == "1/1/3"
    with listening(authority, server, None) as peer:
        await echo(peer, ours(authority, client), calling="OTHER")
    with listening(authority, server, {}) as peer, pytest.raises(Rejected):
        await echo(peer, ours(authority, client))


async def test_no_certificate_no_association(authority: TestAuthority, server: PemPair) -> None:
    with listening(authority, server, NAMES) as peer:
        with pytest.raises(Unavailable):
            await echo(peer, ours(authority, None))
        with pytest.raises(Unavailable):
            await echo(peer, None)


async def test_a_certificate_of_another_authority_is_refused_on_both_sides(
    authority: TestAuthority, foreign: TestAuthority, server: PemPair, client: PemPair
) -> None:
    stranger = foreign.issue(
        Profile.ORG_AUTH_CLI, "stranger", common_name="modality.example", unit="U", organisation="O"
    )
    with listening(authority, server, NAMES) as peer:
        with pytest.raises(Unavailable):
            await echo(peer, ours(authority, stranger))
        with pytest.raises(Unavailable) as error:
            await echo(peer, ours(foreign, client))
        assert error.value.code == "pacs-tls"


async def test_the_name_in_the_pacss_certificate_is_checked(
    authority: TestAuthority, server: PemPair, client: PemPair
) -> None:
    with listening(authority, server, NAMES) as peer, pytest.raises(Unavailable) as error:
        await echo(peer, ours(authority, client), name="pacs.example")
    assert error.value.code == "pacs-tls"
    assert "pacs.example" in (error.value.peer_code or "")


async def test_a_certificate_that_is_revoked_while_we_listen_does_not_enter_any_more(
    foreign: TestAuthority, tmp_path: Path
) -> None:
    """The authorities of a site, with its own lists, beside those of the box."""
    server = foreign.issue(
        Profile.SSL_SERV, "site-server", common_name="localhost", unit="U", organisation="O", hosts=["localhost"]
    )
    client = foreign.issue(
        Profile.ORG_AUTH_CLI, "site-client", common_name="modality.example", unit="U", organisation="O"
    )
    national = TestAuthority(tmp_path / "national")
    watch = TrustWatch([national.roots], national.revocation_lists)
    listener = DicomListener(
        port=104,
        tls=KeyPair(certificate=server.certificate, key=server.key),
        client_roots=(foreign.roots,),
        client_revocation_lists=foreign.revocation_lists,
    )
    assert listener.tls is not None
    keyring = Keyring([Place("dicom", "box", "DICOM", listener.tls.source, Demand)], SystemClock())
    tls = listener_tls(listener, watch, keyring, "dicom")
    assert tls is not None
    settings = ReceiverSettings(
        destinations={"DRIMBOX": uids.AS_STORED}, allowed_callers=frozenset({"MODALITY"}), certificate_names=NAMES
    )
    with receiving(settings, Nobody(), tls=tls) as receiver:  # type: ignore[arg-type]
        peer = PacsPeer("DRIMBOX", "127.0.0.1", receiver.port)
        await echo(peer, ours(foreign, client))
        # A list is newer than another by whole seconds (RFC 5280 5.1.2.4).
        await asyncio.sleep(1.1)
        foreign.revoke(client)
        assert watch.refresh()
        with pytest.raises(Unavailable):
            await echo(peer, ours(foreign, client))


async def test_a_peer_that_drips_its_handshake_has_its_time(authority: TestAuthority, server: PemPair) -> None:
    tls = server_context(load_credential(server.certificate, server.key), load_trust([authority.roots]))
    settings = ReceiverSettings(
        destinations={"DRIMBOX": uids.AS_STORED}, allowed_callers=frozenset({"MODALITY"}), artim_timeout=0.4
    )
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    with (
        receiving(settings, Nobody(), tls=tls) as receiver,  # type: ignore[arg-type]
        socket.create_connection(("127.0.0.1", receiver.port)) as slow,
    ):
        began, sent = time.monotonic(), 0
        with contextlib.suppress(OSError):
            for byte in hello + bytes(60):
                slow.sendall(bytes((byte,)))
                sent += 1
                await asyncio.sleep(0.1)
        assert time.monotonic() - began < 3
        assert sent < 40


@contextmanager
def storescp_tls(authority: TestAuthority, server: PemPair, folder: Path) -> Iterator[PacsPeer]:
    """DCMTK's receiver, which asks for a certificate."""
    if not Path(STORESCP).exists():
        pytest.skip("dcmtk is not installed")
    folder.mkdir()
    port = free_port()
    tls = ["+tls", str(server.key), str(server.certificate), "+cf", str(authority.roots), "-rc", "+ps"]
    process = subprocess.Popen(
        [STORESCP, "-od", str(folder), *tls, str(port)],
        env={name: value for name, value in os.environ.items() if name != "TCP_NODELAY"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield PacsPeer("STORESCP", "127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


async def test_images_go_to_dcmtk_over_tls(
    authority: TestAuthority, server: PemPair, client: PemPair, studies: Path, tmp_path: Path
) -> None:
    items = [outgoing(path) for path in sorted((studies / "B").rglob("*.dcm"))]
    with storescp_tls(authority, server, tmp_path / "got") as peer:
        link = PacsLink(pacs_of(peer, tls_name="localhost"), tls=ours(authority, client))
        async with PacsStore(link).sending(items) as sent:
            results = [one async for one in sent]
        link.close()
    assert len(results) == len(items)
    assert all(one.stored for one in results)
