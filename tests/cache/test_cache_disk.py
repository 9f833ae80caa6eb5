"""The cache on its disk: limits, crashes, a full disk, clocks that jump, encryption."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_world import INS, MASTER, Exam, Pacs, content, right, world
from hypothesis import given, settings
from hypothesis import strategies as st

from drimbox.cache.limits import Limits
from drimbox.cache.sealing import CHUNK, Damaged, VolumeKey, own_key, secret_key
from drimbox.cache.volume import Card, Draft, Space, Volume
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Misconfigured

NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)


@pytest.mark.requirement("DB.SO.40")
@pytest.mark.parametrize("sealed", [False, True])
async def test_what_was_kept_is_there_after_a_restart(tmp_path: Path, sealed: bool) -> None:
    exam = Exam()
    async with world(tmp_path, sealed=sealed) as here:
        here.pacs.add(exam)
        await here.fetch(exam)
        await here.quiet()
        size = here.store.bytes
    async with world(tmp_path, sealed=sealed, pacs=here.pacs) as here:
        assert here.store.bytes == size
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 1
    for path in (tmp_path / "cache").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
        assert not any(uid in str(path) for uid in (exam.study_uid, exam.kos_uid, INS.matricule))


async def test_the_least_used_goes_first_and_never_what_is_being_served(tmp_path: Path) -> None:
    clock = FixedClock(NOW)
    limits = Limits(max_bytes=280_000, min_free=0)
    async with world(tmp_path, limits=limits, clock=clock) as here:
        exams = [here.pacs.add(Exam(images=8, size=5000)) for _ in range(5)]
        for exam in exams[:3]:
            await here.fetch(exam)
            await here.quiet()
            clock.advance(100)
        await here.fetch(exams[0])
        clock.advance(100)
        kept = {v.card.space.study_uid for v in here.store.volumes}
        assert kept == {e.study_uid for e in exams[:3]}
        source = here.source(exams[1])
        async with source.retrieve(exams[1].study_uid, exams[1].series_uid, exams[1].expected) as images:
            one = await anext(images)
            for exam in exams[3:]:
                await here.fetch(exam)
                await asyncio.sleep(0.02)
                assert here.store.bytes <= limits.max_bytes
            assert exams[1].study_uid in {v.card.space.study_uid for v in here.store.volumes}
            assert content(one, exams[1]) == exams[1].served(one.sop_instance_uid)
            assert len([one async for one in images]) == 7
        await here.quiet()
        assert here.store.bytes <= limits.max_bytes


async def test_an_image_too_large_for_the_cache_is_served_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, limits=Limits(max_bytes=20_000, min_free=0)) as here:
        exam = here.pacs.add(Exam(images=8, size=8000))
        assert await here.fetch(exam) == right(exam)
        await here.quiet()
        assert here.files() == []


@pytest.mark.parametrize("jump", [dt.timedelta(days=-400), dt.timedelta(0), dt.timedelta(days=3)])
async def test_age_is_counted_whatever_the_clock_does(tmp_path: Path, jump: dt.timedelta) -> None:
    exam = Exam()
    clock = FixedClock(NOW)
    limits = Limits(min_free=0, max_age=7 * 86400)
    async with world(tmp_path, clock=clock, limits=limits) as here:
        here.pacs.add(exam)
        await here.fetch(exam)
        await here.quiet()
        clock.advance(86400)
        assert here.store.expire() == 0
    clock = FixedClock(NOW + jump)
    async with world(tmp_path, clock=clock, limits=limits, pacs=here.pacs) as here:
        assert len(here.store.volumes) == 1
        clock.advance(7 * 86400 + 1)
        assert here.store.expire() == 1
        await here.quiet()
        assert here.files() == []


async def test_a_clock_far_ahead_empties_the_cache_and_breaks_nothing(tmp_path: Path) -> None:
    exam = Exam()
    async with world(tmp_path, clock=FixedClock(NOW)) as here:
        here.pacs.add(exam)
        await here.fetch(exam)
        await here.quiet()
    async with world(tmp_path, clock=FixedClock(NOW + dt.timedelta(days=9000)), pacs=here.pacs) as here:
        assert here.store.volumes == ()
        assert await here.fetch(exam) == right(exam)


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from cache_world import Exam, world

    async def main(folder, when):
        async with world(folder) as here:
            whole = here.pacs.add(Exam(study_uid="1.2.3", series_uid="1.2.4", kos_uid="1.2.5"))
            whole.uids = [f"1.2.6.{n}" for n in range(8)]
            await here.fetch(whole)
            await here.quiet()
            torn = here.pacs.add(Exam(study_uid="1.3.3", series_uid="1.3.4", kos_uid="1.3.5", size=400_000))
            torn.uids = [f"1.3.6.{n}" for n in range(8)]
            here.pacs.pause = 0.01
            rename = Path.rename
            def killing(self, target):
                if when in self.name:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rename(self, target)
            async with here.source(torn).retrieve(torn.study_uid, torn.series_uid, torn.expected) as images:
                taken = 0
                async for one in images:
                    taken += 1
                    if when == str(taken):
                        os.kill(os.getpid(), signal.SIGKILL)
                if not when.isdigit():
                    Path.rename = killing
            await here.quiet()

    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("when", ["1", "5", "table", "index"])
async def test_a_crash_leaves_whole_volumes_or_none(tmp_path: Path, when: str) -> None:
    """kill -9 while images land, and between the last image and the index."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path])}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), when],
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    pacs = Pacs(tmp_path / "spool")
    whole = pacs.add(Exam(study_uid="1.2.3", series_uid="1.2.4", kos_uid="1.2.5"))
    whole.uids = [f"1.2.6.{n}" for n in range(8)]
    torn = pacs.add(Exam(study_uid="1.3.3", series_uid="1.3.4", kos_uid="1.3.5", size=400_000))
    torn.uids = [f"1.3.6.{n}" for n in range(8)]
    async with world(tmp_path, pacs=pacs) as here:
        assert [v.card.space.study_uid for v in here.store.volumes] == ["1.2.3"]
        # What was not whole has left the disk.
        assert len([f for f in here.folder.iterdir() if f.is_dir()]) == 1
        assert await here.fetch(whole) == right(whole)
        assert pacs.retrieves == []
        assert await here.fetch(torn) == right(torn)
        assert len(pacs.retrieves) == 1


