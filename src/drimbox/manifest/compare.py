"""Do two manifests say the same? (DB.SO.13: a KOS is published again only when its content changed.)

Identifiers of the KOS itself, its dates and its maker do not count: they change with every version.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drimbox.manifest.manifest import Manifest, ManifestSeries


class Change(Enum):
    """What kind of thing changed; the value is its name for the operator."""

    PATIENT = "identité du patient"
    STUDY = "description de l'examen"
    REQUESTS = "demandes"
    IMAGES = "images"
    NOTES = "notes d'images clés"
    SERIES = "description des séries"
    ADDRESS = "adresse des images"
    INSTITUTION = "établissement"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two manifests; ``added`` and ``removed`` count images."""

    changes: frozenset[Change]
    added: int = 0
    removed: int = 0

    @property
    def same(self) -> bool:
        return not self.changes

    def words(self) -> str:
        """For the operator: ``images (+3, -0), demandes``; without health data."""
        names = {c: c.value for c in Change}
        names[Change.IMAGES] = f"images (+{self.added}, -{self.removed})"
        return ", ".join(names[c] for c in Change if c in self.changes)


def compare(before: Manifest, after: Manifest) -> Comparison:
    """What ``after`` says that ``before`` did not, and the reverse. Order never counts."""
    old, new = _images(before), _images(after)
    tests = {
        Change.PATIENT: _patient(before) == _patient(after),
        Change.STUDY: _study(before) == _study(after),
        Change.REQUESTS: set(before.requests) == set(after.requests),
        Change.IMAGES: old == new,
        Change.NOTES: set(before.marks) == set(after.marks),
        Change.SERIES: _words(before, after),
        Change.ADDRESS: _addresses(before, after),
        Change.INSTITUTION: before.institution == after.institution,
    }
    return Comparison(frozenset(c for c, same in tests.items() if not same), len(new - old), len(old - new))


def _patient(m: Manifest) -> tuple[object, ...]:
    return m.ins, m.patient_name, frozenset(m.other_names), m.birth_date, m.sex, m.birth_place


def _study(m: Manifest) -> tuple[object, ...]:
    return m.study_uid, m.study_date, m.study_time, m.study_id, m.description, m.act


def _images(m: Manifest) -> set[tuple[str, str, str]]:
    return {(s.series_uid, i.sop_class_uid, i.sop_instance_uid) for s in m.series for i in s.instances}


def _words(before: Manifest, after: Manifest) -> bool:
    """Series that both have are told in the same words."""
    old = {s.series_uid: s for s in before.series}
    return all(_told(s) == _told(old.get(s.series_uid, s)) for s in after.series)


def _told(s: ManifestSeries) -> tuple[object, ...]:
    return s.modality, s.region, s.number, s.description


def _addresses(before: Manifest, after: Manifest) -> bool:
    """Series that both have are at the same place; a series that came or went is a change of images."""
    old = {s.series_uid: s.retrieve_url for s in before.series}
    return all(old.get(s.series_uid, s.retrieve_url) == s.retrieve_url for s in after.series)
