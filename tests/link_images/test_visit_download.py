"""The exam that the patient takes home, judged by pydicom's file sets, by DCMTK, and by pydicom's own windowing."""

from __future__ import annotations

import asyncio
import html
import io
import re
import subprocess
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from visit_world import INS, Exam, Open, Site, eventually, make_exam

from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_client import Reply
from drimbox.link.visit import Visitor
from drimbox.link_images.app import Limits
from drimbox.link_images.desk import Form
from drimbox.record.audit import Kind, Outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")

DICOM, JPEG = "/telechargement/dicom", "/telechargement/jpeg"


def opened(reply: Reply) -> zipfile.ZipFile:
    assert reply.status == 200, reply.body[:200]
    assert reply.headers["Content-Type"] == "application/zip"
    assert reply.headers["Content-Disposition"].startswith("attachment; filename=")
    archive = zipfile.ZipFile(io.BytesIO(reply.body))
    assert archive.testzip() is None
    return archive


def directory(disc: Path) -> list[pydicom.Dataset]:
    """The files that a DICOMDIR lists, opened where it says they are."""
    records = pydicom.dcmread(disc / "DICOMDIR").DirectoryRecordSequence
    assert [r.DirectoryRecordType for r in records][:4] == ["PATIENT", "STUDY", "SERIES", "IMAGE"]
    return [pydicom.dcmread(disc.joinpath(*r.ReferencedFileID)) for r in records if "ReferencedFileID" in r]


def judge(disc: Path) -> None:
    """DCMTK and dicom3tools find nothing wrong."""
    files = sorted(str(p) for p in (disc / "DICOM").rglob("I*"))
    assert subprocess.run(["/usr/bin/dcmftest", *files, str(disc / "DICOMDIR")], capture_output=True).returncode == 0
    listed = subprocess.run(["/usr/bin/dcmdump", disc / "DICOMDIR"], capture_output=True, text=True, check=True)
    assert listed.stdout.count("[IMAGE]") == len(files)
    said = subprocess.run(["/usr/bin/dciodvfy", disc / "DICOMDIR"], capture_output=True, text=True)
    assert "Error" not in said.stderr


@pytest.mark.requirement("DB.CO.71", "D23")
@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "image_dfl.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
)
async def test_dicom_that_others_read(site: Site, tmp_path: Path, name: str) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", series=2, images=3, source=Path(str(get_testdata_file(name)))))
    visit = site.enter(exam)
    disc = tmp_path / "disc"
    opened(await site.get(visit, DICOM)).extractall(disc)
    assert {p.name for p in disc.iterdir()} == {"DICOMDIR", "README.TXT", "INDEX.HTM", "IHE_PDI", "DICOM"}
    files = directory(disc)
    assert {i.SOPInstanceUID for i in files} == {uid for series in exam.series for uid in exam.uids(series)}
    originals = {pydicom.dcmread(p).SOPInstanceUID: p for paths in exam.series.values() for p in paths}
    for ds in files:
        [other] = ds.OtherPatientIDsSequence
        assert (other.PatientID, other.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID) == (
            INS.matricule,
            INS.oid,
        )
        assert ds.PatientID == "IPP"
        assert np.array_equal(ds.pixel_array, pydicom.dcmread(originals[ds.SOPInstanceUID]).pixel_array)
    await asyncio.to_thread(judge, disc)
    assert list(site.scratch.iterdir()) == []
    [event] = site.journal.of(Kind.IMAGES_EXPORTED)
    assert (event.outcome, event.actor.profession, event.patient) == (Outcome.SUCCESS, "patient", INS)


# What pydicom has no codec for is the same image as another of its files.
TWINS = {"MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm"}


