"""The images of one study on their way to a visit: known one by one as they come, shown before the series is whole.

They lie in the cache of the source and nowhere else. Kept here is what a viewer is told of them: which have come, in
which order, and their headers, small. A series is asked for once for each visit; what several visits ask for at the
same time the PACS sends once (``cache.flight``).
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from drimbox.consumer.header import Header
from drimbox.consumer.viewing import ordered
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Rejected, Unavailable
from drimbox.images.ports import SeriesSource, StudyFinder
from drimbox.link_images.files import held
from drimbox.link_images.looking import Looker, Seen
from drimbox.link_images.standing import Gone
from drimbox.manifest.manifest import Manifest, ManifestSeries

_log = logging.getLogger(__name__)
_ALL = 10_000_000
# What a viewer shows that has no pixels: reports, key objects, presentation states, documents, waveforms, contours.
_SHOWN_WITHOUT_PIXELS = tuple(f"1.2.840.10008.5.1.4.1.1.{family}." for family in ("88", "104", "11", "9", "481.3"))


class State(StrEnum):
    """Where a series stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Come:
    """One image that has come and may be shown."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    drawable: bool


Ended = Callable[["SeriesImages"], Awaitable[None]]


class SeriesImages:
    """One series: what is known of its images as they come."""

    def __init__(self, listed: ManifestSeries, study_uid: str, clock: Clock) -> None:
        self.listed = listed
        self.state = State.WAITING
        self.failure: DrimboxError | None = None
        self.withdrawn = 0
        """How many images had been told of that may not be shown any more."""
        self.bytes = 0
        self._study_uid = study_uid
        self._clock = clock
        self._expected = frozenset(i.sop_instance_uid for i in listed.instances)
        self._come: dict[str, Come] = {}
        # The headers of a series are much alike: each is kept as what differs from the first.
        self._first_header = b""
        self._headers: list[bytes] = []
        self._changed = asyncio.Event()
        self._started = self._ended = 0.0

    @property
    def over(self) -> bool:
        """Nothing more will come unless it is asked for again."""
        return self.state in (State.DONE, State.FAILED)

    @property
    def received(self) -> int:
        return len(self._come)

    @property
    def expected(self) -> int:
        return len(self._expected)

    @property
    def seconds(self) -> float:
        """Since it was begun, until it was over."""
        if self.state is State.WAITING:
            return 0.0
        return (self._ended if self.over else self._clock.monotonic()) - self._started

    @property
    def may_retry(self) -> bool:
        """Could another try help? Not where another patient's images came."""
        return self.failure is not None and not isinstance(self.failure, IdentityMismatch)

    def all(self) -> Sequence[Come]:
        """What has come, in the order of arrival (DB.VI-CS.17)."""
        return tuple(self._come.values())

    async def whole(self) -> None:
        """Until all have come. Raises what made it fail."""
        while not self.over:
            await self._changed.wait()
        if self.failure is not None:
            raise self.failure

    async def image(self, sop_uid: str) -> Come:
        """One image, as soon as it has come and was looked at. Raises ``Gone`` for one that is not of the series."""
        if sop_uid not in self._expected:
            raise Gone
        while (found := self._come.get(sop_uid)) is None:
            if self.failure is not None:
                raise self.failure
            await self._changed.wait()
        return found

    async def first(self) -> Come | None:
        """The image that came first, as soon as there is one; None when none will come."""
        while not self._come:
            if self.over:
                return None
            await self._changed.wait()
        return next(iter(self._come.values()))

    async def described(self, start: int, patience: float = 0.0, most: int = _ALL) -> tuple[bytes, int]:
        """The DICOM JSON array of ``most`` images that came after the first ``start``, and how many these are.

        Waits for at least one, ``patience`` seconds more once it is there so that more come together; empty when none
        will come any more.
        """
        while len(self._headers) <= start and not self.over:
            await self._changed.wait()
        if patience and start and not self.over and len(self._headers) - start < most:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while not self.over:
                        await self._changed.wait()
        wanted = self._headers[start : start + most]
        return await asyncio.to_thread(_joined, self._first_header, wanted), len(wanted)

    async def run(self, source: SeriesSource, finder: StudyFinder, looker: Looker, slots: asyncio.Semaphore) -> None:
        """Have the series come when it is its turn; the outcome is its state. Only cancellation comes out of here."""
        try:
            async with slots:
                self._started = self._clock.monotonic()
                self._turn(State.RUNNING)
                await self._receive(source, looker)
                self._turn(State.DONE)
        except DrimboxError as error:
            self.fail(await self._cause(error, finder))
        except Exception as error:  # noqa: BLE001 - a task boundary: readers wait for an outcome
            _log.error("a series could not be shown: %s", type(error).__name__, exc_info=error)
            self.fail(Unavailable("Erreur interne de la DRIMbox", code="internal"))

    def fail(self, error: DrimboxError) -> None:
        """It will not be whole. Of what is another patient's nothing stays; what came whole before a failure does."""
        self.failure = error
        if isinstance(error, IdentityMismatch):
            self.withdrawn += len(self._come)
            self._come.clear()
            self._headers.clear()
        self._turn(State.FAILED)

    def again(self) -> bool:
        """Make a failed series ready for another try; False where that is of no use. What had come stays."""
        if self.state is not State.FAILED or not self.may_retry:
            return False
        self.failure = None
        self._turn(State.WAITING)
        return True

    async def _receive(self, source: SeriesSource, looker: Looker) -> None:
        left = self._expected - self._come.keys()
        if left:
            async with source.retrieve(self._study_uid, self.listed.series_uid, left) as instances:
                async for instance in instances:
                    uid = instance.sop_instance_uid
                    if uid not in self._expected or uid in self._come:
                        continue
                    async with held(instance) as path:
                        seen = await looker.look(path, self.listed.series_uid, uid)
                    self._add(seen, instance.size)
        if len(self._come) < len(self._expected):
            raise Unavailable("Le PACS n'a pas envoyé toutes les images", code="images-missing")
        if not any(come.drawable for come in self._come.values()):
            raise Refused("Type d'image (classe SOP) non pris en charge par la visionneuse", code="sop-class")

    def _add(self, seen: Seen, size: int) -> None:
        header = seen.header
        self._first_header = self._first_header or seen.described
        self._headers.append(_squeezed(self._first_header, seen.described))
        self._come[header.sop_instance_uid] = Come(
            header.sop_instance_uid, header.sop_class_uid, header.transfer_syntax_uid, _can_be_shown(header)
        )
        self.bytes += size
        self._turn(State.RUNNING)

    async def _cause(self, error: DrimboxError, finder: StudyFinder) -> DrimboxError:
        """The PACS gave nothing: are the images gone, or is it the PACS?"""
        if not isinstance(error, Unavailable | Rejected):
            return error
        try:
            study = await finder.find(self._study_uid)
        except DrimboxError:
            return Unavailable("Le PACS ne répond pas", code="pacs-unavailable")
        held_there = {i.sop_instance_uid for s in study.series for i in s.instances} if study is not None else set()
        if not self._expected <= held_there:
            return Rejected("Le PACS n'a plus toutes ces images", code="images-gone")
        return error if isinstance(error, Unavailable) else Unavailable(error.reason, code="pacs-failed")

    def _turn(self, state: State) -> None:
        self.state = state
        if self.over:
            self._ended = self._clock.monotonic()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class StudyImages:
    """The images of one KOS for one visit: its series, a few at a time, most wanted first."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        source: SeriesSource,
        finder: StudyFinder,
        looker: Looker,
        clock: Clock,
        parallel: int,
        ended: Ended,
    ) -> None:
        """``ended`` is told of each series that is over, well or not."""
        self.manifest = manifest
        self.source = source
        self.finder = finder
        self._looker = looker
        self._ended = ended
        self._slots = asyncio.Semaphore(parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.series = {
            s.series_uid: SeriesImages(s, manifest.study_uid, clock)
            for s in ordered(manifest.series, manifest.key_images)
        }

    @property
    def looker(self) -> Looker:
        return self._looker

    def find(self, series_uid: str) -> SeriesImages:
        """A series. Raises ``Gone`` for one that is not of the study."""
        found = self.series.get(series_uid)
        if found is None:
            raise Gone
        return found

    def start(self, first: str = "") -> None:
        """Begin with every series that was not begun yet, ``first`` before all others: it waits for no place."""
        if first in self.series and first not in self._tasks:
            self._begin(first, asyncio.Semaphore(1))
        for uid in self.series:
            if uid not in self._tasks:
                self._begin(uid, self._slots)

    def retry(self) -> None:
        """Ask once more for the series that failed, where that could help."""
        for uid, images in self.series.items():
            if images.again():
                del self._tasks[uid]
        self.start()

    async def close(self) -> None:
        """Stop everything; no reader waits any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for images in self.series.values():
            if not images.over:
                images.fail(Gone())

    def _begin(self, uid: str, slots: asyncio.Semaphore) -> None:
        self._tasks[uid] = asyncio.create_task(self._run(self.series[uid], slots))

    async def _run(self, images: SeriesImages, slots: asyncio.Semaphore) -> None:
        await images.run(self.source, self.finder, self._looker, slots)
        await self._ended(images)


def _can_be_shown(header: Header) -> bool:
    """Any class with pixels, by what is in it and not by a list (DB.VI-CS.31), and a few without."""
    return header.pixels is not None or f"{header.sop_class_uid}.".startswith(_SHOWN_WITHOUT_PIXELS)


def _squeezed(like: bytes, header: bytes) -> bytes:
    machine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=like[-32768:])
    return machine.compress(header) + machine.flush()


def _joined(like: bytes, headers: Sequence[bytes]) -> bytes:
    def whole(squeezed: bytes) -> bytes:
        return zlib.decompressobj(-zlib.MAX_WBITS, zdict=like[-32768:]).decompress(squeezed)

    return b"[" + b",".join(map(whole, headers)) + b"]"
