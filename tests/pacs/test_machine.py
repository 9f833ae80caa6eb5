"""The protocol machine: the standard's table, the life of an association, hostile bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.fsm import TRANSITION_TABLE

from drimbox.pacs.dimse import pdu, pdu_reader
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.machine import Aborted, Indication, Released, UpperLayer, WrongState
from drimbox.pacs.dimse.transitions import TABLE, State
from pacs import captures

USER = pdu.UserInformation(16384, "1.2.3", "TEST")
CONTEXT = pdu.ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",))
REQUEST = pdu.AssociateRequest("CALLED", "CALLING", (CONTEXT,), USER)
ACCEPT = pdu.AssociateAccept("CALLED", "CALLING", (pdu.AnsweredContext(1, 0, "1.2.840.10008.1.2"),), USER)
VALUE = pdu.DataValue(1, True, True, b"ab")


def give(machine: UpperLayer, *units: pdu.Pdu) -> list[Indication]:
    data = b"".join(map(pdu.encode, units))
    assert machine.receive(memoryview(data)) == len(data)
    indications, machine.indications = machine.indications, []
    return [
        pdu.DataValue(i.context_id, i.is_command, i.is_last, bytes(i.data)) if isinstance(i, pdu.DataValue) else i
        for i in indications
    ]


def sent(machine: UpperLayer) -> list[pdu.Pdu]:
    data = b"".join(bytes(part) for part in machine.output)
    machine.output.clear()
    units = []
    while data:
        kind, length = pdu.HEADER.unpack_from(data)
        units.append(pdu_reader.decode(kind, memoryview(data)[6 : 6 + length], Limits()))
        data = data[6 + length :]
    return units


def acceptor() -> UpperLayer:
    machine = UpperLayer()
    machine.transport_opened()
    assert machine.artim_running
    give(machine, REQUEST)
    assert not machine.artim_running
    machine.accept(ACCEPT)
    machine.output.clear()
    return machine


def requestor() -> UpperLayer:
    machine = UpperLayer()
    machine.associate(REQUEST)
    machine.transport_connected()
    give(machine, ACCEPT)
    machine.output.clear()
    return machine


def test_the_table_is_the_standards() -> None:
    ours = {(f"Evt{event.value}", f"Sta{state.value}"): action for (event, state), action in TABLE.items()}
    assert ours == dict(TRANSITION_TABLE)


def test_accept_exchange_release() -> None:
    machine = UpperLayer()
    machine.transport_opened()
    assert give(machine, REQUEST) == [REQUEST]
    machine.accept(ACCEPT)
    assert sent(machine) == [ACCEPT]
    assert give(machine, pdu.Data((VALUE, VALUE))) == [VALUE, VALUE]
    machine.send_data([VALUE])
    assert sent(machine) == [pdu.Data((VALUE,))]
    assert give(machine, pdu.ReleaseRequest()) == [pdu.ReleaseRequest()]
    machine.send_data([VALUE])
    machine.release_response()
    assert sent(machine) == [pdu.Data((VALUE,)), pdu.ReleaseResponse()]
    assert machine.state is State.Sta13
    assert machine.artim_running
    machine.transport_closed()
    assert machine.state is State.Sta1


def test_request_exchange_release() -> None:
    machine = UpperLayer()
    machine.associate(REQUEST)
    assert machine.connecting
    machine.transport_connected()
    assert sent(machine) == [REQUEST]
    assert give(machine, ACCEPT) == [ACCEPT]
    assert machine.peer_max_length == 16384
    machine.release()
    assert sent(machine) == [pdu.ReleaseRequest()]
    assert give(machine, pdu.Data((VALUE,))) == [VALUE]
    assert give(machine, pdu.ReleaseResponse()) == [Released()]
    assert machine.closing
    assert machine.state is State.Sta1


def test_rejected() -> None:
    machine = UpperLayer()
    machine.associate(REQUEST)
    machine.transport_connected()
    assert give(machine, pdu.AssociateReject(1, 1, 7)) == [pdu.AssociateReject(1, 1, 7)]
    assert machine.closing


@pytest.mark.parametrize("side", [requestor, acceptor])
def test_release_collision(side: Callable[[], UpperLayer]) -> None:
    machine = side()
    machine.release()
    assert give(machine, pdu.ReleaseRequest()) == [pdu.ReleaseRequest()]
    if side is requestor:
        assert machine.state is State.Sta9
        machine.release_response()
        assert give(machine, pdu.ReleaseResponse()) == [Released()]
        assert machine.state is State.Sta1
    else:
        assert machine.state is State.Sta10
        assert give(machine, pdu.ReleaseResponse()) == [Released()]
        machine.release_response()
        assert machine.state is State.Sta13


@pytest.mark.parametrize(
    ("changes", "reject"),
    [
        ({"protocol_version": 2}, pdu.AssociateReject(1, 2, 2)),
        ({"application_context": "1.2.3"}, pdu.AssociateReject(1, 1, 2)),
    ],
)
def test_what_the_provider_refuses(changes: dict[str, object], reject: pdu.AssociateReject) -> None:
    machine = UpperLayer()
    machine.transport_opened()
    values = {name: getattr(REQUEST, name) for name in REQUEST.__slots__} | changes
    assert give(machine, pdu.AssociateRequest(**values)) == []
    assert sent(machine) == [reject]
    assert machine.artim_running


def test_artim_closes_who_says_nothing() -> None:
    machine = UpperLayer()
    machine.transport_opened()
    machine.artim_expired()
    assert machine.closing
    assert machine.state is State.Sta1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x09\0\0\0\0\0", pdu.AbortReason.UNRECOGNIZED_PDU),
        (b"GET / HTTP/1.1\r\n\r\n", pdu.AbortReason.UNRECOGNIZED_PDU),
        (b"\x04\0\x7f\xff\xff\xff", pdu.AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x04\0\0\0\0\0", pdu.AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x04\0\0\0\0\x06\0\0\0\x40\1\3", pdu.AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x05\0\0\0\0\5\0\0\0\0\0", pdu.AbortReason.INVALID_PARAMETER_VALUE),
        (pdu.encode(ACCEPT), pdu.AbortReason.UNEXPECTED_PDU),
        (pdu.encode(pdu.ReleaseResponse()), pdu.AbortReason.UNEXPECTED_PDU),
    ],
)
def test_what_cannot_be_read_ends_in_abort(data: bytes, reason: pdu.AbortReason) -> None:
    machine = acceptor()
    assert machine.receive(memoryview(data)) == len(data)
    assert sent(machine) == [pdu.Abort(2, reason)]
    assert [type(i) for i in machine.indications] == [Aborted]
    assert machine.state is State.Sta13
    machine.artim_expired()
    assert machine.state is State.Sta1


def test_a_long_pdu_is_refused_before_it_has_come() -> None:
    machine = UpperLayer(Limits(pdu_length=1000))
    machine.transport_opened()
    give(machine, REQUEST)
    machine.accept(ACCEPT)
    machine.output.clear()
    assert machine.receive(memoryview(pdu.HEADER.pack(4, 1065))) == 6
    assert isinstance(sent(machine)[0], pdu.Abort)


def test_an_abort_of_the_peer() -> None:
    machine = requestor()
    assert give(machine, pdu.Abort(0, 0)) == [Aborted(True, "A-ABORT 0/0")]
    assert machine.closing


def test_nothing_can_be_asked_out_of_turn() -> None:
    machine = UpperLayer()
    for ask in (machine.release, machine.release_response, machine.transport_connected):
        with pytest.raises(WrongState):
            ask()
    with pytest.raises(WrongState):
        machine.send_data([VALUE])
    machine.abort()  # nothing to abort is not a mistake
    assert machine.output == []


def fed(pieces: list[bytes]) -> tuple[list[Indication], State, bytes]:
    """What a driver sees whose receives give these pieces."""
    machine = acceptor()
    rest, seen = b"", []
    for piece in pieces:
        rest += piece
        rest = rest[machine.receive(memoryview(rest)) :]
        seen += [
            pdu.DataValue(i.context_id, i.is_command, i.is_last, bytes(i.data)) if isinstance(i, pdu.DataValue) else i
            for i in machine.indications
        ]
        machine.indications.clear()
    return seen, machine.state, b"".join(bytes(part) for part in machine.output)


streams = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30).map(
            lambda data: pdu.encode(pdu.Data((pdu.DataValue(1, False, True, data),)))
        ),
        st.sampled_from([pdu.encode(unit) for unit in (pdu.ReleaseRequest(), pdu.Abort(0, 0), REQUEST, ACCEPT)]),
        st.just(captures.STORESCU_STORE_REQUEST),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=6,
).map(b"".join)


@given(streams, st.data())
def test_how_the_bytes_are_cut_changes_nothing(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert fed(pieces) == fed([stream])


@given(st.binary(max_size=300), st.sampled_from([acceptor, requestor, UpperLayer]))
def test_hostile_bytes_never_break_it(data: bytes, start: Callable[[], UpperLayer]) -> None:
    machine = start()
    if machine.state is State.Sta1:
        machine.transport_opened()
    consumed = machine.receive(memoryview(data))
    assert 0 <= consumed <= len(data)
    assert len(b"".join(bytes(part) for part in machine.output)) <= 20
