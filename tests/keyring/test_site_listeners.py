"""The listeners for RIS and PACS of a running box, over TLS: pairs replaced under load, and what they speak."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from keyring_world import TEMPLATE, brought, loaded
from pynetdicom import AE

from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

ROOT = Path(__file__).parents[2]
VERIFICATION = "1.2.840.10008.1.1"
HL7, DICOM, IOCM = "source.hl7.tls", "source.dicom.tls", "source.iocm.tls"
# Seconds that a busy machine may take.
PATIENCE = 90.0
ORDER = b"\x0bMSH|^~\\&|RIS|SITE|DRIMBOX|SITE|20260101||ADT^A01|%d|P|2.5\r\x1c\r"


@dataclass(slots=True)
class Site:
    """A box that runs with TLS on every listener for the site's machines; ``client`` is their certificate."""

    pki: TestAuthority
    folder: Path
    ports: dict[str, int]
    client: PemPair
    log: Path
    pairs: list[PemPair] = field(default_factory=list)

    def put(self, pair: PemPair) -> None:
        """Replace the files of the pair that the three listeners share."""
        for name, file in (("pair.pem", pair.certificate), ("pair.key", pair.key)):
            draft = self.folder / f"{name}.new"
            draft.write_bytes(file.read_bytes())
            draft.replace(self.folder / name)

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.pki.roots))
        context.load_cert_chain(self.client.certificate, self.client.key)
        return context


