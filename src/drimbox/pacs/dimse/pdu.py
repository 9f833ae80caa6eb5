"""The protocol data units of the Upper Layer, and how they are written (PS3.8 9.3). No state, no I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 1
HEADER = struct.Struct(">BxI")
ASSOCIATE_HEAD = struct.Struct(">H2x16s16s32x")
ITEM_HEAD = struct.Struct(">BxH")
VALUE_HEAD = struct.Struct(">IBB")


class PduType(IntEnum):
    """First byte of a PDU."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class Item(IntEnum):
    """First byte of a variable item (PS3.8 9.3.2, Annex D; PS3.7 Annex D.3.3)."""

    APPLICATION_CONTEXT = 0x10
    CONTEXT_RQ = 0x20
    CONTEXT_AC = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50
    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS = 0x52
    OPERATIONS_WINDOW = 0x53
    ROLE = 0x54
    IMPLEMENTATION_VERSION = 0x55


class AbortReason(IntEnum):
    """Reason of a provider's A-ABORT (PS3.8 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER_VALUE = 6


class InvalidPdu(Exception):
    """What came is not a PDU; ``reason`` is what the A-ABORT says."""

    def __init__(self, text: str, reason: AbortReason = AbortReason.INVALID_PARAMETER_VALUE) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as the requestor proposes it."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class ContextResult(IntEnum):
    """What the acceptor says of one presentation context (PS3.8 9.3.3.2)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class AnsweredContext:
    """A presentation context as the acceptor answers it; the transfer syntax has a meaning only with acceptance."""

    id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Role:
    """SCP/SCU role selection of one SOP class (PS3.7 D.3.3.4)."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class Window:
    """Asynchronous operations of the requestor: how many it may have open, and bears; 0: any (PS3.7 D.3.3.3)."""

    invoked: int
    performed: int


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The user information item; ``others`` are the sub-items that we carry without reading them.

    Without a ``window``, each side may have one operation open (PS3.7 D.3.3.3).
    """

    max_length: int = 0
    implementation_class_uid: str = ""
    implementation_version: str = ""
    roles: tuple[Role, ...] = ()
    window: Window | None = None
    others: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ."""

    called_ae: str
    calling_ae: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC. The AE titles only repeat those of the request and are not to be tested (PS3.8 9.3.3)."""

    called_ae: str
    calling_ae: str
    contexts: tuple[AnsweredContext, ...]
    user: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AssociateReject:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4): result 1 permanent, 2 transient; source 1 user, 2 ACSE, 3 presentation."""

    result: int
    source: int
    reason: int


class DataValue(NamedTuple):
    """A presentation data value; ``data`` is a view into the receive buffer, good until the next receive."""

    context_id: int
    is_command: bool
    is_last: bool
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Data:
    """P-DATA-TF."""

    values: tuple[DataValue, ...]


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A-RELEASE-RQ."""


@dataclass(frozen=True, slots=True)
class ReleaseResponse:
    """A-RELEASE-RP."""


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT: source 0 the service user, 2 the service provider."""

    source: int
    reason: int


Pdu = AssociateRequest | AssociateAccept | AssociateReject | Data | ReleaseRequest | ReleaseResponse | Abort


# ----------------------------------------------------------------------------------------------------------- encoding


def encode(pdu: Pdu) -> bytes:
    """The bytes of a PDU, header included. Raises ``ValueError`` for what no peer could read (an AE title too long)."""
    match pdu:
        case AssociateRequest():
            return _pdu(PduType.ASSOCIATE_RQ, _encode_associate(pdu, [_proposed(c) for c in pdu.contexts]))
        case AssociateAccept():
            return _pdu(PduType.ASSOCIATE_AC, _encode_associate(pdu, [_answered(c) for c in pdu.contexts]))
        case AssociateReject():
            return _pdu(PduType.ASSOCIATE_RJ, bytes((0, pdu.result, pdu.source, pdu.reason)))
        case Data():
            return _pdu(PduType.DATA_TF, b"".join(_encode_value(value) for value in pdu.values))
        case ReleaseRequest():
            return _pdu(PduType.RELEASE_RQ, bytes(4))
        case ReleaseResponse():
            return _pdu(PduType.RELEASE_RP, bytes(4))
        case Abort():
            return _pdu(PduType.ABORT, bytes((0, 0, pdu.source, pdu.reason)))


def _pdu(kind: PduType, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body


def _encode_value(value: DataValue) -> bytes:
    flags = value.is_command | value.is_last << 1
    return VALUE_HEAD.pack(len(value.data) + 2, value.context_id, flags) + bytes(value.data)


def _encode_associate(pdu: AssociateRequest | AssociateAccept, contexts: list[bytes]) -> bytes:
    head = ASSOCIATE_HEAD.pack(pdu.protocol_version, _encode_ae(pdu.called_ae), _encode_ae(pdu.calling_ae))
    application = _item(Item.APPLICATION_CONTEXT, pdu.application_context.encode("ascii"))
    return b"".join((head, application, *contexts, _item(Item.USER_INFORMATION, _encode_user(pdu.user))))


def _encode_ae(title: str) -> bytes:
    data = title.encode("ascii")
    if not 0 < len(data) <= 16:
        raise ValueError(f"AE title of {len(data)} characters")
    return data.ljust(16)


def _item(kind: int, body: bytes) -> bytes:
    return ITEM_HEAD.pack(kind, len(body)) + body


def _proposed(context: ProposedContext) -> bytes:
    syntaxes = (_item(Item.TRANSFER_SYNTAX, uid.encode("ascii")) for uid in context.transfer_syntaxes)
    abstract = _item(Item.ABSTRACT_SYNTAX, context.abstract_syntax.encode("ascii"))
    return _item(Item.CONTEXT_RQ, b"".join((bytes((context.id, 0, 0, 0)), abstract, *syntaxes)))


def _answered(context: AnsweredContext) -> bytes:
    syntax = _item(Item.TRANSFER_SYNTAX, context.transfer_syntax.encode("ascii"))
    return _item(Item.CONTEXT_AC, bytes((context.id, 0, context.result, 0)) + syntax)


def _encode_user(user: UserInformation) -> bytes:
    items = [
        _item(Item.MAXIMUM_LENGTH, struct.pack(">I", user.max_length)),
        _item(Item.IMPLEMENTATION_CLASS, user.implementation_class_uid.encode("ascii")),
    ]
    if user.window is not None:
        items.append(_item(Item.OPERATIONS_WINDOW, struct.pack(">HH", user.window.invoked, user.window.performed)))
    for role in user.roles:
        uid = role.sop_class_uid.encode("ascii")
        items.append(_item(Item.ROLE, struct.pack(">H", len(uid)) + uid + bytes((role.scu, role.scp))))
    if user.implementation_version:
        items.append(_item(Item.IMPLEMENTATION_VERSION, user.implementation_version.encode("ascii")))
    items += [_item(kind, body) for kind, body in user.others]
    return b"".join(items)
