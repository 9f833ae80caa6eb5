"""An export or an import that is cut at any moment goes on, and ends as if nothing had been."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from portability_examples import TARGET, Box, tree

from drimbox.foundation.errors import Misconfigured, Refused, Unavailable
from drimbox.portability.export import Choice
from drimbox.store import database
from drimbox.store.database import Pool

CHILD = """
import asyncio, sys
from pathlib import Path
from drimbox.foundation.clock import SystemClock
from drimbox.portability.export import Emitter, export_archive
from drimbox.reports.report import Structure
from drimbox.store import database

def told(done, total):
    print(done, flush=True)

async def main(dsn, target):
    emitter = Emitter("Boîte d'essai", [Structure("1750803447", "Centre de radiologie Ambroise")], "04 73 00 00 00",
                      version="0.1.0")
    async with database.opened(dsn, size=2) as pool:
        await export_archive(pool, Path(target), emitter=emitter, clock=SystemClock(), volume_size=10, progress=told,
                             checkpoint_every=4)

asyncio.run(main(*sys.argv[1:]))
"""


async def many(box: Box, count: int) -> None:
    for number in range(200, 200 + count):
        await box.publish(number)


def unpacked(target: Path, into: Path) -> dict[str, bytes]:
    if target.suffix != ".zip":
        return tree(target)
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == len(set(names))
        archive.extractall(into)
    return tree(into)


@pytest.mark.requirement("DB.SO.29")
@pytest.mark.parametrize("name", ["a", "a.zip"])
async def test_an_export_killed_again_and_again_ends_whole(box: Box, dsn: str, tmp_path: Path, name: str) -> None:
    await many(box, 26)
    await box.export(tmp_path / "straight", volume_size=10)
    chance = random.Random(7)
    target = tmp_path / name
    killed = 0
    for least in (3, 9, 14, 20, 99):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, dsn, str(target), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        async for line in child.stdout:
            if int(line) >= least:
                await asyncio.sleep(chance.random() / 200)
                child.kill()
                killed += 1
                break
        await child.stdout.read()
        assert await child.wait() == (-signal.SIGKILL if least < 99 else 0)
    assert killed == 4
    assert unpacked(target, tmp_path / "unpacked") == tree(tmp_path / "straight")
    assert {n for n in os.listdir(tmp_path) if n.startswith("a")} == {name}


@pytest.mark.requirement("DB.SO.29")
async def test_what_was_not_checkpointed_goes_and_comes_again(box: Box, tmp_path: Path) -> None:
    """Between the cut and the new start a set left the choice: what was written of it is not left behind."""
    await many(box, 7)
    choice = Choice(until=box.clock.now())
    seen: list[int] = []

    def cut(done: int, total: int) -> None:
        seen.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await box.export(tmp_path / "a", choice=choice, progress=cut, checkpoint_every=2, volume_size=4)
    with pytest.raises(Refused) as unfinished:
        await box.import_(tmp_path / "a")
    assert unfinished.value.code == "archive-unfinished"
    with pytest.raises(Misconfigured) as other:
        await box.export(tmp_path / "a", volume_size=4)
    assert other.value.code == "archive-options"
    box.clock.advance(60)
    await box.depublish(206)
    await box.depublish(205)
    report = await box.export(tmp_path / "a", choice=choice, checkpoint_every=2, volume_size=4)
    assert report.resumed
    assert report.sets == 6
    await box.export(tmp_path / "b", choice=choice, volume_size=4)
    again = tree(tmp_path / "a")
    # 206 was written before it changed, and stays as it was then.
    assert len([p for p in again if p.endswith("METADATA.XML")]) == 6
    assert set(tree(tmp_path / "b")) < set(again)


@contextmanager
def largest_file(octets: int) -> Iterator[None]:
    """What the disk takes of a file, for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.requirement("DB.SO.29")
@pytest.mark.parametrize("name", ["a", "a.zip"])
async def test_a_full_disk_is_told_and_the_export_goes_on_when_there_is_room(
    box: Box, tmp_path: Path, name: str
) -> None:
    await many(box, 3)
    await box.publish(300, images=900)
    await many(box, 2)
    await box.export(tmp_path / "straight")
    with largest_file(30_000), pytest.raises(Unavailable) as full:
        await box.export(tmp_path / name, checkpoint_every=2)
    assert full.value.code == "disk-full"
    assert "libérez de la place" in full.value.reason
    report = await box.export(tmp_path / name, checkpoint_every=2)
    assert report.resumed
    assert unpacked(tmp_path / name, tmp_path / "unpacked") == tree(tmp_path / "straight")


