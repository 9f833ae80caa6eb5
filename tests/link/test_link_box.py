"""The listener as a box opens it: its certificate, its settings, its commands."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from link_world import LINK

from drimbox.box import certificates, link, services
from drimbox.box.certificates import Market
from drimbox.box.config import ConfigMistakes, load
from drimbox.certificates.doors import validation_credential
from drimbox.cli import main
from drimbox.link.address import PATH
from drimbox.record.audit import Actor
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store.database import Pool
from drimbox.trust.keystore import read_key
from drimbox.trust.reload import ACME_PROTOCOL, validation_context

HOST = "vi1.test.mesimagesmedicales.fr"
CONFIG = """[box]
name = "Site A"
state_dir = "state"
[database]
dsn_file = "dsn"
[trust]
roots = ["{roots}"]
[[structures]]
id = "s"
name = "Centre de radiologie Ambroise"
identifier = "1750803447"
auth = {{ certificate = "{auth.certificate}", key = "{auth.key}" }}
sign = {{ certificate = "{sign.certificate}", key = "{sign.key}" }}
[[pacs]]
id = "pacs"
host = "127.0.0.1"
port = 104
ae_title = "PACS"
[source]
[source.hl7]
port = 2575
[source.dicom]
port = 11112
[source.wado]
port = 8443
public_url = "https://db.example.test"
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
[market_certificate]
host = "{host}"
validation = "tls-alpn-01"
levels = []
roots = ["{roots}"]
[link]
host = "127.0.0.1"
port = {port}
"""


@pytest.fixture
def config(authority: TestAuthority, tmp_path: Path, dsn: str) -> Path:
    pairs = {}
    for name, profile in (
        ("auth", Profile.ORG_AUTH_CLI),
        ("sign", Profile.ORG_SIGN),
        ("server", Profile.SSL_SERV),
    ):
        hosts = ("localhost",) if profile is Profile.SSL_SERV else ()
        pairs[name] = authority.issue(
            profile, f"link-{name}", common_name="DRIMbox", unit="1750803447", organisation="S", hosts=hosts
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "state").mkdir()
    (tmp_path / "dsn").write_text(dsn)
    file = tmp_path / "box.toml"
    file.write_text(CONFIG.format(roots=authority.roots, host=HOST, port=port, **pairs), "utf-8")
    return file


def viewer_pair(authority: TestAuthority, name: str) -> PemPair:
    return authority.issue(Profile.SSL_SERV, name, common_name=HOST, unit="1750803447", organisation="S", hosts=(HOST,))


@asynccontextmanager
async def box(config: Path, pool: Pool, dsn: str) -> AsyncIterator[tuple[Market, int]]:
    """The parts of a running box that the listener needs, and its port."""
    settings = load(config, {})
    assert settings.market_certificate is not None
    assert settings.link is not None
    async with AsyncExitStack() as stack:
        common = await stack.enter_async_context(services.opened(settings, pool))
        market = certificates.assembled(
            settings,
            settings.market_certificate,
            dsn=dsn,
            pool=pool,
            http=common.http,
            clock=common.clock,
            journal=common.journal,
        )
        await stack.enter_async_context(certificates.running(market))
        await stack.enter_async_context(link.running(common, settings.link, {}, market))
        yield market, settings.link.port


async def asked(port: int, tls: ssl.SSLContext, target: str = LINK) -> tuple[bytes, bytes]:
    """The certificate and the answer of one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=HOST)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return bytes(der), answer


async def installed(market: Market, pair: PemPair) -> bytes:
    pem = pair.certificate.read_bytes()
    await market.acts.install(pem, Actor(person="os:test", system="test"), read_key(pair.key))
    await market.presenting.refresh()
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


