"""Where images come from when there is a cache: what it holds and may serve first, then what the PACS must send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile

from drimbox.cache.confirm import Confirmations, Confirmed
from drimbox.cache.flight import Errand, Flight, Flights, Seat
from drimbox.cache.instances import CachedInstance
from drimbox.cache.limits import Limits
from drimbox.cache.store import Store, chosen
from drimbox.cache.volume import Card, Draft, Row, Space, Volume, boot_id
from drimbox.dicom.files import mapped
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.identity.ins import Ins
from drimbox.images.describe import Describer
from drimbox.images.ports import ArchivedKos, SeriesSource, StoredInstance, StudyFinder
from drimbox.images.threads import in_thread

_log = logging.getLogger(__name__)
# Images whose files are looked at in one go before they are given out.
_AT_ONCE = 16
_MANY_AT_ONCE = 256

RejectedInstances = Callable[[str], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True)
class Cache:
    """What every source of a box shares. ``rejected`` tells the instances of a study that notes reject."""

    store: Store
    flights: Flights
    confirmations: Confirmations
    limits: Limits
    clock: Clock
    rejected: RejectedInstances
    syncing: asyncio.Semaphore

    def source(self, kos: ArchivedKos, pacs: SeriesSource, finder: StudyFinder) -> CachedSource:
        """The source of the images of one KOS."""
        return CachedSource(self, Space(kos.structure, kos.pacs, kos.study_uid, kos.kos_uid), kos.ins, pacs, finder)

    def forget(self, study_uid: str) -> None:
        """Nothing of a study is served from the cache any more (rejected, depublished, changed).

        What is just being retrieved reaches those who asked for it, and does not stay.
        """
        kept = {v.card.space.pacs for v in self.store.volumes if v.card.space.study_uid == study_uid}
        for pacs in kept | self.flights.spoil(study_uid):
            self.confirmations.forget(pacs, study_uid)
        self.store.forget(study_uid=study_uid)


@asynccontextmanager
async def sharing(store: Store, limits: Limits, clock: Clock, rejected: RejectedInstances) -> AsyncIterator[Cache]:
    """A cache on an open store; its retrieves end with the block."""
    flights = Flights(store, limits)
    confirmations = Confirmations(clock, limits.confirm_for)
    try:
        yield Cache(store, flights, confirmations, limits, clock, rejected, asyncio.Semaphore(1))
    finally:
        await confirmations.close()
        await flights.close()


class CachedSource:
    """``images.ports.SeriesSource`` and ``DescribingSource`` for one KOS."""

    def __init__(self, cache: Cache, space: Space, ins: Ins, pacs: SeriesSource, finder: StudyFinder) -> None:
        self._cache = cache
        self._space = space
        self._ins = ins
        self._pacs = pacs
        self._finder = finder

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        async with AsyncExitStack() as stack:
            found = await self._find(stack, series_uid, expected, pixels=True)
            # From here to the boarding nothing else runs: what is not found is under way, or is begun.
            cached = {row.sop_instance_uid for _, rows in found for row in rows}
            seats = self._board(stack, series_uid, frozenset(expected) - cached)
            yield await stack.enter_async_context(aclosing(self._given(stack, found, seats, series_uid)))

    @asynccontextmanager
    async def described(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[Sequence[bytes] | None]:
        """The DICOM JSON of each, as pieces of an array without its brackets; None where it cannot be kept."""
        async with AsyncExitStack() as stack:
            pieces = await self._descriptions(stack, series_uid, frozenset(expected))
            if pieces is None and self._cache.limits.max_bytes:
                await self._fetch(series_uid, expected)
                pieces = await self._descriptions(stack, series_uid, frozenset(expected))
            yield pieces

    async def warm(self, series_uid: str, expected: Collection[str], *, pixels: bool) -> None:
        """Have a series in the cache; without ``pixels``, only its description. Raises what a retrieve raises."""
        async with AsyncExitStack() as stack:
            if await self._descriptions(stack, series_uid, frozenset(expected)) is not None and not pixels:
                return
        flights = await self._fetch(series_uid, expected)
        async with AsyncExitStack() as stack:
            await self._descriptions(stack, series_uid, frozenset(expected))
        for flight in flights:
            await flight.ended()
        if not pixels:
            await self._strip(series_uid)

    # --- what the cache has ---

    async def _find(
        self, stack: AsyncExitStack, series_uid: str | None, expected: Collection[str], *, pixels: bool
    ) -> list[tuple[Volume, Sequence[Row]]]:
        """What may be served of the expected instances, pinned. Raises when the PACS does not confirm it."""
        store = self._cache.store
        while True:
            looked_at = store.held(self._space)
            found = await self._search(stack, looked_at, series_uid, expected, pixels=pixels)
            # What a retrieve has brought meanwhile is looked at too, or it would be retrieved once more.
            if set(store.held(self._space)) <= set(looked_at):
                return [(volume, rows) for volume, rows in found if not volume.dead]

    async def _search(
        self,
        stack: AsyncExitStack,
        volumes: Sequence[Volume],
        series_uid: str | None,
        expected: Collection[str],
        *,
        pixels: bool,
    ) -> list[tuple[Volume, Sequence[Row]]]:
        store, ins = self._cache.store, _ins_values(self._ins)
        found: list[tuple[Volume, Sequence[Row]]] = []
        left = set(expected)
        usable = [v for v in volumes if v.card.ins == v.key.digest(*ins) and (v.card.pixels or not pixels)]
        stack.enter_context(store.pinned(usable))
        for volume in usable:
            rows = chosen((await store.rows(volume)).values(), left, series_uid)
            if rows and not volume.dead:
                found.append((volume, rows))
                left -= {row.sop_instance_uid for row in rows}
        if found:
            found = await self._without_rejected(found)
        if found and not self._cache.limits.by_notes:
            found = await self._confirmed(found, expected)
        return found

    async def _without_rejected(self, found: list[tuple[Volume, Sequence[Row]]]) -> list[tuple[Volume, Sequence[Row]]]:
        rejected = set(await self._cache.rejected(self._space.study_uid))
        for volume, _ in found:
            if rejected & (await self._cache.store.rows(volume)).keys():
                self._cache.store.drop(volume)
        return [(volume, rows) for volume, rows in found if not volume.dead]

    async def _confirmed(
        self, found: list[tuple[Volume, Sequence[Row]]], expected: Collection[str]
    ) -> list[tuple[Volume, Sequence[Row]]]:
        """Decision 25. Raises ``Rejected`` (``images-gone``) when the PACS no longer holds what is expected."""
        confirmed = await self._confirm(expected)
        if not set(expected) <= confirmed.instances.keys():
            self._cache.forget(self._space.study_uid)
            raise Rejected("Le PACS n'a plus toutes ces images", code="images-gone")
        for volume, rows in found:
            same = all(confirmed.instances[r.sop_instance_uid] == r.series_uid for r in rows if r.series_uid)
            if not same or volume.card.identity != volume.key.digest(*confirmed.patient):
                # Another patient, or the same one corrected, or images moved: what was fetched before is void.
                self._cache.store.drop(volume)
        return [(volume, rows) for volume, rows in found if not volume.dead]

    async def _confirm(self, expected: Collection[str]) -> Confirmed:
        confirmations, pacs, study_uid = self._cache.confirmations, self._space.pacs, self._space.study_uid
        confirmed = await confirmations.confirm(self._finder, pacs, study_uid)
        if set(expected) <= confirmed.instances.keys():
            return confirmed
        # What is remembered may be older than these images.
        confirmations.forget(pacs, study_uid)
        return await confirmations.confirm(self._finder, pacs, study_uid)

    # --- giving ---

    async def _given(
        self,
        stack: AsyncExitStack,
        found: list[tuple[Volume, Sequence[Row]]],
        seats: list[Seat],
        series_uid: str | None,
    ) -> AsyncGenerator[StoredInstance, None]:
        """What is cached, in the order in which it came, while the rest is already on its way."""
        damaged: set[str] = set()
        for volume, rows in found:
            for some in _lots(volume, rows):
                heads = await in_thread(volume.ready, some)
                good = [(row, head) for row, head in zip(some, heads, strict=True) if head is not None]
                damaged |= {row.sop_instance_uid for row in some} - {row.sop_instance_uid for row, _ in good}
                for index, (row, head) in enumerate(good, 1):
                    yield CachedInstance(volume, row, at_hand=index < len(good), head=head or None)
            if damaged & {row.sop_instance_uid for row in rows}:
                _log.error("images of the cache are damaged on its disk: fetched again")
                self._cache.store.drop(volume)
        for seat in (*seats, *self._board(stack, series_uid, frozenset(damaged))):
            async with aclosing(seat.images()) as images:
                async for image in images:
                    yield image

    def _board(self, stack: AsyncExitStack, series_uid: str | None, instances: frozenset[str]) -> list[Seat]:
        if not instances:
            return []
        errand = Errand(self._space, self._ins, series_uid, instances, keep=self._cache.limits.max_bytes > 0)
        seats = self._cache.flights.board(errand, self._pacs, self)
        for seat in seats:
            stack.callback(seat.leave)
        return seats

    async def keep(self, draft: Draft, errand: Errand) -> Volume | None:
        """``flight.Keeper``: make a volume of what landed, if the PACS confirms it."""
        patient: tuple[str, ...] = ()
        if not self._cache.limits.by_notes:
            try:
                confirmed = await self._confirm(errand.instances)
            except DrimboxError as error:
                _log.warning("images not kept, the PACS does not confirm them: %s", error.code)
                return None
            if not errand.instances <= confirmed.instances.keys():
                return None
            patient = confirmed.patient
        series: dict[str, int] = {}
        for row in draft.rows.values():
            series[row.series_uid] = series.get(row.series_uid, 0) + 1
        card = Card(
            space=errand.space,
            series=series,
            bytes=draft.bytes,
            created_at=self._cache.clock.now().timestamp(),
            ins=draft.key.digest(*_ins_values(errand.ins)),
            identity=draft.key.digest(*patient),
            pixels=True,
            sealed=draft.key.sealed,
            boot=boot_id(),
            synced=False,
        )
        return await self._cache.store.commit(draft, card)

    async def finish(self, volume: Volume) -> None:
        """``flight.Keeper``: describe what was kept, and bring it to the disk for good."""
        store = self._cache.store
        await self._describe(volume)
        try:
            store.resize(volume, await in_thread(volume.measure))
            await store.make_room(0)
            # One volume after the other: those who read from the disk come first.
            async with self._cache.syncing:
                await in_thread(volume.sync)
        except OSError as error:
            if not volume.dead:
                await store.trouble(error)

    # --- descriptions ---

    async def _fetch(self, series_uid: str | None, expected: Collection[str]) -> list[Flight]:
        """Have everything land that the cache has not, and wait until it is in volumes; by which flights."""
        async with AsyncExitStack() as stack:
            found = await self._find(stack, series_uid, expected, pixels=True)
            cached = {row.sop_instance_uid for _, rows in found for row in rows}
            seats = self._board(stack, series_uid, frozenset(expected) - cached)
            for seat in seats:
                async with aclosing(seat.images()) as images:
                    async for _ in images:
                        pass
        for seat in seats:
            await seat.flight.settled()
        return [seat.flight for seat in seats]

    async def _descriptions(
        self, stack: AsyncExitStack, series_uid: str | None, expected: frozenset[str]
    ) -> list[bytes] | None:
        found = await self._find(stack, series_uid, expected, pixels=False)
        if expected - {row.sop_instance_uid for _, rows in found for row in rows}:
            return None
        pieces: list[bytes] = []
        for volume, rows in found:
            wanted = [row.sop_instance_uid for row in rows]
            some = await in_thread(volume.described, wanted)
            if some is None:
                if not volume.card.pixels or not await self._describe(volume):
                    return None
                some = await in_thread(volume.described, wanted)
            if some is None:
                return None
            pieces += some
        return pieces

    async def _describe(self, volume: Volume) -> bool:
        """Write the description of a volume, once for all. False where it cannot be had of one of its images."""
        async with volume.writing:
            if volume.is_described:
                return True
            rows = list((await self._cache.store.rows(volume)).values())
            describer, texts = Describer(), []
            for start in range(0, len(rows), _AT_ONCE):
                try:
                    texts += await in_thread(_described, describer, volume, rows[start : start + _AT_ONCE], self._ins)
                except DrimboxError as error:
                    _log.debug("images left undescribed: %s", error.code)
                    return False
            try:
                await in_thread(volume.describe, texts)
            except OSError as error:
                await self._cache.store.trouble(error)
                return False
            return True

    async def _strip(self, series_uid: str) -> None:
        """Let the images of a series go, and keep their descriptions."""
        store = self._cache.store
        for volume in store.held(self._space):
            if set(volume.card.series) == {series_uid} and volume.card.pixels and volume.is_described:
                if volume.pins:
                    continue
                with store.pinned((volume,)):
                    store.resize(volume, await in_thread(volume.strip))


def _lots(volume: Volume, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """What is looked at in one go: few images where they must be read whole, first of all too; else many."""
    start = 0
    while start < len(rows):
        some = rows[start : start + _AT_ONCE]
        if start:
            checked = list(takewhile(volume.is_checked, rows[start : start + _MANY_AT_ONCE]))
            some = max(some, checked, key=len)
        yield some
        start += len(some)


def _described(describer: Describer, volume: Volume, rows: Sequence[Row], ins: Ins) -> list[tuple[str, bytes]]:
    texts: list[tuple[str, bytes]] = []
    for row in rows:
        instance = CachedInstance(volume, row, at_hand=True)
        try:
            with mapped(instance.acquire()) as buffer:
                texts.append((row.sop_instance_uid, describer.describe(buffer, ins)))
        finally:
            instance.release()
    return texts


def _ins_values(ins: Ins) -> tuple[str, str]:
    return ins.matricule, ins.oid