@pytest.fixture(scope="module")
def site(pki: TestAuthority, _server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    issued = {"issued": 40, "hosts": ("localhost", "127.0.0.1")}
    pairs = [brought(pki, Profile.SSL_SERV, **{**issued, "issued": 40 - turn}) for turn in range(4)]  # type: ignore[arg-type]
    machine = brought(pki, Profile.ORG_AUTH_CLI)
    ports = dict(zip((HL7, DICOM, IOCM, "wado"), _free_ports(4), strict=True))
    auth = brought(pki, Profile.ORG_AUTH_CLI)
    name = f"site_{uuid.uuid4().hex}"
    with psycopg.connect(_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE drimbox_template STRATEGY file_copy")
    one = Site(pki, folder, ports, machine, folder / "box.log", pairs)
    one.put(pairs[0])
    text = TEMPLATE.format(roots=pki.roots, sign=brought(pki, Profile.ORG_SIGN), server=pairs[0])
    shown = 'tls = { certificate = "pair.pem", key = "pair.key" }'
    text = (
        text.replace('auth = { pkcs12 = "auth.p12", password_file = "password" }', _pair(auth))
        .replace("port = 2575", f'port = {ports[HL7]}\n{shown}\nclient_roots = ["{pki.roots}"]')
        .replace("port = 11112", f"port = {ports[DICOM]}\n{shown}\n[source.iocm]\nport = {ports[IOCM]}\n{shown}")
        .replace("port = 8443", f'port = {ports["wado"]}\ncertificate_of = "other"')
        .replace("https://db1.111.mesimagesmedicales.fr", f"https://localhost:{ports['wado']}")
    )
    (folder / "dsn").write_text(_server.replace("/postgres?", f"/{name}?", 1))
    (folder / "box.toml").write_text(f"{text}\n[keystore]\nlook = 0.2\n", "utf-8")
    with one.log.open("wb") as log:
        command = [sys.executable, "-m", "drimbox", "run", "--config", str(folder / "box.toml")]
        box = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert box.stdout is not None
        assert box.stdout.readline() == b"READY\n", one.log.read_text()
        yield one
    finally:
        box.terminate()
        if box.stdout is not None:
            box.stdout.close()
        assert box.wait(60) == 0, one.log.read_text()[-3000:]


def _pair(pair: PemPair) -> str:
    return f'auth = {{ certificate = "{pair.certificate}", key = "{pair.key}" }}'


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(slots=True)
class Load:
    """What the visitors of one listener met: how many exchanges by which certificate, and what failed."""

    met: Counter[int] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def go_on(self, exchange: Callable[[], int]) -> None:
        while not self.done.is_set():
            try:
                self.met[exchange()] += 1
            except Exception as error:  # noqa: BLE001 - every failure is what the test is about
                self.failed.append(repr(error))
                return


def _serial(der: bytes | None) -> int:
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def _message(connection: ssl.SSLSocket) -> None:
    """One message, and its answer: of a kind that nobody publishes, and refused as such."""
    connection.sendall(ORDER % time.monotonic_ns())
    answer = b""
    while not answer.endswith(b"\x1c\r"):
        piece = connection.recv(4096)
        assert piece, "the connection was closed"
        answer += piece
    assert b"MSA|" in answer


def _come_by_hl7(site: Site) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", site.ports[HL7]), PATIENCE)
    return site.tls().wrap_socket(plain, server_hostname="localhost")


def _by_hl7(site: Site) -> int:
    with _come_by_hl7(site) as connection:
        _message(connection)
        return _serial(connection.getpeercert(binary_form=True))


def _echo(site: Site, place: str) -> int:
    """An association of its own, and a C-ECHO."""
    caller = AE("PACS")
    caller.acse_timeout = caller.dimse_timeout = caller.network_timeout = PATIENCE
    caller.add_requested_context(VERIFICATION)
    association = caller.associate(
        "127.0.0.1", site.ports[place], ae_title="DRIMBOX", tls_args=(site.tls(), "localhost")
    )
    assert association.is_established, "no association"
    connection = association.dul.socket.socket
    assert isinstance(connection, ssl.SSLSocket)
    met = _serial(connection.getpeercert(binary_form=True))
    answer = association.send_c_echo()
    association.release()
    assert answer.Status == 0
    return met


@pytest.mark.requirement("DB.SO.89", "DB.SO.98")
def test_pairs_are_replaced_under_load_without_a_restart(site: Site) -> None:
    loads = {place: Load() for place in (HL7, DICOM, IOCM)}
    staying = _come_by_hl7(site)

    def stay() -> int:
        _message(staying)
        return _serial(staying.getpeercert(binary_form=True))

    stayed = Load(done=loads[HL7].done)
    visits: list[tuple[Load, Callable[[], int]]] = [
        (loads[HL7], lambda: _by_hl7(site)),
        (loads[DICOM], lambda: _echo(site, DICOM)),
        (loads[IOCM], lambda: _echo(site, IOCM)),
        (stayed, stay),
    ]
    visitors = [threading.Thread(target=load.go_on, args=(exchange,)) for load, exchange in visits]
    for visitor in visitors:
        visitor.start()
    serials = [loaded(pair).certificate.serial_number for pair in site.pairs]
    try:
        for pair, serial in zip(site.pairs, serials, strict=True):
            site.put(pair)
            _until(lambda serial=serial: all(load.met[serial] for load in loads.values()), loads)  # type: ignore[misc]
    finally:
        for load in (*loads.values(), stayed):
            load.done.set()
        for visitor in visitors:
            visitor.join(PATIENCE)
        staying.close()
    assert [load.failed for load in (*loads.values(), stayed)] == [[], [], [], []]
    # A connection that is open keeps the pair that it began with.
    assert set(stayed.met) == {serials[0]}
    assert not any(re.search(r"PRIVATE|Traceback", line) for line in site.log.read_text().splitlines())


def _until(true: Callable[[], bool], loads: dict[str, Load]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        failed = [load.failed for load in loads.values() if load.failed]
        assert not failed, failed
        assert time.monotonic() < deadline, {place: load.met for place, load in loads.items()}
        time.sleep(0.02)


@pytest.mark.requirement("SSI/GEN.13", "C17")
@pytest.mark.parametrize("place", [HL7, DICOM, IOCM])
def test_openssl_agrees_on_what_they_speak(site: Site, place: str) -> None:
    def said(*options: str) -> str:
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{site.ports[place]}", "-CAfile", str(site.pki.roots),
             "-verify_return_error", "-verify_hostname", "localhost", "-cert", str(site.client.certificate),
             "-key", str(site.client.key), *options],
            input="", capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    newest = said("-tls1_3")
    assert "Verification: OK" in newest
    assert re.search(r"New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384", newest)
    second = said("-tls1_2")
    assert re.search(r"New, TLSv1.2, Cipher is ECDHE-RSA-AES256-GCM-SHA384", second)
    assert "Secure Renegotiation IS supported" in second
    assert "Compression: NONE" in second
    for old in (
        ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "AES256-GCM-SHA384"),
        ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384"),
        ("-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384"),
    ):
        assert "Cipher is (NONE)" in said(*old), old
    demanded = "Requested Signature Algorithms" in newest
    assert demanded == (place == HL7)


@pytest.mark.slow
@pytest.mark.requirement("SSI/GEN.13", "C17")
@pytest.mark.parametrize("place", [HL7, DICOM, IOCM])
def test_testssl_finds_nothing(site: Site, place: str) -> None:
    testssl = shutil.which("testssl") or shutil.which("testssl.sh")
    if testssl is None:
        pytest.skip("testssl.sh is not installed: apt-get install testssl.sh")
    kept = ROOT / "var" / "testssl"
    kept.mkdir(parents=True, exist_ok=True)
    report, page = (kept / f"a-{place.replace('.', '-')}.{form}" for form in ("json", "txt"))
    for old in (report, page):
        old.unlink(missing_ok=True)
    subprocess.run(
        [testssl, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1",
         "--protocols", "--std", "--fs", "--server-preference", "--vulnerable",
         "--jsonfile", str(report), "--logfile", str(page), f"localhost:{site.ports[place]}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=900, check=False,
    )  # fmt: skip
    found = json.loads(report.read_text())
    bad = [one for one in found if one["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL")]
    assert bad == [], f"see {page}"
    offered = {one["id"]: one["finding"] for one in found}
    assert (offered["TLS1"], offered["TLS1_1"]) == ("not offered", "not offered")
    assert offered["TLS1_2"].startswith("offered")
    assert offered["TLS1_3"].startswith("offered")
