"""The rules of the programme: a certificate that keeps them passes, each breach is one French sentence."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from certificates.strict_ca import DAY, OV, Issuer, issue, make_issuer
from drimbox.certificates.requests import KEY_KINDS, new_key, signing_request
from drimbox.certificates.rules import Rules, RulesBroken, check, host_breaches, request_breaches

HOST = "vi1.test.mesimagesmedicales.fr"
NOW = dt.datetime.now(dt.UTC)
ROOT = make_issuer("Racine")
INTERMEDIATE = make_issuer("Intermédiaire", ROOT)
KEY = ec.generate_private_key(ec.SECP256R1())
WEAK_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
RULES = Rules(HOST, (ROOT.certificate,))
NAME = [x509.DNSName(HOST)]


def breaches(*chain: x509.Certificate, rules: Rules = RULES, key: Any = KEY, now: dt.datetime = NOW) -> list[str]:
    """The codes of what is broken; each has a sentence that ends, in one piece."""
    try:
        check(chain, key, rules, now)
    except RulesBroken as error:
        for breach in error.breaches:
            assert breach.text[0].isupper() or breach.text[0] == "«", breach.text
            assert breach.text.endswith(".")
            assert ". " not in breach.text.replace("…. ", "").removesuffix(".") or breach.code == "chain"
        return [breach.code for breach in error.breaches]
    return []


def made(
    names: list[x509.GeneralName] | None = None, issuer: Issuer = INTERMEDIATE, **options: Any
) -> x509.Certificate:
    key = options.pop("key", KEY)
    return issue(issuer, key.public_key(), NAME if names is None else names, **options)


def served(**options: Any) -> list[str]:
    return breaches(made(**options), INTERMEDIATE.certificate)


@pytest.mark.requirement("DB.SO.90", "DB.VI-CS.02")
def test_a_certificate_as_the_programme_asks_passes() -> None:
    for kind in KEY_KINDS:
        key = new_key(kind)
        leaf = made(key=key)
        found = check([leaf, INTERMEDIATE.certificate], key, RULES, NOW)
        assert (found.certificate, found.chain, found.root) == (leaf, (INTERMEDIATE.certificate,), ROOT.certificate)
    assert served(policy=OV) == []
    assert served(cn="") == []
    # The root may come along, and the chain in any order.
    second = make_issuer("Seconde", INTERMEDIATE)
    leaf = made(issuer=second)
    found = check([leaf, ROOT.certificate, INTERMEDIATE.certificate, second.certificate], KEY, RULES, NOW)
    assert found.chain == (second.certificate, INTERMEDIATE.certificate)


@pytest.mark.requirement("DB.SO.90", "DB.VI-CS.02")
@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (["name"], [x509.DNSName("vi2.test.mesimagesmedicales.fr")]),
        (["wildcard", "name"], [x509.DNSName("*.test.mesimagesmedicales.fr")]),
        (["several"], [x509.DNSName(HOST), x509.DNSName("www." + HOST)]),
        (["wildcard", "several"], [x509.DNSName(HOST), x509.DNSName("*." + HOST)]),
        (["several"], [x509.DNSName(HOST), x509.DNSName(HOST)]),
        (["several"], [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]),
        (["several"], [x509.DNSName(HOST), x509.RFC822Name("a@example.org")]),
        (["name", "several"], [x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]),
        (["name", "several"], [x509.UniformResourceIdentifier(f"https://{HOST}")]),
        (["name"], []),
    ],
)
def test_exactly_one_name_and_that_of_the_agency(broken: list[str], names: list[x509.GeneralName]) -> None:
    assert breaches(made(names, cn=HOST), INTERMEDIATE.certificate) == broken


@pytest.mark.requirement("DB.SO.90")
@pytest.mark.parametrize(
    ("broken", "options"),
    [
        (["common-name"], {"cn": "autre.example.org"}),
        (["level"], {"policy": "2.23.140.1.2.3"}),
        (["level"], {"policy": "2.23.140.1.1"}),
        (["level"], {"policy": ""}),
        (["level"], {"policy": "1.2.250.1.213.1.1"}),
        (["purpose"], {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH]}),
        (["purpose"], {"purposes": []}),
        (["purpose"], {"ca": True}),
        (["expired"], {"start": NOW - 100 * DAY, "end": NOW - DAY}),
        (["not-yet"], {"start": NOW + DAY}),
        (["level", "expired"], {"policy": "", "start": NOW - 100 * DAY, "end": NOW - DAY}),
    ],
)
def test_what_else_a_certificate_may_break(broken: list[str], options: dict[str, Any]) -> None:
    assert served(**options) == broken


@pytest.mark.requirement("DB.SO.90")
def test_weak_keys_and_digests_are_refused() -> None:
    assert breaches(made(key=WEAK_RSA), INTERMEDIATE.certificate, key=WEAK_RSA) == ["key-size"]
    small = ec.generate_private_key(ec.SECP224R1())
    assert breaches(made(key=small), INTERMEDIATE.certificate, key=small) == ["key-size"]
    other = ed25519.Ed25519PrivateKey.generate()
    assert breaches(made(key=other), INTERMEDIATE.certificate, key=other) == ["key-size"]
    assert breaches(sha1_certificate(), INTERMEDIATE.certificate, now=dt.datetime.now(dt.UTC)) == ["hash"]


@pytest.mark.requirement("DB.SO.90")
def test_the_chain_must_be_complete_and_the_key_must_match() -> None:
    leaf = made()
    assert breaches(leaf) == ["chain"]
    assert breaches(leaf, make_issuer("Intermédiaire", ROOT).certificate) == ["chain"]
    assert breaches(leaf, INTERMEDIATE.certificate, key=ec.generate_private_key(ec.SECP256R1())) == ["key"]
    stranger = make_issuer("Racine")
    assert breaches(leaf, INTERMEDIATE.certificate, rules=Rules(HOST, (stranger.certificate,))) == ["chain"]
    # A root that came along proves nothing.
    own = make_issuer("Racine à nous")
    assert breaches(made(issuer=own), own.certificate) == ["chain"]
    late = make_issuer("Vieille", ROOT, start=NOW - 100 * DAY, end=NOW - DAY)
    assert breaches(made(issuer=late), late.certificate) == ["chain"]
    leaf_as_ca = Issuer(made(), KEY)
    assert "chain" in breaches(made(issuer=leaf_as_ca, key=KEY), leaf_as_ca.certificate, INTERMEDIATE.certificate)
    short = make_issuer("Courte", ROOT, path_length=0)
    below = make_issuer("Dessous", short)
    assert breaches(made(issuer=below), below.certificate, short.certificate) == ["chain"]
    assert breaches() == ["empty"]


def test_a_chain_that_turns_in_circles_ends() -> None:
    first = make_issuer("Un")
    second = make_issuer("Deux", first)
    again = issue_ca(first, second)
    assert breaches(made(issuer=second), second.certificate, again, second.certificate) == ["chain"]


@pytest.mark.requirement("DB.SO.90")
def test_nothing_that_is_forbidden_is_asked_for() -> None:
    for kind in KEY_KINDS:
        request = signing_request(new_key(kind), RULES)
        assert request_breaches(request, RULES) == []
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == NAME
    told = signing_request(new_key("P-256"), RULES, "Centre d'imagerie de l'Étoile")
    organisation = told.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [a.value for a in organisation] == ["Centre d'imagerie de l'Étoile"]
    for host in ("*.test.mesimagesmedicales.fr", "vi1", "192.0.2.1", "VI1.test.mesimagesmedicales.fr", "", "a..b.c"):
        with pytest.raises(RulesBroken) as broken:
            signing_request(new_key("P-256"), Rules(host, ()))
        assert broken.value.breaches
    assert [b.code for b in request_breaches(signing_request(WEAK_REQUEST_KEY, RULES), RULES)] == []
    others = x509.SubjectAlternativeName([x509.DNSName(HOST), x509.DNSName("autre.example.org")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(others, critical=False)
    assert [b.code for b in request_breaches(asked.sign(KEY, hashes.SHA256()), RULES)] == ["several"]
    assert [b.code for b in request_breaches(asked.sign(WEAK_RSA, hashes.SHA256()), RULES)] == ["several", "key-size"]


@given(st.text(max_size=80))
def test_any_text_is_a_host_or_is_refused_with_a_sentence(host: str) -> None:
    for breach in host_breaches(host):
        assert breach.text.endswith(".")
    if not host_breaches(host):
        assert host.isascii()
        assert host == host.lower()
        assert "*" not in host


WEAK_REQUEST_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def issue_ca(signed: Issuer, signer: Issuer) -> x509.Certificate:
    """Another certificate of an authority, by one that it issued itself."""
    return (
        x509.CertificateBuilder()
        .subject_name(signed.certificate.subject)
        .issuer_name(signer.certificate.subject)
        .public_key(signed.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(signer.key, hashes.SHA256())
    )


def sha1_certificate() -> x509.Certificate:
    """Signed with SHA-1 by OpenSSL, which the library no longer does; with the same issuer and key."""
    import subprocess
    import tempfile
    from pathlib import Path

    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = INTERMEDIATE.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "ca.key").write_bytes(key)
        (folder / "ca.pem").write_bytes(INTERMEDIATE.certificate.public_bytes(Encoding.PEM))
        (folder / "csr.pem").write_bytes(signing_request(KEY, RULES).public_bytes(Encoding.PEM))
        (folder / "ext").write_text(
            f"basicConstraints=CA:false\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:{HOST}\n"
            "certificatePolicies=2.23.140.1.2.1\nauthorityKeyIdentifier=keyid\n"
        )
        subprocess.run(
            [
                *("openssl", "x509", "-req", "-sha1", "-days", "30", "-in", "csr.pem", "-CA", "ca.pem"),
                *("-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext", "-out", "leaf.pem"),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        return x509.load_pem_x509_certificate((folder / "leaf.pem").read_bytes())
