"""Is a pair of ours fit for its place? Every rule at once, each breach with its remedy.

What a peer, the DMP or Pro Sante Connect would refuse is found here first: purpose, structure (OU), range (test or
production), dates, revocation, chain to the pinned roots, strength of keys and digests, names of a server
(standards.md K.1 to K.4). That key and certificate belong together is checked where they are read (``trust.keystore``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID

from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.trust import names
from drimbox.trust.chain import TrustStore
from drimbox.trust.keystore import MIN_EC_BITS, MIN_RSA_BITS, UNREADABLE, Credential
from drimbox.trust.profiles import Profile, require_profile
from drimbox.trust.tls import MUST_BE_A_FILE
from drimbox.trust.token import TokenKey

E = TypeVar("E", bound=x509.ExtensionType)
Range = Literal["test", "production"]

MAX_CHAIN = 5
STRONG_DIGESTS = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
"""Of signatures that are believed."""
_RANGES: dict[str, Range] = {"IGC-SANTE TEST": "test", "IGC-SANTE": "production"}


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that is not kept. ``code`` is a short stable word; the rest is French, for the operator."""

    code: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}. {self.remedy}"


@dataclass(frozen=True, slots=True)
class Demand:
    """What a place asks of its pair.

    ``profile``: None for one that a neighbour of the site chose. ``units``: the OUs that it may have, empty for any.
    ``range``: of the box, None where it is nobody's. ``trust``: whom the chain must end at, None for any. ``host``: the
    one name that a server's certificate must have, empty for any; ``wildcard``: may names have a star.
    """

    profile: Profile | None = None
    units: tuple[str, ...] = ()
    range: Range | None = None
    trust: TrustStore | None = None
    host: str = ""
    wildcard: bool = True


class Unfit(Misconfigured):
    """A pair is not what its place asks for; ``breaches`` says all of it."""

    def __init__(self, breaches: Sequence[Breach]) -> None:
        super().__init__(" ".join(str(breach) for breach in breaches).rstrip("."), code="credential")
        self.breaches = tuple(breaches)


def fitting(credential: Credential, demand: Demand, now: dt.datetime) -> Credential:
    """The pair, its chain completed with the intermediates that are pinned. Raises ``Unfit`` with every breach."""
    if found := breaches_of(credential, demand, now):
        raise Unfit(found)
    if demand.trust is None:
        return credential
    path, _ = _path(credential, demand.trust)
    return replace(credential, chain=tuple(c for c in path[1:] if c.subject != c.issuer))


def breaches_of(credential: Credential, demand: Demand, now: dt.datetime) -> tuple[Breach, ...]:
    """Every rule of ``demand`` that the pair breaks at the instant ``now``."""
    try:
        return tuple(_breaches(credential, demand, now))
    except UNREADABLE:
        return (
            Breach(
                "syntax", "Certificat avec des champs illisibles", "Demandez-en un autre à l'autorité qui l'a émis."
            ),
        )


def range_of(certificates: Sequence[x509.Certificate]) -> Range | None:
    """The range of IGC-Sante that these certificates' issuers belong to; None for another authority."""
    for certificate in reversed(certificates):
        for name in (certificate.issuer, certificate.subject):
            for attribute in name.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME):
                if found := _RANGES.get(str(attribute.value).strip().upper()):
                    return found
    return None


def complete(credential: Credential, trust: TrustStore) -> bool:
    """Does the chain lead to one of the pinned roots, the pinned intermediates helping?"""
    return _path(credential, trust)[1]


def _breaches(credential: Credential, demand: Demand, now: dt.datetime) -> Iterator[Breach]:
    leaf = credential.certificate
    yield from _dates(leaf, now)
    yield from _purpose(credential, demand.profile)
    yield from _unit(leaf, demand.units)
    yield from _strength(leaf, "Le certificat")
    yield from _server_names(leaf, demand)
    path = [leaf, *credential.chain]
    if demand.trust is not None:
        path, whole = _path(credential, demand.trust)
        if not whole:
            yield _incomplete(path[-1])
        yield from _authorities(path[1:], now)
        yield from _revocation(path, demand.trust, now)
    yield from _range(path, demand.range)
    if isinstance(credential.key, TokenKey) and demand.profile is not Profile.SIGN:
        yield Breach("token", *MUST_BE_A_FILE.split(". ", 1))


def _dates(leaf: x509.Certificate, now: dt.datetime) -> Iterator[Breach]:
    if now > leaf.not_valid_after_utc:
        yield Breach(
            "expired",
            f"Le certificat est expiré depuis le {leaf.not_valid_after_utc.astimezone(PARIS):%d/%m/%Y}",
            "Installez la paire renouvelée, et vérifiez l'heure de la machine.",
        )
    if now < leaf.not_valid_before_utc:
        yield Breach(
            "not-yet",
            f"Le certificat n'est valable qu'à partir du {leaf.not_valid_before_utc.astimezone(PARIS):%d/%m/%Y}",
            "Gardez la paire actuelle jusque-là, et vérifiez l'heure de la machine.",
        )


def _purpose(credential: Credential, profile: Profile | None) -> Iterator[Breach]:
    basic = _extension(credential.certificate, x509.BasicConstraints)
    if basic is not None and basic.ca:
        yield Breach(
            "purpose", "C'est le certificat d'une autorité", "Mettez celui de la structure en tête du fichier."
        )
    elif profile is not None:
        try:
            require_profile(credential, profile)
        except Misconfigured as error:
            yield Breach("purpose", error.reason, f"Installez une paire valide : un {profile.value}.")


