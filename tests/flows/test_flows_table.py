"""The table of flows says what goes in the clear, and leaves nothing out that the configuration names."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, Field

from drimbox.box import flows as box_flows
from drimbox.box.flows import flows
from drimbox.box.settings import Settings
from drimbox.box.settings.common import HttpsUrl, Port, Section, TlsServer
from drimbox.cli import main
from drimbox.flows import Direction, Exception17, Flow, State

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]
Read = Callable[[Path], Settings]

EVERYTHING = """
api_token = ""

[notifications.webhook]
url = "https://chat.example.test/hook"
[notifications.mail]
host = "mail.example.test"
sender = "a@example.test"
recipients = ["b@example.test"]

[link]
patients = "code"
[link.mail]
host = "mail.example.test"
sender = "c@example.test"
[link.webhook]
url = "https://sms.example.test/code"

[console]
port = 8450
public_url = "https://console.example.test"
tls = {tls}

[market_certificate]
host = "vi1.111.mesimagesmedicales.fr"
roots = ["{roots}"]
[[market_certificate.authorities]]
name = "AC"
directory = "https://acme.example.test/directory"
"""


def one(found: tuple[Flow, ...], setting: str) -> Flow:
    [flow] = [flow for flow in found if flow.setting == setting]
    return flow


@pytest.mark.requirement("C17", "SSI/GEN.12")
def test_a_site_in_the_clear_is_told_what_differs(write: Write, read: Read) -> None:
    found = flows(read(write(listen="192.0.2.7")))
    clear = {flow.setting for flow in found if flow.state is State.CLEAR}
    assert clear == {"source.hl7", "source.dicom", "pacs[0]"}
    outcome = CliRunner().invoke(main, ["flows", "--check", "--config", str(write(listen="192.0.2.7"))])
    assert outcome.exit_code == 2
    assert "ÉCART au point de contrôle C17, 3 flux en clair" in outcome.output


@pytest.mark.requirement("C17")
def test_on_the_machine_itself_nothing_passes_a_network(write: Write, read: Read) -> None:
    found = flows(read(write()))
    assert {flow.state for flow in found} == {State.ENCRYPTED, State.LOCAL}
    outcome = CliRunner().invoke(main, ["flows", "--check", "--config", str(write())])
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.requirement("C17")
def test_the_four_exceptions_and_no_others(write: Write, read: Read, pairs: dict[str, Any], authority: Any) -> None:
    assert [each.name for each in Exception17] == ["ACME", "CRL", "AUTHORITIES", "OCSP"]
    tls = f'{{ certificate = "{pairs["server"].certificate}", key = "{pairs["server"].key}" }}'
    more = EVERYTHING.replace('api_token = ""\n', "").format(tls=tls, roots=authority.roots)
    crl = 'revocation_urls = ["http://crl.example.test/a.crl", "https://crl.example.test/b.crl"]'
    found = flows(read(write(more, trust=crl)))
    excused = {(flow.setting, flow.exception, flow.where) for flow in found if flow.state is State.EXCEPTION}
    assert excused == {
        ("market_certificate.http_port", Exception17.ACME, "0.0.0.0:80"),
        ("trust.revocation_urls", Exception17.CRL, "crl.example.test:80"),
        # The addresses that the certificates of public servers name.
        ("trust.public_revocation", Exception17.CRL, "*:80"),
    }
    assert one(found, "notifications.mail").encryption.endswith("(starttls)")
    assert one(found, "notifications.webhook.url").where == "chat.example.test:443"
    # The viewer host shows the market certificate; what goes to patients is encrypted too.
    assert {one(found, name).state for name in ("link", "link.mail", "link.webhook.url")} == {State.ENCRYPTED}
    assert not any(flow.name.startswith("[") for flow in found), "each has a name for people"
    assert any(flow.where == "acme.example.test:443" for flow in found)
    assert not [flow for flow in found if flow.state is State.CLEAR]


def test_a_web_service_of_the_pacs_in_the_clear_is_seen(write: Write, read: Read) -> None:
    web = '[pacs.dicomweb]\nurl = "http://pacs.example.test/dicom-web"\n'
    file = write()
    file.write_text(file.read_text().replace('ae_title = "PACS"\n', f'ae_title = "PACS"\n{web}'))
    assert one(flows(read(file)), "pacs[0].dicomweb.url").state is State.CLEAR


@pytest.mark.parametrize(
    ("dsn", "state"),
    [
        ("host=/run/postgresql dbname=d", State.LOCAL),
        ("host=db.example.test sslmode=verify-full", State.ENCRYPTED),
        ("host=db.example.test", State.CLEAR),
        ("postgresql://u:p@db.example.test:6432/d?sslmode=prefer", State.CLEAR),
        ("host=127.0.0.1", State.LOCAL),
    ],
)
def test_the_database_is_a_flow_like_others(write: Write, read: Read, tmp_path: Path, dsn: str, state: State) -> None:
    (tmp_path / "dsn").write_text(dsn)
    found = flows(read(write(f'[database]\ndsn_file = "{tmp_path}/dsn"\n')))
    flow = one(found, "database.dsn_file")
    assert flow.state is state
    assert "p@" not in str(flow), "a password stays in its file"


def test_it_comes_as_text_markdown_and_json(write: Write) -> None:
    file = str(write())
    table = json.loads(CliRunner().invoke(main, ["flows", "--json", "--config", file]).output)
    assert {flow["direction"] for flow in table["flows"]} == {"entrant", "sortant"}
    page = CliRunner().invoke(main, ["flows", "--markdown", "--config", file]).output
    assert page.count("\n| entrant |") == 4
    assert "listes de révocation" in page


# --- nothing is left out ----------------------------------------------------------------------------------------------


class _Door(TlsServer):
    """A listener that is added one day."""


class _Plain(Section):
    """Another kind of it."""

    host: str = "0.0.0.0"
    port: Port = 1234


class _Future(BaseModel):
    """A configuration with more in it than this table knows by name."""

    door: _Door
    plain: _Plain = Field(_Plain())
    portals: tuple[HttpsUrl, ...] = ()


def test_what_is_added_to_the_configuration_is_in_the_table(pairs: dict[str, Any]) -> None:
    tls = {"certificate": pairs["server"].certificate, "key": pairs["server"].key}
    future = _Future.model_validate(
        {
            "door": {"port": 7443, "public_url": "https://x.example.test", "tls": tls},
            "portals": ["https://portal.example.test:444/x"],
        }
    )
    found = {flow.setting: flow for flow in box_flows._walked(future)}  # type: ignore[arg-type]
    assert found["door"].direction is Direction.IN
    assert (found["door"].port, found["door"].state) == (7443, State.ENCRYPTED)
    assert found["plain"].state is State.CLEAR
    assert found["portals[0]"].where == "portal.example.test:444"


_OPENERS = {"open_connection", "create_connection", "SMTP", "SMTP_SSL", "start_server", "create_server", "connect"}


def test_every_place_that_opens_a_connection_is_known() -> None:
    """A client or a listener of a new kind must come with its line in the table, or with its reason here."""
    known = {
        "foundation/http_client.py": "every address is one of the configuration, or comes from a peer over TLS",
        "foundation/http_server.py": "TlsServer, [market_certificate]",
        "reports/mllp.py": "[source.hl7]",
        "pacs/dimse": "[[pacs]], [source.dicom], [source.iocm], workstations",
        "changes/listener.py": "[source.iocm]",
        "importing": "[consumer.workstations], [[pacs]]",
        "notification/mail.py": "[notifications.mail]",
        "console": "the check of the DMP",
        "box/console.py": "the check of the DMP",
        "speedtest/door.py": "a unix socket",
        "store": "[database]",
        "trust/probe.py": "the box's own listeners, by drimbox evidence",
        "box/state.py": "the embedded database",
        "foundation/event_loop.py": "the event loop itself",
    }
    strangers = [
        place
        for place in _opening()
        if not any(place.startswith(prefix) for prefix in (*known, "sandbox", "demo", "bench"))
    ]
    assert strangers == []


def _opening() -> Iterator[str]:
    source = ROOT / "src" / "drimbox"
    for path in sorted(source.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node) in _OPENERS:
                yield path.relative_to(source).as_posix()
                break


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Attribute(value=ast.Name(id="asyncio" | "socket" | "smtplib" | "loop" | "connection"), attr=name):
            return name
        case ast.Name(id=name):
            return name
    return ""


def test_only_one_module_makes_tls_contexts() -> None:
    """So that what is said of TLS holds for every connection."""
    source = ROOT / "src" / "drimbox"
    makers = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if "(ssl.PROTOCOL_TLS" in path.read_text("utf-8") or "create_default_context(" in path.read_text("utf-8")
    }
    allowed = {"trust/tls.py", "trust/reload.py", "trust/probe.py", "__main__.py"}
    assert {maker for maker in makers if maker.partition("/")[0] not in ("sandbox", "demo", "bench")} == allowed
