"""The DICOM Upper Layer protocol machine (PS3.8 section 9.2), by the standard's own names. It does no I/O.

A driver tells it what happened on the transport (``transport_opened``, ``receive``, ``transport_closed``,
``artim_expired``) and what the local user asks (``accept``, ``send_data``, ``release``...), sends what lies in
``output``, closes the transport when ``closing`` says so, runs the ARTIM timer while ``artim_running``, and hands
``indications`` to the user. Both roles are here: ``associate`` begins as requestor, ``transport_opened`` as acceptor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from drimbox.pacs.dimse import pdu, pdu_reader
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.transitions import TABLE, Event, State


class WrongState(Exception):
    """The local user asked for what the state of the association does not allow."""


@dataclass(frozen=True, slots=True)
class Released:
    """A-RELEASE confirmation: the peer answered our release, or both released at once."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """A-ABORT or A-P-ABORT indication. ``by_peer``: the peer's user; otherwise a provider, ours or the peer's."""

    by_peer: bool
    reason: str


Indication = (
    pdu.AssociateRequest
    | pdu.AssociateAccept
    | pdu.AssociateReject
    | pdu.DataValue
    | pdu.ReleaseRequest
    | Released
    | Aborted
)


class UpperLayer:
    """One association, on one side. Not safe for threads: the driver guards it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.state = State.Sta1
        self.output: list[bytes | memoryview] = []
        self.indications: list[Indication] = []
        self.closing = False
        self.connecting = False
        self.artim_running = False
        self.peer_max_length = 0
        """Longest P-DATA-TF that the peer takes; 0: no limit (PS3.8 D.1)."""
        self._requestor = False
        self._deaf = False
        self._request: pdu.AssociateRequest | None = None

    # ------------------------------------------------------------------------------------------- the transport speaks

    def transport_opened(self) -> None:
        """A peer connected to us."""
        self._fire(Event.Evt5)

    def transport_connected(self) -> None:
        """The connection that we asked for is open."""
        self._fire(Event.Evt2)

    def transport_closed(self) -> None:
        """The transport is gone, whoever closed it."""
        if self.state is not State.Sta1:
            self._fire(Event.Evt17)

    def artim_expired(self) -> None:
        """The association request/reject/release timer ran out (PS3.8 9.1.5)."""
        if self.state in (State.Sta2, State.Sta13):
            self._fire(Event.Evt18)

    def receive(self, data: memoryview) -> int:
        """Reads the whole PDUs at the start of ``data``; gives the number of bytes read.

        The rest is the beginning of a PDU, to be given again with what follows it; it is never longer than
        ``longest_pdu``. Views in the indications point into ``data``.
        """
        offset, end = 0, len(data)
        while end - offset >= 6 and not self._deaf and not self.closing and self.state is not State.Sta1:
            kind, length = pdu.HEADER.unpack_from(data, offset)
            try:
                if length > pdu_reader.length_limit(kind, self.limits):
                    raise pdu.InvalidPdu(f"PDU of type {kind} with {length} bytes")
                if end - offset - 6 < length:
                    break
                body = data[offset + 6 : offset + 6 + length]
                offset += 6 + length
                if kind == pdu.PduType.DATA_TF:
                    self._fire(Event.Evt10, pdu_reader.decode_values(body))
                else:
                    received = pdu_reader.decode(kind, body, self.limits)
                    self._fire(_EVENTS[type(received)], received)
            except pdu.InvalidPdu as wrong:
                # What follows a PDU that cannot be read cannot be read either: only the close is awaited.
                self._deaf = True
                self._fire(Event.Evt19, wrong)
        return end if self._deaf or self.closing or self.state is State.Sta1 else offset

    @property
    def longest_pdu(self) -> int:
        """Bytes that a receive buffer must be able to hold."""
        return 6 + max(self.limits.pdu_length, self.limits.associate_length)

    # --------------------------------------------------------------------------------------------- the local user asks

    def associate(self, request: pdu.AssociateRequest) -> None:
        """Begin as requestor: ``connecting`` asks the driver for a connection."""
        self._requestor = True
        self._fire(Event.Evt1, request)

    def accept(self, accept: pdu.AssociateAccept) -> None:
        self._fire(Event.Evt7, accept)

    def reject(self, reject: pdu.AssociateReject) -> None:
        self._fire(Event.Evt8, reject)

    def send_data(self, values: list[pdu.DataValue]) -> None:
        """One P-DATA-TF; the caller has cut the values to ``peer_max_length``."""
        self._fire(Event.Evt9, values)

    def send_pdus(self, pieces: Iterable[bytes | memoryview]) -> None:
        """P-DATA-TFs that are encoded already, in pieces; they stay untouched until ``output`` has been sent."""
        if (Event.Evt9, self.state) not in TABLE:
            raise WrongState(f"{Event.Evt9.name} in {self.state.name}")
        self.output += pieces

    def release(self) -> None:
        self._fire(Event.Evt11)

    def release_response(self) -> None:
        self._fire(Event.Evt14)

    def abort(self) -> None:
        """A-ABORT by the local user; nothing where there is no association any more."""
        if (Event.Evt15, self.state) in TABLE:
            self._fire(Event.Evt15)

    # ----------------------------------------------------------------------------------------------------- the machine

    def _fire(self, event: Event, argument: object = None) -> None:
        action = TABLE.get((event, self.state))
        if action is None:
            raise WrongState(f"{event.name} in {self.state.name}")
        self.state = _ACTIONS[action](self, argument)

    def _send(self, unit: pdu.Pdu) -> None:
        self.output.append(pdu.encode(unit))

    def _close(self) -> State:
        self.closing = True
        return State.Sta1

    # Association establishment (PS3.8 table 9-6).

    def _ae_1(self, request: object) -> State:
        assert isinstance(request, pdu.AssociateRequest)
        self._request = request
        self.connecting = True
        return State.Sta4

    def _ae_2(self, _: object) -> State:
        assert self._request is not None
        self.connecting = False
        self._send(self._request)
        return State.Sta5

    def _ae_3(self, accept: object) -> State:
        assert isinstance(accept, pdu.AssociateAccept)
        self.peer_max_length = accept.user.max_length
        self.indications.append(accept)
        return State.Sta6

    def _ae_4(self, reject: object) -> State:
        assert isinstance(reject, pdu.AssociateReject)
        self.indications.append(reject)
        return self._close()

    def _ae_5(self, _: object) -> State:
        self.artim_running = True
        return State.Sta2

    def _ae_6(self, request: object) -> State:
        assert isinstance(request, pdu.AssociateRequest)
        self.artim_running = False
        refusal = _refusal(request)
        if refusal is not None:
            self._send(refusal)
            self.artim_running = True
            return State.Sta13
        self.peer_max_length = request.user.max_length
        self.indications.append(request)
        return State.Sta3

    def _ae_7(self, accept: object) -> State:
        assert isinstance(accept, pdu.AssociateAccept)
        self._send(accept)
        return State.Sta6

    def _ae_8(self, reject: object) -> State:
        assert isinstance(reject, pdu.AssociateReject)
        self._send(reject)
        self.artim_running = True
        return State.Sta13

    # Data transfer (table 9-7).

    def _dt_1(self, values: object) -> State:
        assert isinstance(values, list)
        self._send(pdu.Data(tuple(values)))
        return State.Sta6

    def _dt_2(self, values: object) -> State:
        assert isinstance(values, list)
        self.indications += values
        return State.Sta6

    # Release (table 9-8).

    def _ar_1(self, _: object) -> State:
        self._send(pdu.ReleaseRequest())
        return State.Sta7

    def _ar_2(self, request: object) -> State:
        assert isinstance(request, pdu.ReleaseRequest)
        self.indications.append(request)
        return State.Sta8

    def _ar_3(self, _: object) -> State:
        self.indications.append(Released())
        return self._close()

    def _ar_4(self, _: object) -> State:
        self._send(pdu.ReleaseResponse())
        self.artim_running = True
        return State.Sta13

    def _ar_5(self, _: object) -> State:
        self.artim_running = False
        return State.Sta1

    def _ar_6(self, values: object) -> State:
        assert isinstance(values, list)
        self.indications += values
        return State.Sta7

    def _ar_7(self, values: object) -> State:
        assert isinstance(values, list)
        self._send(pdu.Data(tuple(values)))
        return State.Sta8

    def _ar_8(self, request: object) -> State:
        assert isinstance(request, pdu.ReleaseRequest)
        self.indications.append(request)
        return State.Sta9 if self._requestor else State.Sta10

    def _ar_9(self, _: object) -> State:
        self._send(pdu.ReleaseResponse())
        return State.Sta11

    def _ar_10(self, _: object) -> State:
        self.indications.append(Released())
        return State.Sta12

    # Abort (table 9-9).

    def _aa_1(self, wrong: object) -> State:
        # Evt15 and every PDU out of place in Sta2: the abort is sent as the service user's.
        self._send(pdu.Abort(0, 0))
        self.artim_running = True
        if isinstance(wrong, pdu.InvalidPdu):
            self.indications.append(Aborted(False, str(wrong)))
        return State.Sta13

    def _aa_2(self, _: object) -> State:
        self.artim_running = False
        return self._close()

    def _aa_3(self, abort: object) -> State:
        assert isinstance(abort, pdu.Abort)
        self.indications.append(Aborted(abort.source == 0, f"A-ABORT {abort.source}/{abort.reason}"))
        return self._close()

    def _aa_4(self, _: object) -> State:
        self.indications.append(Aborted(False, "transport closed"))
        return State.Sta1

    def _aa_5(self, _: object) -> State:
        self.artim_running = False
        return State.Sta1

    def _aa_6(self, _: object) -> State:
        return State.Sta13

    def _aa_7(self, wrong: object) -> State:
        self._send(pdu.Abort(2, _abort_reason(wrong)))
        return State.Sta13

    def _aa_8(self, wrong: object) -> State:
        self._send(pdu.Abort(2, _abort_reason(wrong)))
        text = str(wrong) if isinstance(wrong, pdu.InvalidPdu) else f"unexpected PDU in {self.state.name}"
        self.indications.append(Aborted(False, text))
        self.artim_running = True
        return State.Sta13


