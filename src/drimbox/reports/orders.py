"""OMI^O23: what an information system says of studies that exist already (standards.md B.3, official-data.md 4.4).

An order changed, or was cancelled; the studies are those of its IPC segments. Nothing is published from such a message:
it makes the box look at the study again, or take it out of the DMP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Authority, Ins
from drimbox.reports import hl7
from drimbox.reports.hl7 import Message, MessageError, Segment
from drimbox.reports.reading import VERSIONS
from drimbox.store.database import Pool

ORDER = "OMI"
CANCELLED = frozenset({"CA"})
"""ORC-1 (HL7 table 0119) that says: the study is deleted."""
MAX_STUDIES = 1000


@dataclass(frozen=True, slots=True)
class OrderedStudy:
    """One study of an order message. ``deleted``: every order of the message that names it is cancelled."""

    study_uid: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class ImagingOrder:
    """What one message says. ``application`` is MSH-3; ``ins`` is the PID's national identity, None when not given."""

    application: str
    ins: Ins | None
    studies: tuple[OrderedStudy, ...]


def read_order(message: Message, cancelled: Collection[str] = CANCELLED) -> ImagingOrder:
    """The studies that an OMI^O23 speaks of; ``cancelled`` are the ORC-1 that declare them deleted.

    Raises ``MessageError`` with the place and the condition for ERR; nothing in it repeats a value of the message.
    """
    kind, event = message.type
    if (kind, event) != (ORDER, "O23"):
        condition = "201" if kind == ORDER else "200"
        raise MessageError(
            "Type de message non pris en charge", code="hl7-type", condition=condition, location="MSH^1^9"
        )
    if message.header.value(12) not in VERSIONS:
        raise MessageError("Version HL7 non prise en charge", code="hl7-version", condition="203", location="MSH^1^12")
    if not message.control_id:
        raise _missing("Identifiant du message absent", "MSH^1^10")
    pid = message.first("PID")
    fates: dict[str, bool] = {}
    for study_uid, control in _studies(message):
        # A study of two orders, one of them cancelled, goes on for the other.
        fates[study_uid] = fates.get(study_uid, True) and control in cancelled
    if len(fates) > MAX_STUDIES:
        raise MessageError("Trop d'examens dans le message", code="hl7-size", condition="207", location="IPC")
    return ImagingOrder(
        application=message.header.value(3),
        ins=_ins(pid) if pid is not None else None,
        studies=tuple(OrderedStudy(uid, deleted) for uid, deleted in fates.items()),
    )


def _missing(reason: str, location: str) -> MessageError:
    return MessageError(reason, code="hl7-required", condition="101", location=location)


def _studies(message: Message) -> Iterator[tuple[str, str]]:
    """Study Instance UID (IPC-3.1) and ORC-1 for each IPC of each group ``ORC … {IPC}``."""
    orders = procedures = 0
    control, named = "", True
    for segment in message.segments:
        if segment.name == "ORC":
            if not named:
                raise _sequence("Ordre sans segment IPC", f"ORC^{orders}")
            orders, named = orders + 1, False
            control = segment.value(1).strip().upper()
            if not control:
                raise _missing("ORC-1 absent", f"ORC^{orders}^1")
        elif segment.name == "IPC":
            procedures += 1
            if not orders:
                raise _sequence("Segment IPC sans ordre", f"IPC^{procedures}")
            named = True
            yield _study(segment, f"IPC^{procedures}^3"), control
    if not orders:
        raise _sequence("Segment ORC absent", "ORC^1")
    if not named:
        raise _sequence("Ordre sans segment IPC", f"ORC^{orders}")


def _sequence(reason: str, location: str) -> MessageError:
    return MessageError(reason, code="hl7-order", condition="100", location=location)


def _study(segment: Segment, location: str) -> str:
    """IPC-3 is an EI: the UID is its first component, whatever names the issuer behind it."""
    uid = segment.value(3).strip()
    if not uid:
        raise _missing("Study Instance UID absent d'IPC-3", location)
    if not is_uid(uid):
        raise MessageError(
            "IPC-3 n'est pas un Study Instance UID", code="hl7-study", condition="102", location=location
        )
    return uid


def _ins(pid: Segment) -> Ins | None:
    """The national identity of PID-3; None when it gives local numbers only."""
    national = [r for r in pid.repetitions(3) if Authority.of(r.value(4, 2)) is not None or r.value(5) == "INS"]
    if len({(r.value(), r.value(4, 2)) for r in national}) > 1:
        raise MessageError("Plusieurs INS en PID-3", code="ins-several", condition="102", location="PID^1^3")
    try:
        return Ins.of(national[0].value(), national[0].value(4, 2)) if national else None
    except Refused as error:
        raise MessageError(error.reason, code=error.code, condition="102", location="PID^1^3") from error


class StoredOrders:
    """The order messages that were accepted, read again from the messages themselves."""

    def __init__(self, pool: Pool, cancelled: Collection[str] = CANCELLED) -> None:
        self._pool = pool
        self._cancelled = cancelled

    async def load(self, message_id: int) -> ImagingOrder:
        """Raises ``Refused`` (``order-unknown``) when there is no such message."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute("SELECT raw FROM message WHERE id = %s AND accepted", (message_id,))
            ).fetchone()
        if row is None:
            raise Refused("Message de changement d'examen inconnu", code="order-unknown")
        return read_order(hl7.parse(bytes(row["raw"])), self._cancelled)
