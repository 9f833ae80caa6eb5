"""Certificates as the DMP judges them: chain, revocation, IGC-Sante profiles, names (standards.md K.1)."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drimbox.sandbox.dmp import datatypes

_NAMES = {
    "CN": NameOID.COMMON_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "C": NameOID.COUNTRY_NAME,
}
_MAX_CHAIN = 5


@dataclass(frozen=True, slots=True)
class Anchors:
    """The CAs that are believed, and where their revocation lists lie (read anew at each use)."""

    authorities: tuple[x509.Certificate, ...]
    revocation_lists: tuple[Path, ...] = ()


def load_anchors(roots: Sequence[Path], revocation_lists: Sequence[Path] = ()) -> Anchors:
    """Read PEM files of CAs, root and intermediates."""
    authorities = tuple(c for path in roots for c in x509.load_pem_x509_certificates(path.read_bytes()))
    return Anchors(authorities, tuple(revocation_lists))


def read_certificate(der: bytes) -> x509.Certificate | None:
    """The certificate; None when it cannot be read whole (names, dates, extensions, key)."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_hash_algorithm)
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm):
        return None
    return certificate


def chain_error(certificate: x509.Certificate, anchors: Anchors, now: dt.datetime) -> str | None:
    """Why the certificate is not to be believed at ``now``; None when it is."""
    lists = [x509.load_pem_x509_crl(path.read_bytes()) for path in anchors.revocation_lists]
    current = certificate
    for _ in range(_MAX_CHAIN):
        if not current.not_valid_before_utc <= now <= current.not_valid_after_utc:
            return "certificat hors de sa période de validité"
        issuer = next((a for a in anchors.authorities if _issued(current, a)), None)
        if issuer is None:
            return "certificat d'une autorité inconnue"
        if lists and (revocation := _revocation_error(current, issuer, lists, now)):
            return revocation
        if issuer.subject == issuer.issuer:
            return None
        current = issuer
    return "chaîne de certificats trop longue"


def usage_error(certificate: x509.Certificate, *, purpose: x509.ObjectIdentifier, signs_documents: bool) -> str | None:
    """Why this is not a leaf of the profile that has this key usage; None when it is."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return "extension obligatoire absente du certificat"
    if basic.ca:
        return "certificat d'autorité"
    if not usage.digital_signature or usage.content_commitment is not signs_documents:
        return "usage de la clé (KeyUsage) contraire au profil"
    if list(extended) != [purpose]:
        return "usage étendu de la clé (ExtendedKeyUsage) contraire au profil"
    if not datatypes.is_structure_id(unit(certificate)):
        return "OU du certificat absent, ou pas un identifiant de structure"
    return None


def auth_profile_error(certificate: x509.Certificate) -> str | None:
    """Why this is not an ORG AUTH_CLI certificate: EKU clientAuth, a structure as OU."""
    return usage_error(certificate, purpose=ExtendedKeyUsageOID.CLIENT_AUTH, signs_documents=False)


def sign_profile_error(certificate: x509.Certificate) -> str | None:
    """Why this is not an ORG SIGN certificate: nonRepudiation, EKU emailProtection, a structure as OU."""
    return usage_error(certificate, purpose=ExtendedKeyUsageOID.EMAIL_PROTECTION, signs_documents=True)


def unit(certificate: x509.Certificate) -> str:
    """The OU of the subject; empty when there is none or several."""
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def same_name(name: x509.Name, text: str) -> bool:
    """Does ``CN=…, OU=…`` (either order, RFC 2253 spelling) name exactly this subject?"""
    told: Counter[tuple[x509.ObjectIdentifier, str]] = Counter()
    for piece in re.split(r"(?<!\\),", text):
        key, equals, value = piece.strip().partition("=")
        if not equals or key not in _NAMES:
            return False
        told[(_NAMES[key], re.sub(r"\\([0-9A-Fa-f]{2})|\\(.)", _unescaped, value))] += 1
    return told == Counter((a.oid, str(a.value)) for a in name)


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found.group(1), 16)) if found.group(1) else found.group(2)


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    return basic.ca


def _revocation_error(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    lists: Sequence[x509.CertificateRevocationList],
    now: dt.datetime,
) -> str | None:
    public_key = issuer.public_key()
    mine = [c for c in lists if c.issuer == issuer.subject and c.is_signature_valid(public_key)]  # type: ignore[arg-type]
    fresh = [c for c in mine if c.next_update_utc is not None and c.next_update_utc >= now]
    if not fresh:
        return "liste de révocation absente ou périmée"
    revoked = any(c.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None for c in fresh)
    return "certificat révoqué" if revoked else None
