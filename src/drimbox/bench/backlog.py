"""A long queue: tens of thousands of reports wait, and are carried through in order. How fast, and in how much memory.

PACS and DMP are stand-ins in this process that answer at once: what is measured is the queue itself, the database and
our own work, which must not depend on how many others wait.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from procrastinate import App

from drimbox.bench.intake import Lost
from drimbox.bench.messages import Messages
from drimbox.bench.rows import Row, ratio
from drimbox.bench.studies import described
from drimbox.bench.usage import resident
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.pacs.study import Study
from drimbox.publication.archive import Archive
from drimbox.publication.changed import ChangedStudies
from drimbox.publication.incidents import Incidents
from drimbox.publication.jobs import connector, register, work
from drimbox.publication.kos import ArchivedKos
from drimbox.publication.ledger import Ledger
from drimbox.publication.ports import Draft, Entry, Identity, Received, Site, SitePacs, Sites, Submission
from drimbox.publication.services import Rules, Services
from drimbox.record.audit import Journal
from drimbox.record.pseudonym import load_patient_key
from drimbox.reports.intake import Intake, StoredReports
from drimbox.reports.mllp import Frame
from drimbox.reports.orders import StoredOrders
from drimbox.reports.report import Report, Structure
from drimbox.store import database, embedded
from drimbox.store.database import Pool

_PLACE = Structure("1750803447", "Centre de radiologie Ambroise")
_AT_ONCE = 64


@dataclass
class Dmp:
    """Takes everything, and remembers in which order the reports of each study came (``ports.Registry``)."""

    arrived: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    documents: int = 0

    def identity(self, site: Site, report: Report, now: dt.datetime) -> Identity:
        return {"subject": report.signatory.identifier}

    def identity_again(self, site: Site, archived: Identity) -> Identity:
        return archived

    def prepare(self, draft: Draft, identity: Identity, replaces: str | None) -> Submission:
        metadata = {"study": draft.study.study_uid, "document": draft.report.document_id}
        return Submission(f"{draft.kos_uid}.1", json.dumps(metadata).encode(), b"<Signature/>", identity)

    async def provide(self, site: Site, ins: Ins, kos: bytes, submission: Submission) -> Received:
        metadata = json.loads(submission.metadata)
        self.arrived[metadata["study"]].append(metadata["document"])
        self.documents += 1
        return Received()

    async def find(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        return Entry(f"urn:uuid:{kos_uid}")

    async def inspect(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        return Entry(f"urn:uuid:{kos_uid}")

    async def delete(self, site: Site, ins: Ins, identity: Identity, entry: Entry, report: Report) -> None:
        raise Refused("Rien ne se supprime ici", code="bench")


class _Finder:
    """Every study of the bench, as a PACS would describe it."""

    async def find(self, study_uid: str) -> Study | None:
        return described(int(study_uid.rpartition(".")[2]))


@dataclass(frozen=True, slots=True)
class Backlog:
    """A database with its queue, and who empties it."""

    dsn: str
    pool: Pool
    intake: Intake
    services: Services
    dmp: Dmp

    async def fill(self, studies: int) -> None:
        """Two reports on each study, all the first ones before all the second ones. Raises ``Lost``."""
        maker = Messages(f"B{time.monotonic_ns()}", 0)
        numbers = iter([(n, second) for second in (False, True) for n in range(studies)])

        async def send() -> None:
            for number, second in numbers:
                answer = await self.intake.receive(Frame(maker.one(number, second=second)), "bench")
                if b"|AA|" not in answer:
                    raise Lost("a report was not accepted")

        await asyncio.gather(*(send() for _ in range(_AT_ONCE)))

    async def waiting(self) -> int:
        """How many jobs are not through yet."""
        async with database.single(self.pool) as connection:
            row = await (await connection.execute("SELECT count(*) AS n FROM procrastinate_jobs")).fetchone()
        assert row is not None
        return int(row["n"])

    async def _failed(self) -> bool:
        async with database.single(self.pool) as connection:
            # The index of open incidents answers this, however many jobs there are.
            row = await (await connection.execute("SELECT 1 FROM incident WHERE closed_at IS NULL LIMIT 1")).fetchone()
        return row is not None

    async def skip(self, count: int) -> None:
        """Pass over the next jobs, as if they had been carried through."""
        async with database.single(self.pool) as connection:
            await connection.execute(
                "DELETE FROM procrastinate_jobs WHERE id IN (SELECT id FROM procrastinate_jobs ORDER BY id LIMIT %s)",
                (count,),
            )

    async def drain(self, count: int) -> float:
        """Have ``count`` reports carried through; the seconds that it takes."""
        app = App(connector=connector(self.dsn))
        register(app, self.services)
        target = self.dmp.documents + count
        async with app.open_async():
            begun = time.monotonic()
            worker = asyncio.create_task(work(app, stop_within=5))
            try:
                while self.dmp.documents < target:
                    if worker.done() or await self._failed():
                        raise Lost("a report was not carried through")
                    await asyncio.sleep(0.1)
                return time.monotonic() - begun
            finally:
                worker.cancel()
                with suppress(asyncio.CancelledError):
                    await worker


def backlog(dsn: str, pool: Pool, folder: Path) -> Backlog:
    """A backlog, still empty, on a database of the newest schema; ``folder`` gets a key."""
    clock, dmp = SystemClock(), Dmp()
    journal = Journal(pool, load_patient_key(folder / "audit.key"))
    incidents, archive = Incidents(pool, clock), Archive(pool)
    site = Site("ambroise", _PLACE, (SitePacs("pacs", _Finder()),))

    def never(kos: ArchivedKos, structure: Structure) -> Report:
        raise Refused("Rien n'est importé ici", code="bench")

    services = Services(
        reports=StoredReports(pool),
        orders=StoredOrders(pool, ("CA",)),
        changes=ChangedStudies(pool),
        recollect=never,
        sites=Sites([(site, [_PLACE.identifier])]),
        registry=dmp,
        archive=archive,
        ledger=Ledger(archive, incidents, journal, clock),
        clock=clock,
        rules=Rules("test", "https://localhost/dicom-web-rs"),
    )
    intake = Intake(
        pool, clock, structure_of=lambda _: site.id, open_incident=incidents.open_for_message, journal=journal
    )
    return Backlog(dsn, pool, intake, services, dmp)


async def measure(folder: Path, length: int, piece: int) -> list[Row]:
    """Fill a queue of ``length``, and carry out ``piece`` at its head, in its middle, and at the end of it."""
    rate = {place: Row(f"backlog of {length:,}: carried through, {place}", "/s") for place in ("head", "middle", "end")}
    memory = Row(f"backlog of {length:,}: resident memory of the worker, from head to end", "MB")
    with embedded.running(folder / "postgres") as dsn:
        await asyncio.to_thread(database.migrate, dsn)
        async with database.opened(dsn) as pool:
            queue = backlog(dsn, pool, folder)
            await queue.fill(length // 2)
            for place, row in rate.items():
                left = await queue.waiting()
                beyond = {"head": left, "middle": length // 2, "end": piece + 100}[place]
                await queue.skip(max(left - beyond, 0))
                memory.values.append(resident(os.getpid()) / 1e6)
                row.values.append(piece / await queue.drain(piece))
                memory.values.append(resident(os.getpid()) / 1e6)
    head, middle, end = rate.values()
    named = f"backlog of {length:,}: speed"
    return [
        *(head, middle, end),
        ratio(f"{named} at the head beside the end", head, end),
        ratio(f"{named} in the middle beside the end", middle, end),
        memory,
    ]
