"""The archive of some years: memory does not grow with it."""

from __future__ import annotations

import datetime as dt
import resource
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from portability_examples import NOW, Box
from publication_examples import study_of

from drimbox.portability.zip_reader import ZipReader
from drimbox.portability.zip_writer import ZipState, ZipWriter
from drimbox.store.database import Pool

# Exports, then imports into another box; tells the growth of memory (MiB) between a tenth and the end, and the rates.
CHILD = """
import asyncio, sys, time
from pathlib import Path
from drimbox.foundation.clock import SystemClock
from drimbox.portability.export import Emitter, export_archive
from drimbox.portability.importing import Target, import_archive
from drimbox.publication.incidents import Incidents
from drimbox.reports.report import Structure
from drimbox.store import database

AMBROISE = Structure("1750803447", "Centre de radiologie Ambroise")

def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

class Watch:
    def __init__(self):
        self.first = self.most = 0.0
    def __call__(self, done, total):
        if done * 10 >= total and not self.first:
            self.first = memory()
        if self.first and done % 50 == 0:
            self.most = max(self.most, memory())
    def told(self, name, count, seconds):
        print(name, count, round(count / seconds, 1), round(self.first), round(self.most - self.first, 1), flush=True)

async def main(here, there, target):
    clock = SystemClock()
    async with database.opened(here, size=2) as pool:
        watch, start = Watch(), time.perf_counter()
        report = await export_archive(pool, Path(target), emitter=Emitter("B", [AMBROISE]), clock=clock, progress=watch)
        watch.told("export", report.sets, time.perf_counter() - start)
    async with database.opened(there, size=2) as pool:
        for name in ("import", "again"):
            watch, start = Watch(), time.perf_counter()
            report = await import_archive(
                pool, Path(target), targets=[Target("ambroise", AMBROISE, "SA08", ("1750803447",), ("vna",))],
                ins_range="test", incidents=Incidents(pool, clock), clock=clock, progress=watch)
            assert not report.refused, report.words()
            watch.told(name, report.sets, time.perf_counter() - start)

asyncio.run(main(*sys.argv[1:]))
"""


async def fill(box: Box, count: int) -> None:
    """Many studies of 100 images, one version each."""
    report = box.maker.report()
    async with box.archive.transaction() as transaction:
        for number in range(count):
            study = study_of(number, 100, accession_number="ACN105")
            one = replace(report, acts=tuple(replace(act, study_uids=(study.study_uid,)) for act in report.acts))
            now = NOW - dt.timedelta(hours=count - number)
            version = box.maker.version(one, study, now, report_id=1, replaces=None)
            version_id = await box.archive.prepare(transaction, replace(version, report_id=None), now)  # type: ignore[arg-type]
            await box.archive.confirm(transaction, version_id, now)


@pytest.mark.slow
@pytest.mark.requirement("DB.SO.29", "DB.SO.30")
@pytest.mark.parametrize("name", ["a", "a.zip"])
async def test_memory_does_not_grow_with_the_archive(
    box: Box, dsn: str, other_dsn: str, other_pool: Pool, tmp_path: Path, name: str
) -> None:
    await fill(box, 5000)
    command = [sys.executable, "-c", CHILD, dsn, other_dsn, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: ASYNC221
    print(done.stdout)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["export", "import", "again"]
    for what, count, _, _, growth in lines:
        assert int(count) == 5000
        assert float(growth) < 12, (what, growth)
    assert await Box(other_pool, box.maker).rows() == await box.rows()


def test_a_zip_of_more_files_than_its_first_format_could_count(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    writer = ZipWriter(path, ZipState())
    state = ZipState()
    for number in range(70_000):
        writer.add(f"KA202401/IHE_XDM/SS{number // 10:06d}/F{number % 10}", b"%d" % number, NOW)
        if number == 66_000:
            state = writer.checkpoint()
    writer.close()
    # Cut, and gone on with.
    writer = ZipWriter(path, state)
    for number in range(66_001, 70_000):
        writer.add(f"KA202401/IHE_XDM/SS{number // 10:06d}/F{number % 10}", b"%d" % number, NOW)
    writer.finish()
    with zipfile.ZipFile(path) as oracle:
        assert len(oracle.namelist()) == 70_000
        assert oracle.read("KA202401/IHE_XDM/SS006999/F9") == b"69999"
    reader = ZipReader(path)
    assert reader.count() == 7000
    folders = list(reader.folders("KA202401/IHE_XDM/SS006997"))
    assert folders == ["KA202401/IHE_XDM/SS006998", "KA202401/IHE_XDM/SS006999"]
    assert reader.read(reader.files(folders[1], 10)[9], 100) == b"69999"
    reader.close()


@pytest.mark.slow
def test_the_directory_of_a_huge_zip_is_not_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    writer = ZipWriter(path, ZipState())
    for number in range(400_000):
        writer.add(f"KA202401/IHE_XDM/SS{number // 4:06d}/F{number % 4}", b"", NOW)
    writer.finish()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    reader = ZipReader(path)
    assert reader.count() == 100_000
    assert sum(1 for _ in reader.folders()) == 100_000
    reader.close()
    print(time.perf_counter() - start, "s")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000
