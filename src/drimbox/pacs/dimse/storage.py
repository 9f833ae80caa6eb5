"""What a Storage SCP stores: one incoming instance, its file, and who decides about it (PS3.4 Annex B)."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drimbox.pacs.dimse import command, status, uids
from drimbox.pacs.dimse.part10 import file_head

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreOffer:
    """What a C-STORE-RQ announces, before its data set comes."""

    called_ae: str
    calling_ae: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    move_originator_ae: str | None
    move_originator_id: int | None


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One instance that landed: a whole Part 10 file in the spool; ``size`` is in bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    size: int


class StoreRefused(Exception):
    """The instance is not taken; ``status`` is what the C-STORE response says, ``comment`` goes with it."""

    def __init__(self, status_code: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status_code
        self.comment = comment


class Landing(Protocol):
    """The place of one admitted instance. Called from the thread of its association."""

    @property
    def path(self) -> Path:
        """The file to make; it is written beside, under the same name with ``.part``, and renamed when whole."""

    def progress(self) -> None:
        """More bytes came."""

    def landed(self, stored: StoredInstance) -> None:
        """The file is whole. The response waits for this call. Raises ``StoreRefused``; the file is then removed."""

    def lost(self) -> None:
        """The instance will not land: cut, too long, or no room on the disk; the file is removed."""


class StoreHandler(Protocol):
    """Decides what may land."""

    def admit(self, offer: StoreOffer) -> Landing:
        """Where this instance goes. Raises ``StoreRefused``."""


class Incoming:
    """One instance that comes in: written to its file, or read to the end and dropped where it is refused."""

    def __init__(self, context_id: int, request: command.StoreRequest, offer: StoreOffer, most: int) -> None:
        self.context_id = context_id
        self.request = request
        self.since = time.monotonic()
        self._offer = offer
        self._most = most
        self._landing: Landing | None = None
        self._refused: StoreRefused | None = None
        self._file: int | None = None
        self._size = 0

    def begin(self, abstract_syntax: str, handler: StoreHandler) -> None:
        """Ask the handler for a place, and make the file there."""
        offer = self._offer
        try:
            _check(offer, abstract_syntax)
            self._landing = handler.admit(offer)
        except StoreRefused as refused:
            self._refused = refused
            return
        head = file_head(offer.sop_class_uid, offer.sop_instance_uid, offer.transfer_syntax_uid, offer.calling_ae)
        try:
            self._file = os.open(_part(self._landing.path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            self._fail(error)
        self.write(head)

    def write(self, data: bytes | memoryview) -> None:
        if self._file is None or self._landing is None:
            return
        if self._size + len(data) > self._most:
            self._drop(StoreRefused(status.OUT_OF_RESOURCES, "instance too long"))
            return
        try:
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            self._fail(error)
            return
        self._size += len(data)
        self._landing.progress()

    def finish(self) -> StoreRefused | None:
        """The data set is whole: hand the file over. Gives the refusal, where there is one."""
        if self._landing is None or self._file is None:
            return self._refused
        landing, path = self._landing, self._landing.path
        try:
            os.close(self._file)
            self._file = None
            os.rename(_part(path), path)
        except OSError as error:
            self._fail(error)
            return self._refused
        self._landing = None
        offer = self._offer
        stored = StoredInstance(
            offer.sop_class_uid, offer.sop_instance_uid, offer.transfer_syntax_uid, path, self._size
        )
        try:
            landing.landed(stored)
        except StoreRefused as refused:
            path.unlink(missing_ok=True)
            return refused
        return None

    def give_up(self) -> None:
        """The association broke in the middle."""
        self._drop(StoreRefused(status.CANNOT_UNDERSTAND, "association broken"))

    def _fail(self, error: OSError) -> None:
        _log.error("DICOM instance cannot be written: %s", error.strerror)
        self._drop(StoreRefused(status.OUT_OF_RESOURCES, "instance cannot be written"))

    def _drop(self, refused: StoreRefused) -> None:
        self._refused = refused
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._landing is not None:
            landing, self._landing = self._landing, None
            _part(landing.path).unlink(missing_ok=True)
            landing.lost()


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _check(offer: StoreOffer, abstract_syntax: str) -> None:
    if offer.sop_class_uid != abstract_syntax:
        raise StoreRefused(status.SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the context")
    if not uids.is_plausible(offer.sop_instance_uid):
        raise StoreRefused(status.INVALID_INSTANCE, "SOP Instance UID is not a UID")
