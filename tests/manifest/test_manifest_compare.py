"""What changed between two manifests of a study."""

from __future__ import annotations

from dataclasses import replace

import pytest
from manifest_examples import BASE, CREATED, built, report_of, study_of

from drimbox.manifest.compare import Change, compare
from drimbox.manifest.read import Manifest
from drimbox.pacs.study import Instance
from drimbox.reports.report import Structure


@pytest.mark.requirement("DB.SO.13")
def test_a_new_version_of_the_same_content_is_the_same() -> None:
    old = built()
    new = replace(
        old, kos_uid="2.25.7", series_uid="2.25.8", created=CREATED.replace(year=2027), manufacturer="other", series=()
    )
    assert compare(old, replace(new, series=tuple(reversed(old.series)))).same


def more_images(m: Manifest) -> Manifest:
    series = m.series[0]
    return replace(m, series=(replace(series, instances=(*series.instances, Instance("1.2", "2.25.99"))),))


@pytest.mark.requirement("DB.SO.13")
@pytest.mark.parametrize(
    ("after", "change", "words"),
    [
        (built(study=study_of((4,))), Change.IMAGES, "images (+1, -0)"),
        (built(study=study_of((3, 1))), Change.IMAGES, "images (+1, -0)"),
        (built(study=study_of((1,))), Change.IMAGES, "images (+0, -2)"),
        (built(study=study_of(description="Autre")), Change.STUDY, "description de l'examen"),
        (replace(built(), requests=()), Change.REQUESTS, "demandes"),
        (replace(built(), sex="M"), Change.PATIENT, "identité du patient"),
        (
            replace(built(), series=tuple(replace(s, retrieve_url=f"{BASE}/x") for s in built().series)),
            Change.ADDRESS,
            "adresse des images",
        ),
        (
            replace(built(), series=tuple(replace(s, description="x") for s in built().series)),
            Change.SERIES,
            "description des séries",
        ),
        (built(report_of(structure=Structure("1750803447", "Autre"))), Change.INSTITUTION, "établissement"),
    ],
)
def test_each_kind_of_change_is_told(after: Manifest, change: Change, words: str) -> None:
    found = compare(built(), after)
    assert found.changes == {change}
    assert found.words() == words
