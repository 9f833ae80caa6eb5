"""Distinguished names: written as the DMP and the whitelist write them, compared RDN by RDN.

A DN reaches us in two shapes: inside a certificate, and as hand-written text (``DNCertificatOperateur`` of the
whitelist) whose order, blanks and case vary. Both become a ``DistinguishedName`` - its RDNs, sorted - and two of them
are equal or not; text is never compared with text. Values are prepared as RFC 5280 7.1 asks: NFKC, case folded, blanks
collapsed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from drimbox.foundation.errors import Refused

MAX_DN = 4096

# The attribute types that certificates of health professionals and structures carry, by every name they go under;
# the first is the one we write (RFC 4514 3, and GN, SN as PS certificates show them).
_ALIASES: dict[str, tuple[str, ...]] = {
    NameOID.COMMON_NAME.dotted_string: ("CN", "COMMONNAME"),
    NameOID.SURNAME.dotted_string: ("SN", "SURNAME"),
    NameOID.SERIAL_NUMBER.dotted_string: ("SERIALNUMBER",),
    NameOID.COUNTRY_NAME.dotted_string: ("C", "COUNTRYNAME"),
    NameOID.LOCALITY_NAME.dotted_string: ("L", "LOCALITYNAME"),
    # Windows shows ST as S.
    NameOID.STATE_OR_PROVINCE_NAME.dotted_string: ("ST", "S", "STATEORPROVINCENAME"),
    NameOID.STREET_ADDRESS.dotted_string: ("STREET", "STREETADDRESS"),
    NameOID.ORGANIZATION_NAME.dotted_string: ("O", "ORGANIZATIONNAME"),
    NameOID.ORGANIZATIONAL_UNIT_NAME.dotted_string: ("OU", "ORGANIZATIONALUNITNAME"),
    NameOID.TITLE.dotted_string: ("T", "TITLE"),
    NameOID.GIVEN_NAME.dotted_string: ("GN", "G", "GIVENNAME"),
    NameOID.ORGANIZATION_IDENTIFIER.dotted_string: ("ORGANIZATIONIDENTIFIER",),
    NameOID.DOMAIN_COMPONENT.dotted_string: ("DC", "DOMAINCOMPONENT"),
    NameOID.USER_ID.dotted_string: ("UID", "USERID"),
    NameOID.EMAIL_ADDRESS.dotted_string: ("E", "EMAILADDRESS", "EMAIL"),
}
_OIDS = {alias: oid for oid, aliases in _ALIASES.items() for alias in aliases}
_WRITTEN = {x509.ObjectIdentifier(oid): aliases[0] for oid, aliases in _ALIASES.items()}

_TYPE = re.compile(r"\s*(?:OID\.)?([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)\s*=\s*", re.IGNORECASE)
_SPECIAL = set(',;+"<>#= \\')
_HEX_PAIR = re.compile(r"[0-9A-Fa-f]{2}")

# What the library raises for a certificate that it cannot read, or not yet: some only once a field is asked for.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

Rdn = tuple[tuple[str, str], ...]
DistinguishedName = tuple[Rdn, ...]


def written(name: x509.Name) -> str:
    """``CN=…, OU=…, O=…, ST=…, C=FR``: RFC 4514, most specific first, a blank after each comma (standards.md E)."""
    return ", ".join(rdn.rfc4514_string(_WRITTEN) for rdn in reversed(name.rdns))


def of_certificate(der: bytes) -> DistinguishedName:
    """The subject of a certificate, ready to be compared. Raises ``Refused`` (``certificate-syntax``)."""
    return _of_name(read_certificate(der).subject)


def of_text(dn: str) -> DistinguishedName:
    """A DN written as text (RFC 4514, and RFC 2253 with ``;`` or quotes). Raises ``Refused`` (``dn-syntax``)."""
    if len(dn) > MAX_DN:
        raise _bad_dn()
    return tuple(sorted(tuple(sorted((oid, _prepared(value)) for oid, value in rdn)) for rdn in _Reader(dn).rdns()))


def same_dn(certificate_der: bytes, dn: str) -> bool:
    """Is ``dn`` the subject of this certificate, RDN by RDN, whatever the order? A DN that cannot be read is not."""
    try:
        return of_certificate(certificate_der) == of_text(dn)
    except Refused:
        return False


def organisation_unit(der: bytes) -> str:
    """The OU of the subject: the ``Struct_IdNat`` of the structure (standards.md K.1); empty without one.

    Raises ``Refused`` (``certificate-syntax``), and (``certificate-unit``) when there are several: which structure
    that certificate speaks for must not be guessed.
    """
    return single(read_certificate(der).subject, NameOID.ORGANIZATIONAL_UNIT_NAME)


def single(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    """The one value of an attribute type, empty without one. Raises ``Refused`` (``certificate-unit``) for several."""
    values = name.get_attributes_for_oid(oid)
    if len(values) > 1:
        raise Refused("Certificat dont le sujet répète un attribut qui doit être unique", code="certificate-unit")
    return str(values[0].value) if values else ""


def read_certificate(der: bytes) -> x509.Certificate:
    """A certificate from its DER, its names readable. Raises ``Refused`` (``certificate-syntax``)."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Names are parsed when first read: a bad one must fail here, not in the caller.
        _ = (certificate.subject, certificate.issuer)
    except UNREADABLE as error:
        raise Refused("Certificat illisible", code="certificate-syntax") from error
    return certificate