@pytest.mark.requirement("DB.VI-SO.04", "DB.VI-CS.02")
async def test_the_listener_shows_the_market_certificate_and_answers_its_validation(
    config: Path, pool: Pool, dsn: str, authority: TestAuthority
) -> None:
    browser = ssl.create_default_context(cafile=str(authority.roots))
    browser.verify_flags &= ~ssl.VERIFY_X509_STRICT
    async with box(config, pool, dsn) as (market, port):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asked(port, browser)
        first = await installed(market, viewer_pair(authority, "vi-first"))
        der, answer = await asked(port, browser)
        assert der == first
        head = answer.split(b"\r\n\r\n")[0].lower()
        assert head.startswith(b"http/1.1 200")
        assert b"strict-transport-security: max-age=31536000" in head
        assert b"Je suis le patient" in answer
        # Renewed: the next connection sees it, the listener goes on.
        second = await installed(market, viewer_pair(authority, "vi-second"))
        assert second != first
        assert (await asked(port, browser))[0] == second
        # TLS-ALPN-01 on the same port, for who asks for nothing else.
        proof = validation_credential(HOST, "token.proof", dt.datetime.now(dt.UTC))
        market.context.answer({HOST: validation_context(proof)})
        authority_of_acme = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority_of_acme.check_hostname, authority_of_acme.verify_mode = False, ssl.CERT_NONE
        authority_of_acme.set_alpn_protocols([ACME_PROTOCOL])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority_of_acme, server_hostname=HOST)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        assert shown == proof.certificate.public_bytes(Encoding.DER)
        assert (await asked(port, browser))[0] == second
        # A head without end is cut.
        _, answer = await asked(port, browser, PATH + "?x=" + "y" * 200_000)
        assert not answer.startswith(b"HTTP/1.1 200")


def mistakes_of(config: Path, text: str) -> list[str]:
    config.write_text(text, "utf-8")
    with pytest.raises(ConfigMistakes) as found:
        load(config, {})
    return [str(one) for one in found.value.mistakes]


@pytest.mark.requirement("D19")
def test_settings_that_would_open_the_door_wrongly_are_refused(config: Path, authority: TestAuthority) -> None:
    right = config.read_text("utf-8")
    assert load(config, {}).link is not None
    for more, told in (
        ('patients = "code"\n', "le code doit partir"),
        ('patients = "portal"\n', "portal_url"),
        ('professions = ["physician"]\n', "deux chiffres"),
        ('public_url = "https://vi2.test.mesimagesmedicales.fr"\n', "n'est pas l'hôte"),
        ("code_minutes = 60\n", "au plus 30"),
        ("idle_minutes = 0\n", "plus de 0"),
    ):
        [mistake] = mistakes_of(config, right + more)
        assert told in mistake
    without = right[: right.index("[market_certificate]")] + right[right.index("[link]") :]
    assert "[market_certificate]" in mistakes_of(config, without)[0]
    behind = viewer_pair(authority, "vi-behind")
    tls = f'tls = {{ certificate = "{behind.certificate}", key = "{behind.key}" }}\n'
    assert "public_url" in mistakes_of(config, without + tls)[0]
    config.write_text(f'{without}{tls}public_url = "https://{HOST}"\n', "utf-8")
    settings = load(config, {})
    assert link.public_url(settings) == f"https://{HOST}"


def test_the_commands_for_those_who_write_links(config: Path, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        result = CliRunner().invoke(main, ["link", *words, "--config", str(config)])
        assert result.exit_code == 0, result.output
        return result.output

    assert said("template").startswith(f"https://{HOST}{PATH}?requestType=STUDY&studyUID={{StudyInstanceUID}}&")
    named = ("--study", "1.2.3", "--accession", "A 1")
    picture = tmp_path / "link.svg"
    url = said("url", *named, "--report", "1.2.4_7", "--qr", str(picture)).strip()
    assert url == f"https://{HOST}{PATH}?requestType=STUDY&studyUID=1.2.3&accessionNumber=A%201&idCDA=1.2.4_7"
    assert b"<svg" in picture.read_bytes()
    assert said("partial", *named).strip() == url.removesuffix("1.2.4_7")
    assert said("partial", *named, "--obx", "4").startswith("OBX|4|ED|URL_PARTIELLE_VIEWER^")
    wrong = CliRunner().invoke(
        main, ["link", "url", "--config", str(config), "--study", "x", "--accession", "A", "--report", "1.2"]
    )
    assert wrong.exit_code == 1
