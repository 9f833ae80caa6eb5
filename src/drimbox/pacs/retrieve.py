"""A series out of the PACS: C-MOVE to our own receiver, each image handed on as it lands (PS3.4 C.4.2).

A retrieve ends in one of two ways: everything that was expected has been given, or an error says why not. It never
hangs, and it never leaves a file behind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.pacs.dimse import command, status, uids
from drimbox.pacs.dimse.client import ClientAssociation, Interrupt
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.inbox import Delivery, Expectation, Inbox, Pressure
from drimbox.pacs.site import PacsLink

__all__ = ["PacsSeriesSource", "SeriesSource", "StoredInstance"]

_log = logging.getLogger(__name__)
# UIDs of one query at image level: 16 kB at most.
_IMAGES_AT_ONCE = 250


class SeriesSource(Protocol):
    """Gives the images of a series, or of a study."""

    def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredInstance]]:
        """Each instance of ``expected`` (SOP Instance UIDs) as it lands; a file is good until the block is left.

        ``patient_id`` is what the PACS gives for the study, where known: every image must carry it; otherwise they must
        all carry the same. Raises ``Unavailable`` when the PACS fails, ``Rejected`` when it holds less than expected or
        sends something else, ``IdentityMismatch`` when it sends another patient's image. Leaving the block early
        cancels the retrieve; its files are removed in every case.
        """


class PacsSeriesSource:
    """``SeriesSource`` by C-MOVE to the AE title ``destination_ae`` of our receiver."""

    def __init__(
        self,
        link: PacsLink,
        inbox: Inbox,
        destination_ae: str,
        *,
        pressure: Pressure | None = None,
        late_timeout: float = 5.0,
    ) -> None:
        """``late_timeout``: seconds that images may still come after a PACS has said that it has sent them all."""
        self._link = link
        self._inbox = inbox
        self._destination = destination_ae
        self._pressure = pressure or Pressure()
        self._late_timeout = late_timeout

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        asked = (study_uid, *((series_uid,) if series_uid is not None else ()), *expected)
        if not all(map(uids.is_plausible, asked)):
            raise Rejected("Un identifiant d'examen, de série ou d'image n'est pas un UID DICOM.", code="study-uid")
        pacs = self._link.pacs
        expectation = Expectation(
            pacs_id=pacs.id,
            study_uid=study_uid,
            series_uid=series_uid,
            instances=frozenset(expected),
            destination_ae=self._destination,
            originator_ae=pacs.calling_ae_title,
            patient_id=patient_id,
            storing_ae_titles=pacs.storing_ae_titles,
            checks_originator=pacs.checks_originator,
        )
        async with self._link.moving():
            arrivals = _Arrivals()
            delivery = self._inbox.expect(expectation, arrivals.put, arrivals.fail, self._pressure)
            move = _Move(self._link, delivery, self._late_timeout)
            runner = asyncio.create_task(self._link.in_thread(move.run, move.interrupt, move.cancel))
            runner.add_done_callback(lambda _: arrivals.end())
            given = _given(arrivals, delivery, runner)
            try:
                yield given
            finally:
                # In a thread: removing the files of a large series takes a while.
                await asyncio.to_thread(self._inbox.end, delivery)
                await _ended(runner)
                await given.aclose()


async def _given(
    arrivals: _Arrivals, delivery: Delivery, runner: asyncio.Task[None]
) -> AsyncGenerator[StoredInstance, None]:
    while (stored := await arrivals.next()) is not None:
        delivery.taken(stored)
        yield stored
    if delivery.error is not None:
        raise delivery.error
    # Ended: either everything is there, or this says why not.
    await asyncio.shield(runner)


async def _ended(runner: asyncio.Task[None]) -> None:
    """The move is over, cancelled where it still ran; what it says has been told, or nobody waits for it any more."""
    runner.cancel()
    await asyncio.wait([runner])
    if not runner.cancelled() and (error := runner.exception()) is not None:
        _log.debug("retrieve left with %r", error)


class _Arrivals:
    """Instances on their way from the threads of the receiver to the event loop of the reader."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[StoredInstance | None] = asyncio.Queue()
        self._over = False

    def put(self, stored: StoredInstance) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, stored)

    def fail(self) -> None:
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def next(self) -> StoredInstance | None:
        if self._over:
            return None
        stored = await self._queue.get()
        self._over = stored is None
        return stored


