"""The images of one exam on their way to the viewer: fetched once, kept for the session only.

A series is asked for at most once however many readers want it, and each of its images can be read as soon as it is
there; its files lie in a folder of the session, which goes with it. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from drimbox.consumer.arrived import Arrived, Image
from drimbox.consumer.header import Header, read_header
from drimbox.consumer.local_number import file_of
from drimbox.consumer.ports import ReceivedImage
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Rejected, Unavailable
from drimbox.importing.coercion import Coercion
from drimbox.manifest.manifest import Manifest, ManifestSeries

_log = logging.getLogger(__name__)

_ALL = 10_000_000
_OURS = frozenset({"disk", "internal", "closed"})

# The Secondary Capture classes: what the radiologist singled out (DB.CO.57, DB.CO.107). Key objects are not shown.
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# What a viewer shows that has no pixels: reports, key objects, presentation states, documents, waveforms, contours.
_SHOWN_WITHOUT_PIXELS = tuple(f"1.2.840.10008.5.1.4.1.1.{family}." for family in ("88", "104", "11", "9", "481.3"))


class State(StrEnum):
    """Where a series stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a series has come. ``reason`` says in French why it failed; ``seconds`` since it started.

    ``withdrawn`` images had been told of and may not be shown any more.
    """

    series_uid: str
    state: State
    received: int
    expected: int
    bytes: int
    seconds: float
    reason: str = ""
    code: str = ""
    withdrawn: int = 0


Fetch = Callable[[ManifestSeries, Path], AbstractAsyncContextManager[AsyncIterator[ReceivedImage]]]
Finished = Callable[[ManifestSeries, int, DrimboxError | None], Awaitable[None]]
# Lets an image pass by its header (DICOM JSON), or raises why nothing of its series may be shown.
Inspect = Callable[[bytes], None]


class SeriesImages:
    """One series: its images as they arrive."""

    def __init__(
        self,
        series: ManifestSeries,
        study_uid: str,
        folder: Path,
        clock: Clock,
        inspect: Inspect | None = None,
        local: Coercion | None = None,
    ) -> None:
        """``inspect`` lets each image pass before it is shown; ``local`` is given to it when it leaves as a file."""
        self.series = series
        self._local = local
        self._inspect = inspect
        self._study_uid = study_uid
        self._folder = folder
        self._clock = clock
        self._arrived = Arrived(folder)
        self._expected = frozenset(i.sop_instance_uid for i in series.instances)
        self._changed = asyncio.Event()
        self._started = self._ended = 0.0
        self._tries = 0
        self.state = State.WAITING
        self.failure: DrimboxError | None = None

    @property
    def progress(self) -> Progress:
        now = self._clock.monotonic()
        return Progress(
            series_uid=self.series.series_uid,
            state=self.state,
            received=len(self._arrived),
            expected=len(self._expected),
            bytes=self._arrived.bytes,
            seconds=0.0 if self.state is State.WAITING else (self._ended or now) - self._started,
            reason=self.failure.reason if self.failure else "",
            code=self.failure.code if self.failure else "",
            withdrawn=self._arrived.withdrawn,
        )

    @property
    def over(self) -> bool:
        """Nothing more will come unless it is asked for again."""
        return self.state in (State.DONE, State.FAILED)

    async def whole(self) -> tuple[Image, ...]:
        """All images in the order of arrival (DB.VI-CS.17), once they are there. Raises what made the fetch fail."""
        while not self.over:
            await self._changed.wait()
        if self.failure is not None:
            raise self.failure
        return self._arrived.all()

    async def image(self, sop_uid: str) -> Image:
        """One image, as soon as it is there. Raises ``Refused`` (``no-image``) for one that is not of the series."""
        if sop_uid not in self._expected:
            raise Refused("Cette image ne fait pas partie de la série", code="no-image")
        while (found := self._arrived.find(sop_uid)) is None:
            if self.failure is not None:
                raise self.failure
            await self._changed.wait()
        return found

    async def first(self) -> Image | None:
        """The image that came first, as soon as it is there; None when none will come."""
        while not len(self._arrived):
            if self.over:
                return None
            await self._changed.wait()
        return self._arrived.all()[0]

    async def described(self, start: int, patience: float = 0.0, most: int = _ALL) -> tuple[bytes, int]:
        """The DICOM JSON array of ``most`` images that came after the first ``start``, and how many these are.

        Waits for at least one, ``patience`` seconds more once it is there so that more come together; empty when none
        will come any more. Whatever is received is told before its series is whole (DB.VI-CS.17).
        """
        while len(self._arrived) <= start and not self.over:
            await self._changed.wait()
        if patience and start and not self.over and len(self._arrived) - start < most:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while not self.over:
                        await self._changed.wait()
        return await asyncio.to_thread(self._arrived.described, start, most)

    def file_of(self, image: Image) -> bytes:
        """The whole file of one image as another program gets it. Blocks; raises ``Refused``, ``OSError``."""
        return file_of(image.path, self._local)

    def again(self) -> bool:
        """Make a failed series ready for another try; False when it had not failed. What had come stays."""
        if self.state is not State.FAILED:
            return False
        self.failure = None
        self._turn(State.WAITING)
        return True

    async def run(self, fetch: Fetch, slots: asyncio.Semaphore, finished: Finished) -> None:
        """Fetch the series when it is its turn; the outcome is its state. Only cancellation comes out of here.

        The series counts as there only once ``finished`` has written it down.
        """
        try:
            async with slots:
                self._started, self._ended = self._clock.monotonic(), 0.0
                self._turn(State.RUNNING)
                await self._receive(fetch)
                await finished(self.series, len(self._arrived), None)
                self._ended = self._clock.monotonic()
                self._turn(State.DONE)
        except DrimboxError as error:
            # What came whole and checked before its source failed stays; what a source sent that lies does not.
            await self.fail(error, keep=isinstance(error, Unavailable | Rejected) and error.code not in _OURS)
        except OSError as error:
            # The disk: the peer's failures come as DrimboxErrors.
            _log.error("images cannot be kept: %s", error.strerror)
            await self.fail(Unavailable("Espace de stockage des images indisponible", code="disk"))
        except Exception:  # noqa: BLE001 - a task boundary: readers wait for an outcome
            _log.exception("a series could not be received")
            await self.fail(Unavailable("Erreur interne de la DRIMbox", code="internal"))

    async def fail(self, error: DrimboxError, *, keep: bool = False) -> None:
        """The series will not be whole. Unless what came is to be kept, nothing of it is shown any more."""
        self.failure = error
        if not keep:
            await asyncio.to_thread(self._arrived.withdraw)
        self._ended = self._clock.monotonic()
        self._turn(State.FAILED)

    async def _receive(self, fetch: Fetch) -> None:
        # Each try in a folder of its own: a file that is being read is never written again.
        self._tries += 1
        folder = self._folder / str(self._tries)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        seen: set[str] = set()
        async with fetch(self.series, folder) as arriving:
            async for received in arriving:
                header, described = await asyncio.to_thread(self._read, received.path)
                self._check(header, seen)
                seen.add(header.sop_instance_uid)
                if self._arrived.find(header.sop_instance_uid) is not None:
                    # A former try had brought it.
                    received.path.unlink(missing_ok=True)
                    continue
                self._arrived.add(Image(received.path, received.size, header), described)
                self._turn(State.RUNNING)
        if missing := len(self._expected) - len(self._arrived):
            raise Unavailable(f"{missing} image(s) annoncée(s) n'ont pas été reçues", code="incomplete")
        if not any(map(_can_be_shown, (image.header for image in self._arrived.all()))):
            raise Refused("Type d'image (classe SOP) non pris en charge par la visionneuse", code="sop-class")

    def _read(self, path: Path) -> tuple[Header, bytes]:
        header, described = read_header(path)
        if self._inspect is not None:
            self._inspect(described)
        return header, described

    def _check(self, header: Header, seen: Collection[str]) -> None:
        """The fetcher has checked this too; what is served must not rest on another room's care."""
        if header.study_uid != self._study_uid or header.series_uid != self.series.series_uid:
            raise IdentityMismatch("La source a envoyé une image d'un autre examen", code="wrong-study")
        if header.sop_instance_uid not in self._expected or header.sop_instance_uid in seen:
            raise IdentityMismatch("La source a envoyé une image qui n'était pas annoncée", code="wrong-image")

    def _turn(self, state: State) -> None:
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class ExamImages:
    """The images of one exam (one KOS): its series, fetched a few at a time, most wanted first."""

    def __init__(
        self,
        manifest: Manifest,
        *,
        folder: Path,
        fetch: Fetch,
        clock: Clock,
        refused: Mapping[str, DrimboxError] | None = None,
        finished: Finished | None = None,
        parallel: int = 2,
        inspect: Inspect | None = None,
        local: Coercion | None = None,
    ) -> None:
        """``refused`` names the series that must not be asked for, and why; ``finished`` is told of each outcome;
        ``inspect`` lets each image pass before it is shown; ``local`` is what it is given when it leaves as a file.
        """
        self.manifest = manifest
        self.local = local
        self._folder = folder
        self._fetch = fetch
        self._finished = finished or _unheard
        self._refused = dict(refused or {})
        self._slots = asyncio.Semaphore(parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._left: set[asyncio.Task[None]] = set()
        self.series = {
            s.series_uid: SeriesImages(s, manifest.study_uid, folder / f"{n:04d}", clock, inspect, local)
            for n, s in enumerate(ordered(manifest.series, manifest.key_images))
        }

    @property
    def progress(self) -> tuple[Progress, ...]:
        return tuple(s.progress for s in self.series.values())

    def start(self, first: str = "") -> None:
        """Begin to fetch every series that was not begun yet, ``first`` before all others: it waits for no place."""
        wanted = self.series.get(first)
        if wanted is not None and wanted.state is State.WAITING:
            if (waiting := self._tasks.pop(first, None)) is not None:
                waiting.cancel()
                self._left.add(waiting)
                waiting.add_done_callback(self._left.discard)
            self._tasks[first] = asyncio.create_task(self._run(wanted, asyncio.Semaphore(1)))
        for uid, images in self.series.items():
            if uid not in self._tasks:
                self._tasks[uid] = asyncio.create_task(self._run(images, self._slots))

    def may_retry(self, series_uid: str) -> bool:
        """Could another try help? Not for a series that must not be asked for, nor for another patient's images."""
        failure = self.series[series_uid].failure
        return failure is not None and series_uid not in self._refused and not isinstance(failure, IdentityMismatch)

    def retry(self) -> None:
        """Ask once more for the series that failed, where that could help."""
        for uid, images in self.series.items():
            if self.may_retry(uid) and images.again():
                del self._tasks[uid]
        self.start()

    def resume(self, code: str) -> None:
        """Ask once more for the series that failed for this reason, which is none any more."""
        for uid, images in self.series.items():
            if images.failure is not None and images.failure.code == code and images.again():
                del self._tasks[uid]
        self.start()

    async def close(self) -> None:
        """Stop everything, let no reader wait, delete every file."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._left, return_exceptions=True)
        for images in self.series.values():
            await images.fail(Refused("Cet examen n'est plus ouvert", code="closed"))
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _run(self, images: SeriesImages, slots: asyncio.Semaphore) -> None:
        refusal = self._refused.get(images.series.series_uid)
        if refusal is not None:
            await images.fail(refusal)
        else:
            await images.run(self._fetch, slots, self._finished)
        if images.failure is not None:
            await self._finished(images.series, 0, images.failure)


async def _unheard(series: ManifestSeries, count: int, error: DrimboxError | None) -> None:
    """Nobody wants to know."""


def _can_be_shown(header: Header) -> bool:
    """Any class with pixels, by what is in it and not by a list (DB.VI-CS.31), and a few without."""
    return header.pixels is not None or f"{header.sop_class_uid}.".startswith(_SHOWN_WITHOUT_PIXELS)


def ordered(series: Sequence[ManifestSeries], key_images: Collection[str] = ()) -> tuple[ManifestSeries, ...]:
    """Significant images first, then the series of key images (IHE KIN), then by series number.

    As the exam is to be opened (DB.CO.57, DB.CO.107, DB.VI-CS.34); ``key_images`` are SOP Instance UIDs.
    """

    def rank(each: ManifestSeries) -> tuple[bool, bool, bool, int]:
        classes = {i.sop_class_uid for i in each.instances}
        significant = bool(classes) and all(f"{uid}.".startswith(f"{_SECONDARY_CAPTURE}.") for uid in classes)
        flagged = any(i.sop_instance_uid in key_images for i in each.instances)
        return (not significant, not flagged, each.number is None, each.number or 0)

    return tuple(sorted(series, key=rank))