def oracle(path: Path, path_name: str) -> tuple[np.ndarray, bool]:
    """What pydicom shows of an image, from 0 to 255, and whether it has colours."""
    ds = pydicom.dcmread(path)
    twin = TWINS.get(path_name)
    cells = pydicom.dcmread(str(get_testdata_file(twin))).pixel_array if twin else ds.pixel_array
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        shown = apply_color_lut(cells, ds)
        return (shown >> 8 if shown.dtype == np.uint16 else shown).astype(float), True
    if ds.SamplesPerPixel == 3:
        return cells.astype(float), True
    values = apply_voi_lut(apply_modality_lut(cells, ds), ds, prefer_lut=False).astype(float)
    if "WindowWidth" in ds:
        low, high = values.min(), values.max()
        centre, width = (float(np.ravel(ds[tag].value)[0]) for tag in ("WindowCenter", "WindowWidth"))
        plain = apply_modality_lut(cells, ds).astype(float)
        shown = np.clip((plain - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
        assert low <= high
    else:
        low, high = np.percentile(values, (0.5, 99.5))
        shown = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    return (255 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown), False


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPEG2000.dcm",
        "image_dfl.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "examples_palette.dcm",
        "examples_ybr_color.dcm",
        "US1_UNCR.dcm",
        "rtdose.dcm",
    ],
)
async def test_pictures_are_what_the_header_wants_seen(site: Site, tmp_path: Path, name: str) -> None:
    """Whatever the syntax, the colours, the number of frames: the JPEG is the image as pydicom shows it."""
    found = get_testdata_file(name)
    if found is None:
        pytest.skip(f"{name} is not among the files that pydicom brings")
    exam = site.publish(make_exam(tmp_path / "pacs", images=1, source=Path(str(found))))
    [path] = exam.series[exam.first_series]
    archive = opened(await site.get(site.enter(exam), JPEG))
    names = [n for n in archive.namelist() if n.endswith(".JPG")]
    shown, colours = oracle(path, name)
    frames = shown if shown.ndim == (4 if colours else 3) else shown[np.newaxis]
    assert len(names) == len(frames)
    for place in (0, len(frames) // 2, len(frames) - 1):
        picture = imagecodecs.jpeg8_decode(archive.read(names[place])).astype(float)
        expected = frames[place]
        assert picture.shape == expected.shape
        # JPEG loses something; nothing else does.
        assert np.abs(picture - expected).mean() < (6 if colours else 3)


async def test_the_page_of_the_pictures_shows_them_all(site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", series=2, images=3))
    archive = opened(await site.get(site.enter(exam), JPEG))
    page = archive.read("INDEX.HTM").decode()
    linked = set(re.findall(r'src="([^"]+)"', page))
    assert linked == {n for n in archive.namelist() if n.endswith(".JPG")}
    assert len(linked) == 6
    assert "Ne pas utiliser pour le diagnostic" in page
    assert "6 images" in page
    # A ZIP that gets about names its exam, not the patient.
    assert "DOMINIQUE" not in page
    assert "279035121518989" not in page


async def test_a_script_in_a_description_stays_text(site: Site, tmp_path: Path) -> None:
    exam = make_exam(tmp_path / "pacs", images=1)
    exam.description = '<script>alert("1")</script>'
    site.publish(exam)
    visit = site.enter(exam)
    for form in (DICOM, JPEG):
        assert "<script" not in opened(await site.get(visit, form)).read("INDEX.HTM").decode()
    assert "<script>alert" not in (await site.get(visit, accept="text/html")).body.decode()


@pytest.mark.parametrize("forms", [(), (Form.JPEG,), (Form.DICOM,)])
async def test_only_what_the_site_offers_and_to_patients_alone(
    opening: Open, tmp_path: Path, forms: tuple[Form, ...]
) -> None:
    async with opening(forms=forms) as site:
        exam = site.publish(make_exam(tmp_path / "pacs", images=1))
        patient, professional = site.enter(exam), site.enter(exam, Visitor.PROFESSIONAL)
        page = (await site.get(patient, accept="text/html")).body.decode()
        for form in Form:
            path = f"/telechargement/{form.value}"
            assert (await site.get(patient, path)).status == (200 if form in forms else 404)
            assert (await site.get(professional, path)).status == 404
            assert (path in page) is (form in forms)
        assert "telechargement" not in (await site.get(professional, accept="text/html")).body.decode()


async def test_another_site_cannot_start_a_download(site: Site, tmp_path: Path) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", images=1))
    reply = await site.get(site.enter(exam), DICOM, headers={"Sec-Fetch-Site": "cross-site"})
    assert reply.status == 403


async def _pieces(site: Site, exam: Exam, path: str) -> tuple[bytes, bool]:
    """What is received of a download, and whether it ended as it should."""
    visit = site.enter(exam)
    got = bytearray()
    cookie = f"visite-{visit.key}={site.doors[visit.key][1]}"
    try:
        async with site.http.stream("GET", site.url(visit, path), tls=site.trust, headers={"Cookie": cookie}) as answer:
            assert answer.status == 200
            async for chunk in answer.chunks:
                got += chunk
    except DrimboxError:
        return bytes(got), False
    return bytes(got), True


@pytest.mark.parametrize("path", [DICOM, JPEG])
@pytest.mark.parametrize("cause", ["pacs", "depublished"])
async def test_a_download_that_is_cut_never_looks_whole(site: Site, tmp_path: Path, path: str, cause: str) -> None:
    exam = site.publish(make_exam(tmp_path / "pacs", series=2, images=3))
    second = list(exam.series)[1]
    if cause == "pacs":
        site.pacs.lost = {exam.uids(second)[2]}
    else:
        site.pacs.gate = asyncio.Semaphore(3)

        async def depublish() -> None:
            await eventually(lambda: site.pacs.retrieves)
            site.state(exam, "depublished")
            assert site.pacs.gate is not None
            for _ in range(6):
                site.pacs.gate.release()

        task = asyncio.create_task(depublish())
    got, ended = await _pieces(site, exam, path)
    if cause == "depublished":
        await task
    assert got
    assert not ended
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(got))
    events = site.journal.of(Kind.IMAGES_EXPORTED)
    assert events[0].outcome is Outcome.SUCCESS
    assert events[-1].outcome is not Outcome.SUCCESS
    assert list(site.scratch.iterdir()) == []


async def test_one_that_grows_too_long_is_cut(opening: Open, tmp_path: Path) -> None:
    async with opening(limits=Limits(download_bytes=100_000)) as site:
        exam = site.publish(make_exam(tmp_path / "pacs", images=6))
        got, ended = await _pieces(site, exam, DICOM)
        assert got
        assert not ended
        assert len(got) < 150_000


async def test_a_visitor_who_leaves_costs_nothing_more(opening: Open, tmp_path: Path) -> None:
    async with opening(whole=False) as site:
        exam = site.publish(make_exam(tmp_path / "pacs", images=6))
        site.pacs.gate = asyncio.Semaphore(1)
        visit = site.enter(exam)
        cookie = f"visite-{visit.key}={site.doors[visit.key][1]}"
        async with site.http.stream(
            "GET", site.url(visit, DICOM), tls=site.trust, headers={"Cookie": cookie}
        ) as answer:
            assert await anext(answer.chunks)
        await eventually(lambda: not site.pacs.running and len(site.journal.of(Kind.IMAGES_EXPORTED)) > 1)
        assert site.room is not None
        assert not site.room.desk.downloads.locked()
        assert "client-left" in site.journal.of(Kind.IMAGES_EXPORTED)[-1].outcome_text


async def test_no_more_downloads_at_once_than_are_let_in(opening: Open, tmp_path: Path) -> None:
    async with opening(limits=Limits(downloads=1)) as site:
        exam = site.publish(make_exam(tmp_path / "pacs", images=2))
        site.pacs.gate = asyncio.Semaphore(1)
        first = asyncio.create_task(_pieces(site, exam, DICOM))
        await eventually(lambda: site.room is not None and site.room.desk.downloads.locked())
        busy = await site.get(site.enter(exam), DICOM, accept="text/html")
        assert busy.status == 503
        assert busy.headers["Retry-After"] == "60"
        site.pacs.gate.release()
        assert (await first)[1]


async def test_an_exam_without_pictures_says_so(site: Site, tmp_path: Path) -> None:
    source = Path(str(get_testdata_file("reportsi.dcm")))
    exam = site.publish(make_exam(tmp_path / "pacs", images=1, source=source))
    page = await site.get(site.enter(exam), JPEG, accept="text/html")
    assert page.status == 404
    assert "n'a pas d'image" in html.unescape(page.body.decode())
