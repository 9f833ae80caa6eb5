"""What the open visits look at. Each has its own: nothing here is found but by the visit that the guard let in."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Busy
from drimbox.images.ports import SeriesSource, StudyFinder
from drimbox.link.visit import Visit
from drimbox.link_images.arriving import SeriesImages, StudyImages
from drimbox.link_images.looking import Looker
from drimbox.link_images.ports import ArchivedKos, Transcoder
from drimbox.link_images.standing import Gone, Standing
from drimbox.link_images.traces import Traces

_REMEMBERED = 10_000

ChooseSource = Callable[[ArchivedKos], SeriesSource]
ChooseFinder = Callable[[ArchivedKos], StudyFinder]


@dataclass(slots=True)
class OpenStudy:
    """What one visit looks at: one KOS, its images, and what of it has been written down."""

    visit: Visit
    standing: Standing
    images: StudyImages
    used: float
    viewed: bool = False
    refused: set[str] = field(default_factory=set)
    """What has been told of refused requests: once each, however often they come."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing of it may be shown any more: answers on their way are broken off."""


class OpenVisits:
    """The studies that visits look at, each for as long as it is looked at."""

    def __init__(
        self,
        *,
        choose_source: ChooseSource,
        choose_finder: ChooseFinder,
        transcoder: Transcoder,
        scratch: Path,
        traces: Traces,
        clock: Clock,
        parallel: int,
        idle: float,
        most: int,
    ) -> None:
        """``idle`` seconds without a request after which a visit's images stop coming; ``most`` visits at once."""
        self._choose_source = choose_source
        self._choose_finder = choose_finder
        self._transcoder = transcoder
        self._scratch = scratch
        self._traces = traces
        self._clock = clock
        self._parallel = parallel
        self._idle = idle
        self._most = most
        self._open: dict[str, OpenStudy] = {}
        self._answers: dict[str, list[asyncio.Event]] = {}
        # A request that the guard let in just before must not open again what was closed.
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, visit: Visit, standing: Standing) -> OpenStudy:
        """What the visit looks at, from now on where it did not yet.

        Raises ``Gone`` for a visit that has ended, ``Busy`` where too many do, ``Misconfigured`` when the PACS of the
        KOS is known no more.
        """
        if visit.key in self._ended:
            raise Gone
        known = self._open.get(visit.key)
        if known is not None and _same(known, visit, standing):
            known.used = self._clock.monotonic()
            return known
        if known is not None:
            # Another KOS is in force, or another visit bears the name: nothing of the former is looked at any more.
            self.forget(visit.key)
        elif len(self._open) >= self._most:
            raise Busy("Trop de visites en cours", code="visits-open", retry_after=30)
        opened = OpenStudy(visit, standing, self._images(visit, standing), self._clock.monotonic())
        self._open[visit.key] = opened
        return opened

    def end(self, key: str) -> None:
        """The visit is over, for good."""
        self._ended[key] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        self.forget(key)

    def forget(self, key: str) -> None:
        """What was on its way to the visit stops."""
        for over in self._answers.get(key, ()):
            over.set()
        if key in self._open:
            self._open[key].over.set()
        self._close(key)

    @contextmanager
    def answering(self, study: OpenStudy) -> Iterator[asyncio.Event]:
        """An answer is on its way for as long as the block lasts; the event says that it must stop."""
        others = self._answers.setdefault(study.visit.key, [])
        others.append(study.over)
        try:
            yield study.over
        finally:
            others.remove(study.over)
            if not others:
                self._answers.pop(study.visit.key, None)

    def _close(self, key: str) -> None:
        opened = self._open.pop(key, None)
        if opened is not None:
            task = asyncio.create_task(opened.images.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def sweep(self) -> None:
        """Let go of what nobody has looked at for a while; it is begun again when somebody does."""
        now = self._clock.monotonic()
        for key, opened in tuple(self._open.items()):
            if now - opened.used > self._idle:
                # A download that goes on without a page is let go on.
                self._close(key)

    async def close(self) -> None:
        for key in tuple(self._open):
            self.forget(key)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _images(self, visit: Visit, standing: Standing) -> StudyImages:
        kos = standing.kos
        looker = Looker(standing.manifest, kos.ins, self._transcoder, self._scratch)

        async def ended(series: SeriesImages) -> None:
            await self._traces.received(visit, standing, series)

        return StudyImages(
            standing.manifest,
            source=self._choose_source(kos),
            finder=self._choose_finder(kos),
            looker=looker,
            clock=self._clock,
            parallel=self._parallel,
            ended=ended,
        )


def _same(known: OpenStudy, visit: Visit, standing: Standing) -> bool:
    before = known.visit
    same_visit = (before.who, before.ins, before.study_uid) == (visit.who, visit.ins, visit.study_uid)
    return same_visit and known.standing.kos.kos_uid == standing.kos.kos_uid
