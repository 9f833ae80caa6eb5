"""What the database makes the cache forget, on every node, and what is fetched when a KOS is published."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cache_world import Exam, World, right, world

from drimbox.cache.source import CachedSource
from drimbox.cache.sweep import Rejections, sweep, sweeping
from drimbox.cache.warm import Warmer, Warming, warming_up
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Unavailable
from drimbox.images.ports import ArchivedKos
from drimbox.pacs.study import Instance, Series
from drimbox.store.database import Pool

CT = "1.2.840.10008.5.1.4.1.1.2"


async def publish(pool: Pool, exam: Exam, state: str = "current", at: dt.datetime | None = None) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO publication (structure, study_uid, kos_uid, state, kos, metadata, signature, submission_uid, "
            "document_ids, pacs, ins, ins_oid, vihf_identity, visibility, fingerprint, confirmed_at) "
            "VALUES ('site-a', %s, %s, %s, '', '', '', '', '{}', 'pacs', %s, %s, '{}', '{}', '', %s)",
            (
                exam.study_uid,
                exam.kos_uid,
                state,
                exam.ins.matricule,
                exam.ins.oid,
                at or dt.datetime.now(dt.UTC),
            ),
        )


async def set_state(pool: Pool, exam: Exam, state: str) -> None:
    async with pool.connection() as connection:
        await connection.execute("UPDATE publication SET state = %s WHERE kos_uid = %s", (state, exam.kos_uid))


async def reject(pool: Pool, exam: Exam, uid: str) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO change_note (sop_instance_uid, caller, study_uid, title, object) "
            "VALUES ('1.2.3', 'PACS', %s, '113001', '')",
            (exam.study_uid,),
        )
        await connection.execute(
            "INSERT INTO rejected_instance (note_uid, study_uid, sop_instance_uid, title) "
            "VALUES ('1.2.3', %s, %s, '113001')",
            (exam.study_uid, uid),
        )


@pytest.mark.requirement("DB.SO.25", "DB.SO.26", "D25")
async def test_what_is_depublished_replaced_or_rejected_leaves_every_node(pool: Pool, tmp_path: Path) -> None:
    kept, depublished, replaced, rejected = exams = [Exam() for _ in range(4)]
    for exam in exams:
        await publish(pool, exam)
    async with world(tmp_path / "a") as here, world(tmp_path / "b") as there:
        for node in (here, there):
            for exam in exams:
                node.pacs.add(exam)
                await node.fetch(exam)
            await node.quiet()
            assert await sweep(node.cache, pool) == 0
        await set_state(pool, depublished, "depublished")
        await set_state(pool, replaced, "replaced")
        await reject(pool, rejected, rejected.uids[1])
        assert await Rejections(pool).of(rejected.study_uid) == {rejected.uids[1]}
        assert await Rejections(pool).of(kept.study_uid) == frozenset()
        for node in (here, there):
            assert await sweep(node.cache, pool) == 3
            await node.quiet()
            assert [v.card.space.study_uid for v in node.store.volumes] == [kept.study_uid]
            assert len([f for f in node.folder.iterdir() if f.is_dir()]) == 1


async def test_what_is_being_served_when_it_is_withdrawn_goes_once_nobody_reads_it(pool: Pool, tmp_path: Path) -> None:
    exam = Exam()
    await publish(pool, exam)
    async with world(tmp_path) as here:
        here.pacs.add(exam)
        await here.fetch(exam)
        await here.quiet()
        async with here.source(exam).retrieve(exam.study_uid, exam.series_uid, exam.expected) as images:
            await anext(images)
            await set_state(pool, exam, "depublished")
            async with sweeping(here.cache, pool, every=0.02):
                while here.store.volumes:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.01)
                assert len([one async for one in images]) == 7
        await here.quiet()
        assert here.files() == []


async def test_a_study_can_be_forgotten_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam)
        await here.quiet()
        here.cache.forget(exam.study_uid)
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 2


async def test_a_database_that_does_not_answer_is_no_yes(tmp_path: Path) -> None:
    async def down(study_uid: str) -> frozenset[str]:
        raise Unavailable("Base injoignable", code="database")

    async with world(tmp_path) as here:
        exam = here.pacs.add(Exam())
        await here.fetch(exam)
        await here.quiet()
        here.cache = replace(here.cache, rejected=down)
        with pytest.raises(Unavailable):
            await here.fetch(exam)


class _Archive:
    def __init__(self, exams: Mapping[str, Exam]) -> None:
        self._exams = exams

    async def by_kos_uid(self, kos_uid: str) -> Any:
        exam = self._exams.get(kos_uid)
        return replace(exam.kos, kos=kos_uid.encode()) if exam else None


def _warmer(here: World, pool: Pool, exams: list[Exam], *, pixels: bool = True, resting: bool = False) -> Warmer:
    known = {exam.kos_uid: exam for exam in exams}

    def source(kos: ArchivedKos) -> CachedSource:
        return here.cache.source(kos, here.pacs, here.pacs)

    def manifest(content: bytes) -> Any:
        exam = known[content.decode()]
        instances = tuple(Instance(CT, uid) for uid in exam.uids)
        return _Manifest(exam.study_uid, (Series(exam.series_uid, "CT", 1, "", "", instances),))

    warming = Warming(pixels=pixels, resting=lambda _: resting, pause=0.02)
    return Warmer(here.cache, pool, _Archive(known), manifest, source, warming, SystemClock())


class _Manifest:
    def __init__(self, study_uid: str, series: tuple[Series, ...]) -> None:
        self.study_uid = study_uid
        self.series = series


@pytest.mark.requirement("DB.SO.40")
async def test_what_is_published_is_fetched_before_anybody_asks(pool: Pool, tmp_path: Path) -> None:
    exams = [Exam() for _ in range(3)]
    await publish(pool, exams[0], at=dt.datetime.now(dt.UTC) - dt.timedelta(days=30))
    await publish(pool, exams[1])
    async with world(tmp_path) as here:
        for exam in exams:
            here.pacs.add(exam)
        warmer = _warmer(here, pool, exams)
        async with warming_up(warmer, 0.02):
            async with asyncio.timeout(10):
                while len(here.store.volumes) < 1:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.01)
            await publish(pool, exams[2])
            async with asyncio.timeout(10):
                while len(here.store.volumes) < 2:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.01)
        await here.quiet()
        assert {study for study, *_ in here.pacs.retrieves} == {exams[1].study_uid, exams[2].study_uid}
        assert await here.fetch(exams[2]) == right(exams[2])
        assert len(here.pacs.retrieves) == 2


async def test_metadata_alone_are_kept_without_the_images(pool: Pool, tmp_path: Path) -> None:
    exam = Exam(size=50_000)
    await publish(pool, exam)
    async with world(tmp_path) as here:
        here.pacs.add(exam)
        assert await _warmer(here, pool, [exam], pixels=False).once() == 1
        await here.quiet()
        assert here.store.bytes == sum(p.stat().st_size for p in here.files()) < 50_000
        async with here.source(exam).described(exam.study_uid, exam.series_uid, exam.expected) as pieces:
            assert pieces is not None
            assert b",".join(pieces).count(b'"00080018"') == 8
        assert len(here.pacs.retrieves) == 1
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 2
        await here.quiet()
    async with world(tmp_path, pacs=here.pacs) as here:
        async with here.source(exam).described(exam.study_uid, exam.series_uid, exam.expected) as pieces:
            assert pieces is not None
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 2


async def test_warm_up_gives_way_and_tries_again(pool: Pool, tmp_path: Path) -> None:
    exam, asked = Exam(), Exam()
    await publish(pool, exam)
    async with world(tmp_path) as here:
        here.pacs.add(exam)
        here.pacs.add(asked)
        assert await _warmer(here, pool, [exam], resting=True).once() == 0
        assert here.pacs.retrieves == []
        warmer = _warmer(here, pool, [exam])
        here.pacs.fail_at = 2
        assert await warmer.once() == 0
        await here.quiet()
        here.pacs.fail_at, here.pacs.gate = None, asyncio.Event()
        caller = asyncio.create_task(here.fetch(asked))
        await asyncio.sleep(0.02)
        work = asyncio.create_task(warmer.once())
        await asyncio.sleep(0.1)
        # Somebody waits for this PACS: not now.
        assert [study for study, *_ in here.pacs.retrieves] == [exam.study_uid, asked.study_uid]
        here.pacs.gate.set()
        assert await caller == right(asked)
        assert await work == 1
        assert await warmer.once() == 0
