"""A configuration on a database of the test, and a box's first rows in it."""

from __future__ import annotations

from pathlib import Path

from box_settings import DOORS, NATIONAL
from drimbox.box.config import load
from drimbox.box.settings import Settings
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

TEMPLATE = (
    """[box]
name = "Site A"
state_dir = "state"
{environment}

[database]
{database}

[trust]
roots = ["{roots}"]

[[structures]]
id = "ambroise"
name = "Centre de radiologie"
identifier = "1750803447"
auth = {{ certificate = "{auth.certificate}", key = "{auth.key}" }}
sign = {{ certificate = "{sign.certificate}", key = "{sign.key}" }}

[[pacs]]
id = "p"
host = "127.0.0.1"
port = 4242
ae_title = "PACS"

"""
    + DOORS
    + """public_url = "https://db.example.test"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}

{more}

"""
    + NATIONAL
)


def box_file(
    folder: Path, authority: TestAuthority, dsn: str = "", *, environment: str = "test", more: str = ""
) -> Path:
    """The TOML file of a box in a folder of its own; without a DSN, on an embedded database."""
    folder.mkdir(parents=True, exist_ok=True)

    def pair(profile: Profile, name: str) -> PemPair:
        hosts = ("localhost",) if profile is Profile.SSL_SERV else ()
        return authority.issue(profile, name, common_name="DRIMbox", unit="1750803447", organisation="S", hosts=hosts)

    if dsn:
        (folder / "dsn").write_text(dsn + "\n", "utf-8")
    text = TEMPLATE.format(
        environment=f'environment = "{environment}"',
        database='dsn_file = "dsn"' if dsn else "",
        more=more,
        roots=authority.roots,
        auth=pair(Profile.ORG_AUTH_CLI, "backup-auth"),
        sign=pair(Profile.ORG_SIGN, "backup-sign"),
        server=pair(Profile.SSL_SERV, "backup-server"),
    )
    path = folder / "box.toml"
    path.write_text(text, "utf-8")
    return path


def settings_of(path: Path) -> Settings:
    return load(path, {})
