"""Distinguished names: the whitelist's hand-written text against what certificates hold."""

import contextlib
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Refused
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust import names
from drimbox.trust.names import same_dn

DN = "CN=db3.test.mesimagesmedicales.fr,OU=318751275100020,O=CENTRE D'IMAGERIE,ST=Côte-d'Or (21),C=FR"


@pytest.fixture(scope="module")
def der(pki: TestAuthority) -> bytes:
    pair = pki.issue(
        Profile.ORG_AUTH_CLI,
        "db3",
        common_name="db3.test.mesimagesmedicales.fr",
        unit="318751275100020",
        organisation="CENTRE D'IMAGERIE",
        place="Côte-d'Or (21)",
    )
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_bytes(Encoding.DER)


@pytest.mark.requirement("D15")
@pytest.mark.parametrize(
    "dn",
    [
        DN,
        DN.replace(",", ", "),
        ",".join(reversed(DN.split(","))),
        "C=FR; O=CENTRE D'IMAGERIE; CN=db3.test.mesimagesmedicales.fr; ST=Côte-d'Or (21); OU=318751275100020",
        DN.replace("ST=", "S="),
        DN.replace("CN=", "2.5.4.3=").replace("OU=", "oid.2.5.4.11="),
        DN.replace("Côte", "Co\u0302te"),
        DN.replace("Côte", "C\\C3\\B4te"),
        DN.replace("O=CENTRE D'IMAGERIE", 'O="CENTRE D\'IMAGERIE"'),
        DN.lower(),
        f"\n  {DN}\t".replace("CENTRE D", "CENTRE  \n D"),
    ],
)
def test_the_same_name_however_it_is_written(der: bytes, dn: str) -> None:
    assert same_dn(der, dn)


@pytest.mark.requirement("D15")
@pytest.mark.parametrize(
    "dn",
    [
        "",
        "CN",
        "CN=db3.test.mesimagesmedicales.fr",
        DN.replace("db3", "db30"),
        DN.replace("318751275100020", "318751275100021"),
        DN.replace("OU=318751275100020", "OU=318751275100020,OU=318751275100020"),
        DN + ",CN=db4.test.mesimagesmedicales.fr",
        DN.replace(",C=FR", ""),
        DN.replace(",O=", "+O="),
        DN.replace("CN=", "XX="),
        DN.replace("Côte", "Cote"),
        DN + ",",
        DN + "\\",
        'CN="db3.test.mesimagesmedicales.fr,OU=318751275100020',
        "CN=db3.test.mesimagesmedicales.fr\\,OU=318751275100020,O=CENTRE D'IMAGERIE,ST=Côte-d'Or (21),C=FR",
        "CN=\\FF",
        "CN=" + "a" * 5000,
    ],
)
def test_another_name_or_none(der: bytes, dn: str) -> None:
    assert not same_dn(der, dn)


def test_a_certificate_that_cannot_be_read_matches_nothing() -> None:
    assert not same_dn(b"", DN)
    assert not same_dn(b"\x30\x03\x02\x01\x01", DN)
    with pytest.raises(Refused):
        names.organisation_unit(b"not a certificate")


_TYPES = [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.TITLE]
_attributes = st.builds(
    x509.NameAttribute,
    st.sampled_from(_TYPES),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(
        lambda value: value.strip()
    ),
)


@given(st.lists(_attributes, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_what_is_written_is_read_back_in_any_order(attributes: list[x509.NameAttribute], random: object) -> None:
    name = x509.Name(attributes)
    text = names.written(name)
    assert names.of_text(text) == names._of_name(name)
    assert names.of_text(name.rfc4514_string()) == names._of_name(name)
    changed = x509.Name([*attributes, x509.NameAttribute(NameOID.LOCALITY_NAME, "Dijon")])
    assert names.of_text(text) != names._of_name(changed)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        names.of_text(text)


def test_the_unit_is_the_structure(pki: TestAuthority, make: Callable[..., PemPair], der: bytes) -> None:
    assert names.organisation_unit(der) == "318751275100020"
