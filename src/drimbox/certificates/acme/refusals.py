"""What an authority refuses, in words that an operator can act on (RFC 8555 6.7)."""

from __future__ import annotations

from collections.abc import Mapping

from drimbox.certificates.acme.messages import Problem
from drimbox.foundation.errors import Busy, DrimboxError, Misconfigured, Rejected, Unavailable

LONGEST_WAIT = 7 * 86400.0

_REASONS: Mapping[str, str] = {
    "caa": "Le DNS interdit à cette autorité d'émettre ce certificat (CAA) : faites-la ajouter par l'agence, ou "
    "changez d'autorité",
    "connection": "L'autorité n'a pas pu joindre ce serveur : ouvrez le port 80 (HTTP-01) ou 443 (TLS-ALPN-01) depuis "
    "Internet jusqu'à la DRIMbox",
    "dns": "L'autorité ne trouve pas le nom de ce serveur dans le DNS : faites vérifier l'enregistrement par l'agence",
    "incorrectResponse": "Un autre serveur a répondu à la validation : vérifiez que le nom mène bien à cette DRIMbox",
    "unauthorized": "L'autorité n'accepte pas la réponse reçue à ce nom : vérifiez que le nom mène bien à cette "
    "DRIMbox et qu'aucun relais ne répond à sa place",
    "tls": "La validation TLS-ALPN-01 a échoué : le port 443 doit arriver à la DRIMbox sans relais qui termine TLS",
    "rejectedIdentifier": "L'autorité refuse ce nom : vérifiez-le, ou changez d'autorité",
    "unsupportedIdentifier": "L'autorité n'émet pas pour ce nom : vérifiez-le, ou changez d'autorité",
    "badCSR": "L'autorité refuse la demande : changez le type de clé (réglage key)",
    "badPublicKey": "L'autorité refuse cette clé : changez son type (réglage key)",
    "badSignatureAlgorithm": "L'autorité refuse l'algorithme de la clé de compte",
    "externalAccountRequired": "L'autorité demande un compte externe : donnez external_account_id et "
    "external_account_key_file",
    "userActionRequired": "L'autorité demande un accord de votre part : lisez ses nouvelles conditions, puis réessayez",
    "accountDoesNotExist": "L'autorité ne connaît pas ou plus ce compte",
    "alreadyRevoked": "Ce certificat est déjà révoqué",
    "badRevocationReason": "L'autorité refuse ce motif de révocation : choisissez-en un autre",
    "orderNotReady": "L'autorité n'a pas encore validé la commande",
    "invalidContact": "L'autorité refuse l'adresse de contact : corrigez le réglage contact",
    "unsupportedContact": "L'autorité refuse l'adresse de contact : corrigez le réglage contact",
    "alreadyReplaced": "Ce certificat est déjà remplacé chez l'autorité",
}
_FOR_THE_SITE = frozenset(("externalAccountRequired", "userActionRequired", "invalidContact", "unsupportedContact"))


class Refusal(Rejected):
    """An authority said no; ``kind`` is its error type without the namespace."""

    def __init__(self, problem: Problem) -> None:
        reason = _REASONS.get(problem.kind, "L'autorité a refusé la demande : son message dit pourquoi")
        super().__init__(reason, code="acme-refused", peer_code=problem.told or None)
        self.kind = problem.kind


def refusal(status: int, problem: Problem, retry_after: float | None) -> DrimboxError:
    """The error that an answer which is no success amounts to."""
    if problem.kind == "rateLimited" or status == 429:
        return Busy(
            "L'autorité demande d'attendre (limite de son service)",
            code="acme-rate",
            peer_code=problem.told or None,
            retry_after=min(retry_after, LONGEST_WAIT) if retry_after is not None else 3600.0,
        )
    if status >= 500 or problem.kind == "serverInternal":
        code = problem.told or str(status)
        if retry_after is not None:
            wait = min(retry_after, LONGEST_WAIT)
            return Busy("L'autorité est momentanément en panne", code="acme-down", peer_code=code, retry_after=wait)
        return Unavailable("L'autorité est momentanément en panne", code="acme-down", peer_code=code)
    if problem.kind in _FOR_THE_SITE:
        return Misconfigured(_REASONS[problem.kind], code="acme-account", peer_code=problem.told)
    return Refusal(problem if problem.kind or problem.detail else Problem(detail=f"HTTP {status}"))
