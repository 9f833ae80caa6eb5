"""A key in a PKCS#11 token: it signs VIHF and submission sets end to end, it never comes out, and it is no TLS key."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import hashlib
import os
import pickle
import shutil
import ssl
import subprocess
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from lxml import etree
from soft_token import AVAILABLE, MODULE, PIN, SoftToken

from drimbox.cli import main
from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.national.dmp import codes, vihf, xades
from drimbox.national.dmp.actor import INDIRECT, Actor, Software, VihfIdentity
from drimbox.reports.report import Coded
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.fitness import Demand, breaches_of
from drimbox.trust.keystore import Credential
from drimbox.trust.pairs import PairSource
from drimbox.trust.profiles import Profile as Place
from drimbox.trust.tls import client_context, load_trust
from drimbox.trust.token import TokenKey, TokenPlace, Tokens
from keyring.keyring_world import PASSWORD, TEMPLATE, as_pkcs12

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="SoftHSM and OpenSC are not installed")
TOOL = shutil.which("pkcs11-tool") or ""
XMLSEC = shutil.which("xmlsec1")


@pytest.fixture(scope="module")
def soft(
    tmp_path_factory: pytest.TempPathFactory, pki: TestAuthority, sign: PemPair, auth: PemPair
) -> Iterator[SoftToken]:
    """One for the module: SoftHSM reads its configuration once in a process."""
    token = SoftToken(tmp_path_factory.mktemp("token"))
    token.begin()
    token.initialise()
    token.initialise("fresh")
    token.put(sign, "sign", "01")
    token.put(auth, "auth", "02")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(token.configuration)
    yield token
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture
def credential(soft: SoftToken) -> Credential:
    return Tokens().credential(soft.place("sign"))


class Make(Protocol):
    def __call__(self, pki: TestAuthority, profile: Profile, name: str) -> PemPair: ...


def xmlsec1(file: Path, certificate: Path, *more: str) -> bool:
    assert XMLSEC is not None
    command = [XMLSEC, "--verify", "--ignore-manifests", "--pubkey-cert-pem", str(certificate), *more, str(file)]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


@pytest.mark.requirement("DB.SO.19", "DB.SO.89", "D12")
@pytest.mark.skipif(XMLSEC is None, reason="xmlsec1 is not installed")
@pytest.mark.parametrize("algorithm", ["rsa-sha256", "rsa-sha1"])
def test_a_vihf_signed_in_the_token_is_right_to_xmlsec1(
    credential: Credential, sign: PemPair, tmp_path: Path, algorithm: vihf.xmldsig.Algorithm
) -> None:
    now = dt.datetime.now(dt.UTC)
    identity = VihfIdentity(
        "801234560801",
        "Jacques BIDEAULT",
        Coded("10", "1.2.250.1.71.1.2.7", "Médecin"),
        Coded("SM44", "1.2.250.1.71.4.2.5", "Radiologie"),
        "1750803447",
        "Centre",
        "SA05",
        INDIRECT,
        now,
        "urn:oasis:names:tc:SAML:2.0:ac:classes:TLSClient",
    )
    actor = Actor(identity, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), credential)
    patient = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
    root = vihf.assertion(actor, patient, Software("drimbox", "1", "X"), version="3.0", now=now)
    vihf.sign(root, credential, algorithm)
    file = tmp_path / "vihf.xml"
    file.write_bytes(etree.tostring(root))
    declared = ("--id-attr:ID", f"{codes.SAML}:Assertion")
    assert xmlsec1(file, sign.certificate, *declared)
    file.write_bytes(etree.tostring(root).replace(b"801234560801", b"801234560802"))
    assert not xmlsec1(file, sign.certificate, *declared)


@pytest.mark.requirement("DB.SO.19", "D13")
@pytest.mark.skipif(XMLSEC is None, reason="xmlsec1 is not installed")
def test_a_submission_set_signed_in_the_token_is_right_to_xmlsec1(
    credential: Credential, sign: PemPair, tmp_path: Path
) -> None:
    signed = xades.sign_submission(
        "1.2.3.5",
        [("1.2.3.4", b"KOS")],
        signature_uid=new_uid(),
        credential=credential,
        algorithm="rsa-sha256",
        now=dt.datetime.now(dt.UTC),
    )
    file = tmp_path / "xades.xml"
    file.write_bytes(signed)
    ids = []
    for name in (f"{codes.DS}:Manifest", f"{codes.XADES}:SignedProperties", f"{codes.DS}:Signature"):
        ids += ["--id-attr:Id", name]
    assert xmlsec1(file, sign.certificate, *ids)
    assert b"KOS" not in signed
    file.write_bytes(signed.replace(b"urn:oid:1.2.3.4", b"urn:oid:1.2.3.6"))
    assert not xmlsec1(file, sign.certificate, *ids)


def test_the_token_makes_the_same_signature_as_the_file(credential: Credential, sign: PemPair) -> None:
    in_file = PairSource(sign.certificate, sign.key).read(Tokens())
    assert isinstance(credential.key, TokenKey)
    assert credential.certificate == in_file.certificate
    for digest in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512(), hashes.SHA1()):
        # PKCS#1 v1.5 leaves nothing to chance.
        assert credential.key.sign(b"x", padding.PKCS1v15(), digest) == in_file.key.sign(
            b"x", padding.PKCS1v15(), digest
        )  # type: ignore[call-arg,arg-type]


@pytest.mark.requirement("DB.CS.83")
def test_the_key_does_not_come_out(credential: Credential, sign: PemPair) -> None:
    key = credential.key
    assert isinstance(key, TokenKey)
    for attempt in (
        lambda: key.private_numbers(),
        lambda: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        lambda: key.decrypt(b"x", padding.PKCS1v15()),
        lambda: pickle.dumps(key),
        lambda: key.sign(b"x", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
    ):
        with pytest.raises(Misconfigured):
            attempt()
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    assert PIN.decode() not in repr(credential) + repr(key) + repr(vars(key)["_session"].place)


@pytest.mark.requirement("DB.SO.89")
def test_a_token_cannot_hold_a_tls_connection_and_says_so(soft: SoftToken, pki: TestAuthority, auth: PemPair) -> None:
    held = Tokens().credential(soft.place("auth"))
    trust = load_trust([pki.roots])
    with pytest.raises(Misconfigured, match="jeton PKCS#11") as refused:
        client_context(trust, held)
    assert "nginx" in refused.value.reason
    found = breaches_of(held, Demand(Place.AUTH, trust=trust), dt.datetime.now(dt.UTC))
    assert [breach.code for breach in found] == ["token"]
    # The reason itself: OpenSSL, as Python drives it, takes a key from a file and from nothing else.
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for address in ("pkcs11:token=DRIMbox;object=auth", "engine:pkcs11:pkcs11:token=DRIMbox;object=auth"):
        with pytest.raises(FileNotFoundError):
            plain.load_cert_chain(auth.certificate, address)


def test_what_is_wrong_with_a_token_is_named(soft: SoftToken, auth: PemPair, tmp_path: Path) -> None:
    def why(place: TokenPlace) -> str:
        with pytest.raises(Misconfigured) as caught:
            Tokens().credential(place)
        assert "246813" not in "".join(traceback.format_exception(caught.value))
        return caught.value.reason

    assert "module PKCS#11" in why(dataclasses.replace(soft.place("sign"), module=tmp_path / "absent.so"))
    assert "Aucun jeton" in why(dataclasses.replace(soft.place("sign"), token="autre"))
    assert "Aucune clé privée" in why(soft.place("autre"))
    assert "n'est pas celle du certificat" in why(soft.place("sign", certificate=auth.certificate))


def test_a_wrong_pin_is_tried_once(soft: SoftToken) -> None:
    """A token locks itself after a few wrong PINs: looking at it every few seconds must not do that."""
    tokens = Tokens()
    # Whoever is logged in is so for the whole process: one that nobody used yet.
    place = dataclasses.replace(soft.place("sign", pin=b"000000"), token="fresh")
    for _ in range(50):
        with pytest.raises(Misconfigured, match="Le PIN du jeton fresh est faux"):
            tokens.credential(place)
    # The token took no more than that one try for a wrong one.
    told = subprocess.run([TOOL, "--module", str(MODULE), "-L"], capture_output=True, text=True, check=True, timeout=30)
    assert "locked" not in told.stdout.partition("fresh")[2].partition("Slot")[0]
    with pytest.raises(Misconfigured, match="Aucune clé privée"):
        tokens.credential(dataclasses.replace(place, pin=PIN))


def test_many_threads_sign_and_a_lost_session_is_opened_again(credential: Credential) -> None:
    key = credential.key
    assert isinstance(key, TokenKey)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: key.sign(b"%d" % (n % 4), padding.PKCS1v15(), hashes.SHA256()), range(64)))
    assert len({hashlib.sha256(one).digest() for one in made}) == 4
    # As when a card is taken out and put back: every session of the process is gone.
    key._session._opened.close()
    assert key.sign(b"0", padding.PKCS1v15(), hashes.SHA256()) == made[0]


def test_a_key_that_is_gone_is_said_to_be(soft: SoftToken, pki: TestAuthority, make: Make) -> None:
    other = make(pki, Profile.ORG_SIGN, "gone")
    soft.put(other, "gone", "03")
    held = Tokens().credential(soft.place("gone"))
    assert isinstance(held.key, TokenKey)
    for kind in ("privkey", "pubkey"):
        command = [TOOL, "--module", str(MODULE), "--token-label", soft.name, "--login", "--pin", PIN.decode()]
        subprocess.run(
            [*command, "--delete-object", "--type", kind, "--id", "03"], check=False, capture_output=True, timeout=30
        )
    with pytest.raises((Unavailable, Misconfigured)) as caught:
        held.key.sign(b"x", padding.PKCS1v15(), hashes.SHA256())
    assert caught.value.reason


@pytest.mark.requirement("DB.SO.89")
def test_the_configuration_takes_a_token_for_the_seal_alone(
    soft: SoftToken, pki: TestAuthority, server: PemPair, tmp_path: Path
) -> None:
    held = {
        "auth": pki.issue(Profile.ORG_AUTH_CLI, "config-auth", common_name="D", unit="1750803447", organisation="S"),
        "sign": pki.issue(Profile.ORG_SIGN, "config-sign", common_name="D", unit="1750803447", organisation="S"),
    }
    soft.put(held["sign"], "config", "0a")
    soft.put(held["auth"], "config-auth", "0b")
    (tmp_path / "dsn").write_text("")
    (tmp_path / "pin").write_bytes(PIN + b"\n")
    (tmp_path / "password").write_bytes(PASSWORD)
    (tmp_path / "auth.p12").write_bytes(as_pkcs12(held["auth"]))
    box = tmp_path / "box.toml"

    def check(text: str) -> str:
        box.write_text(text.replace("db1.111.mesimagesmedicales.fr", "db.example.org"))
        done = CliRunner().invoke(main, ["config", "check", str(box)])
        assert "246813" not in done.output
        return done.output

    token = f'module = "{MODULE}", token = "{soft.name}", token_key = "%s", pin_file = "pin"'
    in_file = TEMPLATE.format(roots=pki.roots, sign=held["sign"], server=server)
    before, sign, rest = in_file.partition("sign = { ")
    sealed = before + sign + token % "config" + rest[rest.index(" }") :]
    assert check(sealed) == "box.toml : configuration correcte\n"
    before, auth, rest = sealed.partition("auth = { ")
    told = check(before + auth + token % "config-auth" + rest[rest.index(" }") :])
    assert "structures[0].auth" in told
    assert "que le TLS de Python ne sait pas utiliser" in told
    assert "module, token, token_key et pin_file" in check(sealed.replace(', pin_file = "pin"', ""))
