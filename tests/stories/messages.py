"""The messages of each exam's story, with the official values and with others that no box has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stage import ANOTHER, OFFICIAL, Exam, Person

from official_messages import Official, load, with_report

_STUDY, _DOCUMENT = "1.2.250.1.213.4.5.2.1", "1.2.250.1.213.4.5.4"
_NUMBERS = {"E": (105,), "F": (106, 107), "G": (108,), "I": (110,), "M": (114,), "U": (122,), "W": (124,)}


@dataclass(frozen=True)
class Case:
    """One way to tell a story: by which carrier, with whose values."""

    samples: Path
    carrier: str
    values: Mapping[str, str] = field(default_factory=dict)
    patient: Person = OFFICIAL

    def value(self, official: str) -> str:
        return self.values.get(official, official)

    def exams(self, letter: str, images: int = 3) -> tuple[Exam, ...]:
        """The studies of an exam, as the PACS holds them."""
        return tuple(
            Exam(self.value(f"{_STUDY}.{n}"), self.value(f"ACN{n}"), images + index, self.patient)
            for index, n in enumerate(_NUMBERS[letter])
        )

    def of(self, name: str) -> Official:
        """The official message of that name."""
        return self._told(load(self.samples, name))

    def report(self, name: str, carrier: str = "CR_G1-ORU.hl7") -> Official:
        """An official report of which only the document is at hand."""
        return self._told(with_report(self.samples, carrier, name))

    def head_ct(self, letter: str) -> Official:
        """The report of exam U or W: that of exam C, the same act, under their numbers (official-data.md 2)."""
        [number] = _NUMBERS[letter]
        base = with_report(self.samples, "CR_G1-ORU.hl7", "CR_C.xml")
        numbers = {
            f"{_STUDY}.103": f"{_STUDY}.{number}",
            "ACN103": f"ACN{number}",
            "OPN103": f"OPN{number}",
            f"{_DOCUMENT}.403": f"{_DOCUMENT}.{number + 300}",
        }
        return self._told(base.changed(numbers))

    def order(self, name: str) -> Official:
        """An official order message; it has one carrier only."""
        return self._changed(load(self.samples, name))

    def _told(self, message: Official) -> Official:
        changed = self._changed(message)
        return changed.as_mdm() if self.carrier == "MDM" else changed

    def _changed(self, message: Official) -> Official:
        if not self.values:
            return message
        made = message.changed(self.values).with_field("PID", 8, self.patient.sex)
        if not made.has_document:
            return made
        sex = f'administrativeGenderCode code="{self.patient.sex}"'.encode()
        return made.with_document(made.document.replace(b'administrativeGenderCode code="F"', sex))


def other_values() -> dict[str, str]:
    """For each official value, one of another site, another patient, another numbering."""
    changed = {
        OFFICIAL.family: ANOTHER.family,
        OFFICIAL.given: ANOTHER.given,
        OFFICIAL.birth_date: ANOTHER.birth_date,
        OFFICIAL.ins: ANOTHER.ins,
        OFFICIAL.ipp: ANOTHER.ipp,
        # Issuers: patient numbers, accession numbers, orders, in each vintage.
        "1.2.250.1.213.4.5.2.4": "1.2.250.1.999.20.4",
        "1.2.250.1.213.4.5.2.5": "1.2.250.1.999.20.5",
        "1.2.250.1.925.994044.27": "1.2.250.1.999.20.5",
        "1.2.250.1.213.4.5.2.6": "1.2.250.1.999.20.6",
        "1.2.250.1.748.12345678.12": "1.2.250.1.999.20.6",
        "1.2.3.4.5.6.7.8.9": "1.2.826.0.1.999.4.1",
        "RIS-A": "RADIO+",
    }
    for number in range(101, 128):
        changed[f"{_STUDY}.{number}"] = f"1.2.392.200036.9116.999.2024.{number * 7919}"
        changed[f"ACN{number}"] = f"24-{number * 31:06d}/A"
        changed[f"OPN{number}"] = f"DEM{number * 17}"
        changed[f"{_DOCUMENT}.{number + 300}"] = f"1.2.250.1.999.30.{number}.1"
    # Exam F has two studies and one document: from there on, the numbers of the documents are one behind.
    changed |= {f"{_DOCUMENT}.{n}": f"1.2.250.1.999.31.{n}" for n in (*range(401, 428), 4072)}
    return changed
