"""One retrieve for all who want the same images: each instance is stored once as it lands, each reader goes at its
own pace.

A flight ends in one of two ways: everything that it was sent for has landed, or an error says why not, to every reader.
The PACS is held back when even the fastest reader is far behind; the last reader to leave cancels the retrieve, unless
the cache wants it whole. Of a flight that failed nothing stays.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from drimbox.cache.bell import Bell
from drimbox.cache.instances import CachedInstance, SpooledInstance
from drimbox.cache.limits import Limits
from drimbox.cache.store import Store
from drimbox.cache.volume import Draft, Row, Shelf, Space, Volume
from drimbox.foundation.errors import DrimboxError, Unavailable
from drimbox.identity.ins import Ins
from drimbox.images.ports import SeriesSource, StoredInstance

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class Errand:
    """What a flight is sent for. ``keep``: its images may stay in the cache."""

    space: Space
    ins: Ins
    series_uid: str | None
    instances: frozenset[str]
    keep: bool = True


class Keeper(Protocol):
    """What becomes of that which landed."""

    async def keep(self, draft: Draft, errand: Errand) -> Volume | None:
        """Make a volume of it, pinned once; None where it may not stay."""

    async def finish(self, volume: Volume) -> None:
        """What remains to be done of a volume, while others read from it."""


class Flight:
    """One retrieve. Made and joined by ``Flights``."""

    def __init__(
        self,
        errand: Errand,
        source: SeriesSource,
        store: Store,
        limits: Limits,
        *,
        keeper: Keeper,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        ended: Callable[[Flight], None],
    ) -> None:
        """``ended`` is told when nobody may board any more."""
        self.errand = errand
        self.whole = limits.whole and errand.keep
        self._source = source
        self._store = store
        self._limits = limits
        self._keeper = keeper
        self._spawn = spawn
        self._ended = ended
        self._landed: list[StoredInstance | Row] = []
        self._sizes: list[int] = []
        self._bytes = 0
        self._missing = set(errand.instances)
        self._draft: Draft | None = None
        self._shelf: Shelf | None = None
        self._volume: Volume | None = None
        self._spooled = False
        self._complete = False
        self._closed = False
        self._spoiled = False
        self._error: DrimboxError | None = None
        self._readers: set[Seat] = set()
        self._bell = Bell()
        self._task = spawn(self._fly())

    @property
    def open(self) -> bool:
        """May one still board?"""
        return self._error is None and not self._closed and not self._spoiled

    @property
    def kept(self) -> bool:
        """Did it end in a volume?"""
        return self._volume is not None

    @property
    def _goes_on(self) -> bool:
        """Without readers too? For the cache alone, and as long as it has room."""
        return self.whole and not self._spooled

    @property
    def syntaxes(self) -> frozenset[str]:
        """The transfer syntaxes of what has landed and is kept; empty as long as nothing has."""
        return frozenset(one.transfer_syntax for one in self._landed if isinstance(one, Row))

    def covers(self, series_uid: str | None) -> bool:
        """Are its images those of that series, or may they be of any?"""
        return self.errand.series_uid in (None, series_uid) or series_uid is None

    def board(self, wanted: Collection[str]) -> Seat:
        """A reader of its own place."""
        seat = Seat(self, frozenset(wanted))
        self._readers.add(seat)
        return seat

    async def settled(self) -> None:
        """Until what landed is a volume, or will not be one."""
        while self._volume is None and not self._closed:
            await self._bell.wait()

    async def ended(self) -> None:
        """Until nothing more comes of it, whether it went well or not."""
        await asyncio.wait([self._task])

    def spoil(self) -> None:
        """Those who read go on, but nothing of it stays: its study is to be forgotten."""
        self._spoiled = True
        if self._volume is not None:
            self._store.drop(self._volume)

    def cancel(self) -> None:
        """End it now; its readers are told, unless everything had landed."""
        self._fail(_cancelled())
        self._task.cancel()

    # --- the readers' side ---

    def leave(self, seat: Seat) -> None:
        self._readers.discard(seat)
        if not self._readers and not self._complete and not self._goes_on:
            # Said at once: nobody boards what is being cancelled.
            self.cancel()
            self._ended(self)
        self._bell.ring()

    async def next(self, seat: Seat) -> StoredInstance | None:
        """The next image for a reader; None when there is no more. Raises the error of the flight."""
        while True:
            if self._error is not None:
                raise copy.copy(self._error)
            while seat.position < len(self._landed):
                landed = self._landed[seat.position]
                seat.bytes += self._sizes[seat.position]
                seat.position += 1
                self._bell.ring()
                if landed.sop_instance_uid in seat.wanted:
                    return self._given(landed, at_hand=seat.position < len(self._landed))
            if self._complete:
                return None
            await self._bell.wait()

    def _given(self, landed: StoredInstance | Row, *, at_hand: bool) -> StoredInstance:
        if not isinstance(landed, Row):
            return landed
        assert self._shelf is not None
        return CachedInstance(self._shelf, landed, at_hand=at_hand)

    # --- the PACS's side ---

    async def _fly(self) -> None:
        try:
            await self._retrieve()
            if self._draft is not None and not self._spooled and not self._spoiled:
                self._volume = await self._keeper.keep(self._draft, self.errand)
            if self._spoiled:
                # Forgotten while it was being kept.
                self.spoil()
            self._bell.ring()
            if self._volume is not None and not self._volume.dead:
                await self._keeper.finish(self._volume)
        except DrimboxError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(_cancelled())
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a task: every reader is told
            _log.error("a retrieve failed by a defect: %s", type(error).__name__, exc_info=error)
            self._fail(Unavailable("La récupération des images a échoué", code="retrieve-defect"))
        finally:
            self._closed = True
            self._ended(self)
            self._bell.ring()
            if self._volume is not None and not self._readers:
                self._store.unpin(self._volume)
            else:
                # Cancelled or not, what was stored goes only when nobody reads it any more, and then surely.
                self._spawn(self._clear_up())

    async def _retrieve(self) -> None:
        errand = self.errand
        async with AsyncExitStack() as block:
            arriving = await block.enter_async_context(
                self._source.retrieve(errand.space.study_uid, errand.series_uid, errand.instances)
            )
            async for stored in arriving:
                if stored.sop_instance_uid not in self._missing:
                    continue
                await self._land(stored)
                if not self._readers and not self._goes_on:
                    raise _cancelled()
                await self._pace()
            if self._missing:
                raise Unavailable("Le PACS n'a pas envoyé toutes les images", code="images-missing")
            self._complete = True
            self._bell.ring()
            while self._spooled and self._readers:
                # They read what lies in the receiver's folder, which goes with this block.
                await self._bell.wait()
            self._closed = self._spooled

    async def _land(self, stored: StoredInstance) -> None:
        place = await self._keep(stored) if self.errand.keep and not self._spooled else None
        if place is None:
            self._spooled = True
        size = stored.size
        self._missing.discard(stored.sop_instance_uid)
        self._landed.append(place or SpooledInstance(stored.sop_instance_uid, stored.path, size))
        self._sizes.append(size)
        self._bytes += size
        self._bell.ring()

    async def _keep(self, stored: StoredInstance) -> Row | None:
        """Take an image over into the cache; None where it has no room."""
        errand = self.errand
        if self._draft is None:
            try:
                self._draft = self._shelf = self._store.draft()
            except OSError as error:
                await self._store.trouble(error)
                return None
        return await self._store.add(self._draft, stored, errand.space, errand.series_uid, errand.ins)

    async def _pace(self) -> None:
        """Hold the PACS back while even the fastest reader is far behind."""
        limits = self._limits
        while self._readers:
            read = max(reader.bytes for reader in self._readers)
            position = max(reader.position for reader in self._readers)
            far = self._bytes - read > limits.ahead_bytes or len(self._landed) - position > limits.ahead_instances
            if not far:
                return
            await self._bell.wait()

    def _fail(self, error: DrimboxError) -> None:
        if not self._complete:
            self._error = error
        self._bell.ring()

    async def _clear_up(self) -> None:
        while self._readers:
            await self._bell.wait()
        if self._volume is not None:
            self._store.unpin(self._volume)
        elif self._draft is not None:
            await self._store.discard(self._draft)


def _cancelled() -> Unavailable:
    return Unavailable("La récupération des images a été interrompue", code="retrieve-cancelled")


class Seat:
    """One reader of a flight: how far it has read. To be left by ``leave``."""

    def __init__(self, flight: Flight, wanted: frozenset[str]) -> None:
        self.flight = flight
        self.wanted = wanted
        self.position = 0
        self.bytes = 0

    async def images(self) -> AsyncGenerator[StoredInstance, None]:
        """Each image that is wanted, as it lands. Raises what the retrieve fails with; the end means that all came."""
        left = set(self.wanted)
        while left and (image := await self.flight.next(self)) is not None:
            left.discard(image.sop_instance_uid)
            yield image

    def leave(self) -> None:
        self.flight.leave(self)


class Flights:
    """The flights of a box, by what they are for."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._flights: dict[Space, list[Flight]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._landed = Bell()
        self._closed = False

    @property
    def count(self) -> int:
        """Retrieves under way."""
        return sum(map(len, self._flights.values()))

    @property
    def tasks(self) -> int:
        """Work that is not over yet, clearing up included."""
        return len(self._tasks)

    def under_way(self, structure: str, study_uid: str, kos_uid: str) -> list[Flight]:
        """The flights for a KOS that one may board, whatever they are for."""
        wanted = (structure, study_uid, kos_uid)
        return [
            flight
            for space, flights in self._flights.items()
            if (space.structure, space.study_uid, space.kos_uid) == wanted
            for flight in flights
            if flight.open
        ]

    def spoil(self, study_uid: str) -> frozenset[str]:
        """Nothing stays of what is being retrieved of a study; returns from which PACSs."""
        flights = [
            f for under_way in self._flights.values() for f in under_way if f.errand.space.study_uid == study_uid
        ]
        for flight in flights:
            flight.spoil()
        return frozenset(flight.errand.space.pacs for flight in flights)

    async def idle(self, pacs: str) -> None:
        """Until nothing is being retrieved from this PACS."""
        while any(space.pacs == pacs for space in self._flights):
            await self._landed.wait()

    def board(self, errand: Errand, source: SeriesSource, keeper: Keeper) -> list[Seat]:
        """Seats that give every instance of the errand: on flights that are under way, and on a new one for the rest.

        Raises ``Unavailable`` (``closing``) when the box stops.
        """
        if self._closed:
            raise Unavailable("La passerelle s'arrête", code="closing")
        seats: list[Seat] = []
        left = set(errand.instances)
        for flight in self._flights.get(errand.space, ()):
            here = left & flight.errand.instances
            if here and flight.covers(errand.series_uid) and flight.open:
                seats.append(flight.board(here))
                left -= here
        if left:
            rest = Errand(errand.space, errand.ins, errand.series_uid, frozenset(left), errand.keep)
            flight = Flight(rest, source, self._store, self._limits, keeper=keeper, spawn=self._spawn, ended=self._gone)
            self._flights.setdefault(errand.space, []).append(flight)
            seats.append(flight.board(left))
        return seats

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _gone(self, flight: Flight) -> None:
        space = flight.errand.space
        under_way = self._flights.get(space, [])
        if flight in under_way:
            under_way.remove(flight)
        if not under_way:
            self._flights.pop(space, None)
            self._landed.ring()

    async def close(self) -> None:
        """Cancel every retrieve and wait until its readers, who are told, have left."""
        self._closed = True
        for flights in tuple(self._flights.values()):
            for flight in tuple(flights):
                flight.cancel()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
