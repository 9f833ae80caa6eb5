"""What the programme asks of the market certificate of a viewer host (standards.md K.3, appel à manifestation 2026).

Exactly one name, the FQDN that the agency gave; no wildcard, no other SAN; SHA-256 or better; RSA 2048 or P-256 and
more; validation of the domain (DV) or of the organisation (OV); made for servers; chain complete; key matches. A breach
is one French sentence with its remedy, and nothing that breaks a rule is asked for, installed or served.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drimbox.foundation.errors import Refused
from drimbox.trust.fitness import STRONG_DIGESTS, issued
from drimbox.trust.keystore import MIN_EC_BITS, MIN_RSA_BITS, UNREADABLE, PrivateKey

E = TypeVar("E", bound=x509.ExtensionType)

MAX_CHAIN = 10
# Reserved policy identifiers of the CA/Browser Forum (Baseline Requirements 7.1.6.1).
_LEVELS = {"2.23.140.1.2.1": "DV", "2.23.140.1.2.2": "OV", "2.23.140.1.2.3": "IV", "2.23.140.1.1": "EV"}
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that is not kept. ``code`` is a short stable word, ``text`` the French sentence with the remedy."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Rules:
    """``host`` is the FQDN given by the agency; ``roots`` are those that browsers believe.

    ``levels`` are the levels of validation that are accepted; none: what the certificate says is not looked at, for
    test authorities that say nothing.
    """

    host: str
    roots: tuple[x509.Certificate, ...] = field(repr=False)
    levels: Collection[str] = ("DV", "OV")


class RulesBroken(Refused):
    """A certificate or a request is not what the programme asks for; ``breaches`` says all of it."""

    def __init__(self, breaches: Sequence[Breach]) -> None:
        super().__init__(" ".join(breach.text for breach in breaches), code="market-rules")
        self.breaches = tuple(breaches)


@dataclass(frozen=True, slots=True)
class Checked:
    """A certificate that keeps every rule, with its chain in order: its own issuer first, no root."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    root: x509.Certificate


def check(certificates: Sequence[x509.Certificate], key: PrivateKey, rules: Rules, now: dt.datetime) -> Checked:
    """The certificate (first of ``certificates``) that goes with ``key``, ready to be served.

    Raises ``RulesBroken`` with every breach.
    """
    if not certificates:
        raise RulesBroken(
            [Breach("empty", "Aucun certificat n'a été donné : donnez le certificat et sa chaîne (PEM).")]
        )
    leaf = certificates[0]
    try:
        chain, root, broken = _chain(certificates, rules, now)
        breaches = [*certificate_breaches(leaf, rules, now), *broken]
    except UNREADABLE as error:
        raise RulesBroken(
            [Breach("syntax", "Le certificat ne peut pas être lu : demandez-en un autre à l'autorité.")]
        ) from error
    if key.public_key() != leaf.public_key():
        breaches.append(
            Breach(
                "key",
                "La clé privée n'est pas celle du certificat : donnez la clé de la demande (CSR) dont il est issu.",
            )
        )
    if breaches or root is None:
        raise RulesBroken(breaches)
    return Checked(leaf, chain, root)


def host_breaches(host: str) -> list[Breach]:
    """Is this the name of one host, fully qualified, as the agency gives it?"""
    if host.startswith("*."):
        return [
            Breach("wildcard", f"Un certificat générique ({host}) est interdit : donnez le nom exact reçu de l'agence.")
        ]
    labels = host.split(".")
    if host != host.lower() or len(host) > 253 or len(labels) < 3 or not all(map(_LABEL.fullmatch, labels)):
        return [
            Breach(
                "host",
                f"« {host[:80]} » n'est pas le nom complet d'un serveur : donnez, en minuscules, celui que l'agence a "
                "attribué (vi….mesimagesmedicales.fr).",
            )
        ]
    if labels[-1].isdigit():
        return [Breach("host", f"« {host} » est une adresse IP : donnez le nom que l'agence a attribué.")]
    return []


