"""One retrieve for all: who shares, who waits for whom, who is told of a failure."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from cache_world import Exam, content, right, world

from drimbox.cache.limits import Limits
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Unavailable
from drimbox.identity.ins import Ins, key

SMALL = Limits(min_free=0, whole=False)


def another_ins(number: int) -> Ins:
    thirteen = f"2790351215{number:03d}"
    return Ins.of(thirteen + key(thirteen), "1.2.250.1.213.1.4.10")


@pytest.mark.requirement("DB.SO.35", "D25")
@pytest.mark.parametrize("sealed", [False, True])
async def test_callers_of_one_series_share_one_retrieve(tmp_path: Path, sealed: bool) -> None:
    async with world(tmp_path, sealed=sealed) as here:
        exam = here.pacs.add(Exam())
        all_of_them = await asyncio.gather(*(here.fetch(exam) for _ in range(6)))
        assert all(got == right(exam) for got in all_of_them)
        assert len(here.pacs.retrieves) == 1
        assert here.pacs.given == exam.images
        await here.quiet()
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 1
        assert list((tmp_path / "spool").iterdir()) == []


async def test_a_caller_who_comes_late_gets_all_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        here.pacs.gate = asyncio.Event()
        async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as images:
            first = await anext(images)
            assert content(first, exam) == exam.served(first.sop_instance_uid)
            assert here.pacs.given == 1
            late = asyncio.create_task(here.fetch(exam))
            await asyncio.sleep(0.02)
            here.pacs.gate.set()
            assert await late == right(exam)
        assert len(here.pacs.retrieves) == 1


async def test_a_slow_caller_does_not_stall_a_fast_one(tmp_path: Path) -> None:
    limits = Limits(min_free=0, ahead_instances=2)
    async with world(tmp_path, limits=limits) as here:
        exam = here.pacs.add(Exam(images=40))
        async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as slow:
            await anext(slow)
            async with asyncio.timeout(5):
                assert await here.fetch(exam) == right(exam)
            rest = [one async for one in slow]
            assert len(rest) == 39
            assert all(content(one, exam) == exam.served(one.sop_instance_uid) for one in rest)


@pytest.mark.requirement("DB.SO.100")
@pytest.mark.parametrize("limit", [Limits(min_free=0, ahead_instances=5), Limits(min_free=0, ahead_bytes=20_000)])
async def test_a_slow_caller_alone_slows_the_pacs_down(tmp_path: Path, limit: Limits) -> None:
    async with world(tmp_path, limits=limit) as here:
        exam = here.pacs.add(Exam(images=60))
        async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as slow:
            for taken in range(1, 4):
                await anext(slow)
                await asyncio.sleep(0.05)
                assert here.pacs.given <= taken + 7
            assert len([one async for one in slow]) == 57


@pytest.mark.parametrize("whole", [False, True])
async def test_the_last_to_leave_cancels_the_retrieve_unless_it_is_wanted_whole(tmp_path: Path, whole: bool) -> None:
    async with world(tmp_path, limits=Limits(min_free=0, whole=whole)) as here:
        exam = here.pacs.add(Exam())
        here.pacs.gate = asyncio.Event()
        async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as one:
            await anext(one)
            async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as other:
                await anext(other)
            await asyncio.sleep(0.02)
            assert here.pacs.running == 1
        await asyncio.sleep(0.02)
        assert here.pacs.running == int(whole)
        here.pacs.gate.set()
        await here.quiet()
        assert here.pacs.cancelled == int(not whole)
        assert len(here.store.volumes) == int(whole)
        if not whole:
            assert here.files() == []
        # Who comes now gets all of it.
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == (1 if whole else 2)


async def test_nothing_is_retrieved_for_nobody_when_there_is_no_room_for_it(tmp_path: Path) -> None:
    async with world(tmp_path, limits=Limits(max_bytes=60_000, min_free=0)) as here:
        exam = here.pacs.add(Exam(images=40))
        here.pacs.pause = 0.005
        async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as images:
            await anext(images)
        await here.quiet()
        assert here.pacs.given < 20
        assert here.pacs.cancelled == 1
        assert here.files() == []


@pytest.mark.requirement("D14", "D7")
@pytest.mark.parametrize("what", ["cut", "lost", "patient", "stall"])
async def test_every_caller_is_told_of_a_failure_and_nothing_stays(tmp_path: Path, what: str) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        here.pacs.gate = asyncio.Event()
        match what:
            case "cut":
                here.pacs.fail_at = 5
            case "stall":
                here.pacs.fail_at, here.pacs.failure = 1, Unavailable("Trop lent", code="pacs-silent")
            case "patient":
                here.pacs.fail_at, here.pacs.failure = 3, IdentityMismatch("Autre patient", code="pacs-wrong-patient")
            case "lost":
                here.pacs.lost = {exam.uids[-1]}
        callers = [asyncio.create_task(here.fetch(exam)) for _ in range(4)]
        await asyncio.sleep(0.02)
        here.pacs.gate.set()
        told = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(one, DrimboxError) for one in told)
        assert len(here.pacs.retrieves) == 1
        await here.quiet()
        assert here.files() == []
        assert here.store.bytes == 0
        here.pacs.fail_at, here.pacs.lost = None, set()
        assert await here.fetch(exam) == right(exam)


async def test_images_that_come_twice_or_uncalled_count_once(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        here.pacs.twice = True
        assert await here.fetch(exam) == right(exam)


async def test_one_image_and_its_series_share_what_is_on_its_way(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        here.pacs.gate = asyncio.Event()
        series = asyncio.create_task(here.fetch(exam))
        await asyncio.sleep(0.02)
        one = asyncio.create_task(here.fetch(exam, {exam.uids[3]}))
        study = asyncio.create_task(_study(here, exam))
        await asyncio.sleep(0.02)
        here.pacs.gate.set()
        assert await one == {exam.uids[3]: exam.served(exam.uids[3])}
        assert await series == right(exam)
        assert await study == exam.expected
        assert len(here.pacs.retrieves) == 1


async def test_only_what_is_missing_is_asked_of_the_pacs(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam, set(exam.uids[:3]))
        await here.quiet()
        assert await here.fetch(exam) == right(exam)
        assert here.pacs.retrieves[1][2] == frozenset(exam.uids[3:])


@pytest.mark.requirement("D2", "D23")
async def test_what_was_fetched_for_one_kos_is_served_for_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam)
        await here.quiet()
        # The study was attributed to somebody else: a new KOS, another INS.
        corrected = here.pacs.add(Exam(study_uid=exam.study_uid, series_uid=exam.series_uid, ins=another_ins(7)))
        corrected.uids = exam.uids
        assert await here.fetch(corrected) == right(corrected)
        assert len(here.pacs.retrieves) == 2
        assert exam.served(exam.uids[0]) != corrected.served(exam.uids[0])
        # Even under the same KOS, were that possible.
        corrected.ins, corrected.kos_uid = another_ins(8), exam.kos_uid
        assert await here.fetch(corrected) == right(corrected)
        assert len(here.pacs.retrieves) == 3


async def test_stopping_tells_who_still_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        here.pacs.gate = asyncio.Event()
        caller = asyncio.create_task(here.fetch(exam))
        await asyncio.sleep(0.02)
    with pytest.raises(Unavailable):
        await caller
    assert here.pacs.running == 0


async def _study(here: object, exam: Exam) -> frozenset[str]:
    async with here.source(exam).retrieve(exam.study_uid, None, exam.expected) as images:  # type: ignore[attr-defined]
        return frozenset([one.sop_instance_uid async for one in images])


@pytest.mark.requirement("DB.SO.35")
@pytest.mark.parametrize(("sealed", "gb"), [(False, 1), (True, 1), (False, 0)])
async def test_nobody_ever_gets_another_ones_images_under_load(tmp_path: Path, sealed: bool, gb: int) -> None:
    """64 callers, 32 series of as many patients, some cut off at random, a cache too small for all of them."""
    rng = random.Random(5)
    limits = Limits(max_bytes=gb * 500_000, min_free=0, ahead_instances=3, whole=rng.random() < 0.5)
    async with world(tmp_path, limits=limits, sealed=sealed) as here:
        exams = [here.pacs.add(Exam(images=6, size=8000, ins=another_ins(n))) for n in range(32)]
        wanted = [rng.choice(exams) for _ in range(64)]
        cut = [rng.random() < 0.3 for _ in wanted]

        async def call(exam: Exam, is_cut: bool) -> None:
            await asyncio.sleep(rng.random() * 0.2)
            if not is_cut:
                assert await here.fetch(exam) == right(exam)
                return
            async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as images:
                for _ in range(rng.randrange(6)):
                    one = await anext(images)
                    assert content(one, exam) == exam.served(one.sop_instance_uid)
                    await asyncio.sleep(rng.random() * 0.02)

        await asyncio.gather(*map(call, wanted, cut))
        await here.quiet()
        assert here.store.bytes <= limits.max_bytes
        assert sum(p.stat().st_size for p in here.files() if p.name.isdigit()) <= limits.max_bytes
        assert list((tmp_path / "spool").iterdir()) == []
