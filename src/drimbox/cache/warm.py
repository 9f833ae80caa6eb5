"""Warm-up: the images of a KOS are fetched when it is published, before anybody asks.

Gently: one series at a time, only while nobody else has images fetched from that PACS, not in hours of rest. What fails
is tried again a few times; whoever asks meanwhile is served as without warm-up.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.cache.source import Cache, CachedSource
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.images.ports import Archive, ArchivedKos, ReadManifest
from drimbox.store.database import Pool, single

_log = logging.getLogger(__name__)
_REMEMBERED = 10_000
_OVERLAP = dt.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Warming:
    """How to warm up.

    ``pixels``: else the descriptions alone. ``resting``: is it an hour of rest? ``since`` days back what was published
    while the box was down is fetched; ``tries`` for each KOS; ``pause`` seconds between two looks.
    """

    pixels: bool
    resting: Callable[[dt.datetime], bool]
    since: dt.timedelta = dt.timedelta(days=7)
    tries: int = 5
    pause: float = 5.0


class Warmer:
    """Fetches what was published. ``source`` is the cached source of a KOS, and raises ``DrimboxError`` for none."""

    def __init__(
        self,
        cache: Cache,
        pool: Pool,
        archive: Archive,
        read_manifest: ReadManifest,
        source: Callable[[ArchivedKos], CachedSource],
        warming: Warming,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._pool = pool
        self._archive = archive
        self._read_manifest = read_manifest
        self._source = source
        self._warming = warming
        self._clock = clock
        self._since = clock.now() - warming.since
        self._tried: OrderedDict[str, int] = OrderedDict()

    async def once(self) -> int:
        """Fetch what was published and is not there; returns how many KOS are now. Raises ``psycopg.Error``."""
        warmed = 0
        for kos_uid in await self._published():
            if self._warming.resting(self._clock.now()):
                break
            kos = await self._archive.by_kos_uid(kos_uid)
            if kos is None or kos.state != "current":
                continue
            try:
                await self._warm(kos)
            except DrimboxError as error:
                _log.info("warm-up put off: %s", error.code)
                self._count(kos_uid, self._tried.get(kos_uid, 0) + 1)
                continue
            self._count(kos_uid, self._warming.tries)
            warmed += 1
        return warmed

    async def _published(self) -> list[str]:
        started = self._clock.now()
        async with single(self._pool) as connection:
            rows = await (
                await connection.execute(
                    "SELECT kos_uid FROM publication WHERE state = 'current' AND confirmed_at >= %s "
                    "ORDER BY confirmed_at DESC LIMIT 1000",
                    (self._since,),
                )
            ).fetchall()
        due = [row["kos_uid"] for row in rows if self._tried.get(row["kos_uid"], 0) < self._warming.tries]
        if not due:
            self._since = max(self._since, started - _OVERLAP)
        return due

    def _count(self, kos_uid: str, tries: int) -> None:
        self._tried[kos_uid] = tries
        self._tried.move_to_end(kos_uid)
        while len(self._tried) > _REMEMBERED:
            self._tried.popitem(last=False)

    async def _warm(self, kos: ArchivedKos) -> None:
        manifest = await asyncio.to_thread(self._read_manifest, kos.kos)
        source = self._source(kos)
        for series in manifest.series:
            # Whoever waits for images comes first.
            await self._cache.flights.idle(kos.pacs)
            instances = frozenset(i.sop_instance_uid for i in series.instances)
            await source.warm(series.series_uid, instances, pixels=self._warming.pixels)


@asynccontextmanager
async def warming_up(warmer: Warmer, pause: float) -> AsyncIterator[None]:
    """Look for new publications until the block ends."""

    async def run() -> None:
        while True:
            try:
                await warmer.once()
            except (psycopg.Error, PoolTimeout) as error:
                _log.warning("warm-up waits for the database: %s", type(error).__name__)
            await asyncio.sleep(pause)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
