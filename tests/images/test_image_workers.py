"""The processes that decode images, and the preparation of the next images while one is being sent."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from files import named
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from world import INS, until

from drimbox.dicom.syntaxes import EXPLICIT_LE, JPEG_2000_LOSSLESS, JPEG_LS
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.images.ahead import prepared_ahead
from drimbox.images.workers import Made, WorkerPool, worker_pool


def children() -> set[int]:
    """The processes that this one has started."""
    return {int(p) for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def environment(process: int) -> bytes:
    return Path(f"/proc/{process}/environ").read_bytes()


@pytest.mark.requirement("D14")
async def test_an_image_that_kills_its_decoder_fails_alone(tmp_path: Path) -> None:
    """A worker that dies while it works is what a codec that crashes looks like from here."""
    before = children()
    async with worker_pool(size=1) as pool:
        os.mkfifo(tmp_path / "never-ends")
        stuck = asyncio.create_task(pool.transcode(tmp_path / "never-ends", tmp_path / "1.dcm", JPEG_LS))
        after = asyncio.create_task(pool.transcode(named("CT_small.dcm"), tmp_path / "2.dcm", JPEG_LS))
        await until(lambda: children() - before)
        await asyncio.sleep(0.2)
        (worker,) = children() - before
        os.kill(worker, signal.SIGSEGV)
        with pytest.raises(Refused) as crashed:
            await stuck
        assert crashed.value.code == "codec-crash"
        # The next one, which waited for the same place, is served by a new process.
        await after
        assert pydicom.dcmread(tmp_path / "2.dcm").file_meta.TransferSyntaxUID == JPEG_LS
        assert worker not in children()
    assert children() == before
    assert names(tmp_path) == ["2.dcm", "never-ends"]


async def test_an_image_that_takes_for_ever_is_given_up(tmp_path: Path) -> None:
    async with worker_pool(size=1, timeout=1.0) as pool:
        os.mkfifo(tmp_path / "never-ends")
        with pytest.raises(Refused) as late:
            await pool.transcode(tmp_path / "never-ends", tmp_path / "1.dcm", JPEG_LS)
        assert late.value.code == "codec-timeout"


async def test_a_cancelled_job_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    async with worker_pool(size=1) as pool:
        os.mkfifo(tmp_path / "never-ends")
        job = asyncio.create_task(pool.transcode(tmp_path / "never-ends", tmp_path / "1.dcm", JPEG_LS))
        await asyncio.sleep(0.3)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        with pytest.raises(Refused) as refused:
            await pool.transcode(named("MR_truncated.dcm"), tmp_path / "2.dcm", JPEG_LS)
        assert refused.value.code == "dicom-truncated"
        await pool.transcode(named("MR_small_RLE.dcm"), tmp_path / "3.dcm", EXPLICIT_LE)


async def test_errors_of_codecs_are_refusals_and_leave_nothing(tmp_path: Path) -> None:
    content = bytearray(named("MR_small_jp2klossless.dcm").read_bytes())
    start = content.index(b"\xff\x93") + 2
    content[start : start + 300] = bytes(300)
    content[content.index(b"\xff\x52") + 6] = 0xEE
    (tmp_path / "in.dcm").write_bytes(content)
    async with worker_pool(size=1) as pool:
        with pytest.raises(Refused) as refused:
            await pool.transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", EXPLICIT_LE)
        assert refused.value.code == "dicom-frame"
    assert names(tmp_path) == ["in.dcm"]


async def test_a_process_that_eats_memory_is_stopped(tmp_path: Path) -> None:
    source = named("CT_small.dcm").read_bytes()
    at = source.index(b"\x20\x00\x0d\x00UI")
    with (tmp_path / "in.dcm").open("wb") as file:
        # One element that claims a gigabyte, and has it: a hole in the file.
        file.write(source[:at] + b"\x11\x00\x10\x10OB\0\0" + (2**30).to_bytes(4, "little"))
        file.seek(2**30, os.SEEK_CUR)
        file.write(source[at:])
    pool = WorkerPool(size=1, memory=1800 * 2**20)
    try:
        with pytest.raises(Refused):
            await pool.metadata(tmp_path / "in.dcm", tmp_path / "out.json", INS)
        await pool.metadata(named("CT_small.dcm"), tmp_path / "out.json", INS)
    finally:
        await pool.close()


def an_image(path: Path, cells: Any, syntax: str = EXPLICIT_LE, **changes: Any) -> Path:
    """An image with these pixels; ``changes`` are what its header says against the truth."""
    dataset = pydicom.dcmread(named("CT_small.dcm"))
    dataset.Rows, dataset.Columns = cells.shape
    dataset.PixelRepresentation, dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 0, 16, 16, 15
    dataset.PixelData = cells.astype("<u2").tobytes()
    if syntax != EXPLICIT_LE:
        encode = {JPEG_LS: imagecodecs.jpegls_encode, JPEG_2000_LOSSLESS: imagecodecs.jpeg2k_encode}[syntax]
        options = {"codecformat": "j2k", "level": 0} if syntax == JPEG_2000_LOSSLESS else {}
        dataset.PixelData = encapsulate([bytes(encode(cells.astype("u2"), **options))])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def shared_memory() -> list[int]:
    """The memory that this process shares with its workers."""
    found = [int(p.name) for p in Path("/proc/self/fd").iterdir() if p.is_symlink() and "memfd:made" in os.readlink(p)]
    return sorted(found)


@pytest.mark.requirement("DB.SO.39", "D23")
async def test_what_is_made_in_memory_is_the_image_with_the_ins_and_nothing_of_another(tmp_path: Path) -> None:
    long = an_image(tmp_path / "long.dcm", np.random.default_rng(1).integers(0, 4096, (600, 600)))
    short = an_image(tmp_path / "short.dcm", np.arange(64).reshape(8, 8))
    async with worker_pool(size=1) as pool:
        first = await pool.image(long, tmp_path / "x", JPEG_LS, INS, in_memory=True)
        assert first.content is not None
        (fd,) = shared_memory()
        with pytest.raises(Refused):
            # Even an image that fails leaves nothing of the former one behind.
            await pool.image(named("MR_truncated.dcm"), tmp_path / "x", JPEG_LS, INS, in_memory=True)
        assert os.fstat(fd).st_size == 0
        second = await pool.image(short, tmp_path / "x", EXPLICIT_LE, INS, in_memory=True)
        assert second.content is not None
        assert os.fstat(fd).st_size == second.size == len(second.content)
        filed = await pool.image(short, tmp_path / "filed", EXPLICIT_LE, INS, in_memory=False)
        assert (filed.content, (tmp_path / "filed").read_bytes()) == (None, second.content)
        frames = await pool.frames(short, tmp_path / "x", JPEG_LS, [1, 1], in_memory=True)
        assert frames.content is not None
        assert frames.lengths == (frames.size // 2,) * 2
    assert shared_memory() == []
    sent = pydicom.dcmread(io.BytesIO(first.content))
    assert sent.OtherPatientIDsSequence[-1].PatientID == INS.matricule
    assert (first.study_uid, first.sop_instance_uid) == (sent.StudyInstanceUID, sent.SOPInstanceUID)
    assert np.array_equal(pydicom.dcmread(io.BytesIO(second.content)).pixel_array, np.arange(64).reshape(8, 8))
    assert names(tmp_path) == ["filed", "long.dcm", "short.dcm"]


@pytest.mark.requirement("D14")
@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000_LOSSLESS])
async def test_a_frame_that_asks_for_more_memory_than_there_is_fails_alone(tmp_path: Path, syntax: str) -> None:
    """Header and codestream agree on dimensions whose pixels nobody has."""
    bomb = an_image(tmp_path / "bomb.dcm", np.zeros((16, 16)), syntax, Rows=65500, Columns=65500)
    content = bytearray(bomb.read_bytes())
    if syntax == JPEG_LS:
        at = content.index(b"\xff\xf7") + 5
        content[at : at + 4] = struct.pack(">HH", 65500, 65500)
    else:
        at = content.index(b"\xff\x4f\xff\x51") + 8
        content[at : at + 8] = struct.pack(">II", 65500, 65500)
        content[at + 16 : at + 24] = struct.pack(">II", 65500, 65500)
    bomb.write_bytes(content)
    good = named("MR_small_jpeg_ls_lossless.dcm")
    pool = WorkerPool(size=2, memory=2 * 2**30, timeout=20)
    try:
        results = await asyncio.gather(
            pool.image(bomb, tmp_path / "x", EXPLICIT_LE, INS, in_memory=False),
            *(pool.image(good, tmp_path / "y", EXPLICIT_LE, INS, in_memory=True) for _ in range(6)),
            return_exceptions=True,
        )
    finally:
        await pool.close()
    assert isinstance(results[0], Refused)
    assert {type(r) for r in results[1:]} == {Made}
    assert names(tmp_path) == ["bomb.dcm"]


@pytest.mark.parametrize(
    "name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "JPEG-LL.dcm"]
)
async def test_noise_in_frames_ends_in_an_image_or_a_refusal(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    original = named(name).read_bytes()
    start = original.index(b"\xe0\x7f\x10\x00") + 20
    refused = 0
    async with worker_pool(size=1, timeout=10) as pool:
        for _ in range(40):
            content = bytearray(original)
            for _ in range(chance.randint(1, 4)):
                what = chance.randbytes(chance.randint(1, 6))
                at = chance.randrange(start, len(content) - len(what))
                content[at : at + len(what)] = what
            (tmp_path / "in.dcm").write_bytes(content)
            try:
                await pool.image(tmp_path / "in.dcm", tmp_path / "x", EXPLICIT_LE, INS, in_memory=True)
            except Refused:
                refused += 1
        # Whatever became of them, the next one is served.
        await pool.image(named("CT_small.dcm"), tmp_path / "x", JPEG_LS, INS, in_memory=True)
    assert refused


async def test_a_worker_knows_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIMBOX_SECRET", "s3cr3t")
    before = children()
    async with worker_pool(size=1) as pool:
        await pool.warm()
        (worker,) = children() - before
        assert b"s3cr3t" not in environment(worker)


# --- prepared_ahead


async def numbers(count: int, fail_at: int | None, asked: list[int]) -> AsyncIterator[int]:
    for number in range(count):
        if number == fail_at:
            raise Unavailable("source")
        asked.append(number)
        yield number


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.003]), max_size=8),
    st.integers(1, 4),
    st.integers(0, 9),
    st.one_of(st.none(), st.integers(0, 9)),
    st.one_of(st.none(), st.integers(0, 9)),
    st.integers(0, 9),
)
def test_what_is_prepared_ahead_comes_in_order_and_none_is_lost(
    delays: list[float], width: int, taken: int, fail_source: int | None, fail_prepare: int | None, direct: int
) -> None:
    asked: list[int] = []
    prepared: set[int] = set()
    discarded: set[int] = set()

    async def prepare(number: int) -> int:
        await asyncio.sleep(delays[number])
        if number == fail_prepare:
            raise Refused("prepare")
        prepared.add(number)
        return number

    def at_once(number: int) -> int | None:
        if number >= direct:
            return None
        if number == fail_prepare:
            raise Refused("at once")
        return number

    async def run() -> list[int]:
        got: list[int] = []
        source = numbers(len(delays), fail_source, asked)
        try:
            async with prepared_ahead(source, prepare, discarded.add, width=width, at_once=at_once) as items:
                while len(got) < taken and (item := await anext(items, None)) is not None:
                    got.append(item)
                    await asyncio.sleep(0.001)
                    assert len(asked) - len(got) < width
        except (Unavailable, Refused):
            pass
        return got

    got = asyncio.run(run())
    assert got == list(range(len(got)))
    failing = min(f for f in (fail_source, fail_prepare, len(delays)) if f is not None)
    assert len(got) == min(taken, failing, len(delays))
    # What could be had at once was not made ahead; what was made and not taken was given back.
    assert not prepared & set(range(direct))
    assert prepared - set(got) == discarded
