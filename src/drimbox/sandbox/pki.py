"""A test PKI in the shape of IGC-Sante (standards.md K.1): a root, an intermediate for organisations, one for servers.

The leaf profiles are those of the official test range: ORG AUTH_CLI, ORG SIGN, SERV SSL_SERV; each issuer has a CRL.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

# Clocks differ, and a program may have looked at its own long before a certificate is made for it.
_BACKDATED = dt.timedelta(days=1)
_POLICY = ObjectIdentifier("1.2.250.1.213.1.7.2.1.1.1.1")


class Profile(Enum):
    """The leaf profiles: extended key usages, and whether the key signs documents."""

    ORG_AUTH_CLI = ("auth", (ExtendedKeyUsageOID.CLIENT_AUTH,), False)
    ORG_SIGN = ("sign", (ExtendedKeyUsageOID.EMAIL_PROTECTION,), True)
    SSL_SERV = ("server", (ExtendedKeyUsageOID.SERVER_AUTH,), False)
    # Of a machine with one pair for both, as PACSs have it.
    SSL_BOTH = ("server", (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH), False)


@dataclass(frozen=True, slots=True)
class PemPair:
    """Where a certificate (with its chain) and its key lie."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Issuer:
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey


class TestAuthority:
    """Issues certificates into ``folder``; opened again on the same folder, it goes on with the same keys.

    It is one of the test range, or, to try what must never mix, one that calls itself of the ``production`` range.
    """

    __test__ = False

    def __init__(self, folder: Path, *, production: bool = False) -> None:
        self.folder = folder
        self.production = production
        folder.mkdir(parents=True, exist_ok=True)
        self._root = self._issuer("racine", "AC RACINE IGC-SANTE ELEMENTAIRE", None)
        self._organisations = self._issuer("organisations", "AC IGC-SANTE ELEMENTAIRE ORGANISATIONS", self._root)
        self._servers = self._issuer("serveurs", "AC IGC-SANTE ELEMENTAIRE SERVEURS", self._root)
        self.roots = folder / "ca.pem"
        chain = (self._root, self._organisations, self._servers)
        self.roots.write_bytes(b"".join(i.certificate.public_bytes(serialization.Encoding.PEM) for i in chain))
        self.revocation_lists = tuple(folder / f"{name}.crl.pem" for name in ("racine", "organisations", "serveurs"))
        self.publish_revocations()

    def issue(
        self,
        profile: Profile,
        name: str,
        *,
        common_name: str,
        unit: str,
        organisation: str,
        place: str = "Paris (75)",
        hosts: Sequence[str] = (),
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
        key_bits: int = 2048,
        sha1: bool = False,
        lost_issuer: bool = False,
    ) -> PemPair:
        """A certificate and its key as ``<name>.pem`` and ``<name>.key``; an existing pair is kept.

        ``unit`` is the OU, a Struct_IdNat; ``hosts`` are DNS names or IP addresses for the SAN of a server. With
        ``lost_issuer`` it comes from an intermediate that nobody is given; ``sha1`` signs it as nobody should.
        """
        pair = PemPair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        if pair.certificate.exists() and pair.key.exists():
            return pair
        issuer = self._servers if profile is Profile.SSL_SERV else self._organisations
        if lost_issuer:
            issuer = self._issuer("perdue", "AC IGC-SANTE ELEMENTAIRE PERDUE", self._root)
        key = rsa.generate_private_key(public_exponent=65537, key_size=key_bits)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
                x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, place),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )
        builder = _builder(subject, issuer.certificate.subject, key.public_key(), 3 * 365, not_before, not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_documents=profile.value[2]), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.value[1]), critical=False)
        builder = builder.add_extension(
            x509.CertificatePolicies([x509.PolicyInformation(_POLICY, None)]), critical=False
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False
            )
        certificate = builder.sign(issuer.key, hashes.SHA256())
        if sha1:
            certificate = _signed_with_sha1(certificate, issuer.key)
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        if not lost_issuer:
            chain += issuer.certificate.public_bytes(serialization.Encoding.PEM)
        _write_key(pair.key, key)
        pair.certificate.write_bytes(chain)
        return pair

    def revoke(self, pair: PemPair) -> None:
        """Put the certificate on its issuer's CRL."""
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        with (self.folder / "revoked.txt").open("a") as revoked:
            revoked.write(f"{certificate.serial_number}\n")
        self.publish_revocations()

    def publish_revocations(self, *, valid: dt.timedelta = dt.timedelta(days=30)) -> None:
        """Write every issuer's CRL again."""
        listed = self.folder / "revoked.txt"
        serials = [int(line) for line in listed.read_text().split()] if listed.exists() else []
        now = dt.datetime.now(dt.UTC)
        issuers = (self._root, self._organisations, self._servers)
        for issuer, path in zip(issuers, self.revocation_lists, strict=True):
            builder = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(issuer.certificate.subject)
                .last_update(now - _BACKDATED)
                .next_update(now + valid)
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
                )
            )
            for serial in serials:
                builder = builder.add_revoked_certificate(
                    x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
                )
            crl = builder.sign(issuer.key, hashes.SHA256())
            path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))

    def _issuer(self, name: str, common_name: str, parent: _Issuer | None) -> _Issuer:
        certificate_path, key_path = self.folder / f"{name}.ca.pem", self.folder / f"{name}.ca.key"
        if certificate_path.exists() and key_path.exists():
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            assert isinstance(key, rsa.RSAPrivateKey)
            return _Issuer(x509.load_pem_x509_certificate(certificate_path.read_bytes()), key)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "BAC A SABLE DRIMBOX"),
                x509.NameAttribute(
                    NameOID.ORGANIZATIONAL_UNIT_NAME, "IGC-SANTE" if self.production else "IGC-SANTE TEST"
                ),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name if self.production else f"TEST {common_name}"),
            ]
        )
        signer_name = parent.certificate.subject if parent else subject
        signer_key = parent.key if parent else key
        builder = _builder(subject, signer_name, key.public_key(), 10 * 365, None, None)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key()), critical=False
        )
        certificate = builder.sign(signer_key, hashes.SHA256())
        _write_key(key_path, key)
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return _Issuer(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey,
    days: int,
    not_before: dt.datetime | None,
    not_after: dt.datetime | None,
) -> x509.CertificateBuilder:
    start = not_before or dt.datetime.now(dt.UTC) - _BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(not_after or start + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _signed_with_sha1(certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> x509.Certificate:
    """The same certificate signed with SHA-1, which the library does not do any more: written into the DER itself."""
    sha256_rsa, sha1_rsa = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    old = certificate.tbs_certificate_bytes
    new = old.replace(sha256_rsa, sha1_rsa)
    head = certificate.public_bytes(serialization.Encoding.DER).replace(old, new).replace(sha256_rsa, sha1_rsa)
    signature = key.sign(new, padding.PKCS1v15(), hashes.SHA1())
    return x509.load_der_x509_certificate(head[: -len(signature)] + signature)


def _key_usage(*, signs_documents: bool) -> x509.KeyUsage:
    return x509.KeyUsage(True, signs_documents, False, False, False, False, False, False, False)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
