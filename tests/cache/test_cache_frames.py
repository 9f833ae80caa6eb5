"""Frames for a viewer, straight from the cache: as stored or in HTJ2K, and the PACS asked once for all of a series."""

from __future__ import annotations

import asyncio
import io

import imagecodecs
import numpy as np
import pydicom
import pytest
from cache_world import Exam
from test_cache_https import Box, Open, http, keys, listening, workers
from test_wado_frames import parts_of

from drimbox.dicom.syntaxes import EXPLICIT_LE, HTJ2K_LOSSLESS_RPCL
from drimbox.foundation.http_client import HttpClient

__all__ = ["http", "keys", "listening", "workers"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

# What OHIF asks, and what a viewer asks that decodes HTJ2K fastest.
OHIF = "multipart/related; type=application/octet-stream; transfer-syntax=*"
HTJ2K = f"multipart/related; type=image/jphc; transfer-syntax={HTJ2K_LOSSLESS_RPCL}, {OHIF};q=0.5"
FRAMES, SIDE = 4, 64


def made(exam: Exam) -> dict[str, np.ndarray]:
    """Gives each image of the exam frames of its own, smooth as those of a scanner; returns their pixels."""
    pixels: dict[str, np.ndarray] = {}
    for number, uid in enumerate(exam.uids):
        rows = np.arange(SIDE, dtype=np.uint16)
        frames = [rows[:, None] * 3 + rows[None, :] * (frame + 1) + number * 7 for frame in range(FRAMES)]
        pixels[uid] = np.stack(frames).astype("<u2")
    content = {uid: _image(exam, uid, array) for uid, array in pixels.items()}
    exam.content = content.__getitem__  # type: ignore[method-assign]
    return pixels


def _image(exam: Exam, uid: str, pixels: np.ndarray) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(Exam.content(exam, uid)))
    dataset.Rows = dataset.Columns = SIDE
    dataset.NumberOfFrames = FRAMES
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


async def frames(
    box: Box, http: HttpClient, exam: Exam, uid: str, numbers: str, accept: str
) -> list[tuple[str, bytes]]:
    reply = await box.get(http, exam, f"/instances/{uid}/frames/{numbers}", accept)
    assert reply.status == 200, reply.body
    return list(parts_of(reply.headers, reply.body)[1])


@pytest.mark.requirement("DB.SO.32", "DB.CS.83", "D25")
@pytest.mark.parametrize("sealed", [False, True])
async def test_a_viewer_reads_a_series_frame_by_frame(listening: Open, http: HttpClient, sealed: bool) -> None:
    """The first image comes by itself, the second brings the series: the PACS is asked three times, not forty."""
    async with listening(sealed=sealed) as box:
        exam = box.add(Exam(images=40))
        pixels = made(exam)
        for uid in exam.uids:
            for number in (1, FRAMES):
                ((kind, body),) = await frames(box, http, exam, uid, str(number), OHIF)
                assert kind == f"application/octet-stream; transfer-syntax={EXPLICIT_LE}"
                assert body == pixels[uid][number - 1].tobytes()
        asked = [sorted(instances) for _, _, instances in box.here.pacs.retrieves]
        assert asked[0] == [exam.uids[0]]
        assert sum(map(len, asked)) == len(exam.uids), "no image is fetched twice"
        assert len(asked) <= 3
        await box.here.quiet()
        before = len(asked)
        await frames(box, http, exam, exam.uids[5], "2", OHIF)
        assert len(box.here.pacs.retrieves) == before


@pytest.mark.requirement("DB.CS.83")
@pytest.mark.parametrize("sealed", [False, True])
async def test_the_same_in_htj2k_where_the_viewer_likes_it_better(
    listening: Open, http: HttpClient, sealed: bool
) -> None:
    """Each frame lossless, in the progression by resolution that a browser can show before the whole is there."""
    async with listening(sealed=sealed) as box:
        exam = box.add(Exam(images=3))
        pixels = made(exam)
        for uid in exam.uids:
            found = await frames(box, http, exam, uid, "1,3,2", HTJ2K)
            assert [kind for kind, _ in found] == [f"image/jphc; transfer-syntax={HTJ2K_LOSSLESS_RPCL}"] * 3
            for (_, body), frame in zip(found, (0, 2, 1), strict=True):
                assert _progression(body) == 2, "not RPCL"
                assert np.array_equal(imagecodecs.htj2k_decode(body), pixels[uid][frame])


def _progression(codestream: bytes) -> int:
    """The progression order of its COD marker segment (ISO/IEC 15444-1 A.6.1)."""
    at = codestream.index(b"\xff\x52")
    return codestream[at + 5]


async def test_who_asks_for_one_image_alone_costs_no_series(listening: Open, http: HttpClient) -> None:
    async with listening() as box:
        exam = box.add(Exam(images=10))
        made(exam)
        for number in ("1", "2", "3"):
            await frames(box, http, exam, exam.uids[3], number, OHIF)
        assert [instances for _, _, instances in box.here.pacs.retrieves] == [{exam.uids[3]}]


async def test_a_series_that_the_pacs_no_longer_holds_whole_costs_no_image_that_it_holds(
    listening: Open, http: HttpClient
) -> None:
    async with listening() as box:
        exam = box.add(Exam(images=6))
        pixels = made(exam)
        box.here.pacs.lost = {exam.uids[5]}
        for uid in exam.uids[:5]:
            ((_, body),) = await frames(box, http, exam, uid, "1", OHIF)
            assert body == pixels[uid][0].tobytes()
        reply = await box.get(http, exam, f"/instances/{exam.uids[5]}/frames/1", OHIF)
        assert reply.status == 410


@pytest.mark.requirement("DB.SO.35")
async def test_many_viewers_at_once_never_see_another_patients_frame(listening: Open, http: HttpClient) -> None:
    async with listening() as box:
        exams = [box.add(Exam(images=6)) for _ in range(8)]
        pixels = [made(exam) for exam in exams]

        async def view(number: int) -> None:
            exam = exams[number]
            for uid in exam.uids:
                ((_, body),) = await frames(box, http, exam, uid, "2", OHIF)
                assert body == pixels[number][uid][1].tobytes()

        await asyncio.gather(*(view(number) for number in range(8)))
