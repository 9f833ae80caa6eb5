"""Each structure with its own pairs: the right ones in the right place, and what cannot be used stops it alone."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from box_settings import DOORS, NATIONAL
from drimbox.box.config import ConfigMistakes, Mistake, load
from drimbox.box.settings.box import StructureSection
from drimbox.box.settings.common import KeyPair
from drimbox.box.structures import Served, serve
from drimbox.cli import main
from drimbox.foundation.clock import FixedClock, SystemClock
from drimbox.foundation.errors import Misconfigured
from drimbox.national.dmp.actor import INDIRECT, VihfIdentity
from drimbox.publication.ports import Site, Sites
from drimbox.reports import hl7
from drimbox.reports.reading import read_report
from drimbox.reports.report import Coded, Report, Structure
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.ris import exams, letters
from drimbox.trust.keystore import load_credential
from drimbox.trust.profiles import Profile as Kind
from drimbox.trust.profiles import require_profile, told_by
from drimbox.trust.watch import TrustWatch

EG, EJ, OTHER = "1750803447", "1750000999", "1690000017"
NOW = dt.datetime.now(dt.UTC)
IDENTITY = VihfIdentity(
    "801234560801", "Jacques BIDEAULT", Coded("10", "x"), None, EG, "A", "SA05", INDIRECT, NOW, "urn:x"
)


def key_pair(pair: PemPair) -> KeyPair:
    return KeyPair(certificate=pair.certificate, key=pair.key)  # type: ignore[call-arg]


def section(auth: PemPair, sign: PemPair, **more: object) -> StructureSection:
    values: dict[str, object] = {"id": "ambroise", "name": "Ambroise", "identifier": EG, **more}
    return StructureSection(auth=key_pair(auth), sign=key_pair(sign), **values)  # type: ignore[arg-type]


@pytest.fixture
def trust(authority: TestAuthority) -> TrustWatch:
    return TrustWatch([authority.roots], authority.revocation_lists)


def problem(one: Served) -> str:
    """Why it cannot act, as the operator is told."""
    with pytest.raises(Misconfigured) as caught:
        one.actor(IDENTITY)
    assert caught.value.code == "structure-keys"
    assert "ambroise" in caught.value.reason
    assert "réessayez" in caught.value.reason
    return caught.value.reason


# --- what each pair is --------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.89")
def test_the_profiles_of_igc_sante_are_told_apart(pairs: dict[str, PemPair]) -> None:
    kinds = {"auth": Kind.AUTH, "sign": Kind.SIGN, "server": Kind.SERVER}
    for word, kind in kinds.items():
        loaded = load_credential(pairs[f"{word}-EG"].certificate, pairs[f"{word}-EG"].key)
        assert told_by(loaded.certificate) == {kind}
        require_profile(loaded, kind)
        for other in set(Kind) - {kind}:
            with pytest.raises(Misconfigured) as caught:
                require_profile(loaded, other)
            # It says what it should be and what it is.
            assert other.value in caught.value.reason
            assert kind.value in caught.value.reason


@pytest.mark.requirement("DB.SO.19", "DB.SO.89")
@pytest.mark.parametrize(
    ("mode", "pair", "unit", "good"),
    [
        ("EG", "EG", "", True),
        ("EG", "EJ", "", False),
        ("EJ/EG", "EJ", "", True),
        ("EJ/EG", "EG", "", False),
        ("EJ", "EJ", "", True),
        ("EJ", "EG", "", False),
        ("EG", "OTHER", "", False),
        ("EG", "OTHER", OTHER, True),
    ],
)
def test_the_certificate_is_that_of_the_mode(
    pairs: dict[str, PemPair], trust: TrustWatch, mode: str, pair: str, unit: str, good: bool
) -> None:
    settings = section(
        pairs[f"auth-{pair}"],
        pairs[f"sign-{pair}"],
        legal_identifier=EJ,
        identification=mode,
        certificate_unit=unit,
    )
    one = serve(settings, trust, SystemClock())
    if good:
        assert one.actor(IDENTITY).identity is IDENTITY
    else:
        assert "OU" in problem(one)
    assert one.in_submissions.identifier == (EJ if mode == "EJ" else EG)
    assert one.in_vihf == one.in_submissions


def test_the_vihf_of_mode_ej_eg_may_name_the_legal_entity(pairs: dict[str, PemPair], trust: TrustWatch) -> None:
    more = {"legal_identifier": EJ, "identification": "EJ/EG", "vihf_finess": "EJ"}
    one = serve(section(pairs["auth-EJ"], pairs["sign-EJ"], **more), trust, SystemClock())
    assert (one.in_submissions.identifier, one.in_vihf.identifier) == (EG, EJ)
    # The choice is for that mode alone.
    one = serve(
        section(pairs["auth-EG"], pairs["sign-EG"], vihf_finess="EJ", legal_identifier=EJ), trust, SystemClock()
    )
    assert (one.in_submissions.identifier, one.in_vihf.identifier) == (EG, EG)


# --- what cannot be used ------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.89")
def test_a_structure_says_why_it_cannot_act(
    pairs: dict[str, PemPair], trust: TrustWatch, authority: TestAuthority, tmp_path: Path
) -> None:
    auth, sign, server = pairs["auth-EG"], pairs["sign-EG"], pairs["server-EG"]

    def why(auth: PemPair, sign: PemPair) -> str:
        return problem(serve(section(auth, sign), trust, SystemClock()))

    assert "absent.key" in why(auth, PemPair(sign.certificate, tmp_path / "absent.key"))
    assert "n'est pas celle du certificat" in why(PemPair(auth.certificate, sign.key), sign)
    (tmp_path / "junk.pem").write_text("rien")
    assert "certificat lisible" in why(PemPair(tmp_path / "junk.pem", auth.key), sign)
    assert "SSL_SERV" in why(server, sign)
    assert "SSL_SERV" in why(auth, server)
    assert "ORG AUTH_CLI" in why(auth, auth)
    assert "ORG SIGN" in why(sign, sign)
    past = NOW - dt.timedelta(days=1)
    expired = authority.issue(
        Profile.ORG_SIGN,
        "structures-expired",
        common_name="DRIMbox",
        unit=EG,
        organisation="GROUPE",
        not_before=past - dt.timedelta(days=10),
        not_after=past,
    )
    assert "expiré" in why(auth, expired)


@pytest.mark.requirement("DB.SO.89")
def test_a_pair_that_ends_while_the_box_runs(pairs: dict[str, PemPair], trust: TrustWatch) -> None:
    clock = FixedClock(NOW)
    one = serve(section(pairs["auth-EG"], pairs["sign-EG"]), trust, clock)
    one.actor(IDENTITY)
    clock.advance(4 * 365 * 86400)
    assert "expirés depuis" in problem(one)


@pytest.mark.requirement("DB.SO.89")
def test_each_structure_stands_for_itself(pairs: dict[str, PemPair], trust: TrustWatch, tmp_path: Path) -> None:
    whole = serve(section(pairs["auth-EG"], pairs["sign-EG"]), trust, SystemClock())
    broken = serve(section(PemPair(tmp_path / "a", tmp_path / "b"), pairs["sign-EG"]), trust, SystemClock())
    assert broken.keys is None
    assert whole.actor(IDENTITY).sign.unit == EG
    problem(broken)


# --- the configuration --------------------------------------------------------------------------------------------

TEMPLATE = (
    """[box]
