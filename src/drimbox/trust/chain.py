"""Is a certificate issued, through a chain, by a root that this box pinned? For signatures; TLS asks OpenSSL the same.

The path is found and checked by the verifier of ``cryptography`` (signatures, dates, CA flags, path lengths, weak
algorithms); what that verifier leaves to its user is done here: the purpose, unknown critical extensions, revocation.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.trust.keystore import UNREADABLE
from drimbox.trust.revocation import RevocationLists

MAX_DEPTH = 4
_CLIENT = frozenset((ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))

_UNDERSTOOD = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.CertificatePolicies,
    x509.SubjectAlternativeName,
)


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Whom the box believes: the pinned certificates (roots, and the intermediates pinned with them) and the CRLs."""

    roots: tuple[x509.Certificate, ...]
    revocation: RevocationLists = field(default_factory=RevocationLists)

    @property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        """The self-signed ones: every chain must end at one of them."""
        return tuple(c for c in self.roots if c.subject == c.issuer)


def verify_signer(
    certificate: x509.Certificate,
    others: Sequence[x509.Certificate],
    *,
    trust: TrustStore,
    now: dt.datetime,
) -> tuple[x509.Certificate, ...]:
    """The chain from ``certificate``, fit to sign documents (profile ORG SIGN), to a pinned root, valid at ``now``.

    ``others`` are issuers that came with the document; they prove nothing and only help to find the way. Raises
    ``Refused``: ``certificate-dates``, ``certificate-purpose``, ``certificate-chain``, and those of
    ``RevocationLists.check`` for each certificate of the chain below the root.
    """
    _check_dates(certificate, now)
    _check_signing_purpose(certificate)
    chain = _path(certificate, [*trust.roots, *others], trust, now)
    for link in chain:
        _check_extensions(link)
    for link, issuer in pairwise(chain):
        trust.revocation.check(link, issuer, now)
    return chain


def verify_client(
    certificate: x509.Certificate, *, trust: TrustStore, now: dt.datetime
) -> tuple[x509.Certificate, ...]:
    """The chain from the certificate of a TLS client, of which a proxy saw the proof, to a pinned root.

    The issuers are among the pinned ones. Raises ``Refused`` as ``verify_signer``.
    """
    _check_dates(certificate, now)
    _check_client_purpose(certificate)
    chain = _path(certificate, trust.roots, trust, now)
    for link in chain:
        _check_extensions(link)
    for link, issuer in pairwise(chain):
        trust.revocation.check(link, issuer, now)
    return chain


def check_again(certificate: x509.Certificate, trust: TrustStore, now: dt.datetime) -> None:
    """Is a certificate whose chain was verified before still good ``now``: dates, and its issuer's list?

    Raises ``Refused``: ``certificate-dates``, ``certificate-chain`` (its issuer is not pinned), and those of
    ``RevocationLists.check``.
    """
    _check_dates(certificate, now)
    issuer = next((c for c in trust.roots if _issued(c, certificate)), None)
    if issuer is None:
        raise Refused("Certificat qui n'est pas émis par une autorité reconnue", code="certificate-chain")
    trust.revocation.check(certificate, issuer, now)


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _path(
    leaf: x509.Certificate, helpers: Sequence[x509.Certificate], trust: TrustStore, now: dt.datetime
) -> tuple[x509.Certificate, ...]:
    if not trust.anchors:
        raise Misconfigured("Aucune autorité racine n'est configurée (trust.roots)", code="trust-roots")
    verifier = (
        PolicyBuilder()
        .store(Store(list(trust.anchors)))
        .time(now)
        .max_chain_depth(MAX_DEPTH)
        .extension_policies(ca_policy=_ca_policy(), ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        return tuple(verifier.verify(leaf, list(helpers)).chain)
    except (VerificationError, *UNREADABLE) as error:
        raise Refused("Certificat qui n'est pas émis par une autorité reconnue", code="certificate-chain") from error


def _ca_policy() -> ExtensionPolicy:
    def signs_certificates(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("not a CA key")

    checked: Callable[[Policy, x509.Certificate, x509.KeyUsage | None], None] = signs_certificates
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, checked)
    )


def _check_dates(certificate: x509.Certificate, now: dt.datetime) -> None:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Refused("Certificat expiré ou pas encore valable", code="certificate-dates")


def _check_signing_purpose(certificate: x509.Certificate) -> None:
    """ORG SIGN: digital signature and non-repudiation (standards.md K.1); an AUTH_CLI certificate signs nothing."""
    found = {type(extension.value): extension.value for extension in _extensions(certificate)}
    usage, basic = found.get(x509.KeyUsage), found.get(x509.BasicConstraints)
    signs = isinstance(usage, x509.KeyUsage) and usage.content_commitment
    if not signs or (isinstance(basic, x509.BasicConstraints) and basic.ca):
        raise Refused("Certificat qui n'est pas fait pour signer des documents", code="certificate-purpose")


def _check_client_purpose(certificate: x509.Certificate) -> None:
    found = {type(extension.value): extension.value for extension in _extensions(certificate)}
    extended, basic = found.get(x509.ExtendedKeyUsage), found.get(x509.BasicConstraints)
    fit = not isinstance(extended, x509.ExtendedKeyUsage) or not _CLIENT.isdisjoint(extended)
    if not fit or (isinstance(basic, x509.BasicConstraints) and basic.ca):
        raise Refused("Certificat qui n'est pas fait pour un client TLS", code="certificate-purpose")


def _check_extensions(certificate: x509.Certificate) -> None:
    for extension in _extensions(certificate):
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            raise Refused("Certificat avec une extension critique inconnue", code="certificate-chain")


def _extensions(certificate: x509.Certificate) -> x509.Extensions:
    try:
        return certificate.extensions
    except UNREADABLE as error:
        raise Refused("Certificat illisible", code="certificate-syntax") from error
