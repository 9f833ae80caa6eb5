"""One retrieve's side of what is stored for it: what it awaits, what has landed, how fast its reader takes it.

An instance is taken only where exactly that SOP Instance UID is awaited; once landed, the identifiers inside the file
must be those of the retrieve too: the study, the series, the patient. Everything else is refused and not kept.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Rejected
from drimbox.pacs.dimse import status
from drimbox.pacs.dimse.storage import StoredInstance, StoreOffer, StoreRefused
from drimbox.pacs.header import InstanceHeader, read_header

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one retrieve waits for."""

    pacs_id: str
    study_uid: str
    series_uid: str | None
    instances: frozenset[str]
    destination_ae: str
    originator_ae: str
    patient_id: str | None = None
    storing_ae_titles: frozenset[str] = frozenset()
    checks_originator: bool = True


@dataclass(frozen=True, slots=True)
class Pressure:
    """When the response to a C-STORE is held back, so that the PACS goes at the pace of the reader.

    Each response is held ``hold`` seconds at most, below what peers bear (10 s for a default Orthanc): a reader that is
    slower still lets one instance come per ``hold``, to the disk.
    """

    instances: int = 32
    bytes: int = 256 * 2**20
    hold: float = 5.0


class Delivery:
    """One retrieve's side of the inbox. Written by the threads of the associations, read by the retrieve."""

    def __init__(
        self,
        expectation: Expectation,
        message_id: int,
        folder: Path,
        deliver: Callable[[StoredInstance], None],
        failed: Callable[[], None],
        pressure: Pressure,
    ) -> None:
        """``deliver`` takes each instance as it lands, ``failed`` is called once ``error`` is set; in any thread."""
        self.expectation = expectation
        self.message_id = message_id
        self.folder = folder
        self.error: DrimboxError | None = None
        self.unexpected = 0
        self.alive = time.monotonic()
        self._deliver = deliver
        self._failed = failed
        self._pressure = pressure
        self._changed = threading.Condition()
        self._outstanding = set(expectation.instances)
        self._landing: set[str] = set()
        self._waiting = 0
        self._waiting_bytes = 0
        self._patient_id = expectation.patient_id
        self._closed = False
        self._names = itertools.count(1)

    @property
    def missing(self) -> list[str]:
        """SOP Instance UIDs that have not landed; one that is just coming in has not."""
        with self._changed:
            return sorted(self._outstanding | self._landing)

    def wait_until_landed(self, quiet: float) -> bool:
        """Wait while instances come, at most ``quiet`` seconds after the last sign of life; is everything there?"""
        with self._changed:
            while (self._outstanding or self._landing) and not self._closed:
                left = self.alive + quiet - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return not self._outstanding and not self._landing

    def taken(self, stored: StoredInstance) -> None:
        """The reader has taken an instance: there is room for another."""
        with self._changed:
            self._waiting -= 1
            self._waiting_bytes -= stored.size
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more is wanted: what still comes is refused, held responses go out, the folder goes.

        With it goes what is just coming in: a peer that stalls must not keep half an image on the disk.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------- called by the threads of associations

    def claims(self, offer: StoreOffer) -> bool:
        """Does this instance come from this retrieve's own C-MOVE, as far as the request tells?"""
        own = self.expectation
        if offer.called_ae != own.destination_ae:
            return False
        if own.storing_ae_titles and offer.calling_ae not in own.storing_ae_titles:
            return False
        if not own.checks_originator:
            return True
        # The originator is who asked for the move; some PACSs put themselves there. The message id tells the retrieve.
        known_ae = offer.move_originator_ae in (None, own.originator_ae, offer.calling_ae)
        return known_ae and offer.move_originator_id in (None, self.message_id)

    def admit(self, offer: StoreOffer) -> Landing:
        """The place of an instance that can only be for this retrieve (C-GET, DICOMweb). Raises ``StoreRefused``."""
        landing = self.begin(offer)
        if landing is None:
            self.refused_one()
            raise StoreRefused(status.NOT_AUTHORIZED, "not expected")
        return landing

    def begin(self, offer: StoreOffer) -> Landing | None:
        """A place for this instance; ``None`` where it is not awaited (any more)."""
        with self._changed:
            if self._closed or offer.sop_instance_uid not in self._outstanding:
                return None
            self._outstanding.discard(offer.sop_instance_uid)
            self._landing.add(offer.sop_instance_uid)
            self.alive = time.monotonic()
            return Landing(self, offer, self.folder / f"{next(self._names):06d}.dcm")

    def progress(self) -> None:
        self.alive = time.monotonic()

    def refused_one(self) -> None:
        """The PACS brought an instance that was not asked for."""
        with self._changed:
            self.unexpected += 1
            self.alive = time.monotonic()

    def landed(self, offer: StoreOffer, stored: StoredInstance) -> None:
        """Hand over what landed, if it is what it should be. Raises ``StoreRefused``."""
        try:
            self._check(offer, read_header(stored.path))
        except (Refused, Rejected) as error:
            self._fail(offer, error)
            raise StoreRefused(status.CANNOT_UNDERSTAND, "instance is not the one expected") from error
        except OSError as error:
            self.lost(offer)
            raise StoreRefused(status.OUT_OF_RESOURCES, "instance cannot be read back") from error
        self._hand_over(stored)

    def lost(self, offer: StoreOffer) -> None:
        """It did not land: it is awaited again."""
        with self._changed:
            self._outstanding.add(offer.sop_instance_uid)
            self._settled(offer.sop_instance_uid)

    def _hand_over(self, stored: StoredInstance) -> None:
        limits = self._pressure
        with self._changed:
            self._settled(stored.sop_instance_uid)
            if self._closed:
                raise StoreRefused(status.OUT_OF_RESOURCES, "retrieve has ended")
            self._waiting += 1
            self._waiting_bytes += stored.size
            self._deliver(stored)
            self._changed.wait_for(
                lambda: self._closed or (self._waiting <= limits.instances and self._waiting_bytes <= limits.bytes),
                limits.hold,
            )
            self.alive = time.monotonic()

    def _check(self, offer: StoreOffer, header: InstanceHeader) -> None:
        own = self.expectation
        if (header.sop_class_uid, header.sop_instance_uid) != (offer.sop_class_uid, offer.sop_instance_uid):
            raise Rejected(
                self._reason("a envoyé une image sous l'identifiant d'une autre"), code="pacs-wrong-instance"
            )
        if header.study_uid != own.study_uid or own.series_uid not in (None, header.series_uid):
            raise Rejected(self._reason("a envoyé une image d'un autre examen"), code="pacs-wrong-instance")
        with self._changed:
            if self._patient_id is None:
                self._patient_id = header.patient_id
            same = header.patient_id == self._patient_id
        if not same:
            raise IdentityMismatch(self._reason("a envoyé une image d'un autre patient"), code="pacs-wrong-patient")

    def fail(self, error: DrimboxError) -> None:
        """What came makes the whole retrieve wrong."""
        _log.error("%s (%s)", error.reason, error.code)
        with self._changed:
            first = self.error is None
            self.error = self.error or error
        if first:
            self._failed()

    def _fail(self, offer: StoreOffer, error: DrimboxError) -> None:
        with self._changed:
            self._outstanding.add(offer.sop_instance_uid)
            self._settled(offer.sop_instance_uid)
        self.fail(error)

    def _settled(self, sop_instance_uid: str) -> None:
        self._landing.discard(sop_instance_uid)
        self._changed.notify_all()
        if self._closed:
            # A file may have been made while the folder was being removed.
            shutil.rmtree(self.folder, ignore_errors=True)

    def _reason(self, what: str) -> str:
        return f"Le PACS {self.expectation.pacs_id} {what}."


class Landing:
    """The place of one instance in its retrieve's folder."""

    def __init__(self, delivery: Delivery, offer: StoreOffer, path: Path) -> None:
        self._delivery = delivery
        self._offer = offer
        self._path = path

    @property
    def path(self) -> Path:
        return self._path

    def progress(self) -> None:
        self._delivery.progress()

    def landed(self, stored: StoredInstance) -> None:
        self._delivery.landed(self._offer, stored)

    def lost(self) -> None:
        self._delivery.lost(self._offer)