async def test_after_a_loss_of_power_only_what_reached_the_disk_counts(tmp_path: Path) -> None:
    from drimbox.cache import volume as volumes

    exam, other = Exam(), Exam()
    async with world(tmp_path) as here:
        for one in (exam, other):
            here.pacs.add(one)
            await here.fetch(one)
        await here.quiet()
        for volume in here.store.volumes:
            synced = volume.card.space.study_uid == exam.study_uid
            assert volume.card.synced
            card = volumes.replace(volume.card, synced=synced, boot="another start of this machine")
            volume.write_record("index", volumes.encode_card(card))
    async with world(tmp_path, pacs=here.pacs) as here:
        assert [v.card.space.study_uid for v in here.store.volumes] == [exam.study_uid]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_full_disk_costs_the_cache_but_no_caller(small_disk: Path, tmp_path: Path, sealed: bool) -> None:
    """The limit says more than the disk has: ENOSPC in the middle of an image."""
    pacs = Pacs(tmp_path / "spool")
    async with world(small_disk, sealed=sealed, pacs=pacs, limits=Limits(min_free=-(2**30))) as here:
        small = here.pacs.add(Exam(images=3, size=100_000))
        large = here.pacs.add(Exam(images=6, size=300_000))
        assert await here.fetch(small) == right(small)
        await here.quiet()
        got = await asyncio.gather(*(here.fetch(large) for _ in range(3)))
        assert all(one == right(large) for one in got)
        assert here.told == ["cache-disk"]
        await here.quiet()
        assert await here.fetch(large) == right(large)
        await here.quiet()
        # Said once, not at each request.
        assert here.told == ["cache-disk"]
        assert await here.fetch(small) == right(small)
        assert list((tmp_path / "spool").iterdir()) == []


