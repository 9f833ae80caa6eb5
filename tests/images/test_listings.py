"""What KOS list is read once, within bounds."""

from __future__ import annotations

from pathlib import Path

from world import make_exam

from drimbox.images.gate import Target
from drimbox.images.listings import Listings
from drimbox.images.ports import Manifest
from drimbox.manifest.read import read_manifest


async def test_a_kos_is_read_once_and_the_oldest_is_forgotten(tmp_path: Path) -> None:
    read: list[bytes] = []

    def reading(content: bytes) -> Manifest:
        read.append(content)
        return read_manifest(content)

    exams = [make_exam(tmp_path, series=2, images=3) for _ in range(3)]
    listings = Listings(reading, most=12)
    for exam in exams:
        study = Target(exam.study_uid)
        for _ in range(2):
            assert await listings.expected(exam.kos(), study) == {i.sop_instance_uid for i in exam.instances}
    assert len(read) == 3
    exam = exams[2]
    uids = [i.sop_instance_uid for i in exam.series[exam.first_series]]
    series = Target(exam.study_uid, exam.first_series)
    assert await listings.expected(exam.kos(), series) == set(uids)
    one = Target(exam.study_uid, exam.first_series, uids[0])
    assert await listings.expected(exam.kos(), one) == {uids[0]}
    elsewhere = Target(exam.study_uid, list(exam.series)[1], uids[0])
    assert await listings.expected(exam.kos(), elsewhere) == frozenset()
    assert await listings.expected(exam.kos(), Target(exam.study_uid, "1.2.3")) == frozenset()
    assert len(read) == 3
    await listings.expected(exams[0].kos(), Target(exams[0].study_uid))
    assert len(read) == 4
