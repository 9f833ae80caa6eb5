"""The market certificate behind nginx: ordered through nginx's port 80, handed over, shown, renewed, nobody cut off."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import stat
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from nginx_world import nginx, quiet_ports
from pydantic import ValidationError

from certificates.acme_world import HOST, OPERATOR, Pebble, running_pebble
from drimbox.box import certificates, link, services
from drimbox.box.certificates import Market
from drimbox.box.config import load
from drimbox.box.flows import flows
from drimbox.box.nginx import nginx_configuration
from drimbox.box.settings import Settings
from drimbox.certificates.handing import Handing, file_of
from drimbox.flows import State
from drimbox.foundation.clock import FixedClock, SystemClock
from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.publication.incidents import Incidents
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store.database import Pool
from drimbox.trust.keystore import Credential, load_credential

CONFIG = """
[box]
name = "a"
state_dir = "state"
[database]
dsn_file = "dsn"
[trust]
roots = ["{pki}"]
[[structures]]
id = "s"
name = "S"
identifier = "1750803447"
auth = {{ certificate = "{auth.certificate}", key = "{auth.key}" }}
sign = {{ certificate = "{sign.certificate}", key = "{sign.key}" }}
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
port = 8441
public_url = "https://localhost:8441"
certificate_of = "other"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}
[dmp]
repository = "https://localhost/repository"
registry = "https://localhost/registry"
patients = "https://localhost/patients"
habilitations = "https://localhost/habilitations"
source_id = "1.2.3"
[psc]
discovery = "https://localhost/d"
client_id = "x"
[whitelist]
url = "https://localhost/l"
[link]
port = {https}
public_url = "https://{host}:{https}"
[link.proxy]
socket = "{folder}/vi.sock"
[market_certificate]
host = "{host}"
http_host = "127.0.0.1"
http_port = {door}
levels = []
roots = ["{folder}/market.pem"]
[[market_certificate.authorities]]
name = "Pebble"
directory = "{directory}"
roots = ["{pki}"]
terms_agreed = true
contact = ["exploitation@example.org"]
[market_certificate.nginx]
folder = "{folder}/handed"
password_file = "{folder}/vi.password"
reload_pid_file = "{folder}/nginx/pid"
"""


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory, pki: TestAuthority) -> Iterator[Pebble]:
    http_port, tls_port = quiet_ports(2)
    with running_pebble(tmp_path_factory.mktemp("pebble"), pki, http_port=http_port, tls_port=tls_port) as running:
        yield running


@pytest.fixture
def config(acme: Pebble, pki: TestAuthority, auth: PemPair, server: PemPair, tmp_path: Path, dsn: str) -> Path:
    sign = pki.issue(Profile.ORG_SIGN, "sign", common_name="DRIMbox", unit="1750803447", organisation="SITE")
    https, door = quiet_ports(2)
    for name in ("state", "handed"):
        (tmp_path / name).mkdir()
    (tmp_path / "dsn").write_text(dsn)
    (tmp_path / "market.pem").write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in acme.roots()))
    text = CONFIG.format(
        pki=pki.roots, auth=auth, sign=sign, server=server, https=https, door=door, host=HOST, folder=tmp_path,
        directory=acme.directory,
    )  # fmt: skip
    (tmp_path / "box.toml").write_text(text, "utf-8")
    return tmp_path / "box.toml"


@asynccontextmanager
async def box(settings: Settings, pool: Pool, dsn: str) -> AsyncIterator[tuple[Market, AsyncExitStack]]:
    """The parts of a box that nginx stands before; the market certificate is not worked on yet."""
    assert settings.market_certificate is not None
    assert settings.link is not None
    async with AsyncExitStack() as stack:
        common = await stack.enter_async_context(services.opened(settings, pool))
        market = certificates.assembled(
            settings, settings.market_certificate, dsn=dsn, pool=pool, http=common.http, clock=common.clock,
            journal=common.journal, judge=common.trust_keeper.judge,
        )  # fmt: skip
        market.keeper.poll = market.presenting.poll = 0.2
        await stack.enter_async_context(link.running(common, settings.link, {}, market))
        yield market, stack


async def asked(port: int, tls: ssl.SSLContext) -> tuple[x509.Certificate, bytes]:
    """The certificate and the answer of one request, over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=HOST)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(f"GET /nowhere HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return x509.load_der_x509_certificate(bytes(der)), answer


async def several(port: int) -> set[int]:
    """The serial numbers that some connections in a row are shown."""
    tls = ssl._create_unverified_context()
    return {(await asked(port, tls))[0].serial_number for _ in range(10)}


@pytest.mark.requirement("DB.SO.90", "DB.VI-SO.04")
async def test_ordered_shown_and_renewed_through_nginx(
    config: Path, acme: Pebble, pool: Pool, dsn: str, tmp_path: Path
) -> None:
    settings = load(config, {})
    assert settings.link is not None
    port = settings.link.port
    # nginx as the command writes it, on ports of this test.
    servers = nginx_configuration(settings)
    assert servers.count("listen 80;") == 1
    servers = servers.replace("listen 80;", f"listen {acme.http_port};").replace("    listen [::]:80;\n", "")
    servers = servers.replace(f"    listen [::]:{port} ssl;\n", "")
    unverified = ssl._create_unverified_context()
    verified = ssl.create_default_context(cafile=str(tmp_path / "market.pem"))
    async with box(settings, pool, dsn) as (market, stack):
        handing = market.presenting.handing
        assert handing is not None
        # There is no certificate yet: nginx starts all the same, and nobody believes what it shows.
        handing.make_ready()
        stack.enter_context(nginx(tmp_path / "nginx", servers, master=True))
        first, _ = await asked(port, unverified)
        assert first.subject.rfc4514_string() == "CN=certificat en attente"
        with pytest.raises(ssl.SSLCertVerificationError):
            await asked(port, verified)
        await stack.enter_async_context(certificates.running(market))

        async def shown(other_than: x509.Certificate) -> x509.Certificate:
            async with asyncio.timeout(90):
                while True:
                    found, _ = await asked(port, unverified)
                    if found != other_than:
                        return found

        ordered = await shown(first)
        async with asyncio.timeout(90):
            # For a moment after a reload, nginx's older workers still take connections.
            while first.serial_number in await several(port):
                continue
        _, answer = await asked(port, verified)
        assert answer.startswith(b"HTTP/1.1 404")
        assert b"strict-transport-security: max-age=31536000" in answer.lower()
        # Renewed while visitors come and go.
        met, done = Counter[int](), asyncio.Event()

        async def visit() -> None:
            while not done.is_set():
                certificate, reply = await asked(port, verified)
                assert reply.startswith(b"HTTP/1.1 404")
                met[certificate.serial_number] += 1

        visitors = [asyncio.create_task(visit()) for _ in range(3)]
        await market.acts.renew(OPERATOR)
        renewed = await shown(ordered)
        done.set()
        await asyncio.gather(*visitors)
        assert met[ordered.serial_number]
        # Port 80 is the box's door, through nginx.
        reader, writer = await asyncio.open_connection("127.0.0.1", acme.http_port)
        writer.write(b"GET /x?y=1 HTTP/1.1\r\nHost: whoever.example\r\nConnection: close\r\n\r\n")
        told = await reader.read()
        writer.close()
        assert told.startswith(b"HTTP/1.1 308")
        assert f"location: https://{HOST}/x?y=1".encode() in told.lower()
    file = file_of(tmp_path / "handed", HOST)
    kept = file.read_bytes()
    assert x509.load_pem_x509_certificates(kept)[0] == renewed
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in kept
    password = (tmp_path / "vi.password").read_bytes().strip()
    assert load_pem_private_key(kept, password).public_key() == renewed.public_key()
    for one in (file, tmp_path / "vi.password"):
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "handed") == [file.name]
    assert "emerg" not in (tmp_path / "nginx" / "error.log").read_text()


