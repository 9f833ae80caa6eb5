"""The cache of images put together: its folder, its key, what empties and what fills it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.box.services import Services
from drimbox.box.settings.source import CacheSection
from drimbox.cache import store
from drimbox.cache.limits import Limits
from drimbox.cache.sealing import own_key, secret_key
from drimbox.cache.source import CachedSource, sharing
from drimbox.cache.sweep import Rejections, sweeping
from drimbox.cache.warm import Warmer, Warming, warming_up
from drimbox.images.ports import Archive, ArchivedKos, ReadManifest, SeriesSource, StudyFinder
from drimbox.publication.incidents import Incidents
from drimbox.reconciliation.hours import parse_ranges, resumes_at

_log = logging.getLogger(__name__)

ChoosePacs = Callable[[ArchivedKos], tuple[SeriesSource, StudyFinder]]
ChooseCached = Callable[[ArchivedKos], CachedSource]


def limits_of(section: CacheSection) -> Limits:
    """The limits that the settings describe."""
    return Limits(
        max_bytes=int(section.max_gb * 2**30),
        max_age=section.max_age_days * 86400,
        min_free=int(section.min_free_gb * 2**30),
        ahead_bytes=section.read_ahead_mb * 2**20,
        whole=section.whole,
        confirm_for=section.confirm_seconds,
        by_notes=section.confirmation == "notes",
    )


@asynccontextmanager
async def caching(
    services: Services,
    section: CacheSection,
    choose: ChoosePacs,
    archive: Archive,
    read_manifest: ReadManifest,
    incidents: Incidents,
) -> AsyncIterator[ChooseCached]:
    """The source of the images of each KOS; ``choose`` tells its PACS. Raises ``Misconfigured``, ``OSError``."""
    folder = section.cache_dir or services.settings.box.state_dir / "cache"
    limits = limits_of(section)
    if section.key_file is not None:
        master = secret_key(section.key_file)
    else:
        master = own_key(services.settings.box.state_dir / "keys" / "cache.key")

    async def tell(code: str, reason: str) -> None:
        try:
            async with services.pool.connection() as connection, connection.transaction():
                await incidents.open_for_note(connection, code=code, reason=reason)
        except (psycopg.Error, PoolTimeout) as error:
            _log.error("the operator could not be told of the image cache: %s", type(error).__name__)

    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(
            store.opened(folder, master, limits, services.clock, sealed=section.encrypted, tell=tell)
        )
        rejections = Rejections(services.pool)
        cache = await stack.enter_async_context(sharing(kept, limits, services.clock, rejections.of))

        def source(kos: ArchivedKos) -> CachedSource:
            pacs, finder = choose(kos)
            return cache.source(kos, pacs, finder)

        await stack.enter_async_context(sweeping(cache, services.pool))
        if section.warm_up != "off" and section.max_gb > 0:
            ranges = parse_ranges(section.warm_up_suspended)
            warming = Warming(
                pixels=section.warm_up == "pixels", resting=lambda now: bool(ranges) and resumes_at(now, ranges) != now
            )
            warmer = Warmer(cache, services.pool, archive, read_manifest, source, warming, services.clock)
            await stack.enter_async_context(warming_up(warmer, warming.pause))
        yield source
