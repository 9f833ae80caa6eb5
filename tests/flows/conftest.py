"""A configuration with everything in it, as a file and as settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from drimbox.box.config import load
from drimbox.box.settings import Settings
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

UNIT = "1750803447"


@pytest.fixture(scope="session")
def pairs(authority: TestAuthority) -> dict[str, PemPair]:
    """``auth``, ``sign`` and ``server`` of one structure."""
    found = {}
    for name, profile in (
        ("auth", Profile.ORG_AUTH_CLI),
        ("sign", Profile.ORG_SIGN),
        ("server", Profile.SSL_SERV),
    ):
        hosts = ("db.example.test", "localhost", "127.0.0.1") if profile is Profile.SSL_SERV else ()
        found[name] = authority.issue(
            profile, f"flows-{name}", common_name="DRIMbox", unit=UNIT, organisation="SITE", hosts=hosts
        )
    return found


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair]) -> Write:
    """Write a configuration: a source and a consumer in the clear on loopback, then ``more``."""

    def inner(more: str = "", *, listen: str = "127.0.0.1", trust: str = "", wado: str = "", first: int = 8440) -> Path:
        def pair(name: str) -> str:
            return f'{{ certificate = "{pairs[name].certificate}", key = "{pairs[name].key}" }}'

        file = tmp_path / "box.toml"
        file.write_text(
            f"""[box]
name = "a"
state_dir = "{tmp_path}/state"

[trust]
roots = ["{authority.roots}"]
{trust}

[[structures]]
id = "s"
name = "S"
identifier = "{UNIT}"
auth = {pair("auth")}
sign = {pair("sign")}

[[pacs]]
id = "p"
host = "{listen}"
port = 4242
ae_title = "PACS"

[source]
[source.hl7]
host = "{listen}"
port = {first}
[source.dicom]
host = "{listen}"
port = {first + 1}
[source.wado]
port = {first + 2}
public_url = "https://db.example.test"
tls = {pair("server")}
{wado}

[consumer]
port = {first + 3}
public_url = "https://consult.example.test"
tls = {pair("server")}

[dmp]
repository = "https://dmp.example.test/repository"
registry = "https://dmp.example.test/registry"
patients = "https://dmp.example.test/patients"
habilitations = "https://dmp.example.test/habilitations"
source_id = "1.2.3"

[psc]
discovery = "https://psc.example.test:8443/d"
client_id = "DRIMbox"

[whitelist]
url = "https://list.example.test/l"
{more}""",
            "utf-8",
        )
        return file

    return inner


@pytest.fixture
def read() -> Callable[[Path], Settings]:
    return lambda file: load(file, {})
