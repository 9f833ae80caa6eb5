"""Images on their way to the viewer: once, whole, of the right patient, and gone in the end."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from consumer_world import DOMINIQUE, Received, Study, make_study
from pydicom import dcmread
from pydicom.data import get_testdata_file

from drimbox.consumer.viewing import ExamImages, State, ordered
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Rejected, Unavailable
from drimbox.manifest.manifest import ManifestSeries
from drimbox.pacs.study import Instance

CT = Path(get_testdata_file("CT_small.dcm"))


class Source:
    """Gives the files of a study, as the test wants them."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.files = {s.series_uid: study.files[s.retrieve_url] for s in study.manifest.series}
        self.ends_with: dict[str, Exception] = {}
        self.running = self.most = 0

    @asynccontextmanager
    async def fetch(self, series: ManifestSeries, folder: Path) -> AsyncIterator[AsyncIterator[Received]]:
        self.asked.append(series.series_uid)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield self._images(series.series_uid, folder)
        finally:
            self.running -= 1

    async def _images(self, series_uid: str, folder: Path) -> AsyncIterator[Received]:
        for number, path in enumerate(self.files[series_uid]):
            await self.gate.wait()
            target = folder / f"{number}.dcm"
            shutil.copyfile(path, target)
            yield Received(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID), target, target.stat().st_size)
        if series_uid in self.ends_with:
            raise self.ends_with[series_uid]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, DOMINIQUE, [[CT, CT, CT], [CT, CT], [CT]])


@pytest.fixture
def source(study: Study) -> Source:
    return Source(study)


def exam(source: Source, tmp_path: Path, **more: object) -> ExamImages:
    clock = FixedClock(dt.datetime(2024, 3, 1, tzinfo=dt.UTC))
    return ExamImages(source.study.manifest, folder=tmp_path / "exam", fetch=source.fetch, clock=clock, **more)


@pytest.mark.requirement("DB.CO.70", "DB.VI-CS.17")
async def test_a_series_is_fetched_once_however_many_ask(source: Source, tmp_path: Path) -> None:
    images = exam(source, tmp_path)
    for _ in range(5):
        images.start()
    first = next(iter(images.series.values()))
    found = await asyncio.gather(*(first.whole() for _ in range(10)))
    assert all(
        [i.header.sop_instance_uid for i in f] == [i.sop_instance_uid for i in first.series.instances] for f in found
    )
    await asyncio.gather(*(s.whole() for s in images.series.values()))
    images.start()
    assert sorted(source.asked) == sorted(images.series)
    assert source.most <= 2
    metadata = json.loads((await first.described(0))[0])
    assert [m["00080018"]["Value"][0] for m in metadata] == [i.sop_instance_uid for i in first.series.instances]
    await images.close()


@pytest.mark.requirement("DB.VI-CS.18")
async def test_progress_is_told_while_images_come(source: Source, tmp_path: Path) -> None:
    source.gate.clear()
    images = exam(source, tmp_path, parallel=1)
    images.start()
    await asyncio.sleep(0.05)
    assert [p.state for p in images.progress] == [State.RUNNING, State.WAITING, State.WAITING]
    assert [(p.received, p.expected) for p in images.progress] == [(0, 3), (0, 2), (0, 1)]
    source.gate.set()
    await list(images.series.values())[-1].whole()
    assert [(p.state, p.received) for p in images.progress] == [(State.DONE, 3), (State.DONE, 2), (State.DONE, 1)]
    assert all(p.bytes > 0 for p in images.progress)
    await images.close()


async def test_an_image_is_given_before_its_series_is_whole(source: Source, tmp_path: Path) -> None:
    images = exam(source, tmp_path, parallel=1)
    first = next(iter(images.series.values()))
    wanted = first.series.instances[0].sop_instance_uid
    waiting = asyncio.create_task(first.image(wanted))
    images.start()
    assert (await waiting).header.sop_instance_uid == wanted
    with pytest.raises(Refused):
        await first.image("1.2.3")
    await images.close()


