"""What a user saved, asked for by workstations: those of the list, and nobody else."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pydicom
import pytest
from import_world import LOCAL_ID, Box, Exam, Journal, Sources, free_port, importing, make_exam, pacs_at

from drimbox.foundation.clock import SystemClock
from drimbox.importing.orders import State, told
from drimbox.importing.shelf import Shelf
from drimbox.importing.workstations import ListenerSettings, Workstation, listening
from drimbox.record.audit import Kind
from drimbox.sandbox.pacs.peer import PacsPeer
from drimbox.store.database import Pool

pytestmark = pytest.mark.skipif(not Path("/usr/bin/findscu").exists(), reason="apt-get install dcmtk")


@asynccontextmanager
async def saving(
    pool: Pool, folder: Path, exam: Exam, *, max_bytes: int = 2**30, keep: dt.timedelta = dt.timedelta(hours=1)
) -> AsyncIterator[tuple[Shelf, Box]]:
    shelf = Shelf(pool, folder / "saved", SystemClock(), keep=keep, max_bytes=max_bytes)
    pacs = pacs_at(PacsPeer("PACS_B", "127.0.0.1", free_port()))
    async with importing(pool, folder / "imports", Sources(exam), pacs, targets={"postes": shelf}, tries=1) as box:
        yield shelf, box


@asynccontextmanager
async def open_door(shelf: Shelf, journal: Journal, port: int, host: str = "127.0.0.1") -> AsyncIterator[int]:
    settings = ListenerSettings("DRIMBOX_WS", [Workstation("STATION", host, port)])
    async with listening(settings, shelf, journal) as listening_port:
        yield listening_port


async def scu(*arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, timeout=60, check=False)


async def find(port: int, *keys: str, caller: str = "STATION") -> list[str]:
    options = [part for key in keys for part in ("-k", key)]
    done = await scu("/usr/bin/findscu", "-S", "-aet", caller, "-aec", "DRIMBOX_WS", *options, "127.0.0.1", str(port))
    return (done.stdout + done.stderr).split("Find Response: ")[1:]


@pytest.mark.requirement("DB.CO.72")
async def test_a_workstation_finds_and_is_moved_what_was_saved(pool: Pool, tmp_path: Path) -> None:
    exam = make_exam("D", tmp_path)
    journal = Journal()
    async with saving(pool, tmp_path, exam) as (shelf, box):
        done = await box.state(await box.ask(exam, target="postes"), State.DONE)
        assert told(done) == "24 sur 24 enregistrées et retrouvées"
        receiving = free_port()
        async with open_door(shelf, journal, receiving) as port:
            studies = await find(port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientID",
                                 "NumberOfStudyRelatedInstances", "PatientName=PAT*")  # fmt: skip
            assert len(studies) == 1
            assert exam.study_uid in studies[0]
            assert LOCAL_ID in studies[0]
            assert "[24" in studies[0]
            assert len(await find(port, "QueryRetrieveLevel=SERIES", f"StudyInstanceUID={exam.study_uid}",
                                  "SeriesInstanceUID")) == 2  # fmt: skip
            assert await find(port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3") == []
            got = tmp_path / "got"
            got.mkdir()
            process = await asyncio.create_subprocess_exec(
                *("/usr/bin/storescp", "-od", str(got), "+xa", "-aet", "STATION", str(receiving))
            )
            try:
                await asyncio.sleep(0.3)
                keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={exam.study_uid}")
                began = time.monotonic()
                moved = await scu(
                    "/usr/bin/movescu", "-S", "-aet", "STATION", "-aec", "DRIMBOX_WS", "-aem", "STATION", *keys,
                    "127.0.0.1", str(port),
                )  # fmt: skip
                assert moved.returncode == 0, moved.stderr
                assert time.monotonic() - began < 30
            finally:
                process.terminate()
                await process.wait()
            received = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, got.iterdir())}
            assert set(received) == exam.uids
            for uid, ds in received.items():
                assert ds.PatientID == LOCAL_ID
                assert ds.PixelData == pydicom.dcmread(exam.files[uid]).PixelData
        (event,) = (e for e in journal.events if e.kind is Kind.IMAGES_EXPORTED)
        assert event.actor.system == "STATION"


async def test_who_is_not_listed_finds_nothing(pool: Pool, tmp_path: Path) -> None:
    exam = make_exam("B", tmp_path)
    async with saving(pool, tmp_path, exam) as (shelf, box):
        await box.state(await box.ask(exam, target="postes"), State.DONE)
        async with open_door(shelf, Journal(), free_port()) as port:
            assert await find(port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", caller="STRANGER") == []
            # A destination that is not listed is sent nothing.
            keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={exam.study_uid}")
            moved = await scu(
                "/usr/bin/movescu", "-S", "-aet", "STATION", "-aec", "DRIMBOX_WS", "-aem", "ELSEWHERE", *keys,
                "127.0.0.1", str(port),
            )  # fmt: skip
            assert moved.returncode != 0
        async with open_door(shelf, Journal(), free_port(), host="192.0.2.7") as port:
            assert await find(port, "QueryRetrieveLevel=STUDY", "StudyInstanceUID") == []


async def test_what_is_saved_has_bounds_and_goes(pool: Pool, tmp_path: Path) -> None:
    exam = make_exam("B", tmp_path)
    async with saving(pool, tmp_path, exam, max_bytes=5 * 140_000) as (shelf, box):
        partial = await box.state(await box.ask(exam, target="postes"), State.PARTIAL)
        assert partial.counts.found == 5
    async with saving(pool, tmp_path, exam, keep=dt.timedelta(0)) as (shelf, _):
        assert await shelf.everything() == []
        assert await shelf.sweep() == 5
        assert list((tmp_path / "saved").iterdir()) == []
