"""What a visit is given of its study: the DICOMweb of the viewer, straight from the source's cache and PACS."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from visit_world import FRAMES, Exam, Open, Site, another_ins, eventually, make_exam

from drimbox.foundation.errors import Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.images.header import with_ins
from drimbox.link.visit import Visit
from drimbox.record.audit import Kind, Outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME_PART = "DOMINIQUE"


def frame_of(reply: Reply) -> tuple[str, bytes]:
    """The transfer syntax and the bytes of the one part of a multipart body."""
    assert reply.status == 200, reply.body[:200]
    body = reply.body
    begin = body.index(b"\r\n--") + 2 if body.startswith(b"\r\n") else 0
    head, _, rest = body[begin:].partition(b"\r\n\r\n")
    (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
    (syntax,) = re.findall(rb"transfer-syntax=([\d.]+)", head)
    return syntax.decode(), rest[: int(length)]


async def frame(site: Site, visit: Visit, exam: Exam, number: int, series: int = 0) -> tuple[str, bytes]:
    return frame_of(await site.get(visit, site.image_path(exam, number, "/frames/1", series), accept=FRAMES))


async def state_of(site: Site, visit: Visit) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await site.get(visit, "/etat")).body)
    return found


async def over(site: Site, visit: Visit) -> list[dict[str, Any]]:
    """The series once nothing more comes."""
    async with asyncio.timeout(20):
        while not (state := await state_of(site, visit))["over"]:  # noqa: ASYNC110 - it is asked over HTTP
            await asyncio.sleep(0.02)
    series: list[dict[str, Any]] = state["series"]
    return series


@pytest.mark.requirement("DB.VI-CS.17", "DB.VI-CS.18", "DB.VI-SO.05")
@pytest.mark.parametrize("kept", ["clear", "sealed", "nothing"])
async def test_the_series_come_and_each_frame_is_its_own(opening: Open, tmp_path: Path, kept: str) -> None:
    """From a cache in clear, from an encrypted one, and without any."""
    async with opening(sealed=kept == "sealed", max_gb=0 if kept == "nothing" else 1) as site:
        exam = site.publish(make_exam(tmp_path / "pacs", series=2, images=4))
        visit = site.enter(exam)
        assert (await site.get(visit, accept="text/html")).status == 200
        for place, (uid, paths) in enumerate(exam.series.items()):
            described = await site.get(visit, site.series_path(exam, "/metadata", place))
            assert [h["00080018"]["Value"][0] for h in json.loads(described.body)] == exam.uids(uid)
            for number, path in enumerate(paths):
                _, shown = await frame(site, visit, exam, number, place)
                assert np.array_equal(np.frombuffer(shown, "<i2").reshape(128, 128), pydicom.dcmread(path).pixel_array)
        series = await over(site, visit)
        assert [(s["received"], s["expected"], s["state"]) for s in series] == [(4, 4, "done")] * 2
        if kept != "nothing":
            # Each series was asked of the PACS once.
            assert sorted(str(uid) for _, uid, _ in site.pacs.retrieves) == sorted(exam.series)
        assert list(site.scratch.iterdir()) == []
        if kept == "sealed":
            files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
            assert files
            assert not any(b"PAT-TROIS" in p.read_bytes() or b"DICM" in p.read_bytes() for p in files)
        viewed = site.journal.of(Kind.IMAGES_VIEWED)
        assert len(viewed) == 3
        assert {e.outcome for e in viewed} == {Outcome.SUCCESS}
        assert {o.detail.split(",")[0] for e in viewed for o in e.objects} >= {"4 images sur 4"}
        assert all(e.patient == exam.ins and e.actor.name == "" for e in viewed)


@pytest.mark.requirement("DB.VI-CS.17")
async def test_headers_are_told_as_the_images_come(site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=6))
    site.pacs.gate = asyncio.Semaphore(2)
    visit = site.enter(exam)
    first = await site.get(visit, site.series_path(exam, "/arrivees?depuis=0"))
    told = [h["00080018"]["Value"][0] for h in json.loads(first.body)]
    assert 1 <= len(told) <= 2
    # Who asks by the standard waits for all; who asks for an image, until it has come.
    whole = asyncio.create_task(site.get(visit, site.series_path(exam, "/metadata")))
    last = asyncio.create_task(frame(site, visit, exam, 5))
    await asyncio.sleep(0.3)
    assert not whole.done()
    assert not last.done()
    for _ in range(4):
        site.pacs.gate.release()
    while more := json.loads((await site.get(visit, site.series_path(exam, f"/arrivees?depuis={len(told)}"))).body):
        told += [h["00080018"]["Value"][0] for h in more]
    assert told == exam.uids(exam.first_series)
    assert len(json.loads((await whole).body)) == 6
    assert (await last)[1]


@pytest.mark.parametrize(
    "name",
    ["JPEG2000.dcm", "JPEG-LL.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm"],
)
async def test_what_is_compressed_leaves_as_it_is(site: Site, tmp_path: Path, name: str) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=1, source=Path(str(get_testdata_file(name)))))
    visit = site.enter(exam)
    syntax, shown = await frame(site, visit, exam, 0)
    ds = pydicom.dcmread(exam.series[exam.first_series][0])
    assert syntax == ds.file_meta.TransferSyntaxUID
    assert shown.rstrip(b"\0") == get_frame(ds.PixelData, 0, number_of_frames=1).rstrip(b"\0")


@pytest.mark.parametrize("name", ["image_dfl.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"])
async def test_what_is_stored_in_an_odd_way_is_shown_all_the_same(site: Site, tmp_path: Path, name: str) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=1, source=Path(str(get_testdata_file(name)))))
    visit = site.enter(exam)
    syntax, shown = await frame(site, visit, exam, 0)
    ds = pydicom.dcmread(exam.series[exam.first_series][0])
    assert syntax == "1.2.840.10008.1.2.1"
    cells = ds.pixel_array
    assert np.array_equal(np.frombuffer(shown, cells.dtype.newbyteorder("<")).reshape(cells.shape), cells)
    [header] = json.loads((await site.get(visit, site.series_path(exam, "/metadata"))).body)
    assert header["00280010"]["Value"] == [ds.Rows]
    assert list(site.scratch.iterdir()) == []


def _other_ins(path: Path) -> None:
    content = path.read_bytes()
    change = with_ins(content, another_ins(7))
    path.write_bytes(change.head + content[change.rest :])


def _edit(**values: str) -> Any:
    def edit(path: Path) -> None:
        ds = pydicom.dcmread(path)
        for name, value in values.items():
            setattr(ds, name, value)
        ds.save_as(path)

    return edit


@pytest.mark.requirement("DB.CO.68", "DB.VI-CS.29", "D23")
@pytest.mark.parametrize(
    "spoil",
    [
        _other_ins,
        _edit(StudyInstanceUID="1.2.3.4"),
        _edit(SeriesInstanceUID="1.2.3.4"),
        _edit(PatientBirthDate="19800101"),
        _edit(PatientSex="M"),
    ],
    ids=["ins", "study", "series", "birth-date", "sex"],
)
async def test_another_patients_image_is_never_shown(site: Site, tmp_path: Path, spoil: Any) -> None:
    """Not even what came before it."""
    exam = site.publish(make_exam(tmp_path / "pacs", images=4))
    paths = exam.series[exam.first_series]
    wrong = tmp_path / "wrong.dcm"
    wrong.write_bytes(paths[2].read_bytes())
    spoil(wrong)
    site.pacs.swapped[exam.uids(exam.first_series)[2]] = wrong
    visit = site.enter(exam)
    await site.get(visit)
    [series] = await over(site, visit)
    assert (series["state"], series["received"], series["withdrawn"], series["again"]) == ("failed", 0, 2, False)
    assert "identité" in series["reason"]
    for number in range(4):
        reply = await site.get(visit, site.image_path(exam, number, "/frames/1"), accept=FRAMES)
        assert reply.status == 502
    assert (await site.get(visit, site.series_path(exam, "/metadata"))).status == 502
    assert (await site.get(visit, "/apercu")).status == 204
    assert json.loads((await site.get(visit, site.series_path(exam, "/arrivees"))).body) == []
    for form in ("dicom", "jpeg"):
        assert (await site.get(visit, f"/telechargement/{form}")).status == 502
    failed = [e for e in site.journal.of(Kind.IMAGES_VIEWED) if e.outcome is Outcome.SERIOUS_FAILURE]
    assert failed
    assert all(NAME_PART not in str(e) for e in site.journal.events)


@pytest.mark.requirement("DB.VI-SO.28", "DB.VI-CO.27")
async def test_a_pacs_that_fails_half_way(site: Site, tmp_path: Path) -> None:
    """What came stays, the reason is said in French, and only what is missing is asked for again."""
    exam = site.publish(make_exam(tmp_path / "pacs", images=6))
    site.pacs.fail_at = 4
    visit = site.enter(exam)
    await site.get(visit)
    [series] = await over(site, visit)
    come = series["received"]
    assert (series["state"], series["again"]) == ("failed", True)
    assert 1 <= come <= 4
    assert "réessayez" in series["reason"]
    assert (await site.get(visit, site.series_path(exam, "/metadata"))).status == 503
    assert (await frame(site, visit, exam, 0))[1]
    site.pacs.fail_at = None
    again = await site.get(visit, "/reprise", method="POST")
    assert again.status == 303
    [series] = await over(site, visit)
    assert (series["state"], series["received"]) == ("done", 6)
    assert site.pacs.retrieves[-1][2] == frozenset(exam.uids(exam.first_series)[come:])


@pytest.mark.requirement("DB.VI-SO.28")
@pytest.mark.parametrize("down", [True, False])
async def test_a_pacs_that_is_down_and_images_that_are_gone(site: Site, tmp_path: Path, down: bool) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=2))
    if down:
        site.pacs.fail_at = 0
        site.pacs.find_failure = Unavailable("Le PACS ne répond pas", code="pacs-silent")
    else:
        site.pacs.lost = set(exam.uids(exam.first_series))
    visit = site.enter(exam)
    await site.get(visit)
    [series] = await over(site, visit)
    assert series["state"] == "failed"
    assert ("ne répond pas" if down else "n'a plus ces images") in series["reason"]
    reply = await site.get(visit, site.image_path(exam, 0, "/frames/1"), accept=FRAMES)
    assert reply.status == (503 if down else 410)
    page = await site.get(visit, "/telechargement/dicom", accept="text/html")
    assert page.status == 503
    assert b"PAT-TROIS" not in page.body


async def test_a_video_and_a_document(site: Site, tmp_path: Path) -> None:
    """A video leaves as the stream that it is, a PDF as a PDF; neither has frames, and neither is a picture to draw."""
    film = bytes(range(256)) * 5000

    def as_video(ds: pydicom.Dataset, number: int) -> None:
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.NumberOfFrames = 3, "YBR_PARTIAL_420", 40
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelRepresentation, ds.PlanarConfiguration = 7, 0, 0
        ds.PixelData = encapsulate([film])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True

    def as_pdf(ds: pydicom.Dataset, number: int) -> None:
        del ds.PixelData
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
        ds.MIMETypeOfEncapsulatedDocument, ds.EncapsulatedDocument = "application/pdf", b"%PDF-1.4 fin"

    video = site.publish(make_exam(tmp_path / "video", images=1, change=as_video))
    visit = site.enter(video)
    for path in ("/rendered", "/bulkdata/7FE00010"):
        reply = await site.get(visit, site.image_path(video, 0, path))
        assert (reply.status, reply.headers["Content-Type"]) == (200, "video/mp4")
        assert reply.body.rstrip(b"\0") == film.rstrip(b"\0")
    assert (await site.get(visit, site.image_path(video, 0, "/frames/1"), accept=FRAMES)).status == 406
    assert (await site.get(visit, "/apercu")).status == 204
    assert (await site.get(visit, "/telechargement/jpeg")).status == 404
    document = site.publish(make_exam(tmp_path / "pdf", images=1, change=as_pdf))
    visit = site.enter(document)
    reply = await site.get(visit, site.image_path(document, 0, "/rendered"))
    assert (reply.headers["Content-Type"], reply.body) == ("application/pdf", b"%PDF-1.4 fin")
    # What is no picture is read whole by the viewer.
    assert b"DICM" in (await site.get(visit, site.image_path(document, 0))).body


async def test_another_sites_form_asks_nothing_again(site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=1))
    visit = site.enter(exam)
    reply = await site.get(visit, "/reprise", method="POST", headers={"Sec-Fetch-Site": "cross-site"})
    assert reply.status == 403


async def test_two_visits_under_load_never_mix(site: Site, tmp_path: Path) -> None:
    """Two patients, three visits of each, all images of all series in any order, at the same time."""
    exams = [
        site.publish(make_exam(tmp_path / "one", series=2, images=8)),
        site.publish(make_exam(tmp_path / "two", series=2, images=8, ins=another_ins(3), mark=50)),
    ]
    pixels = {
        pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path).pixel_array.tobytes()
        for exam in exams
        for paths in exam.series.values()
        for path in paths
    }
    assert len(set(pixels.values())) == len(pixels)

    async def look(exam: Exam) -> int:
        visit = site.enter(exam)
        wanted = [(s, n) for s in range(2) for n in range(8)]
        shown = await asyncio.gather(*(frame(site, visit, exam, n, s) for s, n in wanted))
        for (s, n), (_, got) in zip(wanted, shown, strict=True):
            assert got == pixels[exam.uids(list(exam.series)[s])[n]]
        headers = json.loads((await site.get(visit, site.series_path(exam, "/metadata"))).body)
        assert {h["0020000D"]["Value"][0] for h in headers} == {exam.study_uid}
        return len(shown)

    counts = await asyncio.gather(*(look(exam) for _ in range(3) for exam in exams))
    assert sum(counts) == 96
    # What several visits ask for at the same time, or one after the other, the PACS sends once.
    assert len(site.pacs.retrieves) == 4


async def test_nothing_comes_any_more_once_a_visit_is_over(opening: Open, tmp_path: Path) -> None:
    async with opening(whole=False) as site:
        await _ended(site, tmp_path)


async def _ended(site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=4))
    site.pacs.gate = asyncio.Semaphore(1)
    visit = site.enter(exam)
    await site.get(visit)
    waiting = asyncio.create_task(site.get(visit, site.image_path(exam, 3, "/frames/1"), accept=FRAMES))
    assert json.loads((await site.get(visit, site.series_path(exam, "/arrivees"))).body)
    assert site.room is not None
    del site.doors[visit.key]
    site.room.ended(visit.key)
    assert (await waiting).status == 404
    assert len(site.room.desk.visits) == 0
    await eventually(lambda: not site.pacs.running)
