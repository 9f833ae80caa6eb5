"""One image of the cache, or on its way from the PACS, as a file that may be read for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from drimbox.foundation.errors import Unavailable
from drimbox.images.gate import Target
from drimbox.images.ports import KeptInstance, SeriesSource, StoredInstance
from drimbox.images.threads import in_thread


@asynccontextmanager
async def held(instance: StoredInstance) -> AsyncIterator[Path]:
    """Its file, until the block is left; of an encrypted one, in memory."""
    if not isinstance(instance, KeptInstance):
        yield instance.path
        return
    path = await in_thread(instance.acquire)
    try:
        yield path
    finally:
        instance.release()


@asynccontextmanager
async def fetched(source: SeriesSource, target: Target) -> AsyncIterator[Path]:
    """The file of the one instance that ``target`` names. Raises what a retrieve raises."""
    wanted = target.instance_uid
    async with source.retrieve(target.study_uid, target.series_uid, {wanted}) as instances:
        async for instance in instances:
            if instance.sop_instance_uid == wanted:
                async with held(instance) as path:
                    yield path
                return
    raise Unavailable("Le PACS n'a pas envoyé cette image", code="images-missing")
