"""The console in its box: the settings, the TLS listener, the neighbours, and the same acts from the command line."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from console_world import OTHER_PASSWORD, PASSWORD, STUDY

from box_settings import DOORS
from drimbox.box import console, services
from drimbox.box.config import ConfigMistakes, load
from drimbox.box.settings import Settings
from drimbox.box.structures import served
from drimbox.cli import main
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.record.audit import Actor, Journal, Kind, Search
from drimbox.sandbox.listeners import ClientCertificate, listener_context
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store import database
from drimbox.store.database import Pool
from publication.publication_examples import letter_of, world_on

TEMPLATE = (
    """[box]
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
port = {closed}
ae_title = "PACS"

"""
    + DOORS
    + """public_url = "https://db.example.test"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}

[console]
port = {port}
public_url = "https://localhost:{port}"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}
lock_failures = 4

[dmp]
repository = "https://localhost:{dmp}/repository"
registry = "https://localhost:{dmp}/registry"
patients = "https://localhost:{dmp}/patients"
habilitations = "https://localhost:{dmp}/habilitations"
source_id = "1.2.3"

[psc]
discovery = "https://localhost:{closed}/d"
client_id = "x"

[whitelist]
url = "https://localhost:{closed}/l"
"""
)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
def config(authority: TestAuthority, tmp_path: Path, dsn: str) -> Path:
    def pair(profile: Profile, name: str) -> PemPair:
        hosts = ("localhost",) if profile is Profile.SSL_SERV else ()
        return authority.issue(profile, name, common_name="DRIMbox", unit="1750803447", organisation="S", hosts=hosts)

    port, dmp, closed = free_ports(3)
    text = TEMPLATE.format(
        roots=authority.roots,
        auth=pair(Profile.ORG_AUTH_CLI, "console-auth"),
        sign=pair(Profile.ORG_SIGN, "console-box-sign"),
        server=pair(Profile.SSL_SERV, "console-server"),
        port=port,
        dmp=dmp,
        closed=closed,
    )
    (tmp_path / "dsn").write_text(dsn + "\n", "utf-8")
    file = tmp_path / "box.toml"
    file.write_text(text, "utf-8")
    return file


def settings_of(config: Path) -> Settings:
    return load(config, {})


@pytest.mark.requirement("IAM.92")
def test_settings_that_would_weaken_the_door_are_refused(config: Path) -> None:
    right = config.read_text("utf-8").replace("lock_failures = 4\n", "")
    origin = re.search(r'public_url = "https://localhost:\d+"\n', right)
    assert origin is not None
    for key, value in (
        ("lock_failures", "11"),
        ("lock_failures", "0"),
        ("admin_password_length", "14"),
        ("password_classes", "1"),
        ("idle_minutes", "0"),
        ("public_url", '"http://localhost"'),
    ):
        text = right.replace(origin[0], "") if key == "public_url" else right
        config.write_text(text.replace("[console]\n", f"[console]\n{key} = {value}\n"), "utf-8")
        with pytest.raises(ConfigMistakes) as mistakes:
            load(config, {})
        assert [m.setting for m in mistakes.value.mistakes] == [f"console.{key}"]


async def test_the_console_listens_with_its_own_certificate(config: Path, pool: Pool, authority: TestAuthority) -> None:
    settings = settings_of(config)
    assert settings.console is not None
    settings.box.state_dir.mkdir()
    browser = ssl.create_default_context(cafile=str(authority.roots))
    async with AsyncExitStack() as stack:
        common = await stack.enter_async_context(services.opened(settings, pool))
        await stack.enter_async_context(console.running(common, settings.console, served(common)))
        http = await stack.enter_async_context(HttpClient())
        page = await http.send("GET", f"{settings.console.public_url}/connexion", tls=browser)
        assert page.status == 200
        assert "Connexion à la console" in page.body.decode()
        # No lasting TLS for a name that is the machine's own.
        assert "Strict-Transport-Security" not in page.headers


async def test_the_neighbours_that_answer_are_told_from_those_that_do_not(
    config: Path, pool: Pool, authority: TestAuthority
) -> None:
    settings = settings_of(config)
    settings.box.state_dir.mkdir()
    pair = authority.issue(
        Profile.SSL_SERV, "console-dmp", common_name="localhost", unit="1", organisation="X", hosts=("localhost",)
    )

    async def app(scope: object, receive: object, send: object) -> None: ...

    async with services.opened(settings, pool) as common:
        structures = served(common)
        assert await console.neighbours(settings, {}, structures) == {"DMP": False}
        port = int(settings.dmp.registry.rsplit(":", 1)[1].split("/")[0])
        tls = listener_context(pair, authority, ClientCertificate.REQUIRED)
        async with serving(app, host="localhost", port=port, tls=tls):  # type: ignore[arg-type]
            assert await console.neighbours(settings, {}, structures) == {"DMP": True}
        # A DMP that does not take our certificate is not one that we can work with.
        strangers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        strangers.load_cert_chain(pair.certificate, pair.key)
        strangers.verify_mode = ssl.CERT_REQUIRED
        other = TestAuthority(config.parent / "other-pki")
        strangers.load_verify_locations(other.roots)
        async with serving(app, host="localhost", port=port, tls=strangers):  # type: ignore[arg-type]
            assert await console.neighbours(settings, {}, structures) == {"DMP": False}


def test_administrators_see_every_setting_and_no_secret(config: Path) -> None:
    config.write_text(config.read_text("utf-8") + '\n[manifest]\nmanufacturer = "X"\n', "utf-8")
    lines = console.setting_lines(settings_of(config))
    told = {(line.section, line.name): line.value for line in lines}
    assert told["box", "name"] == "Site A"
    assert told["structures[0].auth", "key"].endswith(".key")
    assert told["console", "lock_failures"] == "4"
    assert told["source.hl7", "port"] == "2575"
    everything = json.dumps([line.value for line in lines])
    assert "PRIVATE KEY" not in everything
    assert "postgresql" not in everything


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(config: Path) -> Callable[..., Result]:
    def run(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, [*words[:2], "--config", str(config), *words[2:]], input=stdin)

    return run


@pytest.mark.requirement("IAM.91", "IAM.92", "IAM.94", "SSI/GEN.16")
def test_accounts_from_the_command_line(run: Callable[..., Result], config: Path, dsn: str) -> None:
    assert "Aucun compte" in run("account", "list").output
    file = config.parent / "secret"
    file.write_text(f"{PASSWORD}\n", "utf-8")
    named = ("--name", "Jacques Bideault")
    made = run("account", "add", "Jacques.Bideault", *named, "--role", "administrateur", "--password-file", str(file))
    assert (made.exit_code, made.output) == (0, "Compte jacques.bideault ouvert pour Jacques Bideault.\n")
    typed = run("account", "add", "thomas.eric", "--name", "Thomas Eric", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    assert typed.exit_code == 0
    assert PASSWORD not in typed.output
    only_psc = ("--name", "Kit Doc0036790", "--national-id", "899700367909", "--no-password", "--role", "operateur")
    assert run("account", "add", "kit.doc", *only_psc).exit_code == 0
    for words, reason in (
        (("add", "paul.toubib", "--name", "Paul Toubib", "--no-password"), "mot de passe ou un identifiant national"),
        (("add", "jacques.bideault", *named, "--password-file", str(file)), "déjà"),
        (("add", "admin", *named, "--password-file", str(file)), "nominatif"),
        (("lock", "nobody"), "n'existe pas"),
        (("roles", "kit.doc", "--role", "administrateur", "--role", "lecture-messages"), "mêmes mains"),
        (("password", "jacques.bideault", "--password-file", str(file)), "déjà servi"),
    ):
        refused = run("account", *words)
        assert refused.exit_code == 1, words
        assert reason in refused.output
    file.write_text("court", "utf-8")
    assert "15 caractères" in run("account", "password", "jacques.bideault", "--password-file", str(file)).output
    file.write_text(OTHER_PASSWORD, "utf-8")
    assert run("account", "password", "jacques.bideault", "--password-file", str(file)).exit_code == 0
    assert run("account", "roles", "kit.doc", "--role", "operateur", "--role", "lecture-messages").exit_code == 0
    assert run("account", "lock", "thomas.eric").exit_code == 0
    listed = run("account", "list").output
    assert "verrouillé" in listed
    everything = json.loads(run("account", "list", "--json").output)
    assert [(a["login"], a["roles"], a["password"]) for a in everything] == [
        ("jacques.bideault", ["administrateur"], True),
        ("kit.doc", ["lecture-messages", "operateur"], False),
        ("thomas.eric", [], True),
    ]
    assert run("account", "unlock", "thomas.eric").exit_code == 0

    async def traced() -> list[tuple[str, str, str]]:
        async with database.opened(dsn, size=1) as pool:
            found = await Journal(pool).search(Search(limit=100), Actor(person="test"))
        return [(r.event.actor.person, r.event.kind.name, r.event.objects[0].detail) for r in reversed(found)]

    told = asyncio.run(traced())
    assert all(person.startswith("os:") for person, _, _ in told)
    assert [(kind, detail) for _, kind, detail in told][-4:] == [
        ("ACCOUNT_CHANGED", "mot de passe provisoire"),
        ("ROLES_CHANGED", "lecture-messages operateur"),
        ("ACCOUNT_CHANGED", "verrouillage"),
        ("ACCOUNT_CHANGED", "déverrouillage"),
    ]


@pytest.mark.requirement("DB.SO.15", "DB.SO.21")
def test_the_queue_from_the_command_line(run: Callable[..., Result], dsn: str) -> None:
    async def prepared() -> int:
        async with database.opened(dsn, size=2) as pool:
            world = world_on(pool)
            await world.run(letter_of())
            [incident] = await world.queue()
            return incident.id

    number = asyncio.run(prepared())
    assert STUDY in run("queue", "list").output
    assert "remis en file" in run("queue", "retry", str(number)).output
    assert "comparé" in run("queue", "resync", str(number)).output
    assert "comparé" in run("resync", STUDY).output
    assert "avancée" in run("resync", STUDY, "--structure", "ambroise").output
    for words in (("1.2.3",), ("pas un UID",), (STUDY, "--structure", "ailleurs")):
        assert run("resync", *words).exit_code == 1
    for words in (("discard", str(number), "--reason", " "), ("retry", "99"), ("discard", "99", "--reason", "Doublon")):
        refused = run("queue", *words)
        assert refused.exit_code == 1
    assert run("queue", "discard", str(number)).exit_code == 2
    assert "classé sans suite" in run("queue", "discard", str(number), "--reason", "Doublon du RIS").output
    assert "vide" in run("queue", "list").output
    shown = run("queue", "show", str(number)).output
    assert "Classé sans suite : Doublon du RIS (par os:" in shown
    assert "clos" in run("queue", "list", "--all").output
    assert run("queue", "show", "99").exit_code == 1
    assert "déjà clos" in run("queue", "retry", str(number)).output

    async def acts() -> list[str]:
        async with database.opened(dsn, size=1) as pool:
            found = await Journal(pool).search(Search(kind=Kind.QUEUE_ACTED), Actor(person="test"))
        return [r.event.objects[0].detail.split(":")[0] for r in reversed(found)]

    assert asyncio.run(acts()) == ["retry", *["resync"] * 3, "discard"]
