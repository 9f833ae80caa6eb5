"""Which received instance is whose: the desk between the C-STORE receiver and the retrieves that wait for images.

An instance is taken only for a retrieve that expects exactly that SOP Instance UID, from a sender that may store for
it, on behalf of its own C-MOVE where the request says so; once landed, the identifiers inside the file must be those of
the retrieve too. Everything else is refused and not kept. No state is shared between two retrieves.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from drimbox.foundation.errors import Misconfigured, Rejected
from drimbox.pacs.delivery import Delivery, Expectation, Landing, Pressure
from drimbox.pacs.dimse import status
from drimbox.pacs.dimse.storage import StoredInstance, StoreOffer, StoreRefused

_PREFIX = "retrieve-"


class Inbox:
    """The ``StoreHandler`` of a box: finds for each instance the one retrieve that it is for."""

    def __init__(self, spool: Path) -> None:
        """``spool`` is a folder of this process's own (see ``opened``)."""
        self._spool = spool
        self._lock = threading.Lock()
        self._deliveries: dict[int, Delivery] = {}
        self._by_instance: dict[str, list[Delivery]] = {}
        self._numbers = itertools.count(1)
        self._last_message_id = int.from_bytes(os.urandom(2), "big")

    def expect(
        self,
        expectation: Expectation,
        deliver: Callable[[StoredInstance], None],
        failed: Callable[[], None],
        pressure: Pressure,
    ) -> Delivery:
        """Opens a retrieve's side, under a message id that no other open retrieve has. To be given back by ``end``."""
        with self._lock:
            delivery = self._opened(expectation, deliver, failed, pressure)
            self._deliveries[delivery.message_id] = delivery
            for uid in expectation.instances:
                self._by_instance.setdefault(uid, []).append(delivery)
            return delivery

    def alone(
        self,
        expectation: Expectation,
        deliver: Callable[[StoredInstance], None],
        failed: Callable[[], None],
        pressure: Pressure,
    ) -> Delivery:
        """The same for what comes over a connection of the retrieve's own: nothing that is stored to us is for it."""
        with self._lock:
            return self._opened(expectation, deliver, failed, pressure)

    def _opened(
        self,
        expectation: Expectation,
        deliver: Callable[[StoredInstance], None],
        failed: Callable[[], None],
        pressure: Pressure,
    ) -> Delivery:
        folder = self._spool / f"{_PREFIX}{next(self._numbers):08d}"
        folder.mkdir(mode=0o700)
        return Delivery(expectation, self._free_message_id(), folder, deliver, failed, pressure)

    def end(self, delivery: Delivery) -> None:
        """The retrieve is over: nothing is taken for it any more, its folder is removed."""
        with self._lock:
            if self._deliveries.get(delivery.message_id) is delivery:
                del self._deliveries[delivery.message_id]
            for uid in delivery.expectation.instances:
                waiting = self._by_instance.get(uid, [])
                if delivery in waiting:
                    waiting.remove(delivery)
                if not waiting:
                    self._by_instance.pop(uid, None)
        delivery.close()

    def admit(self, offer: StoreOffer) -> Landing:
        """The place for an instance. Raises ``StoreRefused`` where no retrieve expects it."""
        with self._lock:
            candidates = [d for d in self._by_instance.get(offer.sop_instance_uid, ()) if d.claims(offer)]
            owner = self._deliveries.get(offer.move_originator_id) if offer.move_originator_id else None
        for delivery in candidates:
            landing = delivery.begin(offer)
            if landing is not None:
                return landing
        if owner is not None and owner.claims(offer):
            owner.refused_one()
        awaited = bool(self._by_instance.get(offer.sop_instance_uid))
        raise StoreRefused(status.NOT_AUTHORIZED, "not of the retrieve that expects it" if awaited else "not expected")

    def _free_message_id(self) -> int:
        for _ in range(0xFFFF):
            self._last_message_id = self._last_message_id % 0xFFFF + 1
            if self._last_message_id not in self._deliveries:
                return self._last_message_id
        raise Rejected("Trop de récupérations d'images en cours.", code="too-many-retrieves")


@contextmanager
def opened(spool: Path) -> Iterator[Inbox]:
    """An inbox on a folder of its own, cleaned of what an earlier process left. Raises ``Misconfigured``.

    The folder is locked: two processes on one spool would remove each other's images.
    """
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (spool / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = f"Le dossier {spool} sert déjà à un autre processus."
            raise Misconfigured(reason, code="spool-locked") from error
        _remove(spool.glob(f"{_PREFIX}*"))
        try:
            yield Inbox(spool)
        finally:
            _remove(spool.glob(f"{_PREFIX}*"))


def _remove(folders: Iterator[Path] | Collection[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
