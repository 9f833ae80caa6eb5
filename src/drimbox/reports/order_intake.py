"""What happens to an order message (OMI^O23): stored with its effects in one transaction, then answered; or refused.

As for a report, the answer follows the commit, and the same message sent again gets the same answer and has one effect.
Unlike a report, another content under a used MSH-10 is another message: official senders write the same MSH-10 in all
of theirs (official-data.md 4.4), and looking at a study once more does no harm.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from typing import Protocol

import psycopg

from drimbox.foundation.clock import Clock
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed
from drimbox.reports import ack
from drimbox.reports.hl7 import Message, MessageError
from drimbox.reports.mllp import Frame
from drimbox.reports.orders import CANCELLED, ImagingOrder, read_order
from drimbox.store.database import Connection, Pool

_log = logging.getLogger(__name__)
_KEPT_REFUSED = 2**20
_TRY_AGAIN = MessageError("Service momentanément indisponible, renvoyer le message", code="store", condition="207")


class OrderTaker(Protocol):
    """Has the studies of an order looked at, within the caller's transaction (``changes.orders``)."""

    async def __call__(self, connection: Connection, message_id: int, order: ImagingOrder) -> None: ...


class IncidentOpener(Protocol):
    """Puts a line in the operator's queue, within the caller's transaction."""

    async def __call__(
        self, connection: Connection, *, code: str, reason: str, message_id: int, structure: str = ""
    ) -> None: ...


class AuditJournal(Protocol):
    """Where each reception is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


class OrderIntake:
    """Receives order messages. ``cancelled`` are the ORC-1 that declare a study deleted."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        *,
        take: OrderTaker,
        open_incident: IncidentOpener,
        journal: AuditJournal,
        answer: ack.OrderAnswer = ack.OrderAnswer.ORI,
        cancelled: Collection[str] = CANCELLED,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._take = take
        self._open_incident = open_incident
        self._journal = journal
        self._answer = answer
        self._cancelled = cancelled

    async def receive(self, message: Message, frame: Frame, peer: str) -> bytes:
        """The answer to one message; never raises for what it holds."""
        try:
            if not frame.whole:
                raise MessageError("Message trop long", code="hl7-size", condition="207", location="MSH^1")
            order = read_order(message, self._cancelled)
            return await self._store(message, frame.content, order, peer)
        except MessageError as error:
            return await self._refuse(message, frame.content, peer, error)
        except (psycopg.Error, TimeoutError) as error:
            _log.error("order message not stored: %s", type(error).__name__)
            return self._reply(message, ack.Code.REJECTED, _TRY_AGAIN)

    def _reply(self, message: Message, code: ack.Code, error: MessageError | None = None) -> bytes:
        return ack.answer(message, code, self._clock.now(), error, orders=self._answer)

    async def _store(self, message: Message, raw: bytes, order: ImagingOrder, peer: str) -> bytes:
        digest = hashlib.sha256(raw).digest()
        reply = self._reply(message, ack.Code.ACCEPTED)
        async with self._pool.connection() as connection, connection.transaction():
            message_id = await _insert(connection, message, raw, digest, reply, peer)
            if message_id is None:
                return await _earlier(connection, message, digest)
            await self._take(connection, message_id, order)
            await self._journal.write(connection, _received(message, order, peer))
        return reply

    async def _refuse(self, message: Message, raw: bytes, peer: str, error: MessageError) -> bytes:
        reply = self._reply(message, ack.Code.ERROR, error)
        try:
            async with self._pool.connection() as connection, connection.transaction():
                row = await (
                    await connection.execute(
                        "INSERT INTO message (sender, control_id, digest, raw, answer, accepted, peer) "
                        "VALUES (%s, %s, %s, %s, %s, false, %s) RETURNING id",
                        (
                            message.sender,
                            message.control_id,
                            hashlib.sha256(raw).digest(),
                            raw[:_KEPT_REFUSED],
                            reply,
                            peer,
                        ),
                    )
                ).fetchone()
                assert row is not None
                await self._open_incident(connection, code=error.code, reason=error.reason, message_id=row["id"])
                await self._journal.write(connection, failed(_event(message, peer), error))
        except (psycopg.Error, TimeoutError) as failure:
            # Nothing could be noted: the sender must not believe that the matter is closed.
            _log.error("refusal not stored: %s", type(failure).__name__)
            return self._reply(message, ack.Code.REJECTED, _TRY_AGAIN)
        _log.warning("order message refused: %s", error.code, extra={"peer": peer})
        return reply


def _name(message: Message, digest: bytes) -> str:
    """What names an order message in the store: its MSH-10 and its content."""
    return f"{message.control_id}#{digest.hex()[:16]}"


async def _insert(
    connection: Connection, message: Message, raw: bytes, digest: bytes, reply: bytes, peer: str
) -> int | None:
    """The id of the stored message; None when it is there already (waits for another that is just being stored)."""
    row = await (
        await connection.execute(
            "INSERT INTO message (sender, control_id, digest, raw, answer, accepted, peer) "
            "VALUES (%s, %s, %s, %s, %s, true, %s) "
            "ON CONFLICT (sender, control_id) WHERE accepted DO NOTHING RETURNING id",
            (message.sender, _name(message, digest), digest, raw, reply, peer),
        )
    ).fetchone()
    return int(row["id"]) if row else None


async def _earlier(connection: Connection, message: Message, digest: bytes) -> bytes:
    row = await (
        await connection.execute(
            "SELECT answer FROM message WHERE sender = %s AND control_id = %s AND accepted",
            (message.sender, _name(message, digest)),
        )
    ).fetchone()
    assert row is not None
    return bytes(row["answer"])


def _event(message: Message, peer: str) -> Event:
    """The reception of an order message, as the journal tells it (RAD-13, Procedure Update)."""
    actor = Actor(system=message.sender, address=peer)
    return Event(Kind.ORDER_RECEIVED, actor, (Object(Thing.MESSAGE, message.control_id),))


def _received(message: Message, order: ImagingOrder, peer: str) -> Event:
    event = _event(message, peer)
    studies = tuple(
        Object(Thing.STUDY, study.study_uid, "deleted" if study.deleted else "changed") for study in order.studies
    )
    return Event(event.kind, event.actor, event.objects + studies, patient=order.ins)
