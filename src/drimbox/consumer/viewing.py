"""The images of one exam on their way to the viewer: fetched once, kept for the session only.

A series is asked for at most once however many readers want it; its files lie in a folder of the session, which goes
with it. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from drimbox.consumer.header import Header, read_header
from drimbox.consumer.ports import ReceivedImage
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Unavailable
from drimbox.manifest.manifest import Manifest, ManifestSeries

_log = logging.getLogger(__name__)

# The Secondary Capture classes: what the radiologist singled out (DB.CO.57, DB.CO.107). Key objects are not shown.
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


class State(StrEnum):
    """Where a series stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Image:
    """One image on disk, and what serving it takes."""

    path: Path
    size: int
    header: Header


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a series has come. ``reason`` says in French why it failed; ``seconds`` since it started."""

    series_uid: str
    state: State
    received: int
    expected: int
    bytes: int
    seconds: float
    reason: str = ""
    code: str = ""


Fetch = Callable[[ManifestSeries, Path], AbstractAsyncContextManager[AsyncIterator[ReceivedImage]]]
Finished = Callable[[ManifestSeries, int, DrimboxError | None], Awaitable[None]]


class SeriesImages:
    """One series: its images as they arrive."""

    def __init__(self, series: ManifestSeries, study_uid: str, folder: Path, clock: Clock) -> None:
        self.series = series
        self._study_uid = study_uid
        self._folder = folder
        self._clock = clock
        self._images: dict[str, Image] = {}
        self._expected = frozenset(i.sop_instance_uid for i in series.instances)
        self._changed = asyncio.Event()
        self._started = self._ended = 0.0
        self._bytes = 0
        self.state = State.WAITING
        self.failure: DrimboxError | None = None

    @property
    def metadata(self) -> Path:
        """The metadata of all images as one DICOM JSON array; whole once the series is ``DONE``."""
        return self._folder / "metadata.json"

    @property
    def progress(self) -> Progress:
        now = self._clock.monotonic()
        return Progress(
            series_uid=self.series.series_uid,
            state=self.state,
            received=len(self._images),
            expected=len(self._expected),
            bytes=self._bytes,
            seconds=0.0 if self.state is State.WAITING else (self._ended or now) - self._started,
            reason=self.failure.reason if self.failure else "",
            code=self.failure.code if self.failure else "",
        )

    async def whole(self) -> tuple[Image, ...]:
        """All images in the order of arrival (DB.VI-CS.17), once they are there. Raises what made the fetch fail."""
        while self.state in (State.WAITING, State.RUNNING):
            await self._changed.wait()
        if self.failure is not None:
            raise self.failure
        return tuple(self._images.values())

    async def image(self, sop_uid: str) -> Image:
        """One image, as soon as it is there. Raises ``Refused`` (``no-image``) for one that is not of the series."""
        if sop_uid not in self._expected:
            raise Refused("Cette image ne fait pas partie de la série", code="no-image")
        while sop_uid not in self._images:
            if self.failure is not None:
                raise self.failure
            await self._changed.wait()
        return self._images[sop_uid]

    def again(self) -> bool:
        """Make a failed series ready for another try; False when it had not failed."""
        if self.state is not State.FAILED:
            return False
        self._images.clear()
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
                await finished(self.series, len(self._images), None)
                self._ended = self._clock.monotonic()
                self._turn(State.DONE)
        except DrimboxError as error:
            await self.fail(error)
        except OSError:
            # The disk, most likely: the peer's failures come as DrimboxErrors.
            _log.exception("images cannot be kept")
            await self.fail(Unavailable("Espace de stockage des images indisponible", code="disk"))
        except Exception:  # noqa: BLE001 - a task boundary: readers wait for an outcome
            _log.exception("a series could not be received")
            await self.fail(Unavailable("Erreur interne de la DRIMbox", code="internal"))

    async def fail(self, error: DrimboxError) -> None:
        """Nothing of the series is shown any more: what was received goes, above all if it was of another patient."""
        self.failure = error
        self._images.clear()
        self._bytes = 0
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        self._ended = self._clock.monotonic()
        self._turn(State.FAILED)

    async def _receive(self, fetch: Fetch) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.metadata.open("wb") as metadata:
            async with fetch(self.series, self._folder) as arriving:
                async for received in arriving:
                    header, described = await asyncio.to_thread(read_header, received.path)
                    self._check(header)
                    metadata.write((b"," if self._images else b"[") + described)
                    self._images[header.sop_instance_uid] = Image(received.path, received.size, header)
                    self._bytes += received.size
                    self._turn(State.RUNNING)
            missing = len(self._expected) - len(self._images)
            if missing:
                raise Unavailable(f"{missing} image(s) annoncée(s) n'ont pas été reçues", code="incomplete")
            metadata.write(b"]" if self._images else b"[]")

    def _check(self, header: Header) -> None:
        """The fetcher has checked this too; what is served must not rest on another room's care."""
        if header.study_uid != self._study_uid or header.series_uid != self.series.series_uid:
            raise IdentityMismatch("La source a envoyé une image d'un autre examen", code="wrong-study")
        if header.sop_instance_uid not in self._expected or header.sop_instance_uid in self._images:
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
    ) -> None:
        """``refused`` names the series that must not be asked for, and why; ``finished`` is told of each outcome."""
        self.manifest = manifest
        self._folder = folder
        self._fetch = fetch
        self._finished = finished or _unheard
        self._refused = dict(refused or {})
        self._slots = asyncio.Semaphore(parallel)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.series = {
            s.series_uid: SeriesImages(s, manifest.study_uid, folder / f"{n:04d}", clock)
            for n, s in enumerate(ordered(manifest.series))
        }

    @property
    def progress(self) -> tuple[Progress, ...]:
        return tuple(s.progress for s in self.series.values())

    def start(self) -> None:
        """Begin to fetch every series that was not begun yet."""
        for uid, images in self.series.items():
            if uid in self._tasks:
                continue
            self._tasks[uid] = asyncio.create_task(self._run(images))

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

    async def close(self) -> None:
        """Stop everything, let no reader wait, delete every file."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for images in self.series.values():
            await images.fail(Refused("Cet examen n'est plus ouvert", code="closed"))
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _run(self, images: SeriesImages) -> None:
        refusal = self._refused.get(images.series.series_uid)
        if refusal is not None:
            await images.fail(refusal)
        else:
            await images.run(self._fetch, self._slots, self._finished)
        if images.failure is not None:
            await self._finished(images.series, 0, images.failure)


async def _unheard(series: ManifestSeries, count: int, error: DrimboxError | None) -> None:
    """Nobody wants to know."""


def ordered(series: Sequence[ManifestSeries]) -> tuple[ManifestSeries, ...]:
    """Significant images first, then by series number, as the exam is to be opened (DB.CO.57, DB.CO.107)."""

    def rank(each: ManifestSeries) -> tuple[bool, bool, int]:
        classes = {i.sop_class_uid for i in each.instances}
        significant = bool(classes) and all(f"{uid}.".startswith(f"{_SECONDARY_CAPTURE}.") for uid in classes)
        return (not significant, each.number is None, each.number or 0)

    return tuple(sorted(series, key=rank))
