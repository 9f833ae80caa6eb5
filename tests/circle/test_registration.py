"""What PSC must know of a box, in one place; the traces of the proxy e-Sante; the pieces of a habilitation file."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from drimbox.box.config import load
from drimbox.box.evidence import written
from drimbox.box.operator import on_dsn
from drimbox.box.registration import registration, traces
from drimbox.box.settings import Settings
from drimbox.cli import main
from drimbox.foundation.errors import Misconfigured
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Outcome, Search, Thing
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store.database import Pool

UNIT = "1750803447"
RPPS = "899700218896"


@pytest.fixture
def config(tmp_path: Path, authority: TestAuthority, dsn: str) -> Callable[..., Path]:
    def pair(one: PemPair) -> str:
        return f'{{ certificate = "{one.certificate}", key = "{one.key}" }}'

    def issued(profile: Profile, name: str, cn: str) -> PemPair:
        hosts = ("localhost",) if profile is Profile.SSL_SERV else ()
        return authority.issue(
            profile, f"circle-{name}-{cn}", common_name=cn, unit=UNIT, organisation="SITE", hosts=hosts
        )

    def write(*, cn: str = "client-a", login: str = "both", psc: str = "") -> Path:
        (tmp_path / "dsn").write_text(dsn)
        auth = issued(Profile.ORG_AUTH_CLI, "auth", cn)
        file = tmp_path / "box.toml"
        file.write_text(
            f"""[box]
