"""Callers who ask image by image, as viewers do: the series is fetched once, not each image by itself.

The first image of a series that somebody asks for alone is all that is fetched. With the second one the rest of the
series sets out too, beside it and beyond that request, so that the images that follow are on their way or in the cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.images.gate import Target
from drimbox.images.ports import DescribingSource, SeriesSource, StoredInstance

_log = logging.getLogger(__name__)
_REMEMBERED = 10_000
_SECONDS = 600.0
# Series fetched so at once: beyond, each image is fetched by itself.
_AT_ONCE = 16

Whole = Callable[[], Awaitable[Collection[str]]]
"""All instances of the series that were published."""


@dataclass(slots=True)
class _Series:
    """What was asked for of a series lately."""

    instance: str
    at: float
    begun: bool = False


class Neighbours:
    """Remembers which series are being asked for image by image."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._series: OrderedDict[tuple[str, str], _Series] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def around(self, source: SeriesSource, kos_uid: str, target: Target, whole: Whole) -> SeriesSource:
        """The source for a request: its own, or for a second image of a series one that fetches the others as well.

        Only where what comes is kept: a source that describes has a cache.
        """
        if not isinstance(source, DescribingSource) or not target.instance_uid or not self._second(kos_uid, target):
            return source
        return _Together(source, whole, self._begin)

    def _begin(self, fetch: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(fetch)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a series could not be fetched ahead: %s", type(error).__name__, exc_info=error)

    def _second(self, kos_uid: str, target: Target) -> bool:
        """Is it another image than the one asked for before, and the series not under way?"""
        place, now = (kos_uid, target.series_uid), self._clock.monotonic()
        known = self._series.get(place)
        if known is None or now - known.at > _SECONDS:
            self._series[place] = _Series(target.instance_uid, now)
            self._series.move_to_end(place)
            while len(self._series) > _REMEMBERED:
                self._series.popitem(last=False)
            return False
        if known.begun or known.instance == target.instance_uid or len(self._tasks) >= _AT_ONCE:
            return False
        known.begun = True
        return True


class _Together:
    """``SeriesSource`` that sets out the whole series behind what was asked for."""

    def __init__(
        self, source: SeriesSource, whole: Whole, begin: Callable[[Coroutine[None, None, None]], None]
    ) -> None:
        self._source = source
        self._whole = whole
        self._begin = begin

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        # What somebody waits for sets out first, by itself.
        async with self._source.retrieve(study_uid, series_uid, expected) as images:
            self._begin(self._fetch(study_uid, series_uid))
            yield images

    async def _fetch(self, study_uid: str, series_uid: str | None) -> None:
        """Whether the others can be had is nothing to who asked for one."""
        with suppress(DrimboxError):
            async with self._source.retrieve(study_uid, series_uid, await self._whole()) as images:
                async for _ in images:
                    pass