name = "a"

[trust]
roots = ["{roots}"]

[[structures]]
id = "ambroise"
name = "S"
identifier = "1750803447"
auth = {{ certificate = "{auth.certificate}", key = "{auth.key}" }}
sign = {{ certificate = "{sign.certificate}", key = "{sign.key}" }}

[[structures]]
id = "other"
name = "O"
identifier = "1690000017"
auth = {{ certificate = "{auth_b.certificate}", key = "{auth_b.key}" }}
sign = {{ certificate = "{sign_b.certificate}", key = "{sign_b.key}" }}

[[pacs]]
id = "p"
host = "127.0.0.1"
port = 4242
ae_title = "PACS"
senders = ["RIS-A"]
accession_issuers = ["1.2.250.1.1"]

"""
    + DOORS
    + """public_url = "https://db.example.test"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}

"""
    + NATIONAL
)


def written(tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair], **other: PemPair) -> Path:
    named = {
        "auth": pairs["auth-EG"],
        "sign": pairs["sign-EG"],
        "auth_b": pairs["auth-OTHER"],
        "sign_b": pairs["sign-OTHER"],
        "server": pairs["server-EG"],
        **other,
    }
    file = tmp_path / "box.toml"
    file.write_text(TEMPLATE.format(roots=authority.roots, **named), "utf-8")
    return file


def mistakes(file: Path) -> tuple[Mistake, ...]:
    try:
        load(file, {}, strict=True)
    except ConfigMistakes as error:
        return error.mistakes
    return ()


@pytest.mark.requirement("DB.SO.89", "DB.SO.04")
def test_a_right_configuration_passes(tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair]) -> None:
    file = written(tmp_path, authority, pairs)
    assert mistakes(file) == ()
    [pacs] = load(file, {}).pacs
    assert (pacs.senders, pacs.accession_issuers) == (("RIS-A",), ("1.2.250.1.1",))


@pytest.mark.requirement("DB.SO.89")
@pytest.mark.parametrize(
    ("place", "given", "where", "words"),
    [
        ("auth", "server-EG", "structures[0].auth", "SSL_SERV"),
        ("sign", "server-EG", "structures[0].sign", "SSL_SERV"),
        ("sign", "auth-EG", "structures[0].sign", "ORG AUTH_CLI"),
        ("auth", "sign-EG", "structures[0].auth", "ORG SIGN"),
        ("auth_b", "auth-EG", "structures[1].auth", "1750803447"),
        ("sign_b", "sign-EJ", "structures[1].sign", "1750000999"),
    ],
)
def test_the_check_refuses_a_pair_in_the_wrong_place(
    tmp_path: Path,
    authority: TestAuthority,
    pairs: dict[str, PemPair],
    place: str,
    given: str,
    where: str,
    words: str,
) -> None:
    file = written(tmp_path, authority, pairs, **{place: pairs[given]})
    [mistake] = mistakes(file)
    assert mistake.setting == where
    assert words in mistake.problem
    assert mistake.remedy.startswith("Installez")
    line = file.read_text("utf-8").splitlines()[(mistake.line or 0) - 1]
    assert line.startswith(place[:4])
    # And the box starts all the same: it is for that structure alone.
    assert [s.id for s in load(file, {}).structures] == ["ambroise", "other"]


@pytest.mark.parametrize("given", ["auth-EG", "sign-EG"])
def test_a_listener_asks_for_a_server_certificate(
    tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair], given: str
) -> None:
    file = written(tmp_path, authority, pairs, server=pairs[given])
    with pytest.raises(ConfigMistakes) as caught:
        load(file, {})
    [mistake] = caught.value.mistakes
    assert mistake.setting == "source.wado.tls"


@pytest.mark.parametrize("what", ["certificate", "key", "password_file"])
def test_a_file_that_is_gone_stops_that_structure_alone(
    tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair], what: str
) -> None:
    copy = PemPair(tmp_path / "b.pem", tmp_path / "b.key")
    shutil.copy(pairs["sign-OTHER"].certificate, copy.certificate)
    shutil.copy(pairs["sign-OTHER"].key, copy.key)
    file = written(tmp_path, authority, pairs, sign_b=copy)
    assert mistakes(file) == ()
    if what == "password_file":
        text = file.read_text("utf-8").replace('b.key"', f'b.key", password_file = "{tmp_path / "gone"}"')
        file.write_text(text, "utf-8")
    else:
        getattr(copy, what).unlink()
    assert [m.setting for m in mistakes(file)] == [f"structures[1].sign.{what}"]
    settings = load(file, {})
    trust = TrustWatch([authority.roots])
    served = [serve(s, trust, SystemClock()) for s in settings.structures]
    assert [s.keys is None for s in served] == [False, True]


def test_two_structures_of_one_identifier_are_a_mistake(
    tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair]
) -> None:
    file = written(tmp_path, authority, pairs)
    file.write_text(file.read_text("utf-8").replace("1690000017", "1750803447"), "utf-8")
    assert any("même identifier" in m.problem for m in mistakes(file))


def test_a_finess_without_its_type_is_a_mistake(
    tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair]
) -> None:
    file = written(tmp_path, authority, pairs)
    file.write_text(file.read_text("utf-8").replace('"1750803447"', '"750803447"'), "utf-8")
    assert any("chiffre de type" in m.problem for m in mistakes(file))


# --- whose report it is -------------------------------------------------------------------------------------------


def report(cda: str, prt: str | None) -> Report:
    letter = letters.Letter(exams.exam("E"), "M", structure=cda)
    data = letters.oru(letter, NOW)
    own = (cda[1:] if cda.startswith("1") else cda).encode()
    data = data.replace(b"^FINEG^^^" + own, b"^FINEG^^^" + prt.encode() if prt else b"^FINEG^^^")
    return read_report(hl7.parse(data))


@pytest.mark.requirement("DB.SO.19", "DB.SO.89")
def test_the_publisher_is_the_signatory_s_structure_else_the_sender_s() -> None:
    first, second = (Site(name, Structure(name), ()) for name in ("first", "second"))
    sites = Sites([(first, [EG, EJ, "1111111111"]), (second, [OTHER, EJ])])
    assert sites.publisher(report(EG, "690000017")) is first
    assert sites.publisher(report(OTHER, "750803447")) is second
    assert sites.publisher(report("1999999999", "690000017")) is second
    assert sites.publisher(report("1111111111", None)) is first
    # The legal entity of both names neither: the sender does.
    assert sites.publisher(report(EJ, "690000017")) is second
    for told, code in (((EJ, None), "structure-ambiguous"), (("1999999999", "999999999"), "structure-unknown")):
        with pytest.raises(Misconfigured) as caught:
            sites.publisher(report(*told))
        assert caught.value.code == code
        assert sites.of(report(*told)) is None


def test_a_structure_s_own_identifier_goes_before_a_name_that_another_gives_itself() -> None:
    first, second = (Site(name, Structure(name), ()) for name in ("first", "second"))
    sites = Sites([(first, [EG, OTHER]), (second, [OTHER])])
    assert sites.publisher(report(OTHER, None)) is second


@pytest.mark.requirement("DB.SO.89")
def test_the_command_says_what_is_wrong(tmp_path: Path, authority: TestAuthority, pairs: dict[str, PemPair]) -> None:
    right = CliRunner().invoke(main, ["config", "check", str(written(tmp_path, authority, pairs))])
    assert (right.exit_code, right.output) == (0, "box.toml : configuration correcte\n")
    wrong = CliRunner().invoke(
        main, ["config", "check", str(written(tmp_path, authority, pairs, sign_b=pairs["server-EG"]))]
    )
    assert wrong.exit_code == 1
    assert "structures[1].sign" in wrong.output
    assert "SSL_SERV" in wrong.output
    assert "Installez une paire valide" in wrong.output
