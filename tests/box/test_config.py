"""A configuration is checked whole: each mistake with its line and its remedy."""

from pathlib import Path

import pytest

from box_settings import DOORS, NATIONAL
from drimbox.box.config import ConfigMistakes, Mistake, load
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

TEMPLATE = (
    """[box]
name = "a"

[trust]
roots = ["{roots}"]

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

"""
    + DOORS
    + """public_url = "https://db.example.test"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}

"""
    + NATIONAL
)


@pytest.fixture
def text(authority: TestAuthority) -> str:
    def pair(profile: Profile, name: str) -> PemPair:
        hosts = ("localhost",) if profile is Profile.SSL_SERV else ()
        return authority.issue(profile, name, common_name="DRIMbox", unit="1750803447", organisation="S", hosts=hosts)

    return TEMPLATE.format(
        roots=authority.roots,
        auth=pair(Profile.ORG_AUTH_CLI, "config-auth"),
        sign=pair(Profile.ORG_SIGN, "config-sign"),
        server=pair(Profile.SSL_SERV, "config-server"),
    )


def mistakes(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> tuple[Mistake, ...]:
    file = tmp_path / "box.toml"
    file.write_text(text, "utf-8")
    try:
        load(file, environment or {}, strict=True)
    except ConfigMistakes as error:
        return error.mistakes
    return ()


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_a_right_configuration_loads(tmp_path: Path, text: str) -> None:
    file = tmp_path / "box.toml"
    file.write_text(text.replace('name = "a"', 'name = "a"\nstate_dir = "state"'), "utf-8")
    settings = load(file, {"DRIMBOX__PACS__0__PORT": "104", "DRIMBOX__BOX__LOG_LEVEL": "DEBUG"})
    assert settings.box.state_dir == tmp_path / "state"
    assert settings.pacs[0].port == 104
    assert settings.box.log_level == "DEBUG"


CASES = {
    "a missing setting": ('\nsource_id = "1.2.3"', "", "[dmp]", "obligatoire"),
    "a misspelt setting": ('ae_title = "PACS"', 'aetitle = "PACS"', "aetitle", "ae_title"),
    "a port out of range": ("port = 4242", "port = 70000", "port = 70000", "65535"),
    "text for a number": ("port = 2575", 'port = "abc"', 'port = "abc"', "nombre entier"),
    "an address in the clear": (
        'discovery = "https:',
        'discovery = "http:',
        'discovery = "http:',
        "https",
    ),
    "not a Struct_IdNat": ('"1750803447"', '"foo"', '"foo"', "Struct_IdNat"),
    "not an OID": ('"1.2.3"', '"1.02.3"', '"1.02.3"', "OID"),
    "an unknown value": ('name = "a"', 'name = "a"\nenvironment = "prod"', '"prod"', "production"),
    "a file that is not there": ("config-sign.key", "nowhere.key", "sign =", "nowhere.key"),
    "the key of another certificate": ("config-sign.key", "config-auth.key", "sign =", "paire"),
    "broken TOML": ("port = 2575", "port = = 2575", "port = =", "syntaxe"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_has_its_line_and_its_remedy(tmp_path: Path, text: str, name: str) -> None:
    old, new, where, word = CASES[name]
    assert old in text
    broken = text.replace(old, new, 1)
    found = mistakes(tmp_path, broken)
    assert found, name
    said = [m for m in found if m.line == line_of(broken, where)]
    assert said, [str(m) for m in found]
    assert any(word in str(m) for m in said), [str(m) for m in said]
    assert all(m.remedy for m in found)


def test_all_mistakes_are_told_at_once(tmp_path: Path, text: str) -> None:
    broken = text.replace("port = 4242", "port = 0").replace('ae_title = "PACS"', 'ae_title = "A VERY LONG AE TITLE"')
    assert {m.setting for m in mistakes(tmp_path, broken)} == {"pacs[0].port", "pacs[0].ae_title"}


def test_a_structure_may_only_name_pacs_that_are_there(tmp_path: Path, text: str) -> None:
    [mistake] = mistakes(tmp_path, text.replace('id = "s"', 'id = "s"\npacs = ["q"]'))
    assert "q" in mistake.problem


@pytest.mark.requirement("DB.CO.63")
def test_the_api_of_the_dmp_wants_the_token_that_a_shared_proxy_keeps(tmp_path: Path, text: str) -> None:
    shared = text.replace('client_id = "x"', 'client_id = "x"\nproxy = "https://proxy.example.test"')
    assert not mistakes(tmp_path, shared.replace("[dmp]", '[dmp]\nconsultation = "API_PSC"'))
    without = shared.replace('client_id = "x"', 'client_id = "x"\nproxy_token = ""')
    assert not mistakes(tmp_path, without)
    [mistake] = mistakes(tmp_path, without.replace("[dmp]", '[dmp]\nconsultation = "API_PSC"'))
    assert "proxy_token" in mistake.problem


IOCM = """[source.iocm]
port = 11113
ae_title = "DRIMBOX_IOCM"
"""


@pytest.mark.requirement("DB.SO.25")
def test_the_listener_for_notes_is_closed_unless_it_is_asked_for(tmp_path: Path, text: str) -> None:
    file = tmp_path / "box.toml"
    file.write_text(text, "utf-8")
    closed = load(file, {}).source
    assert closed is not None
    assert closed.iocm is None
    file.write_text(text.replace("[source.wado]", IOCM + "[source.wado]"), "utf-8")
    opened = load(file, {}).source
    assert opened is not None
    assert opened.iocm is not None
    assert (opened.iocm.port, opened.iocm.ae_title, opened.iocm.allowed_callers) == (11113, "DRIMBOX_IOCM", ())


@pytest.mark.parametrize(
    ("old", "new", "where", "word"),
    [
        ("port = 11113", "port = 11112", "[source.iocm]", "[source.dicom]"),
        ("port = 11113", 'port = 11113\nclient_roots = ["{roots}"]', "[source.iocm]", "tls"),
        ("port = 11113", "port = 11113\nmax_note_bytes = 99999999", "max_note_bytes", "16777216"),
        ("port = 2575", 'port = 2575\nomi_deletes = ["CANCEL"]', "omi_deletes", "ORC-1"),
        ("port = 2575", 'port = 2575\nomi_answer = "ORU"', "omi_answer", "ORI"),
    ],
)
def test_mistakes_about_notes_and_orders(
    tmp_path: Path, text: str, authority: TestAuthority, old: str, new: str, where: str, word: str
) -> None:
    broken = text.replace("[source.wado]", IOCM + "[source.wado]")
    broken = broken.replace(old, new.replace("{roots}", str(authority.roots)), 1)
    [mistake] = mistakes(tmp_path, broken)
    assert mistake.line == line_of(broken, where)
    assert word in str(mistake)


def test_a_file_that_is_no_toml_at_all(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "\x00")
    with pytest.raises(ConfigMistakes):
        load(tmp_path / "absent.toml", {})