@pytest.mark.requirement("C17")
def test_the_table_of_flows_knows_what_stands_before_the_viewer(config: Path) -> None:
    table = {(flow.setting, flow.port): flow for flow in flows(load(config, {}))}
    settings = load(config, {})
    assert settings.link is not None
    assert table[("link.proxy", settings.link.port)].state is State.ENCRYPTED
    assert table[("link.proxy", 80)].state is State.EXCEPTION
    assert table[("link.proxy", 0)].state is State.LOCAL
    assert State.CLEAR not in {flow.state for flow in table.values() if flow.setting.startswith("link")}
    # The box alone: the viewer's listener shows the market certificate itself.
    text = config.read_text("utf-8")
    config.write_text(re.sub(r"\[link.proxy\]\nsocket = .*\n", "", text), "utf-8")
    [alone] = [flow for flow in flows(load(config, {})) if flow.setting.startswith("link")]
    assert (alone.state, alone.port) == (State.ENCRYPTED, settings.link.port)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("http_port", 80), "nginx tient le port 80"),
        (("validation", "tls-alpn-01"), "validation est http-01"),
        (("nginx.reload_command", ["systemctl", "reload", "nginx"]), "l'un des deux"),
    ],
)
def test_settings_that_cannot_work_are_refused(config: Path, change: tuple[str, Any], words: str) -> None:
    settings = load(config, {}).model_dump(exclude_unset=True, mode="json")
    section, (name, value) = settings["market_certificate"], change
    if name.startswith("nginx."):
        section, name = section["nginx"], name.removeprefix("nginx.")
    section[name] = value
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate(settings)


