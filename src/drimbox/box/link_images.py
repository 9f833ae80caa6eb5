"""What is behind the door of the link in a report, put together from the source: its cache, its PACSs, its archive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from drimbox.box.services import Services
from drimbox.box.settings.link_images import LinkImagesSection
from drimbox.images.ports import ArchivedKos, SeriesSource, StudyFinder
from drimbox.images.workers import WorkerPool
from drimbox.link_images.app import Limits, LinkImages, link_images
from drimbox.link_images.desk import Form
from drimbox.manifest.read import read_manifest
from drimbox.publication.archive import Archive


@dataclass(frozen=True, slots=True)
class SourceImages:
    """What the source function serves images with: one cache, one pool of decoders, for all who ask."""

    choose_source: Callable[[ArchivedKos], SeriesSource]
    choose_finder: Callable[[ArchivedKos], StudyFinder]
    transcoder: WorkerPool
    scratch: Path


@asynccontextmanager
async def running(
    services: Services, section: LinkImagesSection, images: SourceImages, viewer: Path, *, leaving: str = ""
) -> AsyncIterator[LinkImages]:
    """The room until the block ends; the door mounts its routes.

    ``viewer`` is where the viewer is installed by default, ``leaving`` the address, below that of a visit, of the page
    that ends it. Raises ``Misconfigured``.
    """
    async with link_images(
        box_name=services.settings.structures[0].name,
        archive=Archive(services.pool),
        read_manifest=read_manifest,
        choose_source=images.choose_source,
        choose_finder=images.choose_finder,
        transcoder=images.transcoder,
        scratch=images.scratch,
        journal=services.journal,
        clock=services.clock,
        viewer_dir=section.viewer_dir or viewer,
        forms=tuple(Form(each) for each in dict.fromkeys(section.download)),
        leaving=leaving,
        limits=Limits(
            series=section.series_at_once,
            requests=section.requests_at_once,
            downloads=section.downloads,
            download_bytes=int(section.download_max_gb * 2**30),
            visits=section.visits,
        ),
    ) as room:
        yield room
