"""Who a provider says that it is, from the claims of its userinfo (FranceConnect: "identité pivot").

FranceConnect gives the birth name, all given names with blanks between, the date as ``YYYY-MM-DD``, ``male`` or
``female``, and the place as INSEE codes: the commune, empty for who was born abroad, and the country.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Sex
from drimbox.national.psc.answers import Document, text

_MAX_NAME = 200
_SEXES = {"male": Sex.MALE, "female": Sex.FEMALE, "m": Sex.MALE, "f": Sex.FEMALE}


@dataclass(frozen=True, slots=True)
class Claims:
    """Under which names a provider tells each trait; ``birth_country`` may be empty, where it tells none."""

    family: str = "family_name"
    given: str = "given_name"
    birth_date: str = "birthdate"
    sex: str = "gender"
    birth_place: str = "birthplace"
    birth_country: str = "birthcountry"


@dataclass(frozen=True, slots=True, repr=False)
class Person:
    """Somebody who proved an identity. ``birth_place`` is an INSEE code: of the commune, or of a country abroad.

    A trait that the provider does not tell, or not in a form that can be compared, is empty, None or unknown.
    """

    family: str
    given_names: tuple[str, ...]
    birth_date: dt.date | None
    sex: Sex
    birth_place: str


def read_person(content: Document, claims: Claims) -> Person:
    """The traits that the claims tell. Raises ``Refused`` (``oidc-claims``) for ones of no possible length."""
    family, given = text(content, claims.family), text(content, claims.given)
    if max(len(family), len(given)) > _MAX_NAME:
        raise Refused("Identité illisible du fournisseur d'identité", code="oidc-claims")
    return Person(
        family=family,
        given_names=tuple(given.split()),
        birth_date=_date(text(content, claims.birth_date)),
        sex=_SEXES.get(text(content, claims.sex).lower(), Sex.UNKNOWN),
        birth_place=_place(text(content, claims.birth_place), text(content, claims.birth_country)),
    )


def _date(told: str) -> dt.date | None:
    """A whole date alone: one without its day or month agrees with nothing."""
    if len(told) != 10 or not told.isascii():
        return None
    try:
        return dt.date.fromisoformat(told)
    except ValueError:
        return None


def _place(commune: str, country: str) -> str:
    """The strict trait is one code: the commune's, or the country's for who was born abroad (RNIV)."""
    code = (commune or country).upper()
    return code if len(code) == 5 and code.isascii() and code.isalnum() else ""
