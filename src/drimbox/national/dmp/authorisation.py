"""TD0.3: the professional records that the patient authorises the consultation, or no longer does (D.8, decision 22).

Only ever sent by an explicit act of the professional. The patient is the resource-id of the VIHF, the actor its NameID.
The answer gives a status word: the DMP's own ``DMPOk``, or ``OK``.
"""

from __future__ import annotations

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Builder, Element, text_of
from drimbox.national.dmp import soap
from drimbox.national.dmp.codes import ACTION_AUTHORISATION, HABILITATIONS
from drimbox.national.dmp.errors import DmpRejected, RegistryError, safe_word
from drimbox.national.dmp.transport import Request

_HABILITATIONS = Builder({"": HABILITATIONS}, "")
_DONE = frozenset({"DMPOK", "OK"})


def request(url: str, *, withdraw: bool = False) -> Request:
    """What is sent: ``AJOUT``, or ``SUPPRESSION`` to ``withdraw``."""
    action = "SUPPRESSION" if withdraw else "AJOUT"
    body = _HABILITATIONS("setAuthorization", _HABILITATIONS("action", action))
    return Request(url, ACTION_AUTHORISATION, body, changes=True)


def result(answer: soap.Answer) -> None:
    """Return when the authorisation is recorded. Raises ``DmpRejected``, ``Refused`` (``answer-authorisation``)."""
    body = soap.expect(answer, HABILITATIONS, "setAuthorizationResponse")
    status = _text(body, "status")
    if not status:
        raise Refused("Réponse du DMP à la demande d'autorisation sans statut", code="answer-authorisation")
    if status.upper() not in _DONE:
        raise DmpRejected(
            f"Le DMP a refusé l'autorisation (code {safe_word(status)})",
            code="dmp-rejected",
            peer_code=safe_word(status),
            errors=(RegistryError(status, _text(body, "context")),),
        )


def _text(body: Element, name: str) -> str:
    return next((text_of(e) for e in body.iter(f"{{*}}{name}")), "")
