"""What must no longer be served leaves the cache: the database says so, to every node that has one.

A KOS that is not the current one of its study any more (depublished, replaced), and instances that a note rejects. The
WADO-RS service asks the database at each request too; this keeps the disk clean of what is never asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.cache.source import Cache
from drimbox.foundation.errors import Unavailable
from drimbox.store.database import Pool, single

_log = logging.getLogger(__name__)


class Rejections:
    """The instances that notes reject (``changes.store``)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of(self, study_uid: str) -> Collection[str]:
        """Raises ``Unavailable`` (``database``): what cannot be asked is not taken for none."""
        try:
            async with single(self._pool) as connection:
                rows = await (
                    await connection.execute(
                        "SELECT DISTINCT sop_instance_uid FROM rejected_instance "
                        "WHERE study_uid = %s AND released_at IS NULL",
                        (study_uid,),
                    )
                ).fetchall()
        except (psycopg.Error, PoolTimeout) as error:
            raise Unavailable("Base PostgreSQL injoignable", code="database") from error
        return frozenset(row["sop_instance_uid"] for row in rows)


async def sweep(cache: Cache, pool: Pool) -> int:
    """Compare the whole cache with the database once; returns how many volumes went. Raises ``psycopg.Error``."""
    dropped = cache.store.expire()
    volumes = cache.store.volumes
    if not volumes:
        return dropped
    async with single(pool) as connection:
        current = await (
            await connection.execute(
                "SELECT kos_uid FROM publication WHERE kos_uid = ANY (%s) AND state = 'current'",
                (list({v.card.space.kos_uid for v in volumes}),),
            )
        ).fetchall()
        rejecting = await (
            await connection.execute(
                "SELECT study_uid, array_agg(DISTINCT sop_instance_uid) AS instances FROM rejected_instance "
                "WHERE study_uid = ANY (%s) AND released_at IS NULL GROUP BY study_uid",
                (list({v.card.space.study_uid for v in volumes}),),
            )
        ).fetchall()
    known = {row["kos_uid"] for row in current}
    rejected = {row["study_uid"]: frozenset(row["instances"]) for row in rejecting}
    for volume in volumes:
        space = volume.card.space
        named = rejected.get(space.study_uid, frozenset())
        if space.kos_uid not in known or (named and named & (await cache.store.rows(volume)).keys()):
            cache.confirmations.forget(space.pacs, space.study_uid)
            cache.store.drop(volume)
            dropped += 1
    return dropped


@asynccontextmanager
async def sweeping(cache: Cache, pool: Pool, *, every: float = 30.0) -> AsyncIterator[None]:
    """Sweep every so many seconds, at once for the first time, until the block ends."""

    async def run() -> None:
        while True:
            try:
                await sweep(cache, pool)
            except (psycopg.Error, PoolTimeout) as error:
                _log.warning("the image cache could not be compared with the database: %s", type(error).__name__)
            await asyncio.sleep(every)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
