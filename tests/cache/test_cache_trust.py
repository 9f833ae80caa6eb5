"""When what is cached may be served: the PACS confirms it, nothing rejects it, it is as it was written."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_world import Exam, World, right, world

from drimbox.cache.limits import Limits
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.pacs.study import Study

NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)


@pytest.mark.requirement("DB.SO.40", "D25")
async def test_the_pacs_confirms_before_anything_is_served(tmp_path: Path) -> None:
    clock = FixedClock(NOW)
    async with world(tmp_path, clock=clock) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam)
        await here.quiet()
        assert here.pacs.finds == 1
        clock.advance(61)
        assert await here.fetch(exam) == right(exam)
        assert await here.fetch(exam) == right(exam)
        # Asked once, and remembered.
        assert here.pacs.finds == 2
        assert len(here.pacs.retrieves) == 1
        clock.advance(61)
        here.pacs.find_failure = Unavailable("Le PACS ne répond pas", code="pacs-unreachable")
        with pytest.raises(Unavailable):
            await here.fetch(exam)
        # That was no reason to throw anything away.
        here.pacs.find_failure = None
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 1


@pytest.mark.requirement("D25", "D14")
async def test_an_image_that_left_the_pacs_is_served_to_nobody(tmp_path: Path) -> None:
    clock = FixedClock(NOW)
    async with world(tmp_path, clock=clock) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam)
        await here.quiet()
        clock.advance(61)
        here.pacs.lost = {exam.uids[2]}
        with pytest.raises(Rejected) as told:
            await here.fetch(exam)
        assert told.value.code == "images-gone"
        await here.quiet()
        assert here.files() == []


@pytest.mark.requirement("D25")
async def test_an_old_list_of_the_pacs_does_not_hide_new_images(tmp_path: Path) -> None:
    async with world(tmp_path, clock=FixedClock(NOW)) as here:
        exam = here.pacs.add(Exam(images=4))
        await here.fetch(exam)
        await here.quiet()
        grown = here.pacs.add(Exam(images=6, study_uid=exam.study_uid, series_uid=exam.series_uid))
        assert await here.fetch(grown) == right(grown)
        await here.quiet()
        assert await here.fetch(grown) == right(grown)
        assert len(here.pacs.retrieves) == 2


@pytest.mark.requirement("D25")
async def test_a_patient_corrected_in_the_pacs_voids_what_was_fetched(tmp_path: Path) -> None:
    clock = FixedClock(NOW)
    async with world(tmp_path, clock=clock) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam)
        await here.quiet()
        clock.advance(61)
        exam.patient = "AUTRE"
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 2


@pytest.mark.requirement("D25", "DB.SO.25")
async def test_rejected_instances_are_left_to_the_pacs(tmp_path: Path) -> None:
    async with world(tmp_path, limits=Limits(min_free=0, by_notes=True)) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam)
        await here.quiet()
        assert await here.fetch(exam) == right(exam)
        assert (here.pacs.finds, len(here.pacs.retrieves)) == (0, 1)
        here.rejected = {exam.uids[0]}
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 2


async def test_nothing_is_kept_that_the_pacs_does_not_confirm(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        here.pacs.find_failure = Unavailable("Le PACS ne répond pas", code="pacs-unreachable")
        assert await here.fetch(exam) == right(exam)
        await here.quiet()
        assert here.files() == []


@pytest.mark.requirement("D25", "D14")
async def test_what_is_on_its_way_while_its_study_is_forgotten_does_not_stay(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        here.pacs.gate = asyncio.Event()
        early = asyncio.create_task(here.fetch(exam))
        while not here.pacs.given:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)
        here.cache.forget(exam.study_uid)
        # Who asks from now on does not get what was asked for before.
        late = asyncio.create_task(here.fetch(exam))
        while len(here.pacs.retrieves) < 2:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)
        here.cache.forget(exam.study_uid)
        here.pacs.gate.set()
        assert await early == await late == right(exam)
        await here.quiet()
        assert here.files() == []
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 3


@pytest.mark.requirement("D25", "D14")
async def test_what_is_forgotten_while_it_is_being_kept_does_not_stay(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        asked = here.pacs.find

        async def forgotten_meanwhile(study_uid: str) -> Study | None:
            here.cache.forget(exam.study_uid)
            return await asked(study_uid)

        here.pacs.find = forgotten_meanwhile  # type: ignore[method-assign]
        assert await here.fetch(exam) == right(exam)
        await here.quiet()
        assert here.files() == []


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def another(path: Path) -> None:
    path.write_bytes(path.with_name("000002").read_bytes())


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("damage", [cut_short, one_bit, another, Path.unlink])
async def test_a_damaged_file_is_fetched_again(
    tmp_path: Path, damage: Callable[[Path], None], restart: bool, sealed: bool
) -> None:
    exam = Exam(size=600_000, images=3)

    async def harm(here: World) -> None:
        (file,) = here.folder.rglob("000001")
        damage(file)

    async with world(tmp_path, sealed=sealed) as here:
        here.pacs.add(exam)
        await here.fetch(exam)
        await here.quiet()
        await harm(here)
        if not restart:
            assert await here.fetch(exam) == right(exam)
            assert here.pacs.retrieves[1:] == [(exam.study_uid, exam.series_uid, frozenset({exam.uids[0]}))]
    if restart:
        async with world(tmp_path, sealed=sealed, pacs=here.pacs) as here:
            assert len(here.store.volumes) == 1
            assert await here.fetch(exam) == right(exam)
            assert len(here.pacs.retrieves) == 2
            # The whole volume is in doubt: it went.
            await here.quiet()
            assert await here.fetch(exam) == right(exam)


@pytest.mark.parametrize("name", ["table", "heads", "index"])
async def test_damaged_notes_of_a_volume_make_it_void(tmp_path: Path, name: str) -> None:
    exam = Exam()
    async with world(tmp_path) as here:
        here.pacs.add(exam)
        await here.fetch(exam)
        await here.quiet()
    (file,) = here.folder.rglob(name)
    one_bit(file)
    async with world(tmp_path, pacs=here.pacs) as here:
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 2
