"""The administrator's two commands, on a configured box."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from portability_examples import Box

from box_settings import DOORS, NATIONAL
from drimbox.box.archive_commands import archive
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

CONFIG = (
    """[box]
name = "Boîte A"
state_dir = "state"

[database]
dsn_file = "dsn"

[trust]
roots = ["{roots}"]

[[structures]]
id = "ambroise"
name = "Centre de radiologie Ambroise"
identifier = "1750803447"
auth = {{ certificate = "{auth.certificate}", key = "{auth.key}" }}
sign = {{ certificate = "{sign.certificate}", key = "{sign.key}" }}

[[pacs]]
id = "vna"
host = "127.0.0.1"
port = 4242
ae_title = "PACS"

"""
    + DOORS
    + """public_url = "https://db.example.test"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}

"""
    + NATIONAL
)


@pytest.fixture
def config(authority: TestAuthority, dsn: str, tmp_path: Path) -> Path:
    def pair(profile: Profile, name: str) -> PemPair:
        hosts = ("localhost",) if profile is Profile.SSL_SERV else ()
        return authority.issue(profile, name, common_name="DRIMbox", unit="1750803447", organisation="S", hosts=hosts)

    file = tmp_path / "box.toml"
    text = CONFIG.format(
        roots=authority.roots,
        auth=pair(Profile.ORG_AUTH_CLI, "archive-auth"),
        sign=pair(Profile.ORG_SIGN, "archive-sign"),
        server=pair(Profile.SSL_SERV, "archive-server"),
    )
    file.write_text(text, "utf-8")
    (tmp_path / "dsn").write_text(dsn)
    return file


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(archive, [str(a) for a in arguments])
    return result.exit_code, result.output


@pytest.mark.requirement("DB.SO.29", "DB.SO.30")
async def test_export_and_import_from_the_command_line(
    box: Box, config: Path, other_dsn: str, dsn: str, samples: Path, tmp_path: Path
) -> None:
    await box.publish(105)
    await box.publish(106)
    await box.depublish(106)
    target = tmp_path / "out" / "archive.zip"
    status, text = await asyncio.to_thread(run, "export", target, "--config", config, "--contact", "04 73 00 00 00")
    assert status == 0, text
    assert "2 lots, 2 KOS, 1 volumes" in text
    status, text = await asyncio.to_thread(run, "export", target, "--config", config)
    assert (status, "archive-exists" in text) == (1, True)
    part = tmp_path / "part"
    options = ("--config", config, "--since", "2026-01-01", "--until", "2026-07-13", "--structure", "ambroise")
    status, text = await asyncio.to_thread(run, "export", part, *options)
    assert (status, "0 lots" in text) == (0, True)
    status, text = await asyncio.to_thread(run, "export", part, "--config", config, "--structure", "x")
    assert (status, "archive-structure" in text) == (1, True)

    (tmp_path / "dsn").write_text(other_dsn)
    status, text = await asyncio.to_thread(run, "import", target, "--config", config)
    assert status == 0, text
    assert "2 KOS importés" in text
    status, text = await asyncio.to_thread(run, "import", samples / "xdm", "--config", config)
    assert status == 2, text
    assert "also_known_as" in text
    status, text = await asyncio.to_thread(
        run, "import", samples / "xdm", "--config", config, "--structure", "ambroise", "--pacs", "vna"
    )
    assert status == 0, text
    assert [p.name for p in (tmp_path / "state").glob("*.jnl")] == []

    with psycopg.connect(other_dsn) as connection:
        traced = connection.execute("SELECT event, action, outcome, objects FROM audit ORDER BY id").fetchall()
    assert [(event, outcome) for event, _, outcome, _ in traced] == [("110107/ITI-32", 0)] * 3
    with psycopg.connect(dsn) as connection:
        traced = connection.execute("SELECT event, outcome, actor FROM audit ORDER BY id").fetchall()
    assert [(event, outcome) for event, outcome, _ in traced] == [
        ("110106/ITI-32", 0),
        ("110106/ITI-32", 8),
        ("110106/ITI-32", 0),
    ]
    assert all(actor["person"].startswith("os:") for *_, actor in traced)


def test_a_wrong_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "box.toml").write_text("[box]\n")
    status, text = run("export", tmp_path / "a", "--config", tmp_path / "box.toml")
    assert status == 1
    assert "réglage obligatoire absent" in text
