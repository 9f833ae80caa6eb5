"""An association that we open, and the operations asked over it (SCU): C-ECHO, C-FIND, C-MOVE. Blocking.

Whatever goes wrong is one of the errors that a caller can act on; the reasons name the PACS as the configuration does.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from drimbox.foundation.errors import Busy, Rejected, Unavailable
from drimbox.pacs.dimse import command, pdu, status, uids
from drimbox.pacs.dimse.connection import Connection
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.machine import Aborted, Indication, Released, UpperLayer, WrongState
from drimbox.pacs.dimse.message import Fragment, MessageReader, ProtocolViolation, Received, cut

_SYNTAXES = (uids.EXPLICIT_LE, uids.IMPLICIT_LE)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call; times are in seconds. ``name`` is what the reasons of errors call it."""

    name: str
    host: str
    port: int
    called_ae: str
    calling_ae: str
    connect_timeout: float = 5.0
    """To open the connection, and again to open the association."""
    answer_timeout: float = 30.0
    release_timeout: float = 5.0
    tls: ssl.SSLContext | None = None
    limits: Limits = field(default_factory=Limits)


class Answer(NamedTuple):
    """One response with its identifier; the last one of an operation has another status than pending."""

    response: command.Response
    identifier: bytes | None
    transfer_syntax: str


