"""The processes that decode images, and the preparation of the next images while one is being sent."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pydicom
import pytest
from files import named
from hypothesis import given, settings
from hypothesis import strategies as st
from world import INS, until

from drimbox.foundation.errors import Refused, Unavailable
from drimbox.images.ahead import prepared_ahead
from drimbox.images.syntaxes import EXPLICIT_LE, JPEG_LS
from drimbox.images.workers import WorkerPool, worker_pool


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
)
def test_what_is_prepared_ahead_comes_in_order_and_none_is_lost(
    delays: list[float], width: int, taken: int, fail_source: int | None, fail_prepare: int | None
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

    async def run() -> list[int]:
        got: list[int] = []
        source = numbers(len(delays), fail_source, asked)
        try:
            async with prepared_ahead(source, prepare, discarded.add, width=width) as items:
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
    # What was made and not taken was given back.
    assert prepared - set(got) == discarded