def _unit(leaf: x509.Certificate, units: Sequence[str]) -> Iterator[Breach]:
    if not units:
        return
    try:
        unit = names.single(leaf.subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    except Refused as error:
        yield Breach("unit", error.reason, "Demandez un certificat qui ne nomme qu'une structure (OU).")
        return
    if unit not in units:
        yield Breach(
            "unit",
            f"Certificat {names.written(leaf.subject)} : son OU ({unit or 'absente'}) n'est pas celle attendue "
            f"({' ou '.join(units)})",
            "Installez la paire de cette structure, ou dites son OU avec certificate_unit.",
        )


def _strength(certificate: x509.Certificate, what: str) -> Iterator[Breach]:
    key = certificate.public_key()
    strong = (isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS) or (
        isinstance(key, EllipticCurvePublicKey) and key.curve.key_size >= MIN_EC_BITS
    )
    if not strong:
        yield Breach(
            "key-size",
            f"{what} a une clé trop faible ou d'un type refusé (RSA 2048 ou EC 256 au moins)",
            "Commandez un certificat avec une nouvelle clé.",
        )
    # The digest of a root proves nothing: it is pinned.
    if certificate.subject != certificate.issuer and not isinstance(
        certificate.signature_hash_algorithm, STRONG_DIGESTS
    ):
        yield Breach(
            "digest",
            f"{what} n'est pas signé avec SHA-256 ou mieux",
            "Demandez-en un autre à l'autorité qui l'a émis.",
        )


def _server_names(leaf: x509.Certificate, demand: Demand) -> Iterator[Breach]:
    alternative = _extension(leaf, x509.SubjectAlternativeName)
    told = [str(name.value).lower() for name in alternative or ()]
    if not demand.wildcard and any("*" in name for name in told):
        yield Breach(
            "wildcard",
            "Un certificat générique (*) est interdit ici",
            f"Demandez-le au nom de {demand.host or 'ce serveur'}, seul.",
        )
    if not demand.host:
        return
    if demand.host.lower() not in told:
        yield Breach(
            "name",
            f"Le certificat n'est pas au nom (SAN) de {demand.host}",
            f"Demandez-le au nom de {demand.host}, donné par l'agence, seul.",
        )
    if len(told) > 1:
        yield Breach(
            "several",
            "Le certificat porte plusieurs noms (SAN)",
            f"Demandez-le pour {demand.host} et aucun autre.",
        )


def _incomplete(last: x509.Certificate) -> Breach:
    issuer = names.written(last.issuer)[:200]
    return Breach(
        "chain",
        f"La chaîne ne mène à aucune racine de trust.roots : il manque l'autorité « {issuer} »",
        "Ajoutez les certificats intermédiaires remis avec le certificat, ou installez celui de l'IGC-Santé.",
    )


def _authorities(issuers: Sequence[x509.Certificate], now: dt.datetime) -> Iterator[Breach]:
    for issuer in issuers:
        basic, usage = _extension(issuer, x509.BasicConstraints), _extension(issuer, x509.KeyUsage)
        who = f"L'autorité « {names.written(issuer.subject)[:200]} »"
        if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
            yield Breach("chain", f"{who} n'en est pas une", "Donnez la chaîne remise avec le certificat.")
        if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
            yield Breach("chain", f"{who} est expirée ou pas encore valable", "Donnez la chaîne actuelle.")
        yield from _strength(issuer, who)


def _revocation(path: Sequence[x509.Certificate], trust: TrustStore, now: dt.datetime) -> Iterator[Breach]:
    for certificate, issuer in pairwise(path):
        try:
            trust.revocation.check(certificate, issuer, now)
        except Refused as error:
            # A list that is lacking or old says nothing of our own certificate: that is for our peers to mind.
            if error.code == "certificate-revoked":
                what = "Le certificat" if certificate is path[0] else "Une autorité de la chaîne"
                yield Breach("revoked", f"{what} est sur la liste de révocation", "Commandez un certificat nouveau.")


def _range(path: Sequence[x509.Certificate], wanted: Range | None) -> Iterator[Breach]:
    found = range_of(path)
    if wanted is None or found is None or found == wanted:
        return
    words = {"test": "de test", "production": "de production"}
    yield Breach(
        "range",
        f"C'est un certificat {words[found]} de l'IGC-Santé, et cette DRIMbox est {words[wanted]} (box.environment)",
        f"Installez un certificat {words[wanted]} : les deux gammes ne se mêlent jamais.",
    )


def _path(credential: Credential, trust: TrustStore) -> tuple[list[x509.Certificate], bool]:
    """The certificate and its issuers as far as they are known, and whether the last one is a pinned root."""
    path = [credential.certificate]
    known = [*trust.roots, *credential.chain]
    while len(path) <= MAX_CHAIN:
        if path[-1] in trust.anchors:
            return path, True
        issuer = next((c for c in known if c not in path and issued(c, path[-1])), None)
        if issuer is None:
            return path, False
        path.append(issuer)
    return path, False


def issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Did ``issuer`` sign ``certificate``? One that is signed by a weak digest is taken at its word."""
    try:
        if issuer.subject != certificate.issuer:
            return False
        if not isinstance(certificate.signature_hash_algorithm, STRONG_DIGESTS):
            # Not worth verifying: it is refused for its digest, and not for a link that is missing.
            return True
        certificate.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
