"""The small languages inside XDS metadata: XCN, XON, CX, CXi, DTM, OID (ITI TF-3 4.2.3.1.7, standards.md D.5)."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from dataclasses import dataclass

_DTM = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)")
_MATRICULE = re.compile(r"\d{5}[0-9][0-9AB]\d{8}")
_STRUCTURE = re.compile(r"[01][0-9AB]{9}|2\d{9}|[34]\d{14}|[56789][0-9A-Z]{9,19}")
_PERSON = re.compile(r"8\d{11}|0[0-9A-Z]{9}|[13][0-9A-Z]{9,15}/[^\^&~|]{1,60}|[456][0-9A-Z/]{9,60}")
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")


@dataclass(frozen=True, slots=True)
class Person:
    """An XCN: ``id^family^given^^^^^^&<authority>&ISO^<name type>^^^<id type>``."""

    identifier: str
    family: str
    given: str
    authority: str
    name_type: str
    id_type: str

    @property
    def is_professional(self) -> bool:
        return self.name_type == "D" and self.id_type == "IDNPS"

    @property
    def is_device(self) -> bool:
        return self.name_type == "U" and self.id_type in ("EI", "RI")


@dataclass(frozen=True, slots=True)
class Institution:
    """An XON: ``name^^^^^&<authority>&ISO^IDNST^^^<Struct_IdNat>``."""

    name: str
    authority: str
    id_type: str
    identifier: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A CX or CXi: ``id^^^&<authority>&ISO^<type>``; ``authority`` empty when none is given."""

    value: str
    authority: str
    kind: str


def is_oid(text: str) -> bool:
    return len(text) <= 64 and _OID.fullmatch(text) is not None


def person(text: str) -> Person | None:
    """Read an XCN; None when it has not the French form (13 components, no others filled)."""
    parts = text.split("^")
    if len(parts) != 13 or any(parts[i] for i in (3, 4, 5, 6, 7, 10, 11)) or not parts[1]:
        return None
    authority = _authority(parts[8])
    return Person(parts[0], parts[1], parts[2], authority, parts[9], parts[12]) if authority else None


def institution(text: str) -> Institution | None:
    """Read an XON; None when it has not the French form (10 components, no others filled)."""
    parts = text.split("^")
    if len(parts) != 10 or any(parts[i] for i in (1, 2, 3, 4, 7, 8)) or not parts[0]:
        return None
    authority = _authority(parts[5])
    return Institution(parts[0], authority, parts[6], parts[9]) if authority else None


def reference(text: str) -> Reference | None:
    """Read a CX or a CXi; None when malformed."""
    parts = text.split("^")
    if len(parts) != 5 or not parts[0] or parts[1] or parts[2] or not parts[4]:
        return None
    if not parts[3]:
        return Reference(parts[0], "", parts[4])
    authority = _authority(parts[3])
    return Reference(parts[0], authority, parts[4]) if authority else None


def utc_time(text: str) -> dt.datetime | None:
    """Read a full DTM in UTC: 14 digits without offset; None for anything else."""
    found = _DTM.fullmatch(text)
    if found is None:
        return None
    try:
        return dt.datetime(*(int(g) for g in found.groups()), tzinfo=dt.UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        return None


def instant(text: str) -> dt.datetime | None:
    """Read an xs:dateTime that names its offset; None for anything else."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text):
        return None
    try:
        # Python 3.11 reads at most six digits of a second.
        return dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None


def is_ins(matricule: str) -> bool:
    """Is this a well-formed INS: 15 characters whose key is right (standards.md J.2)?"""
    if not _MATRICULE.fullmatch(matricule):
        return False
    number = int(matricule[:13].replace("A", "0").replace("B", "0"))
    number -= {"A": 1_000_000, "B": 2_000_000}.get(matricule[6], 0)
    return int(matricule[13:]) == 97 - number % 97


def is_structure_id(text: str) -> bool:
    """Is this a Struct_IdNat: ``1``+FINESS, ``2``+SIREN, ``3``+SIRET, ``4``+RPPS-rang, …?"""
    return _STRUCTURE.fullmatch(text) is not None


def is_person_id(text: str) -> bool:
    """Is this a PS_IdNat: ``8``+RPPS, ``0``+ADELI, ``3``+FINESS/internal, …?"""
    return _PERSON.fullmatch(text) is not None


def words(name: str) -> frozenset[str]:
    """The words of a name, without case and accents."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return frozenset(re.findall(r"[A-Z0-9]+", bare.upper()))


def _authority(text: str) -> str:
    parts = text.split("&")
    return parts[1] if len(parts) == 3 and not parts[0] and is_oid(parts[1]) and parts[2] == "ISO" else ""
