"""What an authority answers, read: the shapes of RFC 8555, and any JSON or octets at all."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from certificates.strict_ca import identifier_of, issue, make_issuer, thumbprint, verify
from drimbox.certificates.acme import jose, messages
from drimbox.certificates.acme.client import renewal_identifier
from drimbox.certificates.acme.messages import Problem
from drimbox.certificates.acme.refusals import refusal
from drimbox.foundation.errors import Busy, DrimboxError, Misconfigured, Rejected, Unavailable

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                (
                    *("status", "identifiers", "authorizations", "finalize", "certificate", "error", "type", "value"),
                    *("challenges", "url", "token", "identifier", "suggestedWindow", "start", "end", "meta", "detail"),
                    *("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "subproblems", "profiles"),
                )
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


def readings(body: bytes) -> None:
    """Every reader either reads or says that it cannot."""
    for read in (messages.directory, messages.order, messages.authorization, window):
        assert refused_code(read, body) in ("", "acme-syntax")
    found = messages.problem(body)
    assert len(found.told) < 1000
    assert found.told.isprintable()


def window(body: bytes) -> None:
    found = messages.renewal_window(body, NOW)
    assert found.start < found.end


def refused_code(read: Callable[[bytes], object], body: bytes) -> str:
    """Why a reader refuses, empty when it does not."""
    try:
        read(body)
    except Rejected as error:
        return error.code
    return ""


@given(JSON)
def test_any_json_is_read_or_refused(found: Any) -> None:
    readings(json.dumps(found).encode())


@given(st.binary(max_size=300))
def test_any_octets_are_read_or_refused(body: bytes) -> None:
    readings(body)


def test_deep_and_long_answers_are_refused() -> None:
    readings(b"[" * 100_000)
    readings(b'{"a":' * 50_000)
    many = {"status": "pending", "identifiers": [], "authorizations": ["https://a.example/1"] * 1000, "finalize": ""}
    with pytest.raises(Rejected):
        messages.order(json.dumps(many).encode())
    readings(b'{"x": ' + b"9" * 5000 + b"}")


@pytest.mark.parametrize(
    "url",
    [
        *("http://a.example/", "https://", "//a.example", "file:///etc/passwd", "https://a.example/é", "", None, 7),
        *("https://a.example/\r\nX: y", "https://[::1", "https://a.example/" + "x" * 3000, "javascript:alert(1)"),
    ],
)
def test_only_https_is_followed(url: object) -> None:
    with pytest.raises(Rejected):
        messages.https_url(url)


def test_problems_become_what_a_caller_can_do() -> None:
    def met(status: int, kind: str = "", wait: float | None = None) -> DrimboxError:
        return refusal(status, Problem(kind, "words"), wait)

    assert isinstance(met(429), Busy)
    limited = met(400, "rateLimited", 1e9)
    assert isinstance(limited, Busy)
    assert limited.retry_after == 7 * 86400
    assert isinstance(met(503), Unavailable)
    assert isinstance(met(503, wait=120), Busy)
    assert isinstance(met(500, "serverInternal"), Unavailable)
    assert isinstance(met(403, "externalAccountRequired"), Misconfigured)
    assert isinstance(met(403, "userActionRequired"), Misconfigured)
    for kind in ("caa", "dns", "connection", "unauthorized", "rejectedIdentifier", "badCSR", "unheardOf"):
        error = met(403, kind)
        assert isinstance(error, Rejected)
        assert error.peer_code == f"{kind}: words"
        assert not error.reason.endswith(".")
    compound = {"type": "urn:ietf:params:acme:error:compound", "subproblems": [{"type": "x:caa", "detail": "no"}]}
    assert messages.problem(json.dumps(compound).encode()).kind == "caa"


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
def test_requests_are_signed_as_another_verifies_it(kind: str) -> None:
    key: Any = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if kind == "RSA"
        else ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())
    )
    for payload in ({"a": "é"}, None, {}):
        message = json.loads(jose.signed(key, "https://a.example/x", payload, nonce="n"))
        protected = json.loads(base64.urlsafe_b64decode(message["protected"] + "=="))
        verify(message, protected["alg"], protected["jwk"])
        assert set(protected) == {"alg", "jwk", "nonce", "url"}
        assert set(protected["jwk"]) in ({"crv", "kty", "x", "y"}, {"e", "kty", "n"})
        assert (message["payload"] == "") == (payload is None)
    assert jose.key_authorization("token", key) == f"token.{thumbprint(jose.public_jwk(key))}"


@given(st.integers(1, 2**159 - 1) | st.sampled_from((127, 128, 255, 256, 2**159 - 1)))
def test_a_certificate_is_named_as_in_its_own_octets(serial: int) -> None:
    leaf = issue(ISSUER, KEY.public_key(), [x509.DNSName("a.example.org")], serial=serial)
    assert renewal_identifier(leaf) == identifier_of(leaf)


def test_the_example_of_the_standard() -> None:
    """RFC 9773 4.1: authority key identifier 69:88:5B:..., serial number 00:87:65:43:21."""
    key_id = bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
    serial = 0x87654321
    expected = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    assert f"{jose.b64url(key_id)}.{jose.b64url(serial.to_bytes(serial.bit_length() // 8 + 1, 'big'))}" == expected
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
        .sign(KEY, ISSUER.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    assert renewal_identifier(made) == expected


ISSUER = make_issuer("Racine")
KEY = ec.generate_private_key(ec.SECP256R1())
