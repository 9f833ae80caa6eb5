"""One whitelist: is it the agency's, whole and unchanged, and what does it say?

The file is edited by hand before it is signed: its namespace has changed once, indentation, extra elements, repeated
``Identifiant`` and a missing ``vi`` are all seen in the official lists. So it is read by local names, an entry that
makes no sense is left out (and logged), and only the signature is judged to the letter.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from dataclasses import dataclass, field

from cryptography.x509.oid import NameOID

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element, local_name
from drimbox.trust import names
from drimbox.trust.chain import TrustStore, verify_signer
from drimbox.trust.enveloped import SignedDocument, instant, verify_enveloped

MAX_BYTES = 8 * 2**20
MAX_DOMAINS = 20_000

_log = logging.getLogger(__name__)
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Domain:
    """One DRIMbox: its host for other boxes (``db``), its viewer's host (``vi``, may be empty), its operator's DN."""

    identifier: str
    db_host: str
    vi_host: str
    name: str
    operator_dn: str


@dataclass(frozen=True, slots=True)
class Whitelist:
    """A list that was verified. ``signed_at`` is the time that the signer's tool wrote (XAdES SigningTime)."""

    generated_at: dt.datetime
    domains: tuple[Domain, ...]
    signed_at: dt.datetime | None = None
    _hosts: frozenset[str] = field(init=False, repr=False, compare=False)
    _operators: dict[names.DistinguishedName, Domain] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hosts", frozenset(d.db_host for d in self.domains))
        object.__setattr__(self, "_operators", _by_operator(self.domains))

    def allows_host(self, host: str) -> bool:
        """May images be asked of ``host`` (a bare host name, no port)? Exact, case apart."""
        return _cleaned_host(host) in self._hosts

    def domain_of(self, certificate_der: bytes) -> Domain | None:
        """The DRIMbox whose ``DNCertificatOperateur`` is the subject of this certificate, None if there is none.

        RDN by RDN, whatever their order (decision 15); a certificate that cannot be read is nobody's.
        """
        try:
            return self._operators.get(names.of_certificate(certificate_der))
        except Refused:
            return None


def verify(document: bytes, *, trust: TrustStore, signer_cn: str, signer_ou: str, now: dt.datetime) -> Whitelist:
    """Read a list after every check that ANS asks for (ans-faq.md 10.1), in this order.

    The signature covers the whole document; its signer chains to a pinned root, may sign, is valid ``now`` and is not
    revoked; its CN and OU are the agency's. Raises ``Refused``: the codes of ``verify_enveloped`` and
    ``verify_signer``, ``whitelist-signer``, and those of ``read``.
    """
    signed = verify_enveloped(document, max_bytes=MAX_BYTES)
    verify_signer(signed.signer, signed.companions, trust=trust, now=now)
    subject = signed.signer.subject
    cn, ou = (names.single(subject, oid) for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME))
    if (cn, ou) != (signer_cn, signer_ou):
        raise Refused("Liste blanche signée par quelqu'un d'autre que l'agence (CN, OU)", code="whitelist-signer")
    return read(signed)


def read_again(document: bytes) -> Whitelist:
    """Read a list that ``verify`` accepted before: its signature is checked, its signer no more.

    A stored list outlives its signer's certificate for as long as decision 16 lets it.
    """
    return read(verify_enveloped(document, max_bytes=MAX_BYTES))


def read(signed: SignedDocument) -> Whitelist:
    """What the signed content says. Raises ``Refused`` (``whitelist-content``) when it is not a whitelist."""
    root = signed.content
    if local_name(root) != "ListeBlancheDRIM-M":
        raise Refused("Ce document signé n'est pas une liste blanche", code="whitelist-content")
    lists = _children(root, "ListeDomaines")
    if len(lists) != 1:
        raise Refused("Liste blanche sans ListeDomaines, ou avec plusieurs", code="whitelist-content")
    entries = _children(lists[0], "Domaine")
    if len(entries) > MAX_DOMAINS:
        raise Refused("Liste blanche démesurée", code="whitelist-content")
    domains = tuple(domain for entry in entries if (domain := _domain(entry)) is not None)
    return Whitelist(_generated(root), domains, signed.signed_at)


def _generated(root: Element) -> dt.datetime:
    try:
        return instant(_field(root, "DateDeGeneration"))
    except Refused as error:
        raise Refused("Liste blanche sans date de génération lisible", code="whitelist-content") from error


def _domain(entry: Element) -> Domain | None:
    domain = Domain(
        identifier=_field(entry, "Identifiant"),
        db_host=_cleaned_host(_field(entry, "db")),
        vi_host=_cleaned_host(_field(entry, "vi")),
        name=_field(entry, "Denomination"),
        operator_dn=_field(entry, "DNCertificatOperateur"),
    )
    if not _HOST.fullmatch(domain.db_host):
        _log.warning("whitelist: entry %r has no usable db host, it is left out", domain.identifier)
        return None
    return domain


def _by_operator(domains: tuple[Domain, ...]) -> dict[names.DistinguishedName, Domain]:
    operators: dict[names.DistinguishedName, Domain] = {}
    for domain in domains:
        try:
            operators.setdefault(names.of_text(domain.operator_dn), domain)
        except Refused:
            _log.warning("whitelist: the operator DN of %s cannot be read, nobody matches it", domain.db_host)
    return operators


def _children(parent: Element, name: str) -> list[Element]:
    return [child for child in parent if isinstance(child.tag, str) and local_name(child) == name]


def _field(parent: Element, name: str) -> str:
    """The text of the first child of that name, blanks collapsed; empty when there is none."""
    found = _children(parent, name)
    return " ".join("".join(str(part) for part in found[0].itertext()).split()) if found else ""


def _cleaned_host(host: str) -> str:
    return host.strip().rstrip(".").lower()