class Interrupt:
    """Lets any thread break what another one waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._break: Callable[[], None] | None = None
        self.raised = False

    def watch(self, interrupt: Callable[[], None]) -> None:
        """What to do when it is raised; at once where it already is."""
        with self._lock:
            self._break = interrupt
            raised = self.raised
        if raised:
            interrupt()

    def set(self) -> None:
        with self._lock:
            self.raised = True
            interrupt = self._break
        if interrupt is not None:
            interrupt()


class ClientAssociation:
    """An open association. One thread uses it; ``cancel`` and ``interrupt`` may come from any.

    As a context it is released at the end, or aborted where an error leaves the block.
    """

    def __init__(self, peer: Peer, abstract_syntaxes: Sequence[str], interrupt: Interrupt | None = None) -> None:
        """Opens it. Raises ``Unavailable`` (no connection, no answer), ``Busy`` (refused for now) or ``Rejected``."""
        self._peer = peer
        self._reader = MessageReader(peer.limits)
        self._contexts: dict[str, tuple[int, str]] = {}
        self._peer_max_length = 0
        self._message_id = 0
        sock = self._connect()
        self._connection = Connection(sock, UpperLayer(peer.limits), artim=peer.release_timeout, send_timeout=30.0)
        try:
            if interrupt is not None:
                interrupt.watch(self._connection.interrupt)
            self._associate(abstract_syntaxes)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> ClientAssociation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    # ------------------------------------------------------------------------------------------------------ operations

    def echo(self) -> None:
        """C-ECHO. Raises ``Unavailable``."""
        message = command.EchoRequest(self.next_message_id())
        for answer in self.operation(uids.VERIFICATION, message, None):
            if answer.response.status != status.SUCCESS:
                code = status.code(answer.response.status)
                raise Unavailable(f"{self._peer.name} répond à l'écho par le statut {code}.", peer_code=code)

    def find(self, sop_class: str, encode: Callable[[str], bytes]) -> Iterator[Answer]:
        """C-FIND; ``encode`` makes the identifier in the transfer syntax that was agreed on."""
        request = command.FindRequest(self.next_message_id(), sop_class)
        return self.operation(sop_class, request, encode)

    def move(
        self,
        sop_class: str,
        destination: str,
        encode: Callable[[str], bytes],
        *,
        message_id: int,
        alive: Callable[[], float] | None = None,
    ) -> Iterator[Answer]:
        """C-MOVE under a message id of the caller's, which the PACS repeats in each C-STORE.

        ``alive`` tells the monotonic time of the peer's last sign of life outside of this association.
        """
        request = command.MoveRequest(message_id, sop_class, destination)
        return self.operation(sop_class, request, encode, alive)

    def next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def operation(
        self,
        sop_class: str,
        request: command.EchoRequest | command.FindRequest | command.MoveRequest,
        encode: Callable[[str], bytes] | None,
        alive: Callable[[], float] | None = None,
    ) -> Iterator[Answer]:
        """Sends a request and gives its answers, the final one last.

        Raises ``Unavailable`` when the PACS aborts, breaks off or says nothing in time: the answers given until then
        are not the whole.
        """
        context_id, syntax = self._context(sop_class)
        self._send(context_id, request, encode(syntax) if encode else None)
        for response, identifier in self._responses(alive):
            if response.message_id != request.message_id:
                self._violated("answers to another request")
            yield Answer(response, identifier, syntax)
            if status.kind(response.status) is not status.Kind.PENDING:
                return

    def cancel(self, sop_class: str, message_id: int) -> None:
        """C-CANCEL, from any thread; the operation still ends with a final answer."""
        with suppress(Rejected, Unavailable, WrongState):
            context_id, _ = self._context(sop_class)
            self._send(context_id, command.CancelRequest(message_id), None)

    def interrupt(self) -> None:
        """Break the connection, from any thread."""
        self._connection.interrupt()

    def release(self) -> None:
        """A-RELEASE; an abort where the peer does not answer it."""
        try:
            if self._connection.established:
                self._connection.ask(UpperLayer.release)
            end = time.monotonic() + self._peer.release_timeout
            while not self._connection.finished and time.monotonic() < end:
                self._connection.receive(end - time.monotonic())
        except (OSError, TimeoutError):
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """A-ABORT where the association still stands, and the end of the connection."""
        with suppress(OSError):
            self._connection.ask(UpperLayer.abort)
        self._connection.close()

    # ------------------------------------------------------------------------------------------------------- internals

    def _connect(self) -> socket.socket:
        peer = self._peer
        try:
            sock = socket.create_connection((peer.host, peer.port), timeout=peer.connect_timeout)
        except OSError as error:
            raise Unavailable(f"{peer.name} est injoignable.", code="pacs-unreachable") from error
        if peer.tls is None:
            return sock
        try:
            return peer.tls.wrap_socket(sock, server_hostname=peer.host)
        except OSError as error:
            sock.close()
            raise Unavailable(f"La connexion TLS à {peer.name} échoue.", code="pacs-tls") from error

    def _associate(self, abstract_syntaxes: Sequence[str]) -> None:
        peer = self._peer
        contexts = tuple(pdu.ProposedContext(2 * i + 1, uid, _SYNTAXES) for i, uid in enumerate(abstract_syntaxes))
        user = pdu.UserInformation(peer.limits.pdu_length, uids.IMPLEMENTATION_CLASS, uids.IMPLEMENTATION_VERSION)
        request = pdu.AssociateRequest(peer.called_ae, peer.calling_ae, contexts, user)

        def begin(machine: UpperLayer) -> None:
            machine.associate(request)
            machine.transport_connected()

        self._connection.ask(begin)
        accept = self._awaited(peer.connect_timeout)
        self._peer_max_length = accept.user.max_length
        abstract = {context.id: context.abstract_syntax for context in contexts}
        for answered in accept.contexts:
            if answered.result == pdu.ContextResult.ACCEPTANCE and answered.transfer_syntax in _SYNTAXES:
                self._contexts[abstract.get(answered.id, "")] = (answered.id, answered.transfer_syntax)

    def _awaited(self, timeout: float) -> pdu.AssociateAccept:
        while True:
            for indication in self._receive(timeout):
                match indication:
                    case pdu.AssociateAccept():
                        return indication
                    case pdu.AssociateReject():
                        self._rejected(indication)

    def _rejected(self, reject: pdu.AssociateReject) -> NoReturn:
        name, code = self._peer.name, f"{reject.result}/{reject.source}/{reject.reason}"
        if reject.result == 2:
            raise Busy(f"{name} refuse l'association pour l'instant.", code="pacs-busy", peer_code=code)
        why = {
            (1, 3): f"ne connaît pas notre AE title ({self._peer.calling_ae})",
            (1, 7): f"ne répond pas au nom de {self._peer.called_ae}",
        }.get((reject.source, reject.reason), "refuse l'association")
        raise Rejected(f"{name} {why}.", code="pacs-association-rejected", peer_code=code)

    def _context(self, sop_class: str) -> tuple[int, str]:
        if sop_class not in self._contexts:
            raise Rejected(f"{self._peer.name} n'offre pas le service DICOM demandé.", code="pacs-service-refused")
        return self._contexts[sop_class]

    def _send(self, context_id: int, message: command.Command, identifier: bytes | None) -> None:
        values = list(cut(context_id, message, identifier, self._peer_max_length))

        def send(machine: UpperLayer) -> None:
            for value in values:
                machine.send_data([value])

        if not self._connection.established:
            self._broken()
        self._connection.ask(send)

    def _responses(self, alive: Callable[[], float] | None) -> Iterator[tuple[command.Response, bytes | None]]:
        response: command.Response | None = None
        identifier = bytearray()
        while True:
            for indication in self._patient(alive):
                if not isinstance(indication, pdu.DataValue):
                    continue
                match self._feed(indication):
                    case Received(_, command.Response() as response) if response.has_dataset:
                        identifier.clear()
                    case Received(_, command.Response() as response):
                        yield response, None
                    case Received():
                        self._violated("request where an answer must come")
                    case Fragment(data, is_last):
                        if len(identifier) + len(data) > self._peer.limits.identifier_length:
                            self._violated("identifier too long")
                        identifier += data
                        if is_last and response is not None:
                            yield response, bytes(identifier)

    def _feed(self, value: pdu.DataValue) -> Received | Fragment | None:
        try:
            return self._reader.feed(value)
        except ProtocolViolation as wrong:
            self._violated(str(wrong))

    def _patient(self, alive: Callable[[], float] | None) -> list[Indication]:
        asked = time.monotonic()
        while True:
            since = max(asked, alive()) if alive is not None else asked
            left = since + self._peer.answer_timeout - time.monotonic()
            if left <= 0:
                raise Unavailable(f"{self._peer.name} ne répond plus.", code="pacs-silent")
            with suppress(TimeoutError):
                return self._checked(self._connection.receive(left))

    def _receive(self, timeout: float) -> list[Indication]:
        try:
            return self._checked(self._connection.receive(timeout))
        except TimeoutError as error:
            raise Unavailable(f"{self._peer.name} ne répond pas.", code="pacs-silent") from error

    def _checked(self, indications: list[Indication]) -> list[Indication]:
        # Answers that came before the break are still given; the break itself is found at the next receive.
        ends = any(isinstance(i, Aborted | Released | pdu.ReleaseRequest) for i in indications)
        if not indications and self._connection.finished:
            self._broken()
        if ends and not any(isinstance(i, pdu.DataValue) for i in indications):
            self._broken()
        return indications

    def _broken(self) -> NoReturn:
        raise Unavailable(f"{self._peer.name} a rompu l'association.", code="pacs-aborted")

    def _violated(self, what: str) -> NoReturn:
        raise Unavailable(f"{self._peer.name} ne respecte pas le protocole DICOM ({what}).", code="pacs-protocol")
