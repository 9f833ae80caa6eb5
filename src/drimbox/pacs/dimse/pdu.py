"""The protocol data units of the Upper Layer, and their bytes (PS3.8 9.3). Encoding and decoding only, no I/O.

What is received is hostile until read: every length is checked against what is there, every count against ``Limits``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.limits import Limits

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 1
HEADER = struct.Struct(">BxI")
_ASSOCIATE = struct.Struct(">H2x16s16s32x")
_ITEM = struct.Struct(">BxH")
_PDV = struct.Struct(">IBB")


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
class UserInformation:
    """The user information item; ``others`` are the sub-items that we carry without reading them."""

    max_length: int = 0
    implementation_class_uid: str = ""
    implementation_version: str = ""
    roles: tuple[Role, ...] = ()
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
    return _PDV.pack(len(value.data) + 2, value.context_id, flags) + bytes(value.data)


def _encode_associate(pdu: AssociateRequest | AssociateAccept, contexts: list[bytes]) -> bytes:
    head = _ASSOCIATE.pack(pdu.protocol_version, _encode_ae(pdu.called_ae), _encode_ae(pdu.calling_ae))
    application = _item(Item.APPLICATION_CONTEXT, pdu.application_context.encode("ascii"))
    return b"".join((head, application, *contexts, _item(Item.USER_INFORMATION, _encode_user(pdu.user))))


def _encode_ae(title: str) -> bytes:
    data = title.encode("ascii")
    if not 0 < len(data) <= 16:
        raise ValueError(f"AE title of {len(data)} characters")
    return data.ljust(16)


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


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
    for role in user.roles:
        uid = role.sop_class_uid.encode("ascii")
        items.append(_item(Item.ROLE, struct.pack(">H", len(uid)) + uid + bytes((role.scu, role.scp))))
    if user.implementation_version:
        items.append(_item(Item.IMPLEMENTATION_VERSION, user.implementation_version.encode("ascii")))
    items += [_item(kind, body) for kind, body in user.others]
    return b"".join(items)


# ----------------------------------------------------------------------------------------------------------- decoding


def length_limit(kind: int, limits: Limits) -> int:
    """The longest variable field that a PDU of this type may have. Raises ``InvalidPdu`` for an unknown type."""
    match kind:
        case PduType.DATA_TF:
            return limits.pdu_length
        case PduType.ASSOCIATE_RQ | PduType.ASSOCIATE_AC:
            return limits.associate_length
        case PduType.ASSOCIATE_RJ | PduType.RELEASE_RQ | PduType.RELEASE_RP | PduType.ABORT:
            return 4
        case _:
            raise InvalidPdu(f"PDU type {kind:#04x}", AbortReason.UNRECOGNIZED_PDU)


def decode(kind: int, body: memoryview, limits: Limits) -> Pdu:
    """A whole PDU from its type and its variable field. Raises ``InvalidPdu``."""
    length_limit(kind, limits)
    match kind:
        case PduType.DATA_TF:
            return Data(tuple(decode_values(body)))
        case PduType.ASSOCIATE_RQ:
            return _decode_request(body, limits)
        case PduType.ASSOCIATE_AC:
            return _decode_accept(body, limits)
    if len(body) != 4:
        raise InvalidPdu(f"PDU of type {kind} with {len(body)} bytes")
    match kind:
        case PduType.ASSOCIATE_RJ:
            return AssociateReject(body[1], body[2], body[3])
        case PduType.RELEASE_RQ:
            return ReleaseRequest()
        case PduType.RELEASE_RP:
            return ReleaseResponse()
        case _:
            return Abort(body[2], body[3])


def decode_values(body: memoryview) -> list[DataValue]:
    """The presentation data values of a P-DATA-TF (PS3.8 9.3.5.1): at least one."""
    values: list[DataValue] = []
    offset, end = 0, len(body)
    while offset < end:
        if end - offset < 6:
            raise InvalidPdu("presentation data value cut short")
        length, context_id, flags = _PDV.unpack_from(body, offset)
        if length < 2 or length > end - offset - 4:
            raise InvalidPdu("presentation data value of a wrong length")
        values.append(DataValue(context_id, bool(flags & 1), bool(flags & 2), body[offset + 6 : offset + 4 + length]))
        offset += 4 + length
    if not values:
        raise InvalidPdu("P-DATA-TF without a value")
    return values


def _decode_request(body: memoryview, limits: Limits) -> AssociateRequest:
    version, called, calling = _decode_head(body)
    application, contexts, user = "", [], UserInformation()
    for kind, item in _items(body[_ASSOCIATE.size :]):
        match kind:
            case Item.APPLICATION_CONTEXT:
                application = _uid(item)
            case Item.CONTEXT_RQ:
                contexts.append(_decode_proposed(item, limits))
                _check_count(contexts, limits.contexts, "presentation contexts")
            case Item.USER_INFORMATION:
                user = _decode_user(item, limits)
    if len({context.id for context in contexts}) != len(contexts):
        raise InvalidPdu("two presentation contexts share an id")
    return AssociateRequest(called, calling, tuple(contexts), user, application, version)


def _decode_accept(body: memoryview, limits: Limits) -> AssociateAccept:
    version, called, calling = _decode_head(body, strict=False)
    application, contexts, user = "", [], UserInformation()
    for kind, item in _items(body[_ASSOCIATE.size :]):
        match kind:
            case Item.APPLICATION_CONTEXT:
                application = _uid(item)
            case Item.CONTEXT_AC:
                contexts.append(_decode_answered(item))
                _check_count(contexts, limits.contexts, "presentation contexts")
            case Item.USER_INFORMATION:
                user = _decode_user(item, limits)
    return AssociateAccept(called, calling, tuple(contexts), user, application, version)


def _decode_head(body: memoryview, *, strict: bool = True) -> tuple[int, str, str]:
    if len(body) < _ASSOCIATE.size:
        raise InvalidPdu("A-ASSOCIATE cut short")
    version, called, calling = _ASSOCIATE.unpack_from(body)
    return version, _decode_ae(called, strict), _decode_ae(calling, strict)


def _decode_ae(data: bytes, strict: bool) -> str:
    title = data.rstrip(b"\0 ").lstrip(b" ")
    if strict and (not title or any(not 0x20 <= c < 0x7F or c == 0x5C for c in title)):
        raise InvalidPdu("AE title that is none")
    return title.decode("ascii", "replace")


def _items(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    offset, end = 0, len(body)
    while offset < end:
        if end - offset < 4:
            raise InvalidPdu("item cut short")
        kind, length = _ITEM.unpack_from(body, offset)
        offset += 4
        if length > end - offset:
            raise InvalidPdu("item longer than what holds it")
        yield kind, body[offset : offset + length]
        offset += length


def _check_count(items: Sequence[object], most: int, what: str) -> None:
    if len(items) > most:
        raise InvalidPdu(f"more than {most} {what}")


def _uid(data: memoryview) -> str:
    text = bytes(data).rstrip(b"\0 ").decode("ascii", "replace")
    if not uids.is_plausible(text):
        raise InvalidPdu("UID that is none")
    return text


def _decode_proposed(item: memoryview, limits: Limits) -> ProposedContext:
    if len(item) < 4 or not item[0] & 1:
        raise InvalidPdu("presentation context without an odd id")
    abstract, transfers = "", []
    for kind, sub in _items(item[4:]):
        if kind == Item.ABSTRACT_SYNTAX:
            abstract = _uid(sub)
        elif kind == Item.TRANSFER_SYNTAX:
            transfers.append(_uid(sub))
            _check_count(transfers, limits.transfer_syntaxes, "transfer syntaxes")
    if not abstract or not transfers:
        raise InvalidPdu("presentation context without its syntaxes")
    return ProposedContext(item[0], abstract, tuple(transfers))


def _decode_answered(item: memoryview) -> AnsweredContext:
    if len(item) < 4:
        raise InvalidPdu("presentation context cut short")
    transfer = ""
    for kind, sub in _items(item[4:]):
        # Where the context is refused the field may hold anything (PS3.8 9.3.3.2).
        if kind == Item.TRANSFER_SYNTAX and item[2] == ContextResult.ACCEPTANCE:
            transfer = _uid(sub)
    if item[2] == ContextResult.ACCEPTANCE and not transfer:
        raise InvalidPdu("presentation context accepted without a transfer syntax")
    return AnsweredContext(item[0], item[2], transfer)


def _decode_user(body: memoryview, limits: Limits) -> UserInformation:
    max_length, implementation, version = 0, "", ""
    roles: list[Role] = []
    others: list[tuple[int, bytes]] = []
    for count, (kind, item) in enumerate(_items(body), start=1):
        if count > limits.user_items:
            raise InvalidPdu(f"more than {limits.user_items} user items")
        match kind:
            case Item.MAXIMUM_LENGTH:
                if len(item) != 4:
                    raise InvalidPdu("maximum length item of a wrong size")
                max_length = int.from_bytes(item, "big")
            case Item.IMPLEMENTATION_CLASS:
                implementation = bytes(item).rstrip(b"\0 ").decode("ascii", "replace")
            case Item.IMPLEMENTATION_VERSION:
                version = bytes(item).rstrip(b"\0 ").decode("ascii", "replace")
            case Item.ROLE:
                roles.append(_decode_role(item))
            case _:
                others.append((kind, bytes(item)))
    return UserInformation(max_length, implementation, version, tuple(roles), tuple(others))


def _decode_role(item: memoryview) -> Role:
    if len(item) < 4:
        raise InvalidPdu("role selection cut short")
    length = int.from_bytes(item[:2], "big")
    if len(item) != length + 4:
        raise InvalidPdu("role selection of a wrong length")
    return Role(_uid(item[2 : 2 + length]), bool(item[-2]), bool(item[-1]))
