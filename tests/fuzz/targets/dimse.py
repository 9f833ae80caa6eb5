"""The DICOM Upper Layer and its messages, on both sides, whatever the cuts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from drimbox.pacs.dimse import command, pdu, uids
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.machine import Aborted, UpperLayer
from drimbox.pacs.dimse.message import Fragment, MessageReader, ProtocolViolation, cut
from drimbox.pacs.dimse.transitions import State
from fuzz.grammars import dicom
from fuzz.target import Broken, Target, pieces, pure

CT = "1.2.840.10008.5.1.4.1.1.2"
_LIMITS = Limits(pdu_length=4096, associate_length=8192)


def request(called: str = "DRIMBOX", calling: str = "PACS_A") -> bytes:
    """An A-ASSOCIATE-RQ for images, key objects and verification."""
    contexts = (
        pdu.ProposedContext(1, CT, (uids.EXPLICIT_LE, uids.IMPLICIT_LE)),
        pdu.ProposedContext(3, uids.VERIFICATION, (uids.IMPLICIT_LE,)),
        pdu.ProposedContext(5, "1.2.840.10008.5.1.4.1.1.88.59", (uids.EXPLICIT_LE,)),
    )
    user = pdu.UserInformation(16384, "1.2.3", "FUZZ", (pdu.Role(CT, True, False),))
    return pdu.encode(pdu.AssociateRequest(called, calling, contexts, user))


def message(sent: command.Command, dataset: bytes | None = None, context: int = 1, room: int = 2000) -> bytes:
    """The PDUs of one message."""
    return b"".join(pdu.encode(pdu.Data((value,))) for value in cut(context, sent, dataset, room))


def _accept() -> bytes:
    contexts = (pdu.AnsweredContext(1, 0, uids.EXPLICIT_LE), pdu.AnsweredContext(3, 3, uids.IMPLICIT_LE))
    return pdu.encode(pdu.AssociateAccept("DRIMBOX", "PACS_A", contexts, pdu.UserInformation(16384, "1.2.3", "X")))


def conversations() -> Iterator[bytes]:
    """What a peer may say, as requestor and as acceptor."""
    release, abort = pdu.encode(pdu.ReleaseRequest()), pdu.encode(pdu.Abort(0, 0))
    store = command.StoreRequest(1, CT, "1.2.3.4", move_originator_ae="DRIMBOX", move_originator_id=7)
    yield request() + message(command.EchoRequest(1), context=3) + release
    yield request() + message(store, b"\x08\x00\x18\x00UI\x08\x001.2.3.4\x00" * 300) + release
    yield request() + message(command.FindRequest(2, uids.STUDY_ROOT_FIND), b"\0" * 40) + abort
    yield request() + message(command.CancelRequest(2)) + pdu.encode(pdu.ReleaseResponse())
    yield _accept() + message(command.Response(0x8020, 1, 0xFF00, has_dataset=True), b"x" * 900) + release
    yield _accept() + message(command.Response(0x8021, 1, 0, remaining=1, completed=2, failed=0, warning=0))
    yield pdu.encode(pdu.AssociateReject(1, 1, 7))


class _Driver:
    """What a session does around the machine."""

    def __init__(self, *, requestor: bool) -> None:
        self.machine = UpperLayer(_LIMITS)
        self.reader = MessageReader(_LIMITS)
        self.heard: list[str] = []
        self.sent = b""
        if requestor:
            asked = pdu.AssociateRequest(
                "PACS_A", "DRIMBOX", (pdu.ProposedContext(1, CT, (uids.EXPLICIT_LE,)),), pdu.UserInformation(16384)
            )
            self.machine.associate(asked)
            self.machine.transport_connected()
        else:
            self.machine.transport_opened()
        self._settle()

    def feed(self, parts: Iterable[bytes]) -> None:
        rest = b""
        for part in parts:
            rest += part
            taken = self.machine.receive(memoryview(rest))
            self._settle()
            rest = rest[taken:]
            if len(rest) > self.machine.longest_pdu:
                raise Broken("the machine asks for more than its longest PDU")
        self.machine.transport_closed()
        self._settle()

    def _settle(self) -> None:
        indications, self.machine.indications = self.machine.indications, []
        for one in indications:
            self._hear(one)
        self.sent += b"".join(bytes(piece) for piece in self.machine.output)
        self.machine.output = []

    def _hear(self, one: object) -> None:
        match one:
            case pdu.AssociateRequest() if self.machine.state is State.Sta3:
                answers = tuple(pdu.AnsweredContext(c.id, 0, c.transfer_syntaxes[0]) for c in one.contexts)
                self.machine.accept(
                    pdu.AssociateAccept(one.called_ae, one.calling_ae, answers, pdu.UserInformation(4096))
                )
                self.heard.append(f"associate {len(one.contexts)}")
            case pdu.DataValue():
                # After an abort of ours, what the buffer still held is nobody's.
                if self.machine.state is State.Sta6:
                    self._value(one)
            case pdu.ReleaseRequest():
                if self.machine.state is State.Sta8:
                    self.machine.release_response()
                self.heard.append("release")
            case Aborted():
                self.heard.append(f"aborted {one.by_peer}")
            case _:
                self.heard.append(type(one).__name__)

    def _value(self, value: pdu.DataValue) -> None:
        try:
            found = self.reader.feed(value)
        except ProtocolViolation as wrong:
            self.heard.append(f"violation {wrong}")
            self.machine.abort()
            return
        if isinstance(found, Fragment):
            self.heard.append(f"data {len(found.data)} {found.is_last}")
        elif found is not None:
            self.heard.append(f"command {type(found.command).__name__} {found.context_id}")


def _run_machine(data: bytes) -> object:
    """All at once; then one PDU after the other, as from a peer that waits, whole and in pieces."""
    told = []
    for requestor in (False, True):
        _Driver(requestor=requestor).feed([data])
        whole, cut_up = _Driver(requestor=requestor), _Driver(requestor=requestor)
        whole.feed(_units(data))
        cut_up.feed(piece for unit in _units(data) for piece in pieces(unit))
        if (whole.heard, whole.sent) != (cut_up.heard, cut_up.sent):
            raise Broken("what the machine hears depends on how the stream was cut")
        told.append((whole.heard[:6], len(whole.heard)))
    return told


def _units(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = 6 + int.from_bytes(data[at + 2 : at + 6], "big")
        yield data[at : at + size]
        at += size


def _run_command(data: bytes) -> object:
    read = command.decode(data)
    again = command.decode(command.encode(read)) if _is_plain(read) else read
    if again != read:
        raise Broken("a command set reads differently once it is written again")
    return type(read).__name__


def _is_plain(read: command.Command) -> bool:
    """Ours to write: texts within the limits of their representation."""
    texts = [v for name in read.__slots__ if isinstance(v := getattr(read, name), str)]
    plain = all(t.isascii() and len(t) <= 64 and t == t.strip(" \0") for t in texts)
    # A class of its own, and an answer to nothing we know: never written by us.
    return plain and not isinstance(read, command.OtherRequest | command.EchoRequest | command.CancelRequest)


def _commands() -> Iterator[bytes]:
    for one in (
        command.StoreRequest(1, CT, "1.2.3.4", 0, "DRIMBOX", 7),
        command.EchoRequest(1),
        command.FindRequest(2, uids.STUDY_ROOT_FIND),
        command.MoveRequest(3, uids.STUDY_ROOT_MOVE, "DRIMBOX"),
        command.CancelRequest(3),
        command.Response(0x8001, 1, 0, CT, "1.2.3.4"),
        command.Response(0x8021, 1, 0xFF00, error_comment="x", remaining=1, completed=2, failed=3, warning=4),
    ):
        yield command.encode(one)


TARGETS = (
    Target("dimse", pure(_run_machine), conversations, (), dicom.PDU, largest=32 * 1024),
    Target("dimse_command", pure(_run_command), _commands, (command.InvalidCommand,), largest=16 * 1024),
)
