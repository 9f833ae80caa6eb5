"""DIMSE commands and messages: real bytes, round trips, hostile bytes."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import dimse_messages, dimse_primitives
from pynetdicom.dsutils import decode as oracle_decode

from drimbox.pacs.dimse import command, pdu, pdu_reader, status
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.message import Fragment, MessageReader, ProtocolViolation, Received, cut
from pacs import captures

us = st.integers(0, 0xFFFF)
uids = st.text("0123456789", min_size=1, max_size=10).map(lambda text: f"1.2.{text}")
ae = st.text("ABCDEF", min_size=1, max_size=16)
optional = st.none() | us
commands = st.one_of(
    st.builds(command.StoreRequest, us, uids, uids, us, st.none() | ae, optional, st.booleans()),
    st.builds(command.EchoRequest, us),
    st.builds(command.FindRequest, us, uids, us),
    st.builds(command.MoveRequest, us, uids, ae, us),
    st.builds(command.CancelRequest, us),
    st.builds(
        command.Response,
        field=st.sampled_from([0x8001, 0x8020, 0x8021, 0x8030]),
        message_id=us,
        status=us,
        sop_class_uid=uids,
        sop_instance_uid=uids,
        error_comment=st.text("abc def", max_size=64).map(str.strip),
        has_dataset=st.booleans(),
        remaining=optional,
        completed=optional,
        failed=optional,
        warning=optional,
    ),
)


def only_value(capture: bytes) -> pdu.DataValue:
    (value,) = pdu_reader.decode_values(memoryview(capture)[6:])
    return value


def test_a_store_request_of_dcmtk() -> None:
    value = only_value(captures.STORESCU_STORE_REQUEST)
    assert value.context_id == 0x29
    assert command.decode(bytes(value.data)) == command.StoreRequest(1, "1.2.840.10008.5.1.4.1.1.2", "1.2.9.0.1")


def test_an_echo_response_of_dcmtk() -> None:
    response = command.decode(bytes(only_value(captures.STORESCP_ECHO_RESPONSE).data))
    assert response == command.Response(command.Field.C_ECHO_RSP, 1, status.SUCCESS, "1.2.840.10008.1.1")
    assert command.encode(response) == bytes(only_value(captures.STORESCP_ECHO_RESPONSE).data)


@given(commands)
def test_round_trip(message: command.Command) -> None:
    assert command.decode(command.encode(message)) == message


def test_pynetdicom_reads_our_store_request() -> None:
    ours = command.StoreRequest(7, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", 0, "DRIMBOX", 777)
    dataset = oracle_decode(BytesIO(command.encode(ours)), True, True)
    assert (dataset.CommandField, dataset.MessageID, dataset.AffectedSOPInstanceUID) == (1, 7, "1.2.3")
    assert (dataset.MoveOriginatorApplicationEntityTitle, dataset.MoveOriginatorMessageID) == ("DRIMBOX", 777)


def test_we_read_pynetdicoms_store_request() -> None:
    primitive = dimse_primitives.C_STORE()
    primitive.MessageID = 9
    primitive.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    primitive.AffectedSOPInstanceUID = "1.2.3"
    primitive.Priority = 0
    primitive.MoveOriginatorApplicationEntityTitle = "BOX"
    primitive.MoveOriginatorMessageID = 5
    primitive.DataSet = BytesIO(b"\x08\0\x05\0\0\0\0\0")
    message = dimse_messages.C_STORE_RQ()
    message.primitive_to_message(primitive)
    reader = MessageReader()
    found = []
    for part in message.encode_msg(3, 16382):
        for item in part.presentation_data_value_list:
            context_id, data = item
            found.append(reader.feed(pdu.DataValue(context_id, bool(data[0] & 1), bool(data[0] & 2), data[1:])))
    request = command.StoreRequest(9, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", 0, "BOX", 5)
    assert found == [Received(3, request), Fragment(b"\x08\0\x05\0\0\0\0\0", True)]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_refused(data: bytes) -> None:
    with suppress(command.InvalidCommand):
        command.decode(data)


@given(commands, st.data())
def test_a_spoiled_command_is_read_or_refused(message: command.Command, data: st.DataObject) -> None:
    spoiled = bytearray(command.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(command.InvalidCommand):
        command.decode(bytes(spoiled[: data.draw(st.integers(0, len(spoiled)))]))


@given(commands, st.none() | st.binary(max_size=300), st.integers(7, 100))
def test_a_message_is_cut_to_what_the_peer_takes(message: command.Command, dataset: bytes | None, room: int) -> None:
    reader = MessageReader()
    found, rebuilt = [], b""
    has_dataset = getattr(message, "has_dataset", False)
    for value in cut(1, message, dataset if has_dataset else None, room):
        assert len(pdu.encode(pdu.Data((value,)))) - 6 <= room
        match reader.feed(value):
            case Received() as received:
                found.append(received.command)
            case Fragment(data, _):
                rebuilt += data
    assert found == [message]
    if has_dataset:
        assert rebuilt == (dataset or b"")


@pytest.mark.parametrize(
    "values",
    [
        [pdu.DataValue(1, False, True, b"ab")],
        [pdu.DataValue(1, True, False, b"ab"), pdu.DataValue(3, True, True, b"cd")],
        [pdu.DataValue(1, True, False, bytes(1000)), pdu.DataValue(1, True, False, bytes(1000))],
        [pdu.DataValue(1, True, True, b"ab")],
        [
            pdu.DataValue(1, True, True, command.encode(command.StoreRequest(1, "1.2", "1.3"))),
            pdu.DataValue(3, False, True, b""),
        ],
        [
            pdu.DataValue(1, True, True, command.encode(command.StoreRequest(1, "1.2", "1.3"))),
            pdu.DataValue(1, True, True, b""),
        ],
    ],
    ids=["data first", "context changes", "too long", "no command", "data of another context", "command inside data"],
)
def test_the_order_of_messages_is_kept(values: list[pdu.DataValue]) -> None:
    reader = MessageReader(Limits(command_length=1500))
    with pytest.raises(ProtocolViolation):
        list(map(reader.feed, values))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x0000, status.Kind.SUCCESS),
        (0xFF00, status.Kind.PENDING),
        (0xFF01, status.Kind.PENDING),
        (0xFE00, status.Kind.CANCELLED),
        (0xB000, status.Kind.WARNING),
        (0xA701, status.Kind.FAILURE),
        (0xA801, status.Kind.FAILURE),
        (0xC123, status.Kind.FAILURE),
        (0x0122, status.Kind.FAILURE),
        (0x1234, status.Kind.FAILURE),
    ],
)
def test_every_status_has_one_meaning(code: int, kind: status.Kind) -> None:
    assert status.kind(code) is kind
