"""Images into a PACS: C-STORE in bulk, over one association or several, and what the PACS said of each one.

An instance counts as stored only by the PACS's own answer. One whose answer never came is sent again: storing the same
SOP instance twice has the effect of once (PS3.4 B.1).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from drimbox.foundation.errors import Unavailable
from drimbox.pacs.dimse import negotiation, status
from drimbox.pacs.dimse.association import Interrupt
from drimbox.pacs.dimse.negotiation import Offer
from drimbox.pacs.dimse.storing import CannotRead, Outgoing, Storing
from drimbox.pacs.site import PacsLink

_log = logging.getLogger(__name__)
_MOST_BREAKS = 3
_MOST_TRIES = 2


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one instance.

    ``status`` is the PACS's own, None where it gave none; ``code`` then says why: ``context-refused`` (it does not take
    this class in this syntax), ``file-unreadable``, ``pacs-aborted`` (it broke off twice at this instance).
    """

    instance: Outgoing
    status: int | None
    comment: str = ""
    code: str = ""

    @property
    def stored(self) -> bool:
        """Has the PACS taken it, be it with a warning (PS3.4 B.2.3)?"""
        return self.status is not None and status.kind(self.status) in (status.Kind.SUCCESS, status.Kind.WARNING)


class PacsStore:
    """Stores instances into one PACS."""

    def __init__(self, link: PacsLink, *, associations: int = 1, window: int = 8) -> None:
        """``associations`` at once; ``window``: instances on their way in each, where the PACS allows more than one."""
        self._link = link
        self._associations = associations
        self._window = window

    @asynccontextmanager
    async def sending(self, instances: Sequence[Outgoing]) -> AsyncIterator[AsyncIterator[Sent]]:
        """What becomes of each instance, as the PACS answers; every one is told of exactly once.

        Iterating raises ``Unavailable``, ``Busy`` or ``Rejected`` where the PACS cannot be stored to (any more): those
        not told of until then are not known to be stored. Leaving the block early stops after the instance at hand.
        """
        results = _Results(len(instances))
        work = _Work(instances, results.put)
        lanes = [
            asyncio.create_task(self._lane(work, first=number == 0)) for number in range(max(self._associations, 1))
        ]
        over = asyncio.gather(*lanes, return_exceptions=True)
        over.add_done_callback(lambda _: results.end())
        given = self._given(results, lanes)
        try:
            yield given
        finally:
            work.stop()
            for lane in lanes:
                lane.cancel()
            await asyncio.wait(lanes)
            for lane in lanes:
                if not lane.cancelled() and (error := lane.exception()) is not None:
                    _log.debug("storing left with %r", error)
            await given.aclose()

    async def _given(self, results: _Results, lanes: Sequence[asyncio.Task[None]]) -> AsyncGenerator[Sent, None]:
        while (sent := await results.next()) is not None:
            yield sent
        if results.missing:
            for lane in lanes:
                lane.result()
            raise Unavailable("L'envoi des images s'est arrêté avant sa fin.", code="store-stopped")

    async def _lane(self, work: _Work, *, first: bool) -> None:
        async with self._link.moving(paced=first):
            lane = _Lane(self._link, work, self._window)
            await self._link.in_thread(lane.run, lane.interrupt, work.stop)


class _Work:
    """What is still to be sent, for all associations."""

    def __init__(self, instances: Sequence[Outgoing], done: Callable[[Sent], None]) -> None:
        self._lock = threading.Lock()
        self._done = done
        self._tries: dict[str, int] = {}
        self._stopped = False
        self.groups = list(negotiation.storing((i.sop_class_uid, i.transfer_syntax_uid) for i in instances))
        place = {
            (offer.abstract_syntax, offer.transfer_syntaxes[0]): number
            for number, group in enumerate(self.groups)
            for offer in group
        }
        self._queues: list[deque[Outgoing]] = [deque() for _ in self.groups]
        for instance in instances:
            self._queues[place[instance.sop_class_uid, instance.transfer_syntax_uid]].append(instance)

    def stop(self) -> None:
        self._stopped = True

    def left(self, group: int) -> bool:
        with self._lock:
            return bool(self._queues[group]) and not self._stopped

    def take(self, group: int) -> Outgoing | None:
        with self._lock:
            return self._queues[group].popleft() if self._queues[group] and not self._stopped else None

    def done(self, sent: Sent) -> None:
        self._done(sent)

    def broke(self, group: int, instances: Sequence[Outgoing]) -> None:
        """The association broke while these had no answer: again, unless it is one of them that breaks it."""
        for instance in instances:
            tries = self._tries[instance.sop_instance_uid] = self._tries.get(instance.sop_instance_uid, 0) + 1
            if tries >= _MOST_TRIES:
                self._done(Sent(instance, None, code="pacs-aborted"))
            else:
                self.again(group, [instance])

    def again(self, group: int, instances: Sequence[Outgoing]) -> None:
        """These have no answer, and not by their own fault."""
        with self._lock:
            self._queues[group].extendleft(reversed(instances))


class _Lane:
    """One association after the other, in a thread."""

    def __init__(self, link: PacsLink, work: _Work, window: int) -> None:
        self._link = link
        self._work = work
        self._window = window
        self.interrupt = Interrupt()

    def run(self) -> None:
        for number, offers in enumerate(self._work.groups):
            breaks = 0
            while self._work.left(number) and not self.interrupt.raised:
                answered, error = self._send(number, offers)
                if error is None:
                    continue
                breaks = 1 if answered else breaks + 1
                if breaks >= _MOST_BREAKS:
                    raise error

    def _send(self, group: int, offers: tuple[Offer, ...]) -> tuple[int, Unavailable | None]:
        """Over one association: how many answers it brought, and what broke it. Raises where none can be had."""
        answered = 0
        association = self._link.associate_to_store(offers, self.interrupt, window=self._window)
        storing = Storing(association)
        try:
            while True:
                instance = None if storing.full else self._work.take(group)
                if instance is not None:
                    self._start(storing, instance)
                elif storing.open:
                    answered += self._answer(storing)
                else:
                    break
        except CannotRead:
            association.abort()
            *others, unreadable = storing.open
            self._work.done(Sent(unreadable, None, code="file-unreadable"))
            self._work.again(group, others)
            return answered, None
        except Unavailable as error:
            association.abort()
            self._work.broke(group, storing.open)
            return answered, error
        except BaseException:
            association.abort()
            raise
        association.release()
        return answered, None

    def _start(self, storing: Storing, instance: Outgoing) -> None:
        if not storing.accepts(instance):
            self._work.done(Sent(instance, None, code="context-refused"))
            return
        try:
            storing.send(instance)
        except OSError:
            if instance in storing.open:
                # Half of it has gone.
                raise CannotRead("file cannot be read") from None
            self._work.done(Sent(instance, None, code="file-unreadable"))

    def _answer(self, storing: Storing) -> int:
        instance, response = storing.answer()
        self._work.done(Sent(instance, response.status, response.error_comment))
        return 1


class _Results:
    """Results on their way from the threads to the event loop."""

    def __init__(self, expected: int) -> None:
        self.missing = expected
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Sent | None] = asyncio.Queue()

    def put(self, sent: Sent) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, sent)

    def end(self) -> None:
        # Behind what the threads have put: they are over, but the loop may not have run their last calls.
        self._loop.call_soon(self._queue.put_nowait, None)

    async def next(self) -> Sent | None:
        sent = await self._queue.get()
        if sent is None:
            self._queue.put_nowait(None)
        else:
            self.missing -= 1
        return sent