class _Move:
    """The C-MOVE of one retrieve, in a thread of its own."""

    def __init__(self, link: PacsLink, delivery: Delivery, late_timeout: float) -> None:
        self._link = link
        self._pacs = link.pacs
        self._delivery = delivery
        self._late_timeout = late_timeout
        self._association: ClientAssociation | None = None
        self.interrupt = Interrupt()

    def run(self) -> None:
        """Ends when all has landed. Raises what a retrieve raises."""
        if not self._delivery.expectation.instances:
            return
        with self._link.associate(uids.STUDY_ROOT_MOVE, self.interrupt) as association:
            self._association = association
            final = self._series(association)
            # A PACS may stop at the first image that we refuse, because it holds more than we were told to expect:
            # then the rest is asked for by name.
            if self._delivery.unexpected and self._delivery.error is None:
                for some in _chunks(self._delivery.missing):
                    final = self._images(association, some)
                    if status.kind(final.status) is status.Kind.FAILURE:
                        break
        self._judge(final)

    def cancel(self) -> None:
        """Ask the PACS to stop, from any thread; ``run`` ends with its answer."""
        if self._association is not None:
            self._association.cancel(uids.STUDY_ROOT_MOVE, self._delivery.message_id)
        else:
            self.interrupt.set()

    def _series(self, association: ClientAssociation) -> command.Response:
        own = self._delivery.expectation
        if own.series_uid is None:
            return self._ask(association, "STUDY", {Tag.STUDY_UID: own.study_uid})
        return self._ask(association, "SERIES", {Tag.STUDY_UID: own.study_uid, Tag.SERIES_UID: own.series_uid})

    def _images(self, association: ClientAssociation, instances: Sequence[str]) -> command.Response:
        own = self._delivery.expectation
        key = {Tag.STUDY_UID: own.study_uid, Tag.SOP_INSTANCE_UID: "\\".join(instances)}
        if own.series_uid is not None:
            key[Tag.SERIES_UID] = own.series_uid
        return self._ask(association, "IMAGE", key)

    def _ask(self, association: ClientAssociation, level: str, key: dict[Tag, str]) -> command.Response:
        end = time.monotonic() + self._pacs.retrieve_timeout
        answers = association.move(
            uids.STUDY_ROOT_MOVE,
            self._delivery.expectation.destination_ae,
            encoder(level, key),
            message_id=self._delivery.message_id,
            alive=lambda: self._delivery.alive,
        )
        for answer in answers:
            response = answer.response
            if time.monotonic() > end:
                raise self._unavailable("n'a pas fini d'envoyer les images dans le temps imparti", "pacs-too-slow")
        return response

    def _judge(self, final: command.Response) -> None:
        """Everything there is success, whatever the PACS says; anything else is told by its cause (PS3.4 C.4.2.1.5)."""
        if self._delivery.error is not None:
            raise self._delivery.error
        failed = status.kind(final.status) in (status.Kind.FAILURE, status.Kind.CANCELLED)
        if not self._delivery.missing or (not failed and self._late(final)):
            return
        if self._delivery.error is not None:
            raise self._delivery.error
        if failed:
            raise self._failed(final.status)
        wanted = len(self._delivery.expectation.instances)
        landed = wanted - len(self._delivery.missing)
        counts = f"{landed} des {wanted} images attendues"
        if final.failed or final.status != status.SUCCESS:
            reason = f"n'a envoyé que {counts} et annonce {final.failed or 0} échecs"
            raise self._unavailable(reason, "pacs-retrieve-incomplete", final.status)
        reason = f"Le PACS {self._pacs.id} n'a envoyé que {counts}."
        raise Rejected(reason, code="pacs-instances-missing")

    def _late(self, final: command.Response) -> bool:
        """Some PACSs answer before they have sent: are the images still to come?"""
        landed = len(self._delivery.expectation.instances) - len(self._delivery.missing)
        if final.completed and final.completed <= landed + self._delivery.unexpected:
            return False
        return self._delivery.wait_until_landed(self._late_timeout)

    def _failed(self, code: int) -> Unavailable:
        match code:
            case status.MOVE_DESTINATION_UNKNOWN:
                what = f"ne connaît pas notre destination {self._delivery.expectation.destination_ae}"
            case status.OUT_OF_RESOURCES | status.CANNOT_COUNT_MATCHES | status.CANNOT_PERFORM_SUBOPERATIONS:
                what = "manque de ressources pour envoyer les images"
            case status.CANCELLED:
                what = "a interrompu l'envoi des images"
            case _:
                what = "n'a pas pu envoyer les images"
        return self._unavailable(f"{what} (statut {status.code(code)})", "pacs-retrieve-failed", code)

    def _unavailable(self, what: str, code: str, peer_status: int | None = None) -> Unavailable:
        peer_code = None if peer_status is None else status.code(peer_status)
        return Unavailable(f"Le PACS {self._pacs.id} {what}.", code=code, peer_code=peer_code)


def _chunks(instances: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(instances), _IMAGES_AT_ONCE):
        yield instances[start : start + _IMAGES_AT_ONCE]
