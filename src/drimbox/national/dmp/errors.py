"""What an answer of the DMP that says no means for the caller: each XDS error code, and what can be done about it.

Sources: ITI TF-3 4.2.4.1 (codes), standards.md D.2. A code of the DMP's own, unknown here, is a functional refusal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from drimbox.foundation.errors import Busy, DrimboxError, Rejected, Unavailable

_WORD = re.compile(r"[A-Za-z0-9_.:\-]{1,80}")
_MAX_CONTEXT = 2000
_MAX_ERRORS = 100


@dataclass(frozen=True, slots=True)
class RegistryError:
    """One ``rs:RegistryError``. ``context`` is the peer's free text: for the operator's eyes, never for a log."""

    code: str
    context: str = ""
    warning: bool = False
    location: str = ""

    def __repr__(self) -> str:
        # The context may quote the request, patient included.
        return f"RegistryError({self.code}, warning={self.warning})"


class Disposition(Enum):
    """What the caller can do about an error code."""

    REJECTED = "rejected"  # correct the request: the same one will be refused again
    BUSY = "busy"  # the DMP asks to come back later
    UNAVAILABLE = "unavailable"  # an internal failure of the DMP; nothing was done


class _Told:
    """What an error of the DMP carries besides its code: every error of the answer, word for word."""

    errors: tuple[RegistryError, ...] = ()

    @property
    def contexts(self) -> tuple[str, ...]:
        """The free texts of the errors, cut to 2,000 characters each: for the operator, since they may name people."""
        return tuple(e.context[:_MAX_CONTEXT] for e in self.errors if e.context)


class DmpRejected(_Told, Rejected):
    """The DMP said no for good."""

    def __init__(self, reason: str, *, code: str, peer_code: str | None, errors: Sequence[RegistryError] = ()) -> None:
        super().__init__(reason, code=code, peer_code=peer_code)
        self.errors = tuple(errors)


class DmpUnavailable(_Told, Unavailable):
    """The DMP failed inside and did nothing."""

    def __init__(self, reason: str, *, code: str, peer_code: str | None, errors: Sequence[RegistryError] = ()) -> None:
        super().__init__(reason, code=code, peer_code=peer_code)
        self.errors = tuple(errors)


_CODES: dict[str, tuple[Disposition, str]] = {
    "XDSMissingDocument": (Disposition.REJECTED, "un document annoncé par les métadonnées manque"),
    "XDSMissingDocumentMetadata": (Disposition.REJECTED, "un document est envoyé sans ses métadonnées"),
    "XDSRegistryNotAvailable": (Disposition.UNAVAILABLE, "le registre du DMP est injoignable"),
    "XDSRegistryError": (Disposition.UNAVAILABLE, "erreur interne du registre du DMP"),
    "XDSRepositoryError": (Disposition.UNAVAILABLE, "erreur interne de l'entrepôt du DMP"),
    "XDSRegistryDuplicateUniqueIdInMessage": (Disposition.REJECTED, "un identifiant figure deux fois dans l'envoi"),
    "XDSRepositoryDuplicateUniqueIdInMessage": (Disposition.REJECTED, "un identifiant figure deux fois dans l'envoi"),
    "XDSDuplicateUniqueIdInRegistry": (Disposition.REJECTED, "un document de cet identifiant existe déjà"),
    "XDSNonIdenticalHash": (Disposition.REJECTED, "un document de cet identifiant existe avec une autre empreinte"),
    "XDSNonIdenticalSize": (Disposition.REJECTED, "un document de cet identifiant existe avec une autre taille"),
    "XDSRegistryBusy": (Disposition.BUSY, "le registre du DMP est surchargé"),
    "XDSRepositoryBusy": (Disposition.BUSY, "l'entrepôt du DMP est surchargé"),
    "XDSRegistryOutOfResources": (Disposition.BUSY, "le registre du DMP manque de ressources"),
    "XDSRepositoryOutOfResources": (Disposition.BUSY, "l'entrepôt du DMP manque de ressources"),
    "XDSRegistryMetadataError": (Disposition.REJECTED, "métadonnées refusées par le registre"),
    "XDSRepositoryMetadataError": (Disposition.REJECTED, "métadonnées refusées par l'entrepôt"),
    "XDSTooManyResults": (Disposition.REJECTED, "trop de résultats : la recherche doit être précisée"),
    "XDSExtraMetadataNotSaved": (Disposition.REJECTED, "des métadonnées supplémentaires n'ont pas été conservées"),
    "XDSUnknownPatientId": (Disposition.REJECTED, "patient inconnu du DMP"),
    "XDSPatientIdDoesNotMatch": (Disposition.REJECTED, "le patient n'est pas celui du document visé"),
    "XDSUnknownStoredQuery": (Disposition.REJECTED, "type de recherche inconnu du DMP"),
    "XDSStoredQueryMissingParam": (Disposition.REJECTED, "il manque un critère à la recherche"),
    "XDSStoredQueryParamNumber": (Disposition.REJECTED, "un critère de recherche a trop de valeurs"),
    "XDSRegistryDeprecatedDocumentError": (Disposition.REJECTED, "le document visé n'est plus la version en cours"),
    "XDSUnknownRepositoryId": (Disposition.REJECTED, "entrepôt de documents inconnu du DMP"),
    "XDSDocumentUniqueIdError": (Disposition.REJECTED, "aucun document de cet identifiant, ou accès refusé"),
    "XDSResultNotSinglePatient": (Disposition.REJECTED, "le résultat concernerait plusieurs patients"),
    "InvalidDocumentContent": (Disposition.REJECTED, "contenu du document non conforme à son format"),
    "XDSMetadataUpdateError": (Disposition.REJECTED, "mise à jour des métadonnées refusée"),
    "XDSMetadataUpdateOperationError": (Disposition.REJECTED, "opération de mise à jour non reconnue"),
    "XDSMetadataVersionError": (Disposition.REJECTED, "la version visée n'est plus la version en cours"),
    "XDSPatientIDReconciliationError": (Disposition.REJECTED, "la mise à jour changerait le patient du document"),
    "XDSReplaceFailed": (Disposition.REJECTED, "remplacement du document refusé"),
    "UnmodifiableMetadataError": (Disposition.REJECTED, "cette métadonnée ne peut pas être modifiée"),
    "LocalPolicyRestrictionError": (Disposition.REJECTED, "refus de la politique d'accès du DMP"),
}
KNOWN_CODES = tuple(_CODES)


def disposition(code: str) -> Disposition:
    """What an error code means; a code that is not IHE's is a functional refusal."""
    known = _CODES.get(_bare(code))
    return known[0] if known else Disposition.REJECTED


