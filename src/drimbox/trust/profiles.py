"""Which of our certificates is which: the profiles of IGC-Sante, told by usage of the key and name (standards.md K.1).

A pair in the wrong place would be found out by the DMP only, one refused publication after the other.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.trust.keystore import UNREADABLE, Credential

E = TypeVar("E", bound=x509.ExtensionType)
_ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


class Profile(Enum):
    """What a pair is for; the value is how the offer is called."""

    AUTH = "ORG AUTH_CLI (client TLS de la structure)"
    SIGN = "ORG SIGN (cachet de la structure)"
    SERVER = "SSL_SERV (serveur TLS)"


def require_profile(credential: Credential, profile: Profile) -> None:
    """Raises ``Misconfigured`` (``credential``), naming what it is instead, for a certificate of another profile.

    An extension that is absent says nothing, and is no reason.
    """
    told = told_by(credential.certificate)
    if told is not None and profile not in told:
        seems = " ou ".join(sorted(p.value for p in told)) or "d'un autre usage"
        raise Misconfigured(
            f"Certificat {credential.subject_dn} : un {profile.value} est attendu ici, "
            f"celui-ci est {'un ' if told else ''}{seems}",
            code="credential",
        )


def require_unit(credential: Credential, units: Collection[str]) -> None:
    """Raises ``Misconfigured`` (``credential``) when the OU is none of these Struct_IdNat."""
    try:
        unit = credential.unit
    except Refused as error:
        raise Misconfigured(f"Certificat {credential.subject_dn} : {error.reason}", code="credential") from error
    if unit not in units:
        raise Misconfigured(
            f"Certificat {credential.subject_dn} : son OU ({unit or 'absente'}) n'est pas celle attendue "
            f"({' ou '.join(units)})",
            code="credential",
        )


def told_by(certificate: x509.Certificate) -> frozenset[Profile] | None:
    """The profiles that the certificate may be of; None when it tells nothing on that."""
    usage = _extension(certificate, x509.KeyUsage)
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if usage is None and extended is None:
        return None
    possible = set(Profile)
    if extended is not None and _ANY not in extended:
        purposes = {
            Profile.AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
            Profile.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
        }
        possible -= {p for p, purpose in purposes.items() if purpose not in extended}
        if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}.isdisjoint(extended):
            possible.discard(Profile.SIGN)
        if ExtendedKeyUsageOID.SERVER_AUTH in extended:
            possible.discard(Profile.AUTH)
    if usage is not None:
        # Only a seal commits to what it signs.
        if not usage.content_commitment:
            possible.discard(Profile.SIGN)
        if not usage.digital_signature:
            possible -= {Profile.AUTH, Profile.SERVER}
    return frozenset(possible)


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE as error:
        raise Misconfigured("Certificat dont les extensions sont illisibles", code="credential") from error
