"""Certificate revocation lists (CRL, RFC 5280 5): read from files, and asked about one certificate.

IGC-Sante publishes a complete list per issuer, as DER, over plain HTTP (it is signed), and delta lists in LDAP only
(standards.md K.1, K.4). The files are fetched by the site's own means; ``trust.watch`` notices when they change.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.trust.keystore import read_file

# Clocks of a signer and of a box may differ by this much.
SKEW = dt.timedelta(minutes=5)

_PEM_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """The lists of some issuers. Without any list, revocation is not checked; with one, it is checked for everyone."""

    lists: tuple[x509.CertificateRevocationList, ...] = ()

    @property
    def configured(self) -> bool:
        """Is revocation to be checked at all?"""
        return bool(self.lists)

    def pem(self) -> bytes:
        """All the lists, as OpenSSL reads them."""
        return b"".join(crl.public_bytes(Encoding.PEM) for crl in self.lists)

    def of(self, issuer: x509.Certificate) -> x509.CertificateRevocationList | None:
        """The newest list that this issuer truly signed, None when there is none."""
        signed = [crl for crl in self.lists if crl.issuer == issuer.subject and _is_signed_by(crl, issuer)]
        return max(signed, key=lambda crl: crl.last_update_utc, default=None)

    def newest(self, other: RevocationLists) -> RevocationLists:
        """Both together; of two lists of one issuer, the newer: a list never gives way to an older one."""
        best: dict[bytes, x509.CertificateRevocationList] = {}
        for crl in (*self.lists, *other.lists):
            kept = best.get(_origin(crl))
            if kept is None or kept.last_update_utc <= crl.last_update_utc:
                best[_origin(crl)] = crl
        return RevocationLists(tuple(best.values()))

    def check(self, certificate: x509.Certificate, issuer: x509.Certificate, now: dt.datetime) -> None:
        """Return when ``certificate`` is known not to be revoked (or nothing is configured).

        Raises ``Refused``: ``certificate-revoked`` when it is on the list; ``revocation-unknown`` when its issuer's
        list is missing, not begun, or past its date - then nobody can know.
        """
        if not self.configured:
            return
        crl = self.of(issuer)
        if crl is None:
            raise Refused("Liste de révocation absente pour l'émetteur du certificat", code="revocation-unknown")
        if crl.next_update_utc is None or crl.next_update_utc < now or crl.last_update_utc > now + SKEW:
            raise Refused("Liste de révocation périmée pour l'émetteur du certificat", code="revocation-unknown")
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise Refused("Certificat révoqué", code="certificate-revoked")


def load_revocation_lists(paths: Sequence[Path]) -> RevocationLists:
    """Read complete lists, PEM (one or several) or DER. Raises ``Misconfigured`` (``revocation-list``)."""
    return RevocationLists(tuple(crl for path in paths for crl in _read(path)))


def _read(path: Path) -> list[x509.CertificateRevocationList]:
    data = read_file(path)
    try:
        if b"-----BEGIN" in data:
            found = [x509.load_pem_x509_crl(block) for block in _PEM_LIST.findall(data)]
        else:
            found = [x509.load_der_x509_crl(data)]
        partial = any(_is_partial(crl) for crl in found)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad(f"Le fichier {path} ne contient pas de liste de révocation lisible (DER ou PEM)") from error
    if not found:
        raise _bad(f"Le fichier {path} ne contient aucune liste de révocation (CRL)")
    if partial:
        raise _bad(f"La liste de révocation {path} est partielle (delta ou indirecte) : donnez la liste complète")
    return found


def _is_partial(crl: x509.CertificateRevocationList) -> bool:
    """Does the list leave out some of its issuer's certificates, or speak of others? Then absence proves nothing."""
    for extension in crl.extensions:
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            return True
        if isinstance(extension.value, x509.IssuingDistributionPoint):
            point = extension.value
            return point.indirect_crl or point.only_some_reasons is not None or point.only_contains_attribute_certs
        if extension.critical:
            return True
    return False


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    try:
        return crl.is_signature_valid(key)  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        # A key of a kind that cannot sign lists: it did not sign this one.
        return False


def _origin(crl: x509.CertificateRevocationList) -> bytes:
    """What makes two lists two editions of one: their issuer and its key."""
    try:
        identifier = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    except x509.ExtensionNotFound:
        identifier = b""
    return crl.issuer.public_bytes() + identifier


def _bad(reason: str) -> Misconfigured:
    return Misconfigured(reason, code="revocation-list")
