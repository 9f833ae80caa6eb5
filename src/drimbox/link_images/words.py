"""What visitors read: in plain French, for patients and doctors alike, and without a word of health data."""

from __future__ import annotations

from collections.abc import Mapping

from drimbox.foundation.errors import (
    Busy,
    DrimboxError,
    IdentityMismatch,
    Misconfigured,
    Refused,
    Rejected,
    Unavailable,
)

SEXES: Mapping[str, str] = {"F": "Féminin", "M": "Masculin", "O": "Indéterminé", "": "Non précisé"}

_CLOSED = "Cet examen n'est pas disponible à cette adresse, ou ne l'est plus"
_PACS = "Le serveur d'images de l'établissement ne répond pas pour le moment : réessayez dans quelques minutes"
_BY_CODE: Mapping[str, str] = {
    "gone": _CLOSED,
    "images-gone": "L'établissement n'a plus ces images, ou seulement une partie : adressez-vous à lui",
    "images-missing": "Le serveur d'images de l'établissement n'a pas envoyé toutes les images",
    "sop-class": "Ce type d'image ne peut pas être affiché ici",
    "no-frame": "Cette image n'existe pas",
    "media-size": "Cet examen est trop volumineux pour être téléchargé d'ici : adressez-vous à l'établissement",
    "media-empty": "Cet examen n'a pas d'image qui puisse être enregistrée sous cette forme",
    "cross-site": "Cette demande ne vient pas de la page de l'examen",
    "audit-silent": "La DRIMbox ne peut pas tracer cet accès pour le moment : réessayez dans quelques minutes",
    "internal": "Erreur interne de la DRIMbox : réessayez dans quelques minutes",
}

_STATUS: Mapping[str, int] = {
    **dict.fromkeys(("gone", "no-frame"), 404),
    "images-gone": 410,
    "media-size": 413,
    "media-empty": 404,
    "cross-site": 403,
    "accept": 400,
}


def said(error: DrimboxError) -> str:
    """One sentence, without a full stop: what is wrong for who looks at the images, and what they can do."""
    if (known := _BY_CODE.get(error.code)) is not None:
        return known
    if isinstance(error, Busy):
        return "Trop de visites en cours : réessayez dans une minute"
    if isinstance(error, IdentityMismatch) or error.code == "pacs-wrong-instance":
        return (
            "Ces images ne peuvent pas être affichées : leur identité n'est pas celle du compte rendu. "
            "Adressez-vous à l'établissement"
        )
    if isinstance(error, Unavailable | Rejected | Misconfigured):
        return _PACS
    if isinstance(error, Refused):
        return "Ces images ne peuvent pas être lues"
    return _BY_CODE["internal"]


def status_of(error: DrimboxError) -> int:
    """The HTTP status of an error that came before the first byte."""
    if error.code in _STATUS:
        return _STATUS[error.code]
    if isinstance(error, Unavailable | Misconfigured):
        return 503
    return 502
