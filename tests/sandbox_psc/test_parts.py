"""The parts that need no listener."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Refused
from drimbox.sandbox.forms import once_each
from drimbox.sandbox.pki import PemPair
from drimbox.sandbox.psc.clients import Client, authenticate, same_subject
from drimbox.sandbox.psc.tokens import Mint

from .conftest import RETURN, SUBJECT


def test_a_registration_must_make_sense() -> None:
    with pytest.raises(ValueError, match="secret or a certificate"):
        Client("x", "X", (RETURN,))
    with pytest.raises(ValueError, match="secret or a certificate"):
        Client("x", "X", (RETURN,), secret="s", certificate_subject=SUBJECT)
    with pytest.raises(ValueError, match="not a distinguished name"):
        Client("x", "X", (RETURN,), certificate_subject="pas un DN")
    assert "s3cret" not in repr(Client("x", "X", (RETURN,), secret="s3cret"))


def test_the_signing_key_is_kept_and_closed(tmp_path: Path) -> None:
    first = Mint("https://x", SystemClock(), tmp_path / "psc")
    again = Mint("https://x", SystemClock(), tmp_path / "psc")
    assert first.public_keys() == again.public_keys()
    assert set(first.public_keys()["keys"][0]) == {"kty", "n", "e", "kid", "use", "alg"}
    [key] = (tmp_path / "psc").iterdir()
    assert key.stat().st_mode & 0o077 == 0


@pytest.fixture(scope="module")
def mint(key_folder: Path) -> Mint:
    return Mint("https://localhost/auth/realms/esante-wallet", SystemClock(), key_folder)


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=300) | st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]*", fullmatch=True))
def test_no_text_is_taken_for_a_token(mint: Mint, text: str) -> None:
    assert mint.read(text, "Bearer", "Refresh", "ID") is None


@settings(max_examples=150, deadline=None)
@given(
    header=st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60)
    | st.binary(max_size=60).map(lambda raw: "Basic " + base64.b64encode(raw).decode()),
    form=st.dictionaries(st.sampled_from(["client_id", "client_secret"]), st.text(max_size=20)),
)
def test_no_text_proves_a_client(header: str, form: dict[str, str]) -> None:
    request = Request({"type": "http", "headers": [(b"authorization", header.encode("latin-1"))]})
    clients = {"x": Client("x", "X", (RETURN,), secret="a secret of sixty characters at least, that nobody will guess")}
    with pytest.raises(Refused) as refused:
        authenticate(request, form, clients)
    assert refused.value.code in ("invalid_client", "invalid_request")


@given(st.permutations(SUBJECT.split(",")))
def test_a_subject_is_the_same_in_any_order(operator: PemPair, parts: list[str]) -> None:
    der = x509.load_pem_x509_certificate(operator.certificate.read_bytes()).public_bytes(serialization.Encoding.DER)
    assert same_subject(der, ",".join(parts))
    assert not same_subject(der, ",".join(parts[1:]))
    assert not same_subject(der, ",".join([*parts, "OU=300000000000000"]))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3)), max_size=4))
def test_a_parameter_comes_once(pairs: list[tuple[str, str]]) -> None:
    if len({name for name, _ in pairs}) == len(pairs):
        assert once_each(pairs) == dict(pairs)
    else:
        with pytest.raises(Refused):
            once_each(pairs)
