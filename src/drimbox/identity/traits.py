"""Identity traits and their comparison (decision 4; DB.SO.16, INS/va1.36)."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins


class Sex(StrEnum):
    """Administrative sex, in the codes that HL7, CDA and DICOM share."""

    MALE = "M"
    FEMALE = "F"
    OTHER = "O"
    UNKNOWN = "U"

    @staticmethod
    def of(code: str) -> Sex:
        """Raises ``Refused`` (``trait-sex``). ``I`` (indéterminé, INS) and ``UN`` (CDA) mean unknown."""
        cleaned = code.strip().upper()
        if cleaned in ("I", "UN", "N", ""):
            return Sex.UNKNOWN
        try:
            return Sex(cleaned)
        except ValueError:
            raise Refused("Sexe inconnu", code="trait-sex") from None


@dataclass(frozen=True, slots=True)
class LocalId:
    """A patient number of the site (IPP) with the OID of its issuer (empty when the source gave none)."""

    value: str
    issuer: str = ""

    def __repr__(self) -> str:
        return f"LocalId(…, issuer={self.issuer})"


@dataclass(frozen=True, slots=True)
class Traits:
    """The strict traits of a patient, and the used names.

    ``birth_place`` is the INSEE code of the place of birth; ``given_names`` the list of birth given names.
    """

    birth_family: str
    first_given: str
    birth_date: dt.date
    sex: Sex
    birth_place: str = ""
    given_names: tuple[str, ...] = ()
    used_family: str = ""
    used_given: str = ""

    def __repr__(self) -> str:
        return "Traits(…)"


@dataclass(frozen=True, slots=True)
class Patient:
    """One person as one source names them: the INS, whether it is qualified (``VALI``), traits, local numbers."""

    ins: Ins
    qualified: bool
    traits: Traits
    local_ids: tuple[LocalId, ...] = ()

    def __repr__(self) -> str:
        return "Patient(…)"


_SEPARATORS = re.compile(r"[\s\-'’_.,]+")


def normal(name: str) -> str:
    """A name without case, accents, ligatures, hyphens or apostrophes: ``D'Été-Œuf`` and ``D ETE OEUF`` are equal."""
    unligatured = name.replace("œ", "oe").replace("Œ", "OE").replace("æ", "ae").replace("Æ", "AE").replace("ß", "ss")
    decomposed = unicodedata.normalize("NFKD", unligatured)
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return _SEPARATORS.sub(" ", bare).strip().upper()


def same_name(left: str, right: str) -> bool:
    """Do two names agree after normalisation? Empty names never agree."""
    return bool(normal(left)) and normal(left) == normal(right)


def parse_date(text: str) -> dt.date:
    """``YYYYMMDD`` or ``YYYY-MM-DD``; what follows the day is cut. Raises ``Refused`` (``trait-birth-date``)."""
    cleaned = text.strip()
    cleaned = cleaned.replace("-", "")[:8] if re.match(r"\d{4}-\d{2}-\d{2}", cleaned) else cleaned[:8]
    if not re.fullmatch(r"\d{8}", cleaned):
        raise Refused("Date de naissance absente ou mal formée", code="trait-birth-date")
    try:
        return dt.date(int(cleaned[:4]), int(cleaned[4:6]), int(cleaned[6:8]))
    except ValueError:
        raise Refused("Date de naissance impossible", code="trait-birth-date") from None
