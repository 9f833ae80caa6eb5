"""How much work waits, since when, and what was done in the last hour."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from drimbox.publication.ledger import study_lock
from drimbox.store.database import Pool


@dataclass(frozen=True, slots=True)
class Backlog:
    """The jobs: ``waiting`` (of which ``put_off`` until a later try), ``running``, ``failed`` (defects), and when the
    oldest that waits came in."""

    waiting: int
    put_off: int
    running: int
    failed: int
    oldest: dt.datetime | None


@dataclass(frozen=True, slots=True)
class LastHour:
    """What the journal tells of the last sixty minutes."""

    received: int
    refused: int
    published: int
    depublished: int
    failures: int


@dataclass(frozen=True, slots=True)
class OpenIncidents:
    """How many lines of the queue are open; ``codes`` are their causes, the most frequent first."""

    errors: int
    warnings: int
    codes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class StudyJob:
    """One piece of work on a study. ``next_try`` is None when it may run now; ``state`` is ``todo`` or ``doing``."""

    id: int
    state: str
    attempts: int
    report_id: int | None
    next_try: dt.datetime | None


class BacklogReader:
    """Reads the tables of the job queue, and the journal; their times are the database's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def jobs(self) -> Backlog:
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT count(*) FILTER (WHERE status = 'todo') AS waiting, "
                    "count(*) FILTER (WHERE status = 'todo' AND scheduled_at > now()) AS put_off, "
                    "count(*) FILTER (WHERE status = 'doing') AS running, "
                    "min(id) FILTER (WHERE status = 'todo') AS oldest "
                    "FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
                )
            ).fetchone()
            failed = await (
                await connection.execute("SELECT count(*) AS n FROM procrastinate_jobs WHERE status = 'failed'")
            ).fetchone()
            assert row is not None
            assert failed is not None
            since = None
            if row["oldest"] is not None:
                first = await (
                    await connection.execute(
                        "SELECT min(at) AS at FROM procrastinate_events WHERE job_id = %s", (row["oldest"],)
                    )
                ).fetchone()
                since = first["at"] if first else None
        return Backlog(row["waiting"], row["put_off"], row["running"], failed["n"], since)

    async def last_hour(self) -> LastHour:
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT event, action, outcome = 0 AS well, count(*) AS n FROM audit "
                    "WHERE at > now() - interval '1 hour' AND event IN "
                    "('110107/RAD-128', '110107/CARD-7', '110107/RAD-13', '110107/RAD-66', '110106/ITI-41', "
                    "'110106/ITI-57') "
                    "GROUP BY 1, 2, 3"
                )
            ).fetchall()

        def total(*events: str, well: bool, action: str = "") -> int:
            return sum(
                row["n"]
                for row in rows
                if row["event"] in events and row["well"] == well and row["action"] in (action or row["action"])
            )

        messages = ("110107/RAD-128", "110107/CARD-7", "110107/RAD-13", "110107/RAD-66")
        return LastHour(
            received=total(*messages, well=True),
            refused=total(*messages, well=False),
            published=total("110106/ITI-41", well=True),
            depublished=total("110106/ITI-57", well=True, action="D"),
            failures=total("110106/ITI-41", "110106/ITI-57", well=False),
        )

    async def open_incidents(self) -> OpenIncidents:
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT code, severity, count(*) AS n FROM incident WHERE closed_at IS NULL "
                    "GROUP BY code, severity ORDER BY n DESC, code"
                )
            ).fetchall()
        codes: dict[str, int] = {}
        for row in rows:
            codes[row["code"]] = codes.get(row["code"], 0) + row["n"]
        return OpenIncidents(
            errors=sum(row["n"] for row in rows if row["severity"] == "error"),
            warnings=sum(row["n"] for row in rows if row["severity"] == "warning"),
            codes=tuple(codes.items()),
        )

    async def of_study(self, study_uid: str) -> tuple[StudyJob, ...]:
        """What is to be done on a study, in the order in which it will be."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT id, status::text AS state, attempts, args ->> 'report_id' AS report, "
                    "CASE WHEN scheduled_at > now() THEN scheduled_at END AS next_try FROM procrastinate_jobs "
                    "WHERE lock = %s AND status IN ('todo', 'doing') ORDER BY priority DESC, id",
                    (study_lock(study_uid),),
                )
            ).fetchall()
        return tuple(
            StudyJob(r["id"], r["state"], r["attempts"], int(r["report"]) if r["report"] else None, r["next_try"])
            for r in rows
        )