async def test_a_place_that_cannot_be_written_is_told(box: Box, tmp_path: Path) -> None:
    await box.publish()
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable) as refused:
        await box.export(tmp_path / "file" / "a")
    assert refused.value.code == "disk"


async def test_two_exports_to_one_place_do_not_mix(box: Box, tmp_path: Path) -> None:
    await many(box, 3)
    started = asyncio.Event()
    hold = asyncio.Event()

    def told(done: int, total: int) -> None:
        started.set()
        if done == 1 and not hold.is_set():
            time.sleep(0.01)

    first = asyncio.create_task(box.export(tmp_path / "a", progress=told))
    await started.wait()
    with pytest.raises(Unavailable) as busy:
        await box.export(tmp_path / "a")
    assert busy.value.code == "archive-busy"
    assert (await first).sets == 3


async def test_what_changes_meanwhile_is_counted(box: Box, dsn: str, tmp_path: Path) -> None:
    await many(box, 3)

    def told(done: int, total: int) -> None:
        if done == 2:
            with psycopg.connect(dsn) as connection:
                connection.execute(
                    "UPDATE publication SET state = 'depublished', ended_at = %s WHERE study_uid LIKE '%%200'",
                    (box.clock.now(),),
                )

    report = await box.export(tmp_path / "a", progress=told)
    assert report.changed == 1
    assert "--since" in "\n".join(report.words())
    assert (await box.export(tmp_path / "b", choice=Choice(since=report.started_at))).sets == 1


@pytest.mark.requirement("DB.SO.30")
async def test_an_import_that_was_cut_goes_on(box: Box, other_pool: Pool, tmp_path: Path) -> None:
    other = Box(other_pool, box.maker)
    await many(box, 12)
    await box.export(tmp_path / "a.zip")
    journal = tmp_path / "state" / "import.jnl"
    seen: list[int] = []

    def cut(done: int, total: int) -> None:
        seen.append(done)
        if done in (5, 9) and seen.count(done) == 1:
            raise KeyboardInterrupt

    for expected in (5, 9):
        with pytest.raises(KeyboardInterrupt):
            await other.import_(tmp_path / "a.zip", journal=journal, progress=cut, checkpoint_every=3)
        assert len(await other.rows()) == expected
    report = await other.import_(tmp_path / "a.zip", journal=journal, progress=cut)
    assert report.resumed
    assert (report.sets, report.imported, report.unchanged, report.refused) == (12, 12, 0, 0)
    assert seen == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 9, 10, 11, 12]
    assert not journal.exists()
    assert await other.rows() == await box.rows()


@pytest.mark.requirement("DB.SO.30")
async def test_an_import_outlives_the_database_and_a_broken_journal(
    box: Box, dsn: str, other_dsn: str, tmp_path: Path
) -> None:
    await many(box, 4)
    await box.export(tmp_path / "a")
    journal = tmp_path / "import.jnl"

    def refuse(done: int, total: int) -> None:
        """The database lets nobody in any more, and puts out who is there."""
        if done == 2:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

    name = other_dsn.partition("?")[0].rpartition("/")[2]
    async with database.opened(other_dsn, size=2) as pool:
        pool.timeout = 0.5
        with pytest.raises(Unavailable) as lost:
            await Box(pool, box.maker).import_(tmp_path / "a", journal=journal, progress=refuse)
        assert lost.value.code == "database"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    with journal.open("ab") as file:
        file.write(b'{"after": ["KA20')
    async with database.opened(other_dsn, size=2) as pool:
        other = Box(pool, box.maker)
        report = await other.import_(tmp_path / "a", journal=journal)
        assert (report.sets, report.imported, report.resumed) == (4, 4, True)
        assert await other.rows() == await box.rows()


@pytest.mark.requirement("DB.SO.30")
async def test_a_volume_that_lost_a_set_on_its_way_is_told(box: Box, other_pool: Pool, tmp_path: Path) -> None:
    await many(box, 3)
    await box.export(tmp_path / "a")
    lost = tmp_path / "a" / "KA202607" / "IHE_XDM" / "SS000002"
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    report = await Box(other_pool, box.maker).import_(tmp_path / "a")
    assert (report.imported, dict(report.warnings)) == (2, {"volume-incomplete": 1})


@pytest.mark.requirement("DB.SO.30")
async def test_an_archive_given_with_the_wrong_options_stops_early(box: Box, tmp_path: Path) -> None:
    await many(box, 60)
    await box.export(tmp_path / "a.zip")
    stranger = replace(TARGET, identifiers=("1999999999",))
    with pytest.raises(Misconfigured) as stopped:
        await box.import_(tmp_path / "a.zip", targets=[stranger])
    assert stopped.value.code == "archive-hopeless"
    assert len(await box.queue()) == 50