async def test_what_must_stay_free_stays_free(small_disk: Path, tmp_path: Path) -> None:
    async with world(small_disk, pacs=Pacs(tmp_path / "spool"), limits=Limits(min_free=400_000)) as here:
        exams = [here.pacs.add(Exam(images=3, size=100_000)) for _ in range(4)]
        for exam in exams:
            assert await here.fetch(exam) == right(exam)
            await here.quiet()
            disk = os.statvfs(small_disk)
            assert disk.f_bavail * disk.f_frsize >= 380_000
        assert here.told == []
        assert exams[-1].study_uid in {v.card.space.study_uid for v in here.store.volumes}


async def test_a_sealed_cache_shows_nothing_and_opens_with_its_key_alone(tmp_path: Path) -> None:
    exam = Exam(size=600_000)
    async with world(tmp_path, sealed=True) as here:
        here.pacs.add(exam)
        assert await here.fetch(exam) == right(exam)
        await here.quiet()
        pixels = exam.content(exam.uids[0])[-2000:-1000]
        secrets = [b"DOMINIQUE", INS.matricule.encode(), exam.study_uid.encode(), exam.uids[0].encode(), pixels]
        for path in here.files():
            assert not [secret for secret in secrets if secret in path.read_bytes()]
    async with world(tmp_path, sealed=True, master=b"x" * 32, pacs=here.pacs) as here:
        assert here.store.volumes == ()
        assert await here.fetch(exam) == right(exam)
        assert len(here.pacs.retrieves) == 2


async def test_what_lies_in_clear_goes_when_the_cache_is_to_be_sealed(tmp_path: Path) -> None:
    exam = Exam()
    async with world(tmp_path) as here:
        here.pacs.add(exam)
        await here.fetch(exam)
        await here.quiet()
    async with world(tmp_path, sealed=True, pacs=here.pacs) as here:
        assert here.store.volumes == ()
        assert here.files() == []