def request_breaches(request: x509.CertificateSigningRequest, rules: Rules) -> list[Breach]:
    """What an authority must not be asked for."""
    breaches = [*host_breaches(rules.host), *_name_breaches(_names_of(request.extensions), rules.host)]
    breaches += _common_name_breaches(request.subject, rules.host)
    breaches += _key_breaches(request.public_key(), "La demande")
    if not request.is_signature_valid:
        breaches.append(Breach("signature", "La demande n'est pas signée par sa propre clé : refaites-la."))
    if not isinstance(request.signature_hash_algorithm, STRONG_DIGESTS):
        breaches.append(Breach("hash", "La demande n'est pas signée avec SHA-256 ou mieux : refaites-la."))
    return breaches


def certificate_breaches(leaf: x509.Certificate, rules: Rules, now: dt.datetime) -> list[Breach]:
    """What a certificate breaks by itself, its chain and its key apart."""
    breaches = _name_breaches(_names_of(leaf.extensions), rules.host)
    breaches += _common_name_breaches(leaf.subject, rules.host)
    breaches += _key_breaches(leaf.public_key(), "Le certificat")
    if not isinstance(leaf.signature_hash_algorithm, STRONG_DIGESTS):
        breaches.append(
            Breach("hash", "Le certificat n'est pas signé avec SHA-256 ou mieux : demandez-en un autre à l'autorité.")
        )
    return [*breaches, *_level_breaches(leaf, rules), *_purpose_breaches(leaf), *_date_breaches(leaf, now)]


def level_of(leaf: x509.Certificate) -> str:
    """``DV``, ``OV``, ``IV`` or ``EV``; empty when the certificate does not say."""
    policies = _extension(leaf.extensions, x509.CertificatePolicies)
    if policies is None:
        return ""
    found = {_LEVELS.get(policy.policy_identifier.dotted_string, "") for policy in policies} - {""}
    return found.pop() if len(found) == 1 else ""


def _names_of(extensions: x509.Extensions) -> list[x509.GeneralName]:
    names = _extension(extensions, x509.SubjectAlternativeName)
    return list(names) if names is not None else []


def _name_breaches(names: Sequence[x509.GeneralName], host: str) -> list[Breach]:
    if not names:
        return [Breach("name", f"Aucun nom (SAN) dans le certificat : demandez-le pour {host}, seul.")]
    breaches = []
    told = [name.value if isinstance(name, x509.DNSName) else None for name in names]
    if any(name is not None and "*" in name for name in told):
        breaches.append(
            Breach("wildcard", f"Un certificat générique (*) est interdit : demandez-le pour {host}, seul.")
        )
    if host not in [name.lower() for name in told if name is not None]:
        breaches.append(
            Breach("name", f"Le certificat n'est pas au nom de {host}, donné par l'agence : demandez-le à ce nom.")
        )
    if len(names) > 1 or None in told:
        breaches.append(
            Breach("several", f"Le certificat porte plusieurs noms (SAN) : demandez-le pour {host} et aucun autre.")
        )
    return breaches


