"""The DICOM listener for rejection notes and other Key Object Selections (IHE RAD-66; DB.SO.25, DB.SO.26).

It takes Key Object Selection documents and Verification, nothing else. "Success" goes out only once the note and the
work that follows from it are committed; where they cannot be, the PACS is told to send again. A note never touches a
disk before the database.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import psycopg

from drimbox.changes.decide import Change, read_change
from drimbox.changes.store import Kept, keep
from drimbox.foundation.errors import Refused
from drimbox.pacs.dimse import status, uids
from drimbox.pacs.dimse.part10 import file_head
from drimbox.pacs.dimse.receiver import ReceiverSettings, StorageReceiver
from drimbox.pacs.dimse.storage import HeldInstance, StoreOffer, StoreRefused
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION, MAX_BYTES
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed
from drimbox.store.database import Connection, Pool

_log = logging.getLogger(__name__)
# What the readers of this box know; whoever sends a note proposes implicit VR among them (PS3.5 10.1).
_SYNTAXES = (uids.EXPLICIT_LE, uids.IMPLICIT_LE, uids.EXPLICIT_BE)
_CONFLICT = Refused(
    "Une note d'objets clés est arrivée deux fois avec des contenus différents : la première reste seule prise en "
    "compte",
    code="iocm-conflict",
)


class IncidentOpener(Protocol):
    """Puts a line in the operator's queue, within the caller's transaction (``publication.incidents``)."""

    async def __call__(self, connection: Connection, *, code: str, reason: str, study_uid: str = "") -> None: ...


class AuditJournal(Protocol):
    """Where each reception is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """How the listener is reached; times are in seconds, sizes in bytes."""

    ae_title: str
    allowed_callers: frozenset[str]
    certificate_names: Mapping[str, frozenset[str]] | None = None
    """As ``pacs.dimse.receiver.ReceiverSettings`` has it."""
    host: str = "127.0.0.1"
    port: int = 0
    max_note_bytes: int = MAX_BYTES
    max_associations: int = 8
    idle_timeout: float = 60.0
    message_timeout: float = 60.0
    commit_within: float = 8.0
    """The PACS waits for its answer meanwhile; a default Orthanc gives up after 10 s."""


@asynccontextmanager
async def listening(
    settings: ListenerSettings,
    pool: Pool,
    *,
    open_incident: IncidentOpener,
    journal: AuditJournal,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Take notes until the block ends; yields the port. Raises ``Misconfigured`` where it cannot be had."""
    receiving = ReceiverSettings(
        destinations={settings.ae_title: _SYNTAXES},
        allowed_callers=settings.allowed_callers,
        certificate_names=settings.certificate_names,
        sop_classes=frozenset({KEY_OBJECT_SELECTION}),
        host=settings.host,
        port=settings.port,
        max_associations=settings.max_associations,
        idle_timeout=settings.idle_timeout,
        message_timeout=settings.message_timeout,
        max_instance_bytes=settings.max_note_bytes,
    )
    desk = NoteDesk(
        pool,
        asyncio.get_running_loop(),
        open_incident=open_incident,
        journal=journal,
        commit_within=settings.commit_within,
    )
    receiver = StorageReceiver(receiving, desk, tls=tls)
    receiver.start()
    try:
        yield receiver.port
    finally:
        # Not on the event loop: a note that is just being committed needs it.
        await asyncio.to_thread(receiver.stop)


class NoteDesk:
    """The ``StoreHandler``: reads each note in the thread of its association, commits it on the event loop.

    It holds no state of any association: what one sends is never seen by another.
    """

    def __init__(
        self,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        *,
        open_incident: IncidentOpener,
        journal: AuditJournal,
        commit_within: float,
    ) -> None:
        self._pool = pool
        self._loop = loop
        self._commit_within = commit_within
        self._open_incident = open_incident
        self._journal = journal

    def admit(self, offer: StoreOffer) -> _Note:
        return _Note(self, offer)

    # ---------------------------------------------------------------------------- called by the threads of associations

    def take(self, instance: HeldInstance) -> None:
        """Commit one note with what follows from it. Raises ``StoreRefused``."""
        offer = instance.offer
        head = file_head(offer.sop_class_uid, offer.sop_instance_uid, offer.transfer_syntax_uid, offer.calling_ae)
        file = head + instance.dataset
        try:
            change = read_change(file, offer.sop_instance_uid)
        except Refused as error:
            self.report(offer, error)
            raise StoreRefused(_STATUSES.get(error.code, status.CANNOT_UNDERSTAND), error.code) from error
        if self._run(self._keep(change, file, offer)) is Kept.CONFLICT:
            raise StoreRefused(status.DATASET_DOES_NOT_MATCH, "another note has this SOP Instance UID")

    def report(self, offer: StoreOffer, error: Refused) -> None:
        """Tell the operator of what could not be taken. Raises ``StoreRefused`` where even that cannot be kept."""
        self._run(self._note_failure(offer, error))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(self._commit_within)
        except (psycopg.Error, TimeoutError, concurrent.futures.CancelledError) as error:
            # It may still be committed: the PACS sends it again, and has the effect once.
            future.cancel()
            _log.error("note not stored: %s", type(error).__name__)
            raise StoreRefused(status.OUT_OF_RESOURCES, "not stored, send again") from error

    # ---------------------------------------------------------------------------------------------- on the event loop

    async def _keep(self, change: Change, file: bytes, offer: StoreOffer) -> Kept:
        event = _received(change, offer)
        async with self._pool.connection() as connection, connection.transaction():
            kept = await keep(connection, change, caller=offer.calling_ae, file=file)
            if kept is Kept.CONFLICT:
                event = failed(event, _CONFLICT)
                await self._open_incident(
                    connection, code=_CONFLICT.code, reason=_CONFLICT.reason, study_uid=change.study_uid
                )
            await self._journal.write(connection, event)
        return kept

    async def _note_failure(self, offer: StoreOffer, error: Refused) -> None:
        reason = f"{error.reason} (envoyée par {offer.calling_ae})"
        async with self._pool.connection() as connection, connection.transaction():
            await self._open_incident(connection, code=error.code, reason=reason)
            await self._journal.write(connection, failed(_event(offer), error))


class _Note:
    """The place of one note, in memory."""

    def __init__(self, desk: NoteDesk, offer: StoreOffer) -> None:
        self._desk = desk
        self._offer = offer

    def held(self, instance: HeldInstance) -> None:
        self._desk.take(instance)

    def lost(self, refused: StoreRefused) -> None:
        # A broken association is the PACS's to mend; what is too long will always be.
        if refused.status == status.OUT_OF_RESOURCES:
            try:
                self._desk.report(self._offer, Refused("Une note d'objets clés est trop longue", code="iocm-size"))
            except StoreRefused:
                _log.error("a note that is too long could not be told to the operator")


_STATUSES = {"iocm-class": status.DATASET_DOES_NOT_MATCH, "iocm-mismatch": status.DATASET_DOES_NOT_MATCH}


def _event(offer: StoreOffer) -> Event:
    note = Object(Thing.INSTANCE, offer.sop_instance_uid)
    return Event(Kind.NOTE_RECEIVED, Actor(system=offer.calling_ae), (note,))


def _received(change: Change, offer: StoreOffer) -> Event:
    event = _event(offer)
    note = Object(Thing.INSTANCE, change.note_uid, change.title)
    studies = tuple(
        Object(Thing.STUDY, uid, f"{len(change.rejected[uid])} images" if uid in change.rejected else "")
        for uid in change.studies
    )
    return replace(event, objects=(note, *studies))
