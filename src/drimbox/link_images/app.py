"""The room put together: what the door mounts, and what lasts as long as it is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.routing import Route

from drimbox.consumer.pictures import Pictures
from drimbox.consumer.viewer_files import load_viewer
from drimbox.foundation.clock import Clock
from drimbox.images.renditions import Renderer
from drimbox.link_images.desk import Desk, Form
from drimbox.link_images.ports import Archive, AuditJournal, Opened, ReadManifest, Transcoder
from drimbox.link_images.standing import Register
from drimbox.link_images.statics import public_routes
from drimbox.link_images.traces import Traces
from drimbox.link_images.visits import ChooseFinder, ChooseSource, OpenVisits
from drimbox.link_images.web import page_environment, visit_routes

_SWEEP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Limits:
    """``series`` of a visit on their way at once; ``requests`` for images served at once, ``downloads`` made at once;
    ``download_bytes`` of images in one ZIP; ``idle`` seconds without a request after which a visit's images stop
    coming; ``visits`` that look at images at once."""

    series: int = 2
    requests: int = 64
    downloads: int = 4
    download_bytes: int = 8 * 2**30
    idle: float = 180.0
    visits: int = 500


@dataclass(frozen=True, slots=True)
class LinkImages:
    """What the door is given: routes, and a bell for when a visit is over."""

    desk: Desk

    def routes(self, opened: Opened) -> list[Route]:
        """To be mounted at ``/visite/{key}``. ``opened`` is asked at every request, before anything else is done."""
        return visit_routes(self.desk, opened)

    def public_routes(self) -> list[Route]:
        """To be put at the root, after all others: files of the viewer, the same for everybody. The last one takes
        every path that is left, and raises ``Refused`` (``gone``) for what is no file."""
        return public_routes(self.desk.viewer)

    def ended(self, key: str) -> None:
        """The visit is over: nothing more comes for it, what is on its way is broken off. What is asked for later
        is refused by the guard."""
        self.desk.visits.end(key)


@asynccontextmanager
async def link_images(
    *,
    box_name: str,
    archive: Archive,
    read_manifest: ReadManifest,
    choose_source: ChooseSource,
    choose_finder: ChooseFinder,
    transcoder: Transcoder,
    scratch: Path,
    journal: AuditJournal,
    clock: Clock,
    viewer_dir: Path,
    forms: Sequence[Form] = (),
    leaving: str = "",
    limits: Limits | None = None,
) -> AsyncIterator[LinkImages]:
    """The room as long as the block lasts.

    ``choose_source`` gives the images of a KOS (``cache.source.CachedSource``), ``choose_finder`` its PACS; ``scratch``
    is an existing folder for images on their way; ``forms`` are the downloads that patients are offered; ``leaving`` is
    the address, below that of a visit, of the page that ends it. Raises ``Misconfigured`` when the viewer is not
    installed in ``viewer_dir``.
    """
    limits = limits or Limits()
    traces = Traces(journal)
    visits = OpenVisits(
        choose_source=choose_source,
        choose_finder=choose_finder,
        transcoder=transcoder,
        scratch=scratch,
        traces=traces,
        clock=clock,
        parallel=limits.series,
        idle=limits.idle,
        most=limits.visits,
    )
    desk = Desk(
        box_name=box_name,
        register=Register(archive, read_manifest, clock),
        visits=visits,
        traces=traces,
        renderer=Renderer(transcoder, scratch),
        transcoder=transcoder,
        pictures=Pictures(transcoder),
        scratch=scratch,
        viewer=load_viewer(viewer_dir),
        pages=page_environment(),
        clock=clock,
        slots=asyncio.Semaphore(limits.requests),
        downloads=asyncio.Semaphore(limits.downloads),
        max_download=limits.download_bytes,
        forms=tuple(forms),
        leaving=leaving,
    )
    sweeper = asyncio.create_task(_sweep(visits))
    try:
        yield LinkImages(desk)
    finally:
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper
        await visits.close()


async def _sweep(visits: OpenVisits) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        visits.sweep()