@pytest.mark.requirement("DB.VI-CO.27")
@pytest.mark.parametrize(
    "error",
    [
        Refused("La source envoie des images illisibles", code="multipart-malformed"),
        OSError(28, "No space left on device"),
        ZeroDivisionError("a defect"),
    ],
)
async def test_a_failure_is_told_to_all_who_wait_and_leaves_no_file(
    source: Source, tmp_path: Path, error: Exception
) -> None:
    images = exam(source, tmp_path, parallel=1)
    first, second, _ = images.series.values()
    source.ends_with[first.series.series_uid] = error
    images.start()
    with pytest.raises(DrimboxError) as caught:
        await asyncio.gather(first.whole(), first.whole())
    assert caught.value.reason
    assert images.progress[0].state is State.FAILED
    assert images.progress[0].reason
    assert (images.progress[0].received, images.progress[0].withdrawn) == (0, 3)
    assert not (tmp_path / "exam" / "0000").exists()
    assert await first.described(0) == (b"[]", 0)
    with pytest.raises(DrimboxError):
        await first.image(first.series.instances[0].sop_instance_uid)
    await second.whole()
    await images.close()


@pytest.mark.requirement("DB.VI-CO.27", "DB.VI-CS.17")
@pytest.mark.parametrize(
    "error",
    [
        Unavailable("DRIMbox source injoignable", code="source-unreachable"),
        Rejected("La source refuse le jeton d'accès", code="token-refused"),
    ],
)
async def test_what_came_before_a_source_failed_stays_and_is_not_taken_for_the_whole(
    source: Source, tmp_path: Path, error: Exception
) -> None:
    images = exam(source, tmp_path, parallel=1)
    first = next(iter(images.series.values()))
    listed = first.series.instances
    source.files[first.series.series_uid] = source.files[first.series.series_uid][:2]
    source.ends_with[first.series.series_uid] = error
    images.start()
    with pytest.raises(type(error)):
        await first.whole()
    progress = first.progress
    assert (progress.state, progress.received, progress.expected, progress.withdrawn) == (State.FAILED, 2, 3, 0)
    kept = await first.image(listed[0].sop_instance_uid)
    assert kept.path.exists()
    with pytest.raises(type(error)):
        await first.image(listed[2].sop_instance_uid)
    assert (await first.described(0))[1] == 2
    # Another try brings what was missing; what was there is not fetched into the same file again.
    source.ends_with.clear()
    source.files[first.series.series_uid] = source.study.files[first.series.retrieve_url]
    before = kept.path.stat().st_ino
    images.retry()
    whole = await first.whole()
    assert [i.header.sop_instance_uid for i in whole] == [i.sop_instance_uid for i in listed]
    assert kept.path.stat().st_ino == before
    assert len(files_below(tmp_path / "exam" / "0000", "*.dcm")) == 3
    await images.close()


@pytest.mark.requirement("DB.VI-CS.17")
async def test_headers_are_told_as_the_images_come(source: Source, tmp_path: Path) -> None:
    source.gate.clear()
    images = exam(source, tmp_path, parallel=1)
    first = next(iter(images.series.values()))
    images.start()
    waiting = asyncio.create_task(first.described(0))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    source.gate.set()
    body, count = await waiting
    told = [one["00080018"]["Value"][0] for one in json.loads(body)]
    while count < 3:
        body, more = await first.described(count, 0.01)
        told += [one["00080018"]["Value"][0] for one in json.loads(body)]
        count += more
    assert told == [i.sop_instance_uid for i in first.series.instances]
    await first.whole()
    assert await first.described(3) == (b"[]", 0)
    picture = await first.first()
    assert picture is not None
    assert picture.header.sop_instance_uid == told[0]
    await images.close()


@pytest.mark.requirement("DB.VI-CS.31", "DB.VI-CO.27")
async def test_a_series_of_which_nothing_can_be_shown_says_so(source: Source, tmp_path: Path) -> None:
    images = exam(source, tmp_path, parallel=1)
    third = list(images.series.values())[-1]
    [path] = source.files[third.series.series_uid]
    dataset = dcmread(path)
    del dataset.PixelData
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66"
    dataset.save_as(path)
    images.start()
    with pytest.raises(Refused) as caught:
        await third.whole()
    assert caught.value.code == "sop-class"
    await images.close()


