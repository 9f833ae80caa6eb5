"""What a patient is asked, and whether it is right: birth date, sex and birth place of the strict traits (decision 19).

All three at once, and nothing tells which one was wrong. The place is the INSEE code or the name of the commune.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Sex, normal
from drimbox.link.ports import Contact
from drimbox.manifest.manifest import Manifest

_MAX_PLACE = 80
_MAX_DATE = 30
# Nothing here can match the same spaces in two ways: the time does not grow with what a stranger types.
_DAY = re.compile(r"([0-9]{1,2})(?: +| ?[/.-] ?)([0-9]{1,2})(?: +| ?[/.-] ?)([0-9]{4})")
_COMPACT = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{4})")
_INSEE = re.compile(r"[0-9][0-9AB][0-9]{3}")
# Communes are written both ways.
_WORDS = {"ST": "SAINT", "STE": "SAINTE"}


class Incomplete(Refused):
    """The form is not filled in; says what is missing, which tells nothing of the patient."""


@dataclass(frozen=True, slots=True, repr=False)
class Answers:
    """What a visitor said of the patient: whole, and well formed. Build it with ``answers_of``."""

    birth_date: dt.date
    sex: Sex
    place: str


def answers_of(fields: Mapping[str, str]) -> Answers:
    """The fields ``naissance``, ``sexe`` and ``lieu`` of a form. Raises ``Incomplete``."""
    return Answers(_date(fields.get("naissance", "")), _sex(fields.get("sexe", "")), _place(fields.get("lieu", "")))


def right(answers: Answers, manifest: Manifest, contact: Contact) -> bool:
    """Is that the patient of the KOS? A trait that the KOS has not agrees with nothing."""
    dated = manifest.birth_date == answers.birth_date.strftime("%Y%m%d")
    sexed = manifest.sex in ("M", "F") and manifest.sex == answers.sex.value
    code = manifest.birth_place.strip().upper()
    named = _commune(contact.birth_city)
    placed = (bool(code) and answers.place == code) or (bool(named) and answers.place == named)
    # All of them are looked at whatever the first one says.
    return dated & sexed & placed


def _date(text: str) -> dt.date:
    written = " ".join(text.split()) if len(text) <= _MAX_DATE else ""
    found = _DAY.fullmatch(written) or _COMPACT.fullmatch(written)
    if found is None:
        raise Incomplete("Écrivez la date de naissance comme ceci : 28/03/1979", code="link-birth-date")
    try:
        return dt.date(int(found[3]), int(found[2]), int(found[1]))
    except ValueError:
        raise Incomplete("Cette date de naissance n'existe pas au calendrier", code="link-birth-date") from None


def _sex(text: str) -> Sex:
    if text not in ("F", "M"):
        raise Incomplete("Choisissez le sexe : féminin ou masculin", code="link-sex")
    return Sex(text)


def _place(text: str) -> str:
    place = _commune(text[: _MAX_PLACE + 1])
    if not place or len(text) > _MAX_PLACE:
        raise Incomplete("Écrivez le lieu de naissance : le nom de la commune", code="link-birth-place")
    return place


def _commune(text: str) -> str:
    """A name or an INSEE code in one form. An arrondissement of Paris, Lyon or Marseille keeps its number."""
    compact = "".join(text.split()).upper()
    if _INSEE.fullmatch(compact):
        return compact
    return " ".join(_WORDS.get(word, word) for word in normal(text).split())
