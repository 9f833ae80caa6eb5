"""DIMSE command sets (PS3.7 6.3, 9.3, Annex E): the messages that this room speaks, and their bytes. No I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

NO_DATASET = 0x0101
_ELEMENT = struct.Struct("<HHI")


class Field(IntEnum):
    """Command Field (0000,0100)."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    C_CANCEL_RQ = 0x0FFF


RESPONSE = 0x8000


class Element(IntEnum):
    """Elements of group 0000."""

    GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS = 0x0002
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    RESPONDED_MESSAGE_ID = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    DATASET_TYPE = 0x0800
    STATUS = 0x0900
    OFFENDING_ELEMENT = 0x0901
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE = 0x1000
    REMAINING = 0x1020
    COMPLETED = 0x1021
    FAILED = 0x1022
    WARNING = 0x1023
    MOVE_ORIGINATOR_AE = 0x1030
    MOVE_ORIGINATOR_ID = 0x1031


class InvalidCommand(Exception):
    """What came is not a command set."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """C-STORE-RQ. The move originator is there when the peer stores on behalf of a C-MOVE (PS3.7 9.1.1.1)."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    priority: int = 0
    move_originator_ae: str | None = None
    move_originator_id: int | None = None
    has_dataset: bool = True


@dataclass(frozen=True, slots=True)
class EchoRequest:
    """C-ECHO-RQ."""

    message_id: int
    has_dataset: bool = False


@dataclass(frozen=True, slots=True)
class FindRequest:
    """C-FIND-RQ; the identifier follows as data set."""

    message_id: int
    sop_class_uid: str
    priority: int = 0
    has_dataset: bool = True


@dataclass(frozen=True, slots=True)
class GetRequest:
    """C-GET-RQ; the identifier follows as data set."""

    message_id: int
    sop_class_uid: str
    priority: int = 0
    has_dataset: bool = True


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """C-MOVE-RQ; the identifier follows as data set."""

    message_id: int
    sop_class_uid: str
    destination: str
    priority: int = 0
    has_dataset: bool = True


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """C-CANCEL-RQ for the operation ``message_id``."""

    message_id: int
    has_dataset: bool = False


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """A request that this room does not serve: it gets status 0211H (PS3.7 Annex C.5.25)."""

    field: int
    message_id: int
    has_dataset: bool


@dataclass(frozen=True, slots=True)
class Response:
    """Any response. The four counts are those of C-MOVE and C-GET sub-operations, where the peer gives them."""

    field: int
    message_id: int
    status: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    error_comment: str = ""
    has_dataset: bool = False
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None


Query = FindRequest | GetRequest | MoveRequest
Command = StoreRequest | EchoRequest | Query | CancelRequest | OtherRequest | Response


# ----------------------------------------------------------------------------------------------------------- encoding


def encode(command: Command) -> bytes:
    """The command set in Implicit VR Little Endian, elements in order, group length first."""
    elements = sorted(_elements(command))
    body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in elements)
    return _ELEMENT.pack(0, Element.GROUP_LENGTH, 4) + struct.pack("<I", len(body)) + body


def _elements(command: Command) -> list[tuple[int, bytes]]:
    found = [(int(Element.DATASET_TYPE), _us(0x0001 if command.has_dataset else NO_DATASET))]
    match command:
        case StoreRequest():
            found += _request(Field.C_STORE_RQ, command.message_id, command.sop_class_uid, command.priority)
            found.append((Element.AFFECTED_SOP_INSTANCE, _ui(command.sop_instance_uid)))
            if command.move_originator_ae is not None:
                found.append((Element.MOVE_ORIGINATOR_AE, _text(command.move_originator_ae)))
            if command.move_originator_id is not None:
                found.append((Element.MOVE_ORIGINATOR_ID, _us(command.move_originator_id)))
        case FindRequest():
            found += _request(Field.C_FIND_RQ, command.message_id, command.sop_class_uid, command.priority)
        case GetRequest():
            found += _request(Field.C_GET_RQ, command.message_id, command.sop_class_uid, command.priority)
        case MoveRequest():
            found += _request(Field.C_MOVE_RQ, command.message_id, command.sop_class_uid, command.priority)
            found.append((Element.MOVE_DESTINATION, _text(command.destination)))
        case EchoRequest():
            found += _request(Field.C_ECHO_RQ, command.message_id, "1.2.840.10008.1.1", None)
        case CancelRequest():
            found.append((Element.COMMAND_FIELD, _us(Field.C_CANCEL_RQ)))
            found.append((Element.RESPONDED_MESSAGE_ID, _us(command.message_id)))
        case OtherRequest():
            found += _request(command.field, command.message_id, "", None)
        case Response():
            found += _response(command)
    return found


def _request(field: int, message_id: int, sop_class_uid: str, priority: int | None) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = [(Element.COMMAND_FIELD, _us(field)), (Element.MESSAGE_ID, _us(message_id))]
    if sop_class_uid:
        found.append((Element.AFFECTED_SOP_CLASS, _ui(sop_class_uid)))
    if priority is not None:
        found.append((Element.PRIORITY, _us(priority)))
    return found