def explanation(code: str) -> str:
    """One French sentence part for the operator, without anything of the peer's free text."""
    known = _CODES.get(_bare(code))
    return known[1] if known else f"code {safe_word(code)}"


def error_of(errors: Sequence[RegistryError]) -> DrimboxError:
    """The one error that a failed answer comes to: the gravest of those listed, refusals first.

    Warnings count only when nothing else explains the failure; a failure without any error is a refusal without code.
    """
    kept = tuple(errors[:_MAX_ERRORS])
    causes = [e for e in kept if not e.warning] or list(kept)
    if not causes:
        return DmpRejected("Le DMP a refusé la demande sans en donner la raison", code="dmp-rejected", peer_code=None)
    for wanted in (Disposition.REJECTED, Disposition.UNAVAILABLE, Disposition.BUSY):
        cause = next((e for e in causes if disposition(e.code) is wanted), None)
        if cause is not None:
            return _error(wanted, cause, kept)
    raise AssertionError("every code has a disposition")


def safe_word(code: str) -> str:
    """A peer's code as it may be shown and logged: a word of 80 characters at most, else ``inconnu``."""
    cleaned = code.strip()
    return cleaned if _WORD.fullmatch(cleaned) else "inconnu"


def _error(kind: Disposition, cause: RegistryError, errors: tuple[RegistryError, ...]) -> DrimboxError:
    peer_code = safe_word(cause.code)
    if kind is Disposition.REJECTED:
        return DmpRejected(
            f"Le DMP a refusé la demande : {explanation(cause.code)}",
            code="dmp-rejected",
            peer_code=peer_code,
            errors=errors,
        )
    if kind is Disposition.BUSY:
        return Busy(f"DMP occupé : {explanation(cause.code)}", code="dmp-busy", peer_code=peer_code)
    return DmpUnavailable(
        f"DMP en échec : {explanation(cause.code)}", code="dmp-failed", peer_code=peer_code, errors=errors
    )


def _bare(code: str) -> str:
    """``urn:…:XDSRegistryBusy`` and ``XDSRegistryBusy`` are the same code."""
    return code.strip().rpartition(":")[2]
