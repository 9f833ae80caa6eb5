"""Our own certificates and their private keys.

IGC-Sante delivers a structure (standards.md K.1, K.2): ORG AUTH_CLI, to be known as a TLS client; ORG SIGN, to sign;
and SERV SSL_SERV, for a listener. Each is a ``Credential``. A key is read from its (encrypted or not) PEM or PKCS#12
file, lives in memory, and is never written anywhere; one in a token (``trust.token``) is not even read.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured
from drimbox.trust import names

MIN_RSA_BITS = 2048
MIN_EC_BITS = 256
UNREADABLE = names.UNREADABLE

_log = logging.getLogger(__name__)

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate, the chain of its issuers (its own issuer first, no root), and its private key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)

    @property
    def subject_dn(self) -> str:
        """``CN=…, OU=…, O=…, ST=…, C=FR``: the Issuer of a VIHF (standards.md E)."""
        return names.written(self.certificate.subject)

    @property
    def unit(self) -> str:
        """The OU: the ``Struct_IdNat`` of the structure. Raises ``Refused`` (``certificate-unit``) for several."""
        return names.single(self.certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)

    @property
    def expires_at(self) -> dt.datetime:
        """The last instant of its validity."""
        return self.certificate.not_valid_after_utc


def load_credential(
    certificate: Path, key: Path, password: bytes | None = None, *, now: dt.datetime | None = None
) -> Credential:
    """Read ``certificate`` (PEM: the certificate, then its chain) and ``key`` (PEM, encrypted if ``password``).

    Raises ``Misconfigured`` (``credential``), with the remedy, for anything that would fail later: a file that cannot
    be read, a wrong password, a key of another certificate, a key too weak (RGS: RSA 2048, EC 256), dates that do not
    hold ``now``.
    """
    loaded = read_pem_pair(certificate, key, password)
    _check_dates(loaded.certificate, certificate, now or SystemClock().now())
    return loaded


def read_pem_pair(certificate: Path, key: Path, password: bytes | None = None) -> Credential:
    """The same, whatever its dates. Raises ``Misconfigured`` (``credential``)."""
    found = assembled(read_certificates(certificate), read_key(key, password), str(certificate))
    if not matches(found):
        raise _bad(f"La clé privée {key} n'est pas celle du certificat {certificate}. Donnez les deux de la même paire")
    return found


def read_pkcs12_pair(path: Path, password: bytes | None = None) -> Credential:
    """A pair with its chain from a PKCS#12 file (RFC 7292), whatever its dates.

    Raises ``Misconfigured`` (``credential``).
    """
    data = read_file(path)
    _warn_if_open(path)
    return pkcs12_pair(data, password, str(path))


def pkcs12_pair(data: bytes, password: bytes | None, source: str) -> Credential:
    """The same from its bytes; ``source`` is how it is called. Raises ``Misconfigured`` (``credential``)."""
    try:
        held = pkcs12.load_pkcs12(data, password)
        others = [one.certificate for one in held.additional_certs]
        certificates = [held.cert.certificate, *others] if held.cert is not None else others
        _ = [(c.subject, c.issuer, c.public_key()) for c in certificates]
    except UNREADABLE:
        # Without its cause, which may know the bytes.
        raise _bad(
            f"Le fichier PKCS#12 {source} est illisible, ou son mot de passe est faux ou absent. Vérifiez le mot de "
            "passe ; pour un fichier d'un ancien format (RC2), refaites-le avec « openssl pkcs12 -legacy »"
        ) from None
    if held.key is None or held.cert is None:
        raise _bad(f"Le fichier PKCS#12 {source} ne contient pas une clé privée avec son certificat. Exportez les deux")
    found = assembled(certificates, strong_key(held.key, source), source)
    if not matches(found):
        raise _bad(f"La clé privée de {source} n'est pas celle de son certificat. Exportez les deux de la même paire")
    return found


def assembled(certificates: Sequence[x509.Certificate], key: PrivateKey, source: str) -> Credential:
    """The first certificate, its chain among the others put in order, and a key. Raises ``Misconfigured``."""
    leaf = _leaf(certificates, source)
    return Credential(leaf, _ordered_chain(leaf, certificates), key)


def matches(credential: Credential) -> bool:
    """Is the private key that of the certificate?"""
    return credential.key.public_key() == credential.certificate.public_key()


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM file, or the one of a DER file. Raises ``Misconfigured`` (``credential``)."""
    data = read_file(path)
    try:
        if b"-----BEGIN" in data:
            found = tuple(x509.load_pem_x509_certificates(data))
        else:
            found = (x509.load_der_x509_certificate(data),)
        _ = [(c.subject, c.issuer, c.public_key()) for c in found]
    except UNREADABLE as error:
        raise _bad(f"Le fichier {path} ne contient pas de certificat lisible (PEM attendu)") from error
    return found