name = "a"
state_dir = "{tmp_path}/state"
[database]
dsn_file = "{tmp_path}/dsn"
[trust]
roots = ["{authority.roots}"]
[[structures]]
id = "s"
name = "S"
identifier = "{UNIT}"
auth = {pair(auth)}
sign = {pair(issued(Profile.ORG_SIGN, "sign", "DRIMbox"))}
[consumer]
port = 8443
public_url = "https://consult.example.test"
tls = {pair(issued(Profile.SSL_SERV, "server", "localhost"))}
[dmp]
repository = "https://dmp.example.test/repository"
registry = "https://dmp.example.test/registry"
patients = "https://dmp.example.test/patients"
habilitations = "https://dmp.example.test/habilitations"
source_id = "1.2.3"
[psc]
discovery = "https://psc.example.test/d"
client_id = "client-a"
login = "{login}"
{psc}
[whitelist]
url = "https://list.example.test/l"
""",
            "utf-8",
        )
        (tmp_path / "state").mkdir(exist_ok=True)
        return file

    return write


def settings_of(file: Path) -> Settings:
    return load(file, {})


@pytest.mark.requirement("PSC.08")
def test_what_is_declared_is_what_the_box_shows(config: Callable[..., Path]) -> None:
    found = registration(settings_of(config()))
    assert found.problems == ()
    assert (found.client_id, found.certificate_cn, found.certificate_ou) == ("client-a", "client-a", UNIT)
    assert found.redirect_uris == ("https://consult.example.test/connexion/retour",)
    assert found.post_logout_redirect_uris == ("https://consult.example.test/au-revoir",)
    assert any("proxy e-Santé" in role for role in found.roles)
    outcome = CliRunner().invoke(main, ["psc", "registration", "--config", str(config())])
    assert outcome.exit_code == 0
    assert f"client-a, OU={UNIT}" in outcome.output


def test_what_psc_would_refuse_is_told(config: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    file = config(cn="other", psc=f'client_secret_file = "{tmp_path}/secret"')
    found = registration(settings_of(file))
    assert len(found.problems) == 2
    outcome = CliRunner().invoke(main, ["psc", "registration", "--json", "--config", str(file)])
    assert outcome.exit_code == 2
    assert "s3cret" not in outcome.output


def test_the_traces_of_the_proxy_are_read_in_the_journal(config: Callable[..., Path], dsn: str) -> None:
    professional = Actor(person=RPPS, name="DOC0036790", address="192.0.2.4")
    session = (Object(Thing.SESSION, "session-1"),)

    async def write(pool: Pool) -> None:
        journal = Journal(pool)
        for event in (
            Event(Kind.LOGIN, professional, session, correlation="c1"),
            Event(Kind.LOGIN, Actor(address="192.0.2.5"), session, Outcome.SERIOUS_FAILURE, "login-refused: refus"),
            Event(Kind.LOGIN, Actor(person="local:admin"), session),
            Event(Kind.DMP_QUERIED, professional, (), correlation="c1"),
            Event(Kind.LOGOUT, professional, session),
        ):
            await journal.write(None, event)

    on_dsn(dsn, write)
    now = dt.datetime.now(dt.UTC)
    settings = settings_of(config())
    lines = [
        json.loads(line)
        for line in traces(settings, now - dt.timedelta(hours=1), now + dt.timedelta(hours=1)).splitlines()
    ]
    assert [line["type"] for line in lines] == ["CONNECT_SUCCESS", "CONNECT_FAILURE", "SEND", "DISCONNECT"]
    assert lines[0]["IdRPPS"] == RPPS
    assert lines[0]["clientId"] == "client-a"
    assert lines[0]["ip"] == "192.0.2.4"
    assert lines[0]["proxy_id_session"] == "session-1"
    assert lines[0]["certificate_dn"].startswith("CN=client-a")
    assert lines[2]["request"] == "110112/ITI-18"
    assert not traces(settings, now + dt.timedelta(hours=2), now + dt.timedelta(hours=3))

    async def read(pool: Pool) -> int:
        return len(await Journal(pool).search(Search(kind=Kind.AUDIT_EXPORTED), Actor(system="test")))

    assert on_dsn(dsn, read) > 0, "who reads traces is in the journal"


@pytest.mark.requirement("SSI/GEN.12")
def test_the_pieces_are_whole_signed_and_without_a_secret(
    config: Callable[..., Path], tmp_path: Path, authority: TestAuthority, dsn: str
) -> None:
    settings = settings_of(config())
    report = tmp_path / "testssl rapport.txt"
    report.write_text("rapport")
    target = tmp_path / "pieces.zip"
    said = written(settings, target, [report], probe=False)
    assert "signé par CN=DRIMbox" in said
    assert hashlib.sha256(target.read_bytes()).hexdigest() in said
    assert target.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(target) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert set(parts) == {
        "LISEZMOI.txt",
        "SHA256SUMS",
        "SHA256SUMS.p7s",
        "certificats.json",
        "configuration.txt",
        "confiance.txt",
        "flux.json",
        "flux.md",
        "journal.txt",
        "liste-blanche.json",
        "pieces/testssl_rapport.txt",
        "psc.json",
        "versions.json",
    }
    for line in parts["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(parts[name]).hexdigest() == digest
    whole = b"".join(parts.values())
    assert b"PRIVATE KEY" not in whole
    for secret in (tmp_path / "dsn", *authority.folder.glob("circle-*.key")):
        assert secret.read_bytes().strip() not in whole
    assert b"Journal int" in parts["journal.txt"]
    assert b"whitelist-none" in parts["liste-blanche.json"], "what cannot be had says why"
    places = {one["place"] for one in json.loads(parts["certificats.json"])}
    assert {"structures[0].auth", "structures[0].sign", "consumer.tls", "trust.roots[0]"} <= places
    _verified_by_openssl(parts, tmp_path, authority)

    async def read(pool: Pool) -> int:
        return len(await Journal(pool).search(Search(kind=Kind.EVIDENCE_EXPORTED), Actor(system="test")))

    assert on_dsn(dsn, read) == 1


def _verified_by_openssl(parts: dict[str, bytes], folder: Path, authority: TestAuthority) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    def verifies(content: bytes) -> bool:
        (folder / "sums").write_bytes(content)
        (folder / "p7s").write_bytes(parts["SHA256SUMS.p7s"])
        command = ["cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-content", str(folder / "sums")]
        options = ["-in", str(folder / "p7s"), "-CAfile", str(authority.roots), "-out", "/dev/null"]
        return (
            subprocess.run([openssl, *command, *options], capture_output=True, timeout=20, check=False).returncode == 0
        )

    assert verifies(parts["SHA256SUMS"])
    assert not verifies(parts["SHA256SUMS"].replace(b"0", b"1", 1))


def test_a_private_key_is_never_attached(config: Callable[..., Path], tmp_path: Path) -> None:
    bad = tmp_path / "report.txt"
    bad.write_text("-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(Misconfigured) as refused:
        written(settings_of(config()), tmp_path / "x.zip", [bad], probe=False)
    assert refused.value.code == "evidence-attached"
    assert not (tmp_path / "x.zip").exists()