def _common_name_breaches(subject: x509.Name, host: str) -> list[Breach]:
    names = [str(attribute.value).lower() for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if all(name == host for name in names) and len(names) <= 1:
        return []
    return [
        Breach("common-name", f"Le nom commun (CN) du sujet n'est pas {host} : demandez le certificat à ce nom seul.")
    ]


def _key_breaches(key: object, what: str) -> list[Breach]:
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return []
    if isinstance(key, EllipticCurvePublicKey) and key.curve.key_size >= MIN_EC_BITS and "secp" in key.curve.name:
        return []
    return [
        Breach(
            "key-size",
            f"{what} a une clé trop faible ou d'un type refusé : il faut RSA de 2048 bits, ou P-256, au moins.",
        )
    ]


def _level_breaches(leaf: x509.Certificate, rules: Rules) -> list[Breach]:
    if not rules.levels:
        return []
    level = level_of(leaf)
    if level in rules.levels:
        return []
    told = f"est de niveau {level}" if level else "ne dit pas son niveau de validation"
    wanted = " ou ".join(rules.levels)
    return [Breach("level", f"Le certificat {told} : demandez à l'autorité un certificat {wanted}.")]


def _purpose_breaches(leaf: x509.Certificate) -> list[Breach]:
    extended = _extension(leaf.extensions, x509.ExtendedKeyUsage)
    usage = _extension(leaf.extensions, x509.KeyUsage)
    basic = _extension(leaf.extensions, x509.BasicConstraints)
    serves = extended is not None and ExtendedKeyUsageOID.SERVER_AUTH in extended
    if not serves or (usage is not None and not usage.digital_signature) or (basic is not None and basic.ca):
        return [
            Breach(
                "purpose",
                "Le certificat n'est pas celui d'un serveur TLS : demandez un certificat SSL/TLS de serveur, et mettez-"
                "le en tête du fichier.",
            )
        ]
    return []


def _date_breaches(certificate: x509.Certificate, now: dt.datetime) -> list[Breach]:
    if now > certificate.not_valid_after_utc:
        return [
            Breach(
                "expired",
                f"Le certificat est expiré depuis le {certificate.not_valid_after_utc:%d/%m/%Y} : demandez-en un "
                "autre, et vérifiez l'heure de la machine.",
            )
        ]
    if now < certificate.not_valid_before_utc:
        return [
            Breach(
                "not-yet",
                f"Le certificat n'est valable qu'à partir du {certificate.not_valid_before_utc:%d/%m/%Y} : attendez "
                "cette date, et vérifiez l'heure de la machine.",
            )
        ]
    return []


def _chain(
    certificates: Sequence[x509.Certificate], rules: Rules, now: dt.datetime
) -> tuple[tuple[x509.Certificate, ...], x509.Certificate | None, list[Breach]]:
    """The intermediates in order and the root; each must be a sound authority."""
    chain: list[x509.Certificate] = []
    current, others = certificates[0], list(certificates[1 : MAX_CHAIN + 1])
    while (root := next((r for r in rules.roots if issued(r, current)), None)) is None:
        issuer = next((c for c in others if c.subject != c.issuer and issued(c, current)), None)
        if issuer is None or issuer in chain:
            return tuple(chain), None, [_incomplete(current)]
        chain.append(issuer)
        current = issuer
    breaches: list[Breach] = []
    for issuer in (*chain, root):
        breaches += _authority_breaches(issuer, now)
    for issuer in chain:
        if not isinstance(issuer.signature_hash_algorithm, STRONG_DIGESTS):
            breaches.append(
                Breach("hash", "Une autorité de la chaîne est signée avec un condensat plus faible que SHA-256.")
            )
    for depth, (_, issuer) in enumerate(pairwise((certificates[0], *chain, root))):
        basic = _extension(issuer.extensions, x509.BasicConstraints)
        if basic is not None and basic.path_length is not None and basic.path_length < depth:
            breaches.append(
                Breach("chain", "La chaîne est plus longue que son autorité ne le permet : donnez l'autre.")
            )
    return tuple(chain), root, breaches


def _incomplete(last: x509.Certificate) -> Breach:
    issuer = last.issuer.rfc4514_string()
    return Breach(
        "chain",
        f"La chaîne est incomplète : il manque l'autorité « {issuer[:200]} », ou sa racine n'est pas reconnue par les "
        "navigateurs. Ajoutez les certificats intermédiaires fournis par l'autorité.",
    )


def _authority_breaches(issuer: x509.Certificate, now: dt.datetime) -> list[Breach]:
    basic = _extension(issuer.extensions, x509.BasicConstraints)
    usage = _extension(issuer.extensions, x509.KeyUsage)
    # Roots of before version 3 say nothing; the others must say that they are authorities.
    sound = basic.ca if basic is not None else issuer.subject == issuer.issuer
    breaches = []
    if not sound or (usage is not None and not usage.key_cert_sign):
        breaches.append(Breach("chain", "La chaîne contient un certificat qui n'est pas celui d'une autorité."))
    if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
        breaches.append(
            Breach("chain", "Une autorité de la chaîne est expirée ou pas encore valable : donnez la chaîne actuelle.")
        )
    return [*breaches, *_key_breaches(issuer.public_key(), "Une autorité de la chaîne")]


def _extension(extensions: x509.Extensions, kind: type[E]) -> E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


__all__ = [
    "Breach",
    "Checked",
    "Rules",
    "RulesBroken",
    "certificate_breaches",
    "check",
    "host_breaches",
    "level_of",
    "request_breaches",
]
