"""The official homologation exams, as far as a report needs them (official-data.md 2)."""

from __future__ import annotations

from dataclasses import dataclass

_NUMBERS = {letter: 101 + index for index, letter in enumerate("ABCDE")}
_NUMBERS |= {letter: 108 + index for index, letter in enumerate("GHIJKLMNOPQRSTUVWXYZ")}
_NUMBERS["F"] = 106
_SCHEME_ORDER = "1.2.250.1.748.12345678.12"
_SCHEME_ACCESSION = "1.2.250.1.925.994044.27"


@dataclass(frozen=True, slots=True)
class Act:
    """LOINC, CCAM, modality and region of an act, with their French labels."""

    loinc: str
    loinc_label: str
    ccam: str
    ccam_label: str
    modality: str
    modality_label: str
    region: str
    region_label: str


_HEAD_CT = Act(
    "24727-0",
    "CT Tête",
    "ACQH004",
    "Scanner du crâne avec injection",
    "CT",
    "Tomodensitométrie",
    "774007",
    "tête et cou",
)
_NM = Act("25007-6", "Scintigraphie", "KCQL003", "Scintigraphie", "NM", "Médecine nucléaire", "774007", "tête et cou")
_XA = Act(
    "37174-0",
    "Angiographie",
    "DDQH006",
    "Artériographie",
    "XA",
    "Angiographie",
    "113257007",
    "système cardiovasculaire",
)
_KNEE = Act(
    "24802-1",
    "IRM genou",
    "NZQN001",
    "IRM du membre inférieur",
    "RM",
    "Résonance magnétique",
    "61685007",
    "membre inférieur",
)
_ACTS = {**dict.fromkeys("EIMT", _NM), **dict.fromkeys("GN", _XA), **dict.fromkeys("BDFQ", _KNEE)}


@dataclass(frozen=True, slots=True)
class Exam:
    """One exam: its document, studies, orders and act."""

    letter: str
    document_id: str
    studies: tuple[str, ...]
    orders: tuple[tuple[str, str], ...]  # (placer order number, accession number)
    act: Act
    order_issuer: str = _SCHEME_ORDER
    accession_issuer: str = _SCHEME_ACCESSION


def exam(letter: str) -> Exam:
    """The exam of that letter, A to Z. Raises ``KeyError`` for another letter."""
    number = _NUMBERS[letter]
    numbers = (106, 107) if letter == "F" else (number,)
    document = 401 + "ABCDEFG".index(letter) if letter in "ABCDEFG" else 409 + ord(letter) - ord("H")
    orders = tuple((f"OPN{107 if letter == 'F' else n}", f"ACN{n}") for n in numbers)
    studies = tuple(f"1.2.250.1.213.4.5.2.1.{n}" for n in numbers)
    return Exam(letter, f"1.2.250.1.213.4.5.4.{document}", studies, orders, _ACTS.get(letter, _HEAD_CT))