@settings(max_examples=60, deadline=None)
@given(
    size=st.one_of(st.integers(0, 300), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7])),
    offset=st.integers(0, 2 * CHUNK + 20),
    length=st.integers(0, 2 * CHUNK + 20),
)
def test_any_range_of_an_encrypted_image_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, size: int, offset: int, length: int
) -> None:
    key = VolumeKey(MASTER, "abc", sealed=True)
    data = bytes(range(251)) * (size // 251 + 1)
    path = tmp_path_factory.mktemp("sealed") / "image"
    with path.open("wb") as out:
        key.encrypt(3, memoryview(data[:size]), out)
    with path.open("rb") as file:
        assert key.decrypt(3, file.fileno(), size, offset, length) == data[:size][offset : offset + length]
        if size and offset < size and length:
            for other in (VolumeKey(MASTER, "abd", sealed=True), VolumeKey(b"o" * 32, "abc", sealed=True)):
                with pytest.raises(Damaged):
                    other.decrypt(3, file.fileno(), size, offset, length)
            with pytest.raises(Damaged):
                key.decrypt(4, file.fileno(), size, offset, length)


@pytest.fixture(scope="module", params=[False, True])
def volume(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, Exam]:
    """Twelve images, one of which is none."""
    folder, exam = tmp_path_factory.mktemp("volume"), Exam(images=12, size=CHUNK // 3)
    key = VolumeKey(MASTER, "abc", sealed=request.param)
    draft = Draft(folder / "abc", key)
    for number, uid in enumerate(exam.uids):
        (folder / "incoming").write_bytes(b"no image" if number == 5 else exam.content(uid))
        draft.add(folder / "incoming", uid, exam.study_uid, exam.series_uid, exam.ins)
    space = Space("s", "p", exam.study_uid, exam.kos_uid)
    card = Card(space, {exam.series_uid: 12}, draft.bytes, 0.0, "", "", True, key.sealed, "", False)
    draft.commit(card)
    return Volume(draft.folder, key, card, used=0.0, age=0.0), exam


@settings(max_examples=40, deadline=None)
@given(picked=st.sets(st.integers(0, 11)), order=st.randoms(use_true_random=False))
def test_images_are_ready_together_as_they_are_one_by_one(
    volume: tuple[Volume, Exam], picked: set[int], order: random.Random
) -> None:
    one, exam = volume
    rows = list(one.load().values())
    some = [rows[number] for number in picked]
    order.shuffle(some)
    heads = one.ready(some)
    for row, head in zip(some, heads, strict=True):
        assert head is not None
        assert one.is_checked(row)
        if row.number == 6:
            assert head == b""
        else:
            assert head == one.head(row, wait=True)
            assert head + one.read(row, row.rest, row.size) == exam.served(row.sop_instance_uid)


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 4), offset=st.integers(0, CHUNK), length=st.integers(0, CHUNK))
def test_what_is_had_at_once_is_what_is_waited_for(
    volume: tuple[Volume, Exam], number: int, offset: int, length: int
) -> None:
    one, exam = volume
    row = list(one.load().values())[number]
    whole = exam.content(row.sop_instance_uid)
    expected = whole[offset : offset + length]
    assert one.read(row, offset, length) == expected
    at_once = bytearray(len(expected))
    had = one.read_into(row, offset, memoryview(at_once), wait=False)
    if one.key.sealed:
        assert not had
    else:
        # It was read a moment ago, and is in memory, unless the machine is short of it.
        assert not had or at_once == expected
    beyond = memoryview(bytearray(row.size + 1))
    with pytest.raises(Damaged):
        one.read_into(row, 0, beyond, wait=True)


@given(written=st.binary(max_size=200), sealed=st.booleans())
def test_records_that_are_not_ours_are_damaged(written: bytes, sealed: bool) -> None:
    with pytest.raises(Damaged):
        VolumeKey(MASTER, "abc", sealed=sealed).unseal(written)


def test_a_draft_takes_over_what_it_can_and_leaves_the_rest(tmp_path: Path) -> None:
    exam = Exam(images=2)
    draft = Draft(tmp_path / "draft", VolumeKey(MASTER, "draft", sealed=False))
    path = tmp_path / "incoming"
    path.write_bytes(b"no image at all")
    row = draft.add(path, exam.uids[0], exam.study_uid, exam.series_uid, INS)
    # Kept as it is; whoever serves it will look at it as a whole, and refuse it.
    assert row.head_length == 0
    path.write_bytes(exam.content(exam.uids[0]))
    # It is another instance than announced.
    row = draft.add(path, exam.uids[1], exam.study_uid, exam.series_uid, INS)
    assert row.head_length == 0
    with pytest.raises(FileNotFoundError):
        draft.add(path, exam.uids[1], exam.study_uid, exam.series_uid, INS)
    draft.remove()
    assert not (tmp_path / "draft").exists()


def test_keys(tmp_path: Path) -> None:
    made = own_key(tmp_path / "key")
    assert own_key(tmp_path / "key") == made
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "short").write_bytes(b"secret\n")
    for path in (tmp_path / "short", tmp_path / "none"):
        with pytest.raises(Misconfigured) as told:
            secret_key(path)
        assert "secret" not in told.value.reason.replace("cache-key", "")
    (tmp_path / "long").write_bytes(os.urandom(48).hex().encode() + b"\n")
    assert len(secret_key(tmp_path / "long")) == 32


async def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    async with world(tmp_path):
        with pytest.raises(Misconfigured):
            async with world(tmp_path):
                pass
