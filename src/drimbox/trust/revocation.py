"""Certificate revocation lists (CRL, RFC 5280 5): read from files, and asked about one certificate.

IGC-Sante publishes a complete list per issuer, as DER, over plain HTTP (it is signed), and delta lists in LDAP only
(standards.md K.1, K.4). ``trust.distribution`` fetches them; a site may also give files that it renews itself.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.trust.keystore import UNREADABLE, read_file

# Clocks of a signer and of a box may differ by this much.
SKEW = dt.timedelta(minutes=5)

_PEM_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


# Issuers that come with peers are remembered too, up to so many.
_MOST_ISSUERS = 1000
MISSING = "Liste de révocation absente pour l'émetteur du certificat"
STALE = "Liste de révocation périmée pour l'émetteur du certificat"
REVOKED = "Certificat révoqué"


@dataclass(frozen=True, slots=True)
class _Read:
    """A list whose signature is its issuer's: when it holds, and the numbers of the certificates that it names."""

    crl: x509.CertificateRevocationList = field(repr=False)
    begun_at: dt.datetime
    ends_at: dt.datetime | None
    serials: frozenset[int] = field(repr=False)

    @classmethod
    def of(cls, crl: x509.CertificateRevocationList) -> _Read:
        return cls(crl, crl.last_update_utc, crl.next_update_utc, frozenset(entry.serial_number for entry in crl))


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """The lists of some issuers. Without any list, revocation is not checked; with one, it is checked for everyone.

    ``required``: it is checked even while there is none yet, and then refuses everyone.
    """

    lists: tuple[x509.CertificateRevocationList, ...] = ()
    required: bool = False
    _known: dict[bytes, _Read | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def configured(self) -> bool:
        """Is revocation to be checked at all?"""
        return self.required or bool(self.lists)

    def of(self, issuer: x509.Certificate) -> x509.CertificateRevocationList | None:
        """The newest list that this issuer truly signed, None when there is none."""
        found = self._read(issuer)
        return found.crl if found is not None else None

    def _read(self, issuer: x509.Certificate) -> _Read | None:
        """The same, with what it names. Signatures are verified and names read once for each issuer."""
        key = issuer.public_bytes(Encoding.DER)
        if key not in self._known:
            signed = [crl for crl in self.lists if crl.issuer == issuer.subject and _is_signed_by(crl, issuer)]
            newest = max(signed, key=lambda crl: crl.last_update_utc, default=None)
            if len(self._known) >= _MOST_ISSUERS:
                self._known.clear()
            self._known[key] = _Read.of(newest) if newest is not None else None
        return self._known[key]

    def newest(self, other: RevocationLists) -> RevocationLists:
        """Both together; of two lists of one issuer, the newer: a list never gives way to an older one."""
        best: dict[bytes, x509.CertificateRevocationList] = {}
        for crl in (*self.lists, *other.lists):
            kept = best.get(_origin(crl))
            if kept is None or kept.last_update_utc <= crl.last_update_utc:
                best[_origin(crl)] = crl
        both = RevocationLists(tuple(best.values()), self.required or other.required)
        # What one of the two has read of its lists is not read again.
        return next((known for known in (other, self) if known == both), both)

    def check(self, certificate: x509.Certificate, issuer: x509.Certificate, now: dt.datetime) -> None:
        """Return when ``certificate`` is known not to be revoked (or nothing is configured).

        Raises ``Refused``: ``certificate-revoked`` when it is on the list; ``revocation-unknown`` when its issuer's
        list is missing, not begun, or past its date - then nobody can know.
        """
        if not self.configured:
            return
        found = self._read(issuer)
        if found is None:
            raise Refused(MISSING, code="revocation-unknown")
        if found.ends_at is None or found.ends_at < now or found.begun_at > now + SKEW:
            raise Refused(STALE, code="revocation-unknown")
        if certificate.serial_number in found.serials:
            raise Refused(REVOKED, code="certificate-revoked")


def load_revocation_lists(paths: Sequence[Path]) -> RevocationLists:
    """Read complete lists, PEM (one or several) or DER. Raises ``Misconfigured`` (``revocation-list``)."""
    return RevocationLists(tuple(crl for path in paths for crl in _read(path)))


def _read(path: Path) -> list[x509.CertificateRevocationList]:
    return parse_lists(read_file(path), f"Le fichier {path}")


def parse_lists(data: bytes, origin: str) -> list[x509.CertificateRevocationList]:
    """The complete lists in ``data``, PEM (one or several) or DER. ``origin`` begins the reason (in French).

    Raises ``Misconfigured`` (``revocation-list``).
    """
    try:
        if b"-----BEGIN" in data:
            found = [x509.load_pem_x509_crl(block) for block in _PEM_LIST.findall(data)]
        else:
            found = [x509.load_der_x509_crl(data)]
        partial = any(_is_partial(crl) for crl in found)
        # Fields are parsed when first read: a bad one must fail here, not in the caller.
        _ = [(c.issuer, c.last_update_utc, c.next_update_utc, c.signature_hash_algorithm, c.signature) for c in found]
    except UNREADABLE as error:
        raise _bad(f"{origin} ne contient pas de liste de révocation lisible (DER ou PEM)") from error
    if not found:
        raise _bad(f"{origin} ne contient aucune liste de révocation (CRL)")
    if partial:
        raise _bad(f"{origin} contient une liste de révocation partielle (delta ou indirecte) : il faut la complète")
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
