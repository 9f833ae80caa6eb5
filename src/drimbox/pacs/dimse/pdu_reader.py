"""Protocol data units from their bytes (PS3.8 9.3). No state, no I/O.

What is received is hostile until read: every length is checked against what is there, every count against ``Limits``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.pdu import (
    ASSOCIATE_HEAD,
    ITEM_HEAD,
    VALUE_HEAD,
    Abort,
    AbortReason,
    AnsweredContext,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextResult,
    Data,
    DataValue,
    InvalidPdu,
    Item,
    Pdu,
    PduType,
    ProposedContext,
    ReleaseRequest,
    ReleaseResponse,
    Role,
    UserInformation,
    Window,
)

# Some peers take the longest PDU for the longest value inside of it.
_VALUE_SLACK = 64


def length_limit(kind: int, limits: Limits) -> int:
    """The longest variable field that a PDU of this type may have. Raises ``InvalidPdu`` for an unknown type."""
    match kind:
        case PduType.DATA_TF:
            return limits.pdu_length + _VALUE_SLACK
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
        length, context_id, flags = VALUE_HEAD.unpack_from(body, offset)
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
    for kind, item in _items(body[ASSOCIATE_HEAD.size :]):
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
    for kind, item in _items(body[ASSOCIATE_HEAD.size :]):
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
    if len(body) < ASSOCIATE_HEAD.size:
        raise InvalidPdu("A-ASSOCIATE cut short")
    version, called, calling = ASSOCIATE_HEAD.unpack_from(body)
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
        kind, length = ITEM_HEAD.unpack_from(body, offset)
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
    window: Window | None = None
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
            case Item.OPERATIONS_WINDOW:
                if len(item) != 4:
                    raise InvalidPdu("operations window of a wrong size")
                window = Window(int.from_bytes(item[:2], "big"), int.from_bytes(item[2:], "big"))
            case Item.ROLE:
                roles.append(_decode_role(item))
            case _:
                others.append((kind, bytes(item)))
    return UserInformation(max_length, implementation, version, tuple(roles), window, tuple(others))


def _decode_role(item: memoryview) -> Role:
    if len(item) < 4:
        raise InvalidPdu("role selection cut short")
    length = int.from_bytes(item[:2], "big")
    if len(item) != length + 4:
        raise InvalidPdu("role selection of a wrong length")
    return Role(_uid(item[2 : 2 + length]), bool(item[-2]), bool(item[-1]))
