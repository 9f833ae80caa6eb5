"""An archive to walk through, drivers on a clock that tests move, and a hand that carries out the jobs."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import DrimboxError
from drimbox.publication.incidents import Incidents
from drimbox.reconciliation.acts import WalkActs
from drimbox.reconciliation.driver import Conduct, Driver
from drimbox.reconciliation.walk import Finding, Found, Kind, Mode, Target, Walk
from drimbox.reconciliation.walks import Walks
from drimbox.record.audit import Actor, Journal
from drimbox.record.pseudonym import PatientKey
from drimbox.store.database import Connection, Pool

# A Tuesday morning.
NOW = dt.datetime(2026, 7, 14, 8, 0, tzinfo=dt.UTC)
BASE = "https://db1.test.mesimagesmedicales.fr/dicom-web-rs"
OLD = "https://old.example.fr/wado"
ADMINISTRATOR = Actor(person="os:essai", name="Admin Essai")


@dataclass
class Comparison:
    """What ``examine`` finds, study by study; ``down`` is what it raises instead, ``defects`` where it breaks."""

    findings: dict[str, Mapping[Finding, str]] = field(default_factory=dict)
    errors: dict[str, DrimboxError] = field(default_factory=dict)
    down: DrimboxError | None = None
    seen: list[str] = field(default_factory=list)
    tried: list[tuple[float, str]] = field(default_factory=list)
    clock: FixedClock | None = None
    takes: float = 0.0

    async def __call__(self, target: Target) -> Mapping[Finding, str]:
        if self.clock is not None:
            self.tried.append((self.clock.monotonic(), target.study_uid))
            self.clock.advance(self.takes)
        if self.down is not None:
            raise self.down
        if target.study_uid in self.errors:
            raise self.errors[target.study_uid]
        self.seen.append(target.study_uid)
        return self.findings.get(target.study_uid, {})


@dataclass
class Site:
    """An archive with its walks."""

    dsn: str
    pool: Pool
    clock: FixedClock
    compare: Comparison
    incidents: Incidents
    journal: Journal
    walks: Walks
    acts: WalkActs

    def driver(self, kind: Kind = Kind.RECONCILIATION, *, base: str = BASE, **conduct: Any) -> Driver:
        """One more node."""
        return Driver(
            kind=kind,
            dsn=self.dsn,
            examine=self.compare,
            incidents=self.incidents,
            journal=self.journal,
            clock=self.clock,
            base=base,
            conduct=Conduct(**conduct),
        )

    async def start(self, mode: Mode = Mode.REPORT, kind: Kind = Kind.RECONCILIATION, rate: int = 30) -> Walk:
        await self.acts.start(kind, mode, rate, ADMINISTRATOR)
        return await self.walk(kind)

    async def walk(self, kind: Kind = Kind.RECONCILIATION) -> Walk:
        """The newest walk of that kind."""
        return next(w for w in await self.walks.latest() if w.kind is kind)

    async def go(
        self,
        driver: Driver,
        connection: Connection,
        *,
        seconds: float = 1e9,
        rounds: int = 100_000,
        until: Callable[[Walk], bool] = lambda walk: not walk.active,
        between: Callable[[], Any] | None = None,
    ) -> Walk:
        """Drive until the walk is over or the time is, the clock moving as the driver sleeps."""
        end = self.clock.monotonic() + seconds
        while rounds and self.clock.monotonic() < end:
            rounds -= 1
            pause = await driver.round(connection)
            assert 0 <= pause <= driver.conduct.poll + 60
            if until(await self.walk(driver.kind)):
                break
            self.clock.advance(max(pause, 0.001))
            if between is not None:
                await between()
        return await self.walk(driver.kind)

    async def found(self, walk: Walk) -> list[tuple[str, str]]:
        lines: list[Found] = []
        while more := await self.walks.found(
            walk.id, after=(lines[-1].position, lines[-1].kind) if lines else (0, ""), limit=3
        ):
            lines += more
        return [(line.study_uid, line.kind) for line in lines]

    async def jobs(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM procrastinate_jobs WHERE task_name = 'resync_study' ORDER BY id")

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

    async def carried_out(self) -> None:
        """Every job that waits succeeds, and nothing had to be done."""
        await self.rows("DELETE FROM procrastinate_jobs WHERE status = 'todo'")

    async def stock(
        self, number: int, *, base: str = BASE, state: str = "current", structure: str = "ambroise", first: int = 1
    ) -> None:
        """Versions of the KOS of ``number`` studies, 1.2.3.1 and on."""
        url = f"{base}/studies/1.2.3/series/1.2.3.4".encode() if base else b""
        kos = b"DICM" + bytes(600) + b"\x08\x00\x90\x11UR\x00\x00" + len(url).to_bytes(4, "little") + url + b"\xff" * 40
        kos = kos if base else b"DICM" + bytes(600)
        await self.rows(
            "INSERT INTO publication (structure, study_uid, kos_uid, state, kos, metadata, signature, submission_uid, "
            "document_ids, pacs, ins, ins_oid, vihf_identity, visibility, fingerprint, prepared_at, confirmed_at) "
            "SELECT %s, '1.2.3.' || n, '1.2.4.' || %s || '.' || n || '.' || %s, %s, %s, '<x/>', '', '1.2.5', "
            "ARRAY['doc' || n], 'pacs', '279035121518989', '1.2.250.1.213.1.4.10', '{}', '{}', '', %s, %s "
            "FROM generate_series(%s::int, %s::int) AS n",
            *(structure, abs(hash(structure)) % 1000, NEXT.number(), state, kos, NOW, NOW, first, first + number - 1),
        )

    async def replace(self, study_uid: str, *, base: str = BASE, structure: str = "ambroise") -> None:
        """A newer version takes the place of the current one."""
        await self.rows(
            "UPDATE publication SET state = 'replaced', ended_at = %s WHERE study_uid = %s AND state = 'current' "
            "AND structure = %s",
            *(self.clock.now(), study_uid, structure),
        )
        await self.stock(1, base=base, structure=structure, first=int(study_uid.rpartition(".")[2]))

    async def depublish(self, study_uid: str) -> None:
        await self.rows(
            "UPDATE publication SET state = 'depublished', ended_at = %s WHERE study_uid = %s AND state = 'current'",
            *(self.clock.now(), study_uid),
        )

    async def report_stands(self, study_uid: str) -> None:
        await self.rows(
            "INSERT INTO reported_study (structure, study_uid, documents) VALUES ('ambroise', %s, '{doc}')", study_uid
        )

    async def audited(self) -> list[str]:
        rows = await self.rows("SELECT objects FROM audit WHERE event = '110100/archive-walk' ORDER BY id")
        return [row["objects"][0]["detail"].partition(":")[0] for row in rows]


@dataclass
class _Counter:
    last: int = 0

    def number(self) -> int:
        self.last += 1
        return self.last


NEXT = _Counter()


@asynccontextmanager
async def led(driver: Driver) -> AsyncIterator[Connection]:
    async with driver.leading() as connection:
        assert connection is not None
        yield connection


def site_on(dsn: str, pool: Pool) -> Site:
    clock = FixedClock(NOW)
    journal = Journal(pool, PatientKey(b"k" * 32))
    acts = WalkActs(pool, journal, clock, BASE)
    return Site(dsn, pool, clock, Comparison(clock=clock), Incidents(pool, clock), journal, Walks(pool), acts)