def read_file(path: Path) -> bytes:
    """A small file of keys, certificates or lists. Raises ``Misconfigured`` (``credential``)."""
    try:
        with path.open("rb") as file:
            return file.read()
    except OSError as error:
        raise _bad(
            f"Le fichier {path} ne peut pas être lu ({error.strerror}). Vérifiez son chemin et ses droits"
        ) from error


def read_key(path: Path, password: bytes | None = None) -> PrivateKey:
    """A private key (PEM, encrypted if ``password``), strong enough. Raises ``Misconfigured`` (``credential``)."""
    data = read_file(path)
    _warn_if_open(path)
    return parse_key(data, password, str(path))


def parse_key(data: bytes, password: bytes | None, source: str) -> PrivateKey:
    """The same from its bytes; ``source`` is how it is called. Raises ``Misconfigured`` (``credential``)."""
    try:
        key = serialization.load_pem_private_key(data, password)
    except TypeError:
        # One of the two is there without the other. Without its cause: what is said of a key names no part of it.
        need = "est chiffrée : donnez son mot de passe (password_file)" if password is None else "n'est pas chiffrée"
        raise _bad(f"La clé privée {source} {need}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _bad(f"La clé privée {source} est illisible (PEM PKCS#8 attendu), ou son mot de passe est faux") from None
    return strong_key(key, source)


def strong_key(key: object, source: str) -> PrivateKey:
    """The key, of a kind and a strength that may be used (RGS). Raises ``Misconfigured`` (``credential``)."""
    if isinstance(key, RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, EllipticCurvePrivateKey) and key.key_size >= MIN_EC_BITS:
        return key
    raise _bad(f"La clé privée {source} est trop faible ou d'un type refusé (RSA 2048 ou EC 256 au moins)")


def _warn_if_open(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        _log.warning("private key %s can be read by other users: chmod 600", path)


def _leaf(certificates: Sequence[x509.Certificate], path: str) -> x509.Certificate:
    leaf = certificates[0]
    try:
        authority = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    except UNREADABLE as error:
        raise _bad(f"Le certificat {path} a des extensions illisibles") from error
    if authority:
        raise _bad(f"Le premier certificat de {path} est celui d'une autorité : mettez celui de la structure en tête")
    return leaf


def _ordered_chain(leaf: x509.Certificate, certificates: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The issuers among ``certificates``, in order; the root is left out, since every peer has its own copy."""
    chain: list[x509.Certificate] = []
    current = leaf
    while True:
        issuer = next((c for c in certificates[1:] if c.subject == current.issuer and c not in chain), None)
        if issuer is None or issuer.subject == issuer.issuer:
            return tuple(chain)
        chain.append(issuer)
        current = issuer


def _check_dates(leaf: x509.Certificate, path: Path, now: dt.datetime) -> None:
    if now > leaf.not_valid_after_utc:
        raise _bad(f"Le certificat {path} est expiré depuis le {leaf.not_valid_after_utc:%d/%m/%Y}. Renouvelez-le")
    if now < leaf.not_valid_before_utc:
        raise _bad(
            f"Le certificat {path} n'est valable qu'à partir du {leaf.not_valid_before_utc:%d/%m/%Y}. "
            "Vérifiez l'heure de la machine"
        )


def _bad(reason: str) -> Misconfigured:
    return Misconfigured(reason, code="credential")
