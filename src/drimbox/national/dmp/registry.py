"""``rs:RegistryResponse`` and what derives from it: status and error list, read once for every transaction."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element
from drimbox.national.dmp.codes import RESPONSE_FAILURE, RESPONSE_PARTIAL, RESPONSE_SUCCESS, RS
from drimbox.national.dmp.errors import RegistryError, error_of

_STATUSES = {s.rpartition(":")[2]: s for s in (RESPONSE_SUCCESS, RESPONSE_FAILURE, RESPONSE_PARTIAL)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a registry answered, when it did not fail. ``errors`` are there for a partial success only."""

    partial: bool
    errors: tuple[RegistryError, ...]
    warnings: tuple[RegistryError, ...]


def outcome(response: Element) -> Outcome:
    """Read status and errors of a response element.

    Raises what ``errors.error_of`` says for a failure; ``Refused`` (``registry-status``) for a status that is none,
    (``registry-contradiction``) for a success that lists errors: which of the two is true must be asked.
    """
    status = _status(response)
    listed = tuple(
        RegistryError(
            code=error.get("errorCode", ""),
            context=error.get("codeContext", ""),
            warning=error.get("severity", "").rpartition(":")[2] == "Warning",
            location=error.get("location", ""),
        )
        for error in response.iterfind(f"{{{RS}}}RegistryErrorList/{{{RS}}}RegistryError")
    )
    errors = tuple(e for e in listed if not e.warning)
    if status == RESPONSE_FAILURE:
        raise error_of(listed)
    if status == RESPONSE_SUCCESS and errors:
        raise Refused("Réponse du DMP contradictoire : succès avec des erreurs", code="registry-contradiction")
    return Outcome(status == RESPONSE_PARTIAL, errors, tuple(e for e in listed if e.warning))


def whole(response: Element) -> Outcome:
    """The same for an answer that carries data: a partial one is not taken for the whole. Raises as ``outcome``."""
    found = outcome(response)
    if found.partial:
        raise error_of(found.errors)
    return found


def _status(response: Element) -> str:
    status = _STATUSES.get(response.get("status", "").rpartition(":")[2])
    if status is None:
        raise Refused("Réponse du DMP sans statut reconnu", code="registry-status")
    return status
