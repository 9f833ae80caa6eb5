"""What a Storage SCP stores: one incoming instance, its file, and who decides about it (PS3.4 Annex B)."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard, cast

from drimbox.pacs.dimse import command, status, uids
from drimbox.pacs.dimse.part10 import file_head

_log = logging.getLogger(__name__)
# Buffers that one call takes are 1024 (IOV_MAX).
_MOST_PIECES = 512


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
        """The file to make, in a folder that nobody looks into before ``landed`` tells of the file."""

    def progress(self) -> None:
        """More bytes came."""

    def landed(self, stored: StoredInstance) -> None:
        """The file is whole. The response waits for this call. Raises ``StoreRefused``; the file is then removed."""

    def lost(self) -> None:
        """The instance will not land: cut, too long, or no room on the disk; the file is removed."""


@dataclass(frozen=True, slots=True, repr=False)
class HeldInstance:
    """One small instance that is whole, in memory only: ``dataset`` is what came, without any file around it."""

    offer: StoreOffer
    dataset: bytes


class Holding(Protocol):
    """The place of one admitted instance that must leave nothing on a disk. Called from the thread of its association.

    It is held in memory whole: its handler admits few, and the receiver's ``max_instance_bytes`` is small.
    """

    def held(self, instance: HeldInstance) -> None:
        """It is whole. The response waits for this call. Raises ``StoreRefused``."""

    def lost(self, refused: StoreRefused) -> None:
        """It will not be whole: cut, or too long."""


class StoreHandler(Protocol):
    """Decides what may land."""

    def admit(self, offer: StoreOffer) -> Landing | Holding:
        """Where this instance goes. Raises ``StoreRefused``."""


def store_response(request: command.StoreRequest, refused: StoreRefused | None) -> command.Response:
    """The answer to a C-STORE: success, or the refusal."""
    return command.Response(
        field=command.Field.C_STORE_RSP,
        message_id=request.message_id,
        status=status.SUCCESS if refused is None else refused.status,
        sop_class_uid=request.sop_class_uid,
        sop_instance_uid=request.sop_instance_uid,
        error_comment="" if refused is None else refused.comment,
    )


class Incoming:
    """One instance that comes in: taken to its place, or read to the end and dropped where it is refused."""

    def __init__(self, context_id: int, request: command.StoreRequest, offer: StoreOffer, most: int) -> None:
        self.context_id = context_id
        self.request = request
        self.since = time.monotonic()
        self._offer = offer
        self._most = most
        self._refused: StoreRefused | None = None
        self._place: _InFile | _InMemory | None = None
        self._size = 0

    def begin(self, abstract_syntax: str, handler: StoreHandler) -> None:
        """Ask the handler for a place."""
        offer = self._offer
        try:
            _check(offer, abstract_syntax)
            admitted = handler.admit(offer)
        except StoreRefused as refused:
            self._refused = refused
            return
        if _is_holding(admitted):
            self._place = _InMemory(admitted, offer)
            return
        self._place = in_file = _InFile(cast(Landing, admitted), offer)
        self._size = len(in_file.head)
        try:
            in_file.open()
        except OSError as error:
            self._fail(error)

    def write(self, data: bytes | memoryview) -> None:
        if self._place is None:
            return
        if self._size + len(data) > self._most:
            self._drop(StoreRefused(status.OUT_OF_RESOURCES, "instance too long"))
            return
        try:
            self._place.write(data)
        except OSError as error:
            self._fail(error)
            return
        self._size += len(data)

    def flush(self) -> None:
        """What was given to ``write`` must be copied now: its buffer is about to be used again."""
        if self._place is None:
            return
        try:
            self._place.flush()
        except OSError as error:
            self._fail(error)

    def finish(self) -> StoreRefused | None:
        """The data set is whole: hand it over. Gives the refusal, where there is one."""
        if self._place is None:
            return self._refused
        try:
            self._place.close()
        except OSError as error:
            self._fail(error)
            return self._refused
        place, self._place = self._place, None
        try:
            place.hand_over(self._size)
        except StoreRefused as refused:
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
        if self._place is not None:
            place, self._place = self._place, None
            place.drop(refused)


class _InFile:
    """A Part 10 file; what came with one receive is written with one call."""

    def __init__(self, landing: Landing, offer: StoreOffer) -> None:
        self._landing = landing
        self._offer = offer
        self._path = landing.path
        self._file: int | None = None
        self.head = file_head(offer.sop_class_uid, offer.sop_instance_uid, offer.transfer_syntax_uid, offer.calling_ae)
        self._pending: list[bytes | memoryview] = [self.head]

    def open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        self._pending.append(data)
        if len(self._pending) >= _MOST_PIECES:
            self.flush()

    def flush(self) -> None:
        if not self._pending:
            return
        assert self._file is not None
        pending, self._pending = self._pending, []
        left = sum(map(len, pending)) - os.writev(self._file, pending)
        if left:
            self._write_rest(b"".join(pending)[-left:])
        self._landing.progress()

    def _write_rest(self, data: bytes) -> None:
        assert self._file is not None
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        self.flush()
        assert self._file is not None
        file, self._file = self._file, None
        os.close(file)

    def hand_over(self, size: int) -> None:
        offer = self._offer
        stored = StoredInstance(
            offer.sop_class_uid, offer.sop_instance_uid, offer.transfer_syntax_uid, self._path, size
        )
        try:
            self._landing.landed(stored)
        except StoreRefused:
            self._path.unlink(missing_ok=True)
            raise

    def drop(self, refused: StoreRefused) -> None:
        self._pending.clear()
        if self._file is not None:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
        self._landing.lost()


class _InMemory:
    """The data set alone, never on a disk."""

    def __init__(self, holding: Holding, offer: StoreOffer) -> None:
        self._holding = holding
        self._offer = offer
        self._data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._data += data

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def hand_over(self, size: int) -> None:
        self._holding.held(HeldInstance(self._offer, bytes(self._data)))

    def drop(self, refused: StoreRefused) -> None:
        self._data.clear()
        self._holding.lost(refused)


def _is_holding(place: Landing | Holding) -> TypeGuard[Holding]:
    # By one attribute: looking through a whole protocol takes as long as writing a small image.
    return hasattr(place, "held")


def _check(offer: StoreOffer, abstract_syntax: str) -> None:
    if offer.sop_class_uid != abstract_syntax:
        raise StoreRefused(status.SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the context")
    if not uids.is_plausible(offer.sop_instance_uid):
        raise StoreRefused(status.INVALID_INSTANCE, "SOP Instance UID is not a UID")