# --------------------------------------------------------------------------------------------------------- handing over


@pytest.fixture
def pair(server: PemPair) -> Credential:
    return load_credential(server.certificate, server.key)


Make = Callable[..., Handing]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "handed").mkdir()

    def inner(**more: Any) -> Handing:
        given: dict[str, Any] = {"clock": SystemClock(), **more}
        return Handing(HOST, tmp_path / "handed", tmp_path / "password", **given)

    return inner


async def test_a_command_reloads_and_its_failure_is_said_and_tried_again_later(
    make: Make, pair: Credential, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    clock = FixedClock(SystemClock().now())
    program = tmp_path / "reload"
    program.write_text(f'#!/bin/sh\nenv > {calls}\necho "$@" >> {calls}\n[ -e {tmp_path}/good ]\n')
    program.chmod(0o700)
    one = make(command=(str(program), "a b", "; touch /nowhere"), clock=clock)
    with pytest.raises(Unavailable, match="se termine par l'état 1"):
        await one.hand(pair)
    said = calls.read_text()
    assert said.endswith("a b ; touch /nowhere\n")
    assert "DRIMBOX" not in said
    (tmp_path / "good").touch()
    calls.unlink()
    with pytest.raises(Unavailable):
        await one.hand(pair)
    assert not calls.exists(), "not at every look"
    clock.advance(61)
    await one.hand(pair)
    calls.unlink()
    await one.hand(pair)
    assert not calls.exists(), "told once"
    # A new process cannot know whether nginx was told: it is told again, and nothing is written.
    written = one.file.stat().st_mtime_ns
    await make(command=(str(program),)).hand(pair)
    assert calls.exists()
    assert one.file.stat().st_mtime_ns == written


async def test_a_signal_goes_to_nginx_alone(make: Make, pair: Credential, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    for text, words in (
        (str(os.getpid()), "n'est pas nginx"),
        ("1", "n'est pas nginx"),
        ("-1", "n'est pas nginx"),
        ("x", "illisible"),
        ("99999999", "ne peut pas être prévenu"),
    ):
        pid.write_text(text)
        with pytest.raises(Unavailable, match=words):
            await make(pid_file=pid).hand(pair)


async def test_what_cannot_be_written_is_said(make: Make, pair: Credential, tmp_path: Path) -> None:
    one = make()
    (tmp_path / "password").write_text("short\n")
    with pytest.raises(Misconfigured, match="moins de 16 caractères"):
        one.make_ready()
    (tmp_path / "password").unlink()
    (tmp_path / "handed").rmdir()
    with pytest.raises(Misconfigured, match="ne peut pas être écrit"):
        await one.hand(pair)


async def test_a_failure_is_a_line_of_the_queue_and_closes_by_itself(
    config: Path, acme: Pebble, pool: Pool, dsn: str, tmp_path: Path, pki: TestAuthority
) -> None:
    """What nginx was not told does not stop the box: the operator hears of it."""
    settings = load(config, {})
    pair = pki.issue(
        Profile.SSL_SERV, "vi-by-hand", common_name=HOST, unit="1750803447", organisation="S", hosts=(HOST,)
    )
    async with box(settings, pool, dsn) as (market, _):
        handing = market.presenting.handing
        assert handing is not None
        rules = market.acts.rules
        object.__setattr__(rules, "roots", tuple(x509.load_pem_x509_certificates(pki.roots.read_bytes())))
        own = load_pem_private_key(pair.key.read_bytes(), None)
        await market.acts.install(pair.certificate.read_bytes(), OPERATOR, own)  # type: ignore[arg-type]
        await market.presenting.refresh()
        incidents = Incidents(pool, SystemClock())
        [line] = await incidents.list(code="market-served")
        assert "nginx n'a pas été rechargé" in line.reason
        handing.pid_file, handing._failure = None, None
        await market.presenting.refresh()
        assert await incidents.list(code="market-served") == ()
