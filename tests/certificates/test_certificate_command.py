"""``drimbox certificate``: what an administrator types, whether the box runs or not; and the box's own settings."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from certificates.acme_world import HOST, Pebble, free_ports, rows
from certificates.strict_ca import issue, make_issuer
from drimbox.box.certificates import assembled, running
from drimbox.box.config import ConfigMistakes, load
from drimbox.certificates.ordering import purpose
from drimbox.certificates.roots import read_roots
from drimbox.cli import main
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_client import HttpClient
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.store import database
from drimbox.trust.vault import load_vault

CONFIG = """[box]
name = "Site A"
state_dir = "state"
[database]
dsn_file = "dsn"
[trust]
roots = ["{roots}"]
[[structures]]
id = "s"
name = "Centre de radiologie"
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
"""
MARKET = """[market_certificate]
host = "{host}"
http_host = "127.0.0.1"
http_port = {port}
levels = {levels}
roots = ["market.pem"]
"""
AUTHORITY = """[[market_certificate.authorities]]
name = "Pebble"
directory = "{directory}"
terms_agreed = true
contact = ["exploitation@example.org"]
roots = ["{roots}"]
"""
Write = Callable[..., str]


@pytest.fixture
def written(authority: TestAuthority, dsn: str, tmp_path: Path) -> Write:
    """A configuration; with an authority when it is given one."""

    def write(
        pebble: Pebble | None = None, roots: bytes = b"", levels: str = "[]", port: int = 8080, more: str = ""
    ) -> str:
        pairs = {
            name: authority.issue(
                profile,
                f"certificate-{name}",
                common_name="DRIMbox",
                unit="1750803447",
                organisation="S",
                hosts=("localhost",) if profile is Profile.SSL_SERV else (),
            )
            for name, profile in (
                ("auth", Profile.ORG_AUTH_CLI),
                ("sign", Profile.ORG_SIGN),
                ("server", Profile.SSL_SERV),
            )
        }
        text = CONFIG.format(roots=authority.roots, **pairs)
        text += MARKET.format(host=HOST, port=pebble.http_port if pebble else port, levels=levels) + more
        if pebble is not None:
            roots = roots or pebble.roots()[0].public_bytes(Encoding.PEM)
            text += AUTHORITY.format(directory=pebble.directory, roots=authority.roots)
        (tmp_path / "market.pem").write_bytes(roots)
        (tmp_path / "box.toml").write_text(text, "utf-8")
        (tmp_path / "dsn").write_text(dsn)
        return str(tmp_path / "box.toml")

    return write


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, ["certificate", *words])


def said(*words: str) -> str:
    """What a command says when it succeeds."""
    result = typed(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str) -> str:
    result = typed(*words)
    assert result.exit_code != 0, result.output
    return result.output


@pytest.mark.requirement("DB.SO.90")
def test_order_renew_list_and_revoke_without_a_running_box(written: Write, pebble: Pebble) -> None:
    config = written(pebble)
    assert "Aucun certificat n'a été installé." in said("list", "--config", config)
    assert "Certificat installé, valable jusqu'au" in said("order", "--config", config)
    assert "« renouveler »" in refused("order", "--config", config)
    assert "Certificat installé" in said("renew", "--config", config)
    found = json.loads(said("list", "--config", config, "--json"))
    assert [(c["number"], c["state"], c["authority"]) for c in found] == [
        (2, "en service", "Pebble"),
        (1, "remplacé", "Pebble"),
    ]
    assert "La clé du compte chez Pebble est changée." in said("account-key", "--config", config)
    assert "Certificat révoqué." in said("revoke", "--config", config, "--number", "1", "--reason", "superseded")
    assert "déjà révoqué" in refused("revoke", "--config", config, "--number", "1")
    done = said("revoke", "--config", config, "--own-key", "--reason", "key-compromise", "--no-replacement")
    assert done == "Certificat révoqué.\n"
    text = said("list", "--config", config)
    assert "motif de la révocation : clé compromise" in text
    assert "révoqué" in text
    assert "n'existe pas" in refused("revoke", "--config", config, "--number", "99")


@pytest.mark.requirement("DB.SO.90")
def test_a_running_box_does_the_work_and_the_command_follows(written: Write, pebble: Pebble, dsn: str) -> None:
    config = written(pebble)
    settings, stop, up = load(Path(config), {}), threading.Event(), threading.Event()
    assert settings.market_certificate is not None

    async def box() -> None:
        async with database.opened(dsn, size=4) as pool, HttpClient() as http:
            market = assembled(
                settings,
                settings.market_certificate,  # type: ignore[arg-type]
                dsn=dsn,
                pool=pool,
                http=http,
                clock=SystemClock(),
                journal=Journal(pool),
            )
            market.keeper.poll = 0.2
            async with running(market):
                for _ in range(400):
                    if market.presenting._number is not None:
                        break
                    await asyncio.sleep(0.05)
                up.set()
                await asyncio.to_thread(stop.wait, 30)

    thread = threading.Thread(target=lambda: asyncio.run(box()))
    thread.start()
    try:
        # The first one is ordered without being asked for.
        assert up.wait(20)
        assert "Certificat installé" in said("renew", "--config", config, "--wait", "20")
    finally:
        stop.set()
        thread.join(20)
    assert len(json.loads(said("list", "--config", config, "--json"))) == 2


@pytest.mark.requirement("DB.SO.90", "DB.VI-SO.04")
def test_a_box_that_starts_orders_by_itself(written: Write, pebble: Pebble, tmp_path: Path) -> None:
    """The whole program: its settings, its door, its work; stopped as it should be."""
    config = Path(written(pebble))
    text = config.read_text("utf-8")
    for port, free in zip(("2575", "11112", "8443"), free_ports(3), strict=True):
        text = text.replace(f"port = {port}\n", f"port = {free}\n")
    config.write_text(text, "utf-8")
    with (tmp_path / "box.log").open("wb") as log:
        box = subprocess.Popen(
            [sys.executable, "-m", "drimbox", "run", "--config", str(config)], stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            if "market certificate served" in (tmp_path / "box.log").read_text():
                break
            assert box.poll() is None, (tmp_path / "box.log").read_text()
            time.sleep(0.1)
        assert "en service" in said("list", "--config", str(config))
        assert "Certificat installé" in said("renew", "--config", str(config), "--wait", "30")
        answer = http.client.HTTPConnection("127.0.0.1", pebble.http_port, timeout=10)
        answer.request("GET", "/x?y=1", headers={"Host": "whoever.example"})
        reply = answer.getresponse()
        answer.close()
        assert (reply.status, reply.headers["Location"]) == (308, f"https://{HOST}/x?y=1")
    finally:
        box.terminate()
        assert box.wait(30) == 0
    told = (tmp_path / "box.log").read_text()
    assert "market certificate installed, from Pebble" in told
    assert "PRIVATE" not in told


@pytest.mark.requirement("DB.SO.90", "DB.SO.21")
def test_a_port_that_is_taken_stops_nothing_and_is_told(written: Write, pebble: Pebble, dsn: str) -> None:
    config = written(pebble)
    settings = load(Path(config), {})

    async def twice() -> tuple[str, list[str]]:
        async with database.opened(dsn, size=4) as pool, HttpClient() as http:
            parts = [
                assembled(
                    settings,
                    settings.market_certificate,  # type: ignore[arg-type]
                    dsn=dsn,
                    pool=pool,
                    http=http,
                    clock=SystemClock(),
                    journal=Journal(pool),
                )
                for _ in range(2)
            ]
            from drimbox.box.certificates import door

            incidents = Incidents(pool, SystemClock())
            async with door(parts[0]) as first, door(parts[1]) as second:
                assert (first, second) == (True, False)
                [line] = await incidents.list()
            async with door(parts[1]) as again:
                assert again
                return line.reason, [i.code for i in await incidents.list()]

    reason, left = asyncio.run(twice())
    assert f"Le port {pebble.http_port} de la validation HTTP-01 ne peut pas être ouvert" in reason
    assert left == []


@pytest.mark.requirement("DB.SO.90")
def test_a_failure_is_said_and_fails_the_command(written: Write, pebble: Pebble) -> None:
    # The door is another: the authority finds nobody.
    config = Path(written(pebble))
    config.write_text(config.read_text().replace(f"http_port = {pebble.http_port}", "http_port = 1"))
    text = refused("order", "--config", str(config))
    assert "L'autorité n'a pas pu joindre ce serveur" in text
    assert "Prochain essai après le" in text
    assert "Dernier essai" in said("list", "--config", str(config))


@pytest.mark.requirement("DB.SO.90")
def test_revocation_by_one_key_alone_without_a_box(
    written: Write, pebble: Pebble, tmp_path: Path, dsn: str, authority: TestAuthority
) -> None:
    config = written(pebble)
    said("order", "--config", config)
    said("renew", "--config", config)
    vault = load_vault(tmp_path / "state" / "keys" / "vault.key")

    async def kept() -> tuple[list[dict[str, object]], dict[str, object]]:
        [account] = await rows(dsn, "SELECT key FROM acme_account")
        return await rows(dsn, "SELECT chain, key FROM market_certificate ORDER BY id"), account

    found, account = asyncio.run(kept())
    for number, row in enumerate(found):
        (tmp_path / f"{number}.pem").write_text(str(row["chain"]))
        (tmp_path / f"{number}.key").write_bytes(pem_key(vault.open(bytes(row["key"]), purpose(HOST))))  # type: ignore[call-overload]
    account_key = vault.open(bytes(account["key"]), f"acme account {pebble.directory}")  # type: ignore[call-overload]
    (tmp_path / "account.key").write_bytes(pem_key(account_key))
    where = ("--directory", pebble.directory, "--roots", str(authority.roots))
    leaves = [x509.load_pem_x509_certificate((tmp_path / f"{n}.pem").read_bytes()) for n in (0, 1)]

    wrong = refused(
        "revoke", *where, "--certificate", str(tmp_path / "0.pem"), "--certificate-key", str(tmp_path / "1.key")
    )
    assert "acme-refused" in wrong
    said("revoke", *where, "--certificate", str(tmp_path / "0.pem"), "--certificate-key", str(tmp_path / "0.key"))
    assert [pebble.status(leaf) for leaf in leaves] == ["Revoked", "Valid"]
    said("revoke", *where, "--certificate", str(tmp_path / "1.pem"), "--account-key", str(tmp_path / "account.key"))
    assert [pebble.status(leaf) for leaf in leaves] == ["Revoked", "Revoked"]
    # Done already is done.
    said("revoke", *where, "--certificate", str(tmp_path / "1.pem"), "--account-key", str(tmp_path / "account.key"))
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(pem_key(ec.generate_private_key(ec.SECP256R1())))
    assert "aucun compte de cette clé" in refused(
        "revoke", *where, "--certificate", str(tmp_path / "1.pem"), "--account-key", str(stranger)
    )
    assert "--certificate" in refused("revoke", *where)


def test_a_site_that_lost_its_secret_starts_again(written: Write, pebble: Pebble, tmp_path: Path) -> None:
    config = written(pebble)
    said("order", "--config", config)
    (tmp_path / "state" / "keys" / "vault.key").unlink()
    assert "restaurez le fichier du secret" in refused("renew", "--config", config)
    assert "un autre secret" in refused("revoke", "--config", config, "--own-key")
    assert "oublié" in said("account-key", "--config", config, "--new-account")
    said("renew", "--config", config)
    assert "en service" in said("list", "--config", config)


@pytest.mark.requirement("DB.SO.90")
def test_a_request_for_an_authority_without_acme_and_its_certificate(written: Write, tmp_path: Path) -> None:
    root = make_issuer("Racine de marché")
    config = written(roots=root.certificate.public_bytes(Encoding.PEM), levels='["OV"]')
    assert "Aucune autorité ACME" in refused("order", "--config", config)
    text = said("ov")
    assert "SIREN" in text
    assert "sans autre nom (SAN)" in text
    request = x509.load_pem_x509_csr(said("csr", "--config", config, "--organisation", "Centre d'imagerie").encode())
    out = tmp_path / "second.csr"
    assert "sa clé reste dans la DRIMbox" in said("csr", "--config", config, "--key", "RSA-2048", "--out", str(out))
    second = x509.load_pem_x509_csr(out.read_bytes())
    assert "Demande n° 1" in said("list", "--config", config)

    # What comes back: not what the programme asks, then right.
    chain = tmp_path / "chain.pem"
    names = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    several = issue(root, request.public_key(), [*names, x509.DNSName("autre.example.org")])
    chain.write_bytes(several.public_bytes(Encoding.PEM))
    broken = refused("install", "--config", config, str(chain))
    assert "porte plusieurs noms (SAN)" in broken
    assert "est de niveau DV : demandez à l'autorité un certificat OV." in broken
    right = issue(root, second.public_key(), names, policy="2.23.140.1.2.2")
    chain.write_bytes(right.public_bytes(Encoding.PEM))
    assert "Certificat installé, valable jusqu'au" in said("install", "--config", config, str(chain))
    shown = said("list", "--config", config)
    assert "Demande n° 1" in shown
    assert "Demande n° 2" not in shown
    assert "renouvellement à la main" in shown
    # The same key again, certified longer.
    longer = issue(root, second.public_key(), names, policy="2.23.140.1.2.2")
    chain.write_bytes(longer.public_bytes(Encoding.PEM))
    said("install", "--config", config, str(chain))

    # A pair made elsewhere, its key encrypted; then with the key of another.
    key = ec.generate_private_key(ec.SECP256R1())
    elsewhere = issue(root, key.public_key(), names, policy="2.23.140.1.2.2")
    chain.write_bytes(elsewhere.public_bytes(Encoding.PEM))
    assert "drimbox certificate install --key" in refused("install", "--config", config, str(chain))
    own, password, other = tmp_path / "own.key", tmp_path / "password", tmp_path / "other.key"
    own.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    own.chmod(0o600)
    password.write_text("secret\n")
    other.write_bytes(pem_key(ec.generate_private_key(ec.SECP256R1())))
    assert "est chiffrée" in refused("install", "--config", config, str(chain), "--key", str(own))
    wrong = refused("install", "--config", config, str(chain), "--key", str(other))
    assert "La clé privée n'est pas celle du certificat" in wrong
    said("install", "--config", config, str(chain), "--key", str(own), "--password-file", str(password))
    assert "--directory" in refused("revoke", "--config", config)
    assert "https://" in refused("revoke", "--config", config, "--directory", "http://in.the.clear/")
    chain.write_text("pas un certificat")
    assert "Aucun certificat lisible" in refused("install", "--config", config, str(chain))


def test_what_the_settings_refuse(written: Write) -> None:
    config = Path(written(port=80))
    right = config.read_text("utf-8")
    for before, after, told in (
        (HOST, "*.test.mesimagesmedicales.fr", "générique"),
        (HOST, "VI1.test.mesimagesmedicales.fr", "n'est pas le nom complet"),
        (HOST, "192.0.2.1", "adresse IP"),
        ("levels = []", 'levels = ["EV"]', "valeur inconnue"),
        ("levels = []", 'validation = "dns-01"', "valeur inconnue"),
        ('roots = ["market.pem"]', 'roots = ["absent.pem"]', "fichier absent"),
        ("levels = []", AUTHORITY_HALF, "vont ensemble"),
    ):
        text = right.replace(before, after)
        if after is AUTHORITY_HALF:
            text = right + AUTHORITY_HALF
        config.write_text(text, "utf-8")
        with pytest.raises(ConfigMistakes) as mistakes:
            load(config, {})
        assert any(told in str(m) for m in mistakes.value.mistakes), [str(m) for m in mistakes.value.mistakes]
    config.write_text(right[: right.index("[market_certificate]")], "utf-8")
    assert "ajoutez [market_certificate]" in refused("list", "--config", str(config))


def test_the_roots_of_the_system_are_read_whatever_is_among_them(tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    root = make_issuer("Racine").certificate.public_bytes(Encoding.PEM)
    file.write_bytes(b"# comment\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + root + root)
    assert len(read_roots([file])) == 1
    file.write_text("nothing")
    with pytest.raises(Misconfigured, match="ca-certificates"):
        read_roots([file])


AUTHORITY_HALF = """[[market_certificate.authorities]]
name = "X"
directory = "https://acme.example.org/directory"
external_account_id = "x"
"""


def pem_key(key: object) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined, no-any-return]
