"""Jobs that nobody has in hand any more, put back in the queue: of a process that died, and lost on the way in ours.

The queue believes that a worker has a job until it is told otherwise. When the database goes away just as a job is
handed over, or just as its end is to be written, the worker lives on and knows nothing of the job: nobody would ever
take it up, and its study would stand still.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import psycopg_pool
from procrastinate import App, JobContext
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.worker import Worker

_log = logging.getLogger(__name__)

# What the loss of the database looks like here.
DATABASE_GONE = (ConnectorException, psycopg.Error, psycopg_pool.PoolTimeout)


class Hands:
    """What one process has in hand. ``worker`` is the one that works now, None between two."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self._held: set[int | None] = set()
        self._missed: set[int | None] = set()

    async def hold(self, call_next: Callable[[], Awaitable[Any]], context: JobContext, worker: Worker) -> Any:
        """The middleware of the worker: a job is in hand while it runs."""
        self._held.add(context.job.id)
        try:
            return await call_next()
        finally:
            self._held.discard(context.job.id)

    async def put_back(self, app: App, stalled_after: float) -> None:
        """Have taken up again what a worker without a sign of life for ``stalled_after`` seconds had in hand, and what
        ours should have and has not.

        A job of ours is lost when it was missed twice in a row: between its fetching and its run, and between its run
        and the note of its end, a moment passes.
        """
        own = self.worker.worker_id if self.worker is not None else None
        for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after):
            # We may have slept longer than that ourselves, with jobs in hand.
            if job.id not in self._held and (own is None or job.worker_id != own):
                await self._again(app, job, "job of a dead worker taken up again")
        if own is None:
            self._missed = set()
            return
        ours = await app.job_manager.list_jobs_async(status="doing", worker_id=own)
        missed = {job.id: job for job in ours if job.id not in self._held}
        for number in self._missed & missed.keys():
            await self._again(app, missed.pop(number), "job lost on the way taken up again")
        self._missed = set(missed)

    async def _again(self, app: App, job: Job, why: str) -> None:
        _log.warning(why, extra={"job": job.id})
        await app.job_manager.retry_job(job)


@asynccontextmanager
async def rescuing(app: App, hands: Hands, stalled_after: float) -> AsyncIterator[None]:
    """Put back what nobody has in hand, at the start and from time to time, while the block lasts."""

    async def rescue() -> None:
        while True:
            try:
                await hands.put_back(app, stalled_after)
            except DATABASE_GONE as error:
                _log.error("stalled jobs not looked for: %s", type(error).__name__)
            await asyncio.sleep(stalled_after / 2)

    task = asyncio.create_task(rescue())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