def _of_name(name: x509.Name) -> DistinguishedName:
    rdns = ([(a.oid.dotted_string, _prepared(_as_text(a.value))) for a in rdn] for rdn in name.rdns)
    return tuple(sorted(tuple(sorted(rdn)) for rdn in rdns))


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else "#" + value.hex()


def _prepared(value: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).split())


class _Reader:
    """Reads one DN from left to right (RFC 4514 3, RFC 2253 4)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rdns(self) -> Iterable[list[tuple[str, str]]]:
        rdn = [self._attribute()]
        while self._at < len(self._text):
            separator = self._text[self._at]
            self._at += 1
            if separator != "+":
                yield rdn
                rdn = []
            rdn.append(self._attribute())
        yield rdn

    def _attribute(self) -> tuple[str, str]:
        found = _TYPE.match(self._text, self._at)
        if found is None:
            raise _bad_dn()
        self._at = found.end()
        kind = found[1].upper()
        oid = kind if kind[0].isdigit() else _OIDS.get(kind)
        if oid is None:
            raise _bad_dn()
        quoted = self._at < len(self._text) and self._text[self._at] == '"'
        return oid, self._quoted() if quoted else self._bare()

    def _quoted(self) -> str:
        self._at += 1
        value = bytearray()
        while self._at < len(self._text) and self._text[self._at] != '"':
            value += self._character()
        if self._at == len(self._text):
            raise _bad_dn()
        self._at += 1
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        if self._at < len(self._text) and self._text[self._at] not in ",;+":
            raise _bad_dn()
        return _utf8(value)

    def _bare(self) -> str:
        value = bytearray()
        while self._at < len(self._text) and self._text[self._at] not in ",;+":
            if self._text[self._at] in '"<>':
                raise _bad_dn()
            value += self._character()
        return _utf8(value)

    def _character(self) -> bytes:
        """One character, its escape undone: ``\\,`` stands for a comma, ``\\C3\\B4`` for the bytes of ``ô``."""
        character = self._text[self._at]
        self._at += 1
        if character != "\\":
            return character.encode("utf-8", "surrogatepass")
        if pair := _HEX_PAIR.match(self._text, self._at):
            self._at += 2
            return bytes.fromhex(pair[0])
        if self._at < len(self._text) and self._text[self._at] in _SPECIAL:
            self._at += 1
            return self._text[self._at - 1].encode()
        raise _bad_dn()


def _utf8(value: bytearray) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad_dn() from None


def _bad_dn() -> Refused:
    return Refused("Nom distinctif (DN) mal formé", code="dn-syntax")