def _abort_reason(wrong: object) -> int:
    return wrong.reason if isinstance(wrong, pdu.InvalidPdu) else pdu.AbortReason.UNEXPECTED_PDU


def _refusal(request: pdu.AssociateRequest) -> pdu.AssociateReject | None:
    """What the service provider itself cannot accept (AE-6)."""
    if not request.protocol_version & pdu.PROTOCOL_VERSION:
        return pdu.AssociateReject(1, 2, 2)
    if request.application_context != pdu.APPLICATION_CONTEXT:
        return pdu.AssociateReject(1, 1, 2)
    return None


_EVENTS: dict[type, Event] = {
    pdu.AssociateAccept: Event.Evt3,
    pdu.AssociateReject: Event.Evt4,
    pdu.AssociateRequest: Event.Evt6,
    pdu.Data: Event.Evt10,
    pdu.ReleaseRequest: Event.Evt12,
    pdu.ReleaseResponse: Event.Evt13,
    pdu.Abort: Event.Evt16,
}

_ACTIONS: dict[str, Callable[[UpperLayer, object], State]] = {
    "AE-1": UpperLayer._ae_1,
    "AE-2": UpperLayer._ae_2,
    "AE-3": UpperLayer._ae_3,
    "AE-4": UpperLayer._ae_4,
    "AE-5": UpperLayer._ae_5,
    "AE-6": UpperLayer._ae_6,
    "AE-7": UpperLayer._ae_7,
    "AE-8": UpperLayer._ae_8,
    "DT-1": UpperLayer._dt_1,
    "DT-2": UpperLayer._dt_2,
    "AR-1": UpperLayer._ar_1,
    "AR-2": UpperLayer._ar_2,
    "AR-3": UpperLayer._ar_3,
    "AR-4": UpperLayer._ar_4,
    "AR-5": UpperLayer._ar_5,
    "AR-6": UpperLayer._ar_6,
    "AR-7": UpperLayer._ar_7,
    "AR-8": UpperLayer._ar_8,
    "AR-9": UpperLayer._ar_9,
    "AR-10": UpperLayer._ar_10,
    "AA-1": UpperLayer._aa_1,
    "AA-2": UpperLayer._aa_2,
    "AA-3": UpperLayer._aa_3,
    "AA-4": UpperLayer._aa_4,
    "AA-5": UpperLayer._aa_5,
    "AA-6": UpperLayer._aa_6,
    "AA-7": UpperLayer._aa_7,
    "AA-8": UpperLayer._aa_8,
}
