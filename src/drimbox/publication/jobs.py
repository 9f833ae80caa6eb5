"""The durable work on studies: tasks of the job queue, their retries, and the process that carries them out.

Jobs that share a lock run one after the other in the order in which they were deferred, and one that waits for its next
try keeps its place: a newer report on a study never overtakes an older one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
from procrastinate import App, BaseRetryStrategy, PsycopgConnector, RetryDecision
from procrastinate.jobs import Job
from procrastinate.worker import Worker

from drimbox.foundation.errors import Busy, OutcomeUnknown, Unavailable
from drimbox.publication.hands import DATABASE_GONE, Hands, rescuing
from drimbox.publication.ledger import PUBLISH_STUDY, Subject
from drimbox.publication.publish import publish_study
from drimbox.publication.resync import resync_study
from drimbox.publication.services import Services
from drimbox.publication.triggers import RESYNC_STUDY, Cause
from drimbox.publication.version import Outcome
from drimbox.record.logs import correlated
from drimbox.store.database import check_alive

__all__ = ["PUBLISH_STUDY", "RESYNC_STUDY", "Pauses", "TryLater", "WorkFailed", "register", "work", "working"]

_log = logging.getLogger(__name__)

# The database is away, or another try of the same work was a moment faster.
_DATABASE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.UniqueViolation,
    psycopg_pool.PoolTimeout,
    psycopg_pool.PoolClosed,
)


class TryLater(Exception):
    """The work could not be carried through now; it says nothing else, and is what the queue logs."""

    def __init__(self, code: str, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.retry_after = retry_after


class WorkFailed(Exception):
    """The work met a defect of the program; it says where, never with which values."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between tries: growing from ``first`` to ``longest`` by ``factor``, each moved at random by a fifth."""

    first: float = 5.0
    longest: float = 900.0
    factor: float = 2.0

    def after(self, attempts: int, retry_after: float | None = None) -> float:
        """The pause after that many failed tries; never shorter than what the peer asked for, within reason."""
        # Past some forty doublings the power would not fit a float.
        pause = min(self.first * self.factor ** min(attempts, 40), self.longest)
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads the load, hides nothing
        return pause if retry_after is None else max(pause, min(retry_after, self.longest))


class _UntilThrough(BaseRetryStrategy):
    """Tries again without end, and only what ``TryLater`` put off or a stop of this process cut short."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision()
        if not isinstance(exception, TryLater):
            return None
        pause = self._pauses.after(job.attempts, exception.retry_after)
        return RetryDecision(retry_in={"milliseconds": round(pause * 1000)})


@asynccontextmanager
async def working(
    dsn: str, services: Services, *, concurrency: int = 4, pauses: Pauses | None = None, dead_after: float = 30.0
) -> AsyncIterator[App]:
    """Carry out the work on studies while the block lasts: ``concurrency`` studies at once, on a pool of its own.

    ``dead_after`` seconds without a sign of life, another process's work is taken up.
    """
    app = App(connector=connector(dsn))
    register(app, services, pauses=pauses)
    async with app.open_async():
        worker = asyncio.create_task(work(app, concurrency=concurrency, stalled_after=dead_after))
        try:
            yield app
        finally:
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker


def connector(dsn: str, *, size: int = 4) -> PsycopgConnector:
    """The queue's own connections. Each of its statements is a transaction of its own: one round trip, not five."""

    async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.set_autocommit(True)

    def pool(**arguments: Any) -> psycopg_pool.AsyncConnectionPool:
        return psycopg_pool.AsyncConnectionPool(**{**arguments, "check": check_alive})

    return PsycopgConnector(conninfo=dsn, min_size=1, max_size=size, configure=configure, pool_factory=pool)


def register(app: App, services: Services, *, pauses: Pauses | None = None) -> None:
    """Let the app carry out the work on studies."""

    async def publish(report_id: int, study_uid: str) -> str:
        with correlated(f"report-{report_id}"):
            work = publish_study(services, report_id, study_uid)
            return await _carry_through(services, Subject(study_uid, report_id), work)

    async def resync(study_uid: str, cause: str, structure: str = "") -> str:
        why = Cause(cause)
        with correlated(f"{RESYNC_STUDY}-{cause}-{study_uid}"):
            work = resync_study(services, study_uid, why, structure)
            return await _carry_through(services, Subject(study_uid, None, structure, why), work)

    for name, task in ((PUBLISH_STUDY, publish), (RESYNC_STUDY, resync)):
        app.task(name=name, retry=_UntilThrough(pauses or Pauses()))(task)


async def _carry_through(services: Services, subject: Subject, work: Awaitable[Outcome]) -> str:
    """One try. What it raises is what the queue logs: no value, no cause, no one else's message."""
    try:
        return (await work).value
    except Busy as error:
        raise TryLater(error.code, error.retry_after) from None
    except (Unavailable, OutcomeUnknown) as error:
        raise TryLater(error.code) from None
    except _DATABASE as error:
        raise TryLater(f"database: {type(error).__name__}") from None
    except Exception as error:  # noqa: BLE001 - the boundary of a task, which records the failure
        place = _place(error)
    try:
        await services.ledger.defect(subject, place)
    except _DATABASE as error:
        raise TryLater(f"database: {type(error).__name__}") from None
    raise WorkFailed(place)


def _place(error: Exception) -> str:
    """The kind of an error and where it arose, in our own modules and lines: nothing of what it says."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}, {Path(last.filename).name}:{last.lineno}"


async def work(
    app: App,
    *,
    concurrency: int = 4,
    poll: float = 5.0,
    stalled_after: float = 30.0,
    stop_within: float = 20.0,
) -> None:
    """Carry out jobs until cancelled.

    Survives the loss of the database; takes up again the jobs of a worker that died, once it gave no sign of life for
    ``stalled_after`` seconds, and those that were lost between the queue and this one. When cancelled, running jobs
    have ``stop_within`` seconds to end; those that do not are taken up at the next start.
    """
    hands = Hands()
    async with rescuing(app, hands, stalled_after):
        while True:
            worker = Worker(
                app,
                concurrency=concurrency,
                fetch_job_polling_interval=poll,
                shutdown_graceful_timeout=stop_within,
                install_signal_handlers=False,
                stalled_worker_timeout=stalled_after,
                update_heartbeat_interval=stalled_after / 3,
                delete_jobs="successful",
                worker_middleware=[hands.hold],
            )
            hands.worker = worker
            try:
                await worker.run()  # type: ignore[no-untyped-call]
            except DATABASE_GONE as error:
                _log.error("the database is gone: %s", type(error).__name__)
            finally:
                hands.worker = None
            # The worker also returns by itself, when one of its side tasks lost the database.
            await asyncio.sleep(1)
