"""Exams as a ZIP for portable media, judged by pydicom's file sets and DCMTK."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import shutil
import ssl
import subprocess
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_world import AS_STORED, INS, LOSSLESS, Exam, Hosts, Sources, make_exam
from pydicom.fileset import FileSet

from drimbox.dicom.dicomdir import Listed, listed, write_dicomdir
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.foundation.uids import new_uid
from drimbox.images.workers import WorkerPool
from drimbox.importing.coercion import Coercion
from drimbox.importing.fetching import LosslessFetcher
from drimbox.importing.media import MediaDesk, MediaRequest
from drimbox.importing.ports import Login
from drimbox.importing.zip_stream import ZipStream

LOCAL = Coercion("IPP-B-4711", "2.25.1740066")


async def written(exam: Exam, sources: Sources, folder: Path, *, most: int = 2**30) -> bytes:
    workers = WorkerPool(size=1)

    async def token() -> str:
        return "jeton"

    desk = MediaDesk(
        LosslessFetcher(sources, Hosts(), LOSSLESS, AS_STORED), workers, folder / "media", SystemClock(), most
    )
    request = MediaRequest("1.2.3.999", INS, LOCAL, exam.series, exam.title, "20210105")
    try:
        pieces = [piece async for piece in desk.written(request, Login(token, ssl.create_default_context()))]
        return b"".join(pieces)
    finally:
        await workers.close()
        # Nothing of it lies on our disk.
        assert list((folder / "media").iterdir()) == []


@pytest.mark.requirement("DB.CO.71")
@pytest.mark.parametrize("letter", ["D", "H", "N", "I"])
async def test_a_disc_that_others_read(letter: str, tmp_path: Path) -> None:
    exam = make_exam(letter, tmp_path)
    content = await written(exam, Sources(exam), tmp_path)
    disc = tmp_path / "disc"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        archive.extractall(disc)
    assert {p.name for p in disc.iterdir()} == {"DICOMDIR", "README.TXT", "INDEX.HTM", "IHE_PDI", "DICOM"}
    files = FileSet(disc / "DICOMDIR")
    assert len(files) == len(exam.files)
    assert files.find_values("PatientID") == ["IPP-B-4711"]
    assert {i.SOPInstanceUID for i in files} == exam.uids
    for instance in files:
        ds = instance.load()
        original = pydicom.dcmread(exam.files[ds.SOPInstanceUID])
        assert ds.PatientID == "IPP-B-4711"
        assert ds.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50")
        if not original.file_meta.TransferSyntaxUID.is_compressed:
            assert ds.PixelData == original.PixelData
        assert all(len(part) <= 8 and part.isupper() for part in instance.FileID.replace("\\", "/").split("/"))
    files._stage["t"].cleanup()
    await asyncio.to_thread(judged, disc / "DICOMDIR")
    page = (disc / "INDEX.HTM").read_text("utf-8")
    assert exam.title in page
    assert "DICOMDIR" in (disc / "README.TXT").read_text("ascii")


def judged(directory: Path) -> None:
    """DCMTK and dicom3tools read it, and find nothing wrong."""
    dump = subprocess.run(["/usr/bin/dcmdump", "-q", directory], capture_output=True, check=False)
    assert dump.returncode == 0
    if shutil.which("dciodvfy"):
        told = subprocess.run(["dciodvfy", directory], capture_output=True, text=True, check=False).stderr
        assert [line for line in told.splitlines() if line.startswith("Error")] == []


async def test_a_disc_that_cannot_be_finished_is_cut(tmp_path: Path) -> None:
    exam = make_exam("B", tmp_path)
    sources = Sources(exam, fails_after=5, error=Unavailable("Coupée", code="source-error"))
    with pytest.raises(Unavailable):
        await written(exam, sources, tmp_path)


async def test_a_disc_has_its_bounds(tmp_path: Path) -> None:
    exam = make_exam("B", tmp_path)
    with pytest.raises(Refused, match="volumineux"):
        await written(exam, Sources(exam), tmp_path, most=500_000)


async def test_a_reader_who_leaves_leaves_nothing(tmp_path: Path) -> None:
    exam = make_exam("B", tmp_path)
    workers = WorkerPool(size=1)

    async def token() -> str:
        return "jeton"

    desk = MediaDesk(
        LosslessFetcher(Sources(exam), Hosts(), LOSSLESS, AS_STORED), workers, tmp_path / "m", SystemClock(), 2**30
    )
    request = MediaRequest("1.2.3.999", INS, LOCAL, exam.series, exam.title, "20210105")
    pieces = desk.written(request, Login(token, ssl.create_default_context()))
    assert isinstance(pieces, AsyncIterator)
    await anext(pieces)
    await pieces.aclose()
    await workers.close()
    assert list((tmp_path / "m").iterdir()) == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40, unique=True)
)
@settings(max_examples=60, deadline=None)
def test_every_record_leads_to_the_next(places: list[tuple[int, int, int]]) -> None:
    files = [
        Listed(
            ("DICOM", f"S{study}{series}", f"I{number}"),
            "1.2.840.10008.5.1.4.1.1.2",
            f"1.2.{study}.{series}.{number}",
            "1.2.840.10008.1.2.1",
            {0x00100020: b"IPP", 0x0020000D: f"1.2.{study}".encode(), 0x0020000E: f"1.2.{study}.{series}".encode()},
        )
        for study, series, number in places
    ]
    directory = pydicom.dcmread(io.BytesIO(write_dicomdir(files, instance_uid=new_uid())))
    by_offset = {item.seq_item_tell: item for item in directory.DirectoryRecordSequence}

    def chain(offset: int) -> list[pydicom.Dataset]:
        found = []
        while offset:
            found.append(by_offset[offset])
            offset = found[-1].OffsetOfTheNextDirectoryRecord
        return found

    leaves = [
        image
        for patient in chain(directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity)
        for study in chain(patient.OffsetOfReferencedLowerLevelDirectoryEntity)
        for series in chain(study.OffsetOfReferencedLowerLevelDirectoryEntity)
        for image in chain(series.OffsetOfReferencedLowerLevelDirectoryEntity)
    ]
    assert sorted(i.ReferencedSOPInstanceUIDInFile for i in leaves) == sorted(f.sop_instance_uid for f in files)
    assert by_offset[directory.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity].DirectoryRecordType == "PATIENT"


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_hostile_heads_are_refused(tail: bytes) -> None:
    """What has no syntax, or one that cannot be walked, has no place in a directory."""
    content = bytes(128) + b"DICM" + tail
    try:
        found = listed(content, ("DICOM", "S1", "I1"))
    except Refused:
        return
    assert found.path == ("DICOM", "S1", "I1")


def test_a_zip_beyond_four_gigabytes_is_told_as_such() -> None:
    stream = ZipStream(dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC))
    stream.entry("BIG", 5 * 2**30, 7)
    stream.entry("AFTER", 3, 9)
    end = stream.end()
    padded = Sparse(5 * 2**30 + 20 + 30 + 3 + 3 + 30 + 5, end)
    with zipfile.ZipFile(padded) as archive:
        assert [(i.filename, i.file_size, i.CRC) for i in archive.infolist()] == [
            ("BIG", 5 * 2**30, 7),
            ("AFTER", 3, 9),
        ]


class Sparse(io.RawIOBase):
    """Zeros, then some bytes."""

    def __init__(self, size: int, tail: bytes) -> None:
        self._size, self._tail, self._at = size, tail, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size + len(self._tail))[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size + len(self._tail) if size < 0 else self._at + size
        found = self._tail[max(self._at - self._size, 0) : max(end - self._size, 0)]
        self._at += len(found)
        return found