def files_below(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


@pytest.mark.requirement("DB.CO.68", "D23")
async def test_images_of_somebody_else_are_never_shown(source: Source, tmp_path: Path, study: Study) -> None:
    images = exam(source, tmp_path, parallel=1)
    first, second, third = images.series.values()
    source.ends_with[first.series.series_uid] = IdentityMismatch("INS différente", code="ins-differs")
    # An image of another series, and one image twice: the fetcher should have seen it.
    source.files[second.series.series_uid] = study.files[first.series.retrieve_url]
    source.files[third.series.series_uid] = study.files[third.series.retrieve_url] * 2
    images.start()
    for number, series in enumerate((first, second, third)):
        with pytest.raises(IdentityMismatch):
            await series.whole()
        assert series.progress.received == 0
        assert not (tmp_path / "exam" / f"{number:04d}").exists()
    assert not any(images.may_retry(uid) for uid in images.series)
    await images.close()


async def test_missing_images_make_no_whole_series(source: Source, tmp_path: Path) -> None:
    images = exam(source, tmp_path)
    first = next(iter(images.series.values()))
    source.files[first.series.series_uid] = source.files[first.series.series_uid][:-1]
    images.start()
    with pytest.raises(Unavailable, match="1 image"):
        await first.whole()
    await images.close()


async def test_a_failed_series_can_be_tried_again(source: Source, tmp_path: Path) -> None:
    images = exam(source, tmp_path)
    first = next(iter(images.series.values()))
    source.ends_with[first.series.series_uid] = Unavailable("coupé", code="source-error")
    images.start()
    with pytest.raises(Unavailable):
        await first.whole()
    source.ends_with.clear()
    images.retry()
    assert len(await first.whole()) == 3
    await images.close()


@pytest.mark.requirement("D15")
async def test_a_series_that_must_not_be_asked_for_is_not(source: Source, tmp_path: Path) -> None:
    uid = source.study.manifest.series[0].series_uid
    images = exam(source, tmp_path, refused={uid: Refused("hôte inconnu", code="host-not-listed")})
    images.start()
    with pytest.raises(Refused, match="hôte inconnu"):
        await images.series[uid].whole()
    images.retry()
    await asyncio.sleep(0.05)
    assert uid not in source.asked
    await images.close()


async def test_closing_lets_nobody_wait_and_leaves_no_file(source: Source, tmp_path: Path) -> None:
    source.gate.clear()
    images = exam(source, tmp_path, parallel=1)
    images.start()
    waiting = [asyncio.create_task(s.whole()) for s in images.series.values()]
    await asyncio.sleep(0.05)
    await images.close()
    for task in waiting:
        with pytest.raises(Refused):
            await asyncio.wait_for(task, 1)
    assert source.running == 0
    assert not (tmp_path / "exam").exists()


@pytest.mark.requirement("DB.CO.81", "DB.CO.82")
async def test_a_series_is_shown_only_once_its_fetch_is_written_down(source: Source, tmp_path: Path) -> None:
    async def lost_journal(series: ManifestSeries, count: int, error: DrimboxError | None) -> None:
        if error is None:
            raise Unavailable("journal indisponible", code="database")

    images = exam(source, tmp_path, finished=lost_journal)
    images.start()
    with pytest.raises(Unavailable, match="journal"):
        await next(iter(images.series.values())).whole()
    await images.close()


@pytest.mark.requirement("DB.CO.57", "DB.CO.107")
def test_significant_images_come_first_then_the_lowest_number() -> None:
    def series(uid: str, number: int | None, sop_class: str) -> ManifestSeries:
        return ManifestSeries(uid, "", "CT", number, "", (Instance(sop_class, f"{uid}.1"),))

    ct, capture, light = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.77.1.4"
    given = [series("1", None, ct), series("2", 3, ct), series("3", 1, light), series("4", 99, capture)]
    assert [s.series_uid for s in ordered(given)] == ["4", "3", "2", "1"]


@pytest.mark.requirement("DB.CO.107", "DB.VI-CS.34")
def test_the_series_of_key_images_comes_before_lower_numbers() -> None:
    ct, capture = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"

    def series(uid: str, number: int, sop_class: str = ct) -> ManifestSeries:
        instances = tuple(Instance(sop_class, f"{uid}.{n}", n) for n in range(1, 4))
        return ManifestSeries(uid, "https://x", "CT", number, "", instances)

    given = [series("1.1", 1), series("1.2", 2), series("1.3", 3), series("1.9", 9, capture)]
    assert [s.series_uid for s in ordered(given, {"1.3.2"})] == ["1.9", "1.3", "1.1", "1.2"]
    assert [s.series_uid for s in ordered(given)] == ["1.9", "1.1", "1.2", "1.3"]