def _response(response: Response) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = [
        (Element.COMMAND_FIELD, _us(response.field)),
        (Element.RESPONDED_MESSAGE_ID, _us(response.message_id)),
        (Element.STATUS, _us(response.status)),
    ]
    if response.sop_class_uid:
        found.append((Element.AFFECTED_SOP_CLASS, _ui(response.sop_class_uid)))
    if response.sop_instance_uid:
        found.append((Element.AFFECTED_SOP_INSTANCE, _ui(response.sop_instance_uid)))
    if response.error_comment:
        found.append((Element.ERROR_COMMENT, _text(response.error_comment[:64])))
    counts = (
        (Element.REMAINING, response.remaining),
        (Element.COMPLETED, response.completed),
        (Element.FAILED, response.failed),
        (Element.WARNING, response.warning),
    )
    return found + [(element, _us(count)) for element, count in counts if count is not None]


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _ui(uid: str) -> bytes:
    # A response repeats what the request said, even if that was no UID.
    data = uid.encode("ascii", "replace")
    return data + b"\0" if len(data) % 2 else data


def _text(text: str) -> bytes:
    data = text.encode("ascii", "replace")
    return data + b" " if len(data) % 2 else data


# ----------------------------------------------------------------------------------------------------------- decoding


def decode(data: bytes) -> Command:
    """A command set from its bytes. Raises ``InvalidCommand``.

    Elements that we do not know are passed over; their lengths are checked all the same. Orthanc puts the list of the
    instances that failed (0008,0058) into its last C-GET response itself: a response may hold other groups.
    """
    values, foreign = _read(data)
    field = _number(values, Element.COMMAND_FIELD)
    has_dataset = _number(values, Element.DATASET_TYPE) != NO_DATASET
    if field == Field.C_CANCEL_RQ:
        return CancelRequest(_number(values, Element.RESPONDED_MESSAGE_ID))
    if field & RESPONSE:
        return _decode_response(values, field, has_dataset)
    if foreign is not None:
        raise InvalidCommand(f"element of group {foreign:04X}")
    message_id = _number(values, Element.MESSAGE_ID)
    match field:
        case Field.C_STORE_RQ:
            return _decode_store(values, message_id, has_dataset)
        case Field.C_ECHO_RQ:
            return EchoRequest(message_id, has_dataset)
        case Field.C_FIND_RQ:
            sop_class = _string(values, Element.AFFECTED_SOP_CLASS)
            return FindRequest(message_id, sop_class, _optional(values, Element.PRIORITY) or 0, has_dataset)
        case Field.C_GET_RQ:
            sop_class = _string(values, Element.AFFECTED_SOP_CLASS)
            return GetRequest(message_id, sop_class, _optional(values, Element.PRIORITY) or 0, has_dataset)
        case Field.C_MOVE_RQ:
            sop_class = _string(values, Element.AFFECTED_SOP_CLASS)
            destination = _string(values, Element.MOVE_DESTINATION)
            return MoveRequest(
                message_id, sop_class, destination, _optional(values, Element.PRIORITY) or 0, has_dataset
            )
        case _:
            return OtherRequest(field, message_id, has_dataset)


def _decode_store(values: dict[int, bytes], message_id: int, has_dataset: bool) -> StoreRequest:
    originator = _string(values, Element.MOVE_ORIGINATOR_AE)
    return StoreRequest(
        message_id=message_id,
        sop_class_uid=_string(values, Element.AFFECTED_SOP_CLASS),
        sop_instance_uid=_string(values, Element.AFFECTED_SOP_INSTANCE),
        priority=_optional(values, Element.PRIORITY) or 0,
        move_originator_ae=originator or None,
        move_originator_id=_optional(values, Element.MOVE_ORIGINATOR_ID),
        has_dataset=has_dataset,
    )


def _decode_response(values: dict[int, bytes], field: int, has_dataset: bool) -> Response:
    return Response(
        field=field,
        message_id=_number(values, Element.RESPONDED_MESSAGE_ID),
        status=_number(values, Element.STATUS),
        sop_class_uid=_string(values, Element.AFFECTED_SOP_CLASS),
        sop_instance_uid=_string(values, Element.AFFECTED_SOP_INSTANCE),
        error_comment=_string(values, Element.ERROR_COMMENT),
        has_dataset=has_dataset,
        remaining=_optional(values, Element.REMAINING),
        completed=_optional(values, Element.COMPLETED),
        failed=_optional(values, Element.FAILED),
        warning=_optional(values, Element.WARNING),
    )


def _read(data: bytes) -> tuple[dict[int, bytes], int | None]:
    """The values of group 0000 by element, and the first other group that there is."""
    values: dict[int, bytes] = {}
    foreign: int | None = None
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _ELEMENT.size:
            raise InvalidCommand("element cut short")
        group, element, length = _ELEMENT.unpack_from(data, offset)
        offset += _ELEMENT.size
        if length > end - offset:
            raise InvalidCommand("element longer than the command set")
        offset += length
        if group != 0:
            foreign = foreign or group
            continue
        if element in values:
            raise InvalidCommand("element given twice")
        values[element] = data[offset - length : offset]
    return values, foreign


def _number(values: dict[int, bytes], element: Element) -> int:
    value = _optional(values, element)
    if value is None:
        raise InvalidCommand(f"no {element.name}")
    return value


def _optional(values: dict[int, bytes], element: Element) -> int | None:
    data = values.get(element, b"")
    if not data:
        return None
    if len(data) != 2:
        raise InvalidCommand(f"{element.name} of {len(data)} bytes")
    return int.from_bytes(data, "little")


def _string(values: dict[int, bytes], element: Element) -> str:
    return values.get(element, b"").decode("ascii", "replace").strip("\0 ")
