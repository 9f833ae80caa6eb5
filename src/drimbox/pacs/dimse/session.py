"""One association in which a peer stores to us: negotiation, messages, answers, time-outs (PS3.4 Annex B)."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from drimbox.pacs.dimse import command, pdu, status, uids
from drimbox.pacs.dimse.connection import Connection, break_off
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.machine import Aborted, UpperLayer
from drimbox.pacs.dimse.message import Fragment, MessageReader, ProtocolViolation, Received, cut
from drimbox.pacs.dimse.storage import Incoming, StoreHandler, StoreOffer, store_response

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """How the receiver listens; times are in seconds, sizes in bytes."""

    destinations: Mapping[str, tuple[str, ...]]
    """Our AE titles, each with its transfer syntaxes in order of preference (DB.SO.85)."""
    allowed_callers: frozenset[str]
    """Calling AE titles that may associate; none: nobody."""
    certificate_names: Mapping[str, frozenset[str]] | None = None
    """For each calling AE title, the names of which its client certificate must carry one; a title that is not here is
    then refused. None: any verified certificate serves any title."""
    sop_classes: frozenset[str] | None = None
    """Storage SOP classes that are taken; None: all. A presentation context of another one is refused."""
    host: str = "127.0.0.1"
    port: int = 0
    max_associations: int = 16
    artim_timeout: float = 10.0
    idle_timeout: float = 120.0
    """Without a byte inside an association."""
    message_timeout: float = 1800.0
    """From the first to the last byte of one instance."""
    send_timeout: float = 30.0
    max_instance_bytes: int = 8 * 2**30
    limits: Limits = field(default_factory=Limits)


class Session:
    """One association, from its first byte to its last."""

    def __init__(
        self,
        settings: ReceiverSettings,
        handler: StoreHandler,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        *,
        has_room: Callable[[], bool],
        ended: Callable[[Session], None],
    ) -> None:
        """``has_room`` tells whether one more may associate; ``ended`` is called when all is over."""
        self._settings = settings
        self._handler = handler
        self._socket = sock
        self._tls = tls
        self._has_room = has_room
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name="dicom-association", daemon=True)
        self._connection: Connection | None = None
        self._reader = MessageReader(self._settings.limits)
        self._contexts: dict[int, tuple[str, str]] = {}
        self._peer_max_length = 0
        self._called_ae = ""
        self._calling_ae = ""
        self._incoming: Incoming | None = None
        self._stored = 0
        self._refused = 0
        self._aborted = False
        self.established = False

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def interrupt(self) -> None:
        break_off(self._socket)

    def _run(self) -> None:
        try:
            self._serve()
        except OSError as error:
            _log.warning("DICOM association of %s broken: %s", self._calling_ae or "?", error.strerror or "TLS")
        except Exception:  # noqa: BLE001 (the thread ends here: the others go on, and the log tells)
            _log.exception("DICOM association of %s failed", self._calling_ae or "?")
        finally:
            if self._incoming is not None:
                self._incoming.give_up()
            if self._connection is not None:
                self._connection.close()
            self._socket.close()
            self._ended(self)

    def _serve(self) -> None:
        self._socket.setblocking(True)
        if self._tls is not None:
            self._shake_hands(self._tls)
        machine = UpperLayer(self._settings.limits)
        connection = Connection(
            self._socket, machine, artim=self._settings.artim_timeout, send_timeout=self._settings.send_timeout
        )
        self._connection = connection
        connection.ask(UpperLayer.transport_opened)
        while not connection.finished:
            try:
                for indication in connection.receive(self._patience()):
                    self._handle(connection, indication)
                if self._incoming is not None:
                    self._incoming.flush()
            except TimeoutError:
                if not self._aborted:
                    self._abort(connection, "nothing came in time")
            except ProtocolViolation as wrong:
                self._abort(connection, str(wrong))

    def _shake_hands(self, tls: ssl.SSLContext) -> None:
        """TLS, within the time that a peer has to ask for its association."""
        wrapped = self._socket = tls.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        wrapped.settimeout(self._settings.artim_timeout)
        # A peer that sends a byte now and then would never time out by itself.
        limit = threading.Timer(self._settings.artim_timeout, self.interrupt)
        limit.daemon = True
        limit.start()
        try:
            wrapped.do_handshake()
        finally:
            limit.cancel()

    def _patience(self) -> float:
        idle = self._settings.idle_timeout
        if self._incoming is None:
            return idle
        return min(idle, self._incoming.since + self._settings.message_timeout - time.monotonic())

    def _abort(self, connection: Connection, why: str) -> None:
        _log.warning("DICOM association of %s aborted: %s", self._calling_ae or "?", why)
        self.established, self._aborted = False, True
        if self._incoming is not None:
            self._incoming.give_up()
            self._incoming = None
        connection.ask(UpperLayer.abort)

    def _handle(self, connection: Connection, indication: object) -> None:
        match indication:
            case pdu.DataValue():
                # After an abort of ours, what the buffer still held is nobody's.
                if connection.established:
                    self._on_value(connection, indication)
            case pdu.AssociateRequest():
                # What came behind it may have ended the association already.
                if connection.awaits_association:
                    self._on_associate(connection, indication)
            case pdu.ReleaseRequest():
                self.established = False
                if connection.awaits_release:
                    connection.ask(UpperLayer.release_response)
                counts = (self._calling_ae, self._stored, self._refused)
                _log.info("DICOM association of %s released, %d instances stored, %d refused", *counts)
            case Aborted():
                self.established = False
                _log.warning("DICOM association of %s cut: %s", self._calling_ae or "?", indication.reason)

    # ---------------------------------------------------------------------------------------------------- association

    def _on_associate(self, connection: Connection, request: pdu.AssociateRequest) -> None:
        refusal = self._refusal(request)
        if refusal is not None:
            _log.warning("DICOM association of %s to %s rejected", request.calling_ae, request.called_ae)
            connection.ask(lambda machine: machine.reject(refusal))
            return
        self.established = True
        self._called_ae, self._calling_ae = request.called_ae, request.calling_ae
        self._peer_max_length = request.user.max_length
        preference = self._settings.destinations[request.called_ae]
        classes = self._settings.sop_classes
        answers = tuple(_answer(context, preference, classes) for context in request.contexts)
        abstract = {context.id: context.abstract_syntax for context in request.contexts}
        self._contexts = {
            a.id: (abstract[a.id], a.transfer_syntax) for a in answers if a.result == pdu.ContextResult.ACCEPTANCE
        }
        roles = tuple(pdu.Role(role.sop_class_uid, role.scu, False) for role in request.user.roles)
        user = pdu.UserInformation(
            self._settings.limits.pdu_length, uids.IMPLEMENTATION_CLASS, uids.IMPLEMENTATION_VERSION, roles
        )
        accept = pdu.AssociateAccept(request.called_ae, request.calling_ae, answers, user)
        connection.ask(lambda machine: machine.accept(accept))

    def _refusal(self, request: pdu.AssociateRequest) -> pdu.AssociateReject | None:
        if request.called_ae not in self._settings.destinations:
            return pdu.AssociateReject(1, 1, 7)
        if request.calling_ae not in self._settings.allowed_callers:
            return pdu.AssociateReject(1, 1, 3)
        if not self._certificate_fits(request.calling_ae):
            return pdu.AssociateReject(1, 1, 3)
        if not self._has_room():
            return pdu.AssociateReject(2, 3, 2)
        return None

    def _certificate_fits(self, calling_ae: str) -> bool:
        """May who proved this certificate call itself so?"""
        wanted = self._settings.certificate_names
        if wanted is None:
            return True
        shown = certificate_names(self._socket)
        return not {name.lower() for name in wanted.get(calling_ae, ())}.isdisjoint(shown)

    # ------------------------------------------------------------------------------------------------------- messages

    def _on_value(self, connection: Connection, value: pdu.DataValue) -> None:
        match self._reader.feed(value):
            case Received(context_id, message):
                self._on_command(connection, context_id, message)
            case Fragment(data, is_last) if self._incoming is not None:
                self._incoming.write(data)
                if is_last:
                    self._finish(connection)

    def _on_command(self, connection: Connection, context_id: int, message: command.Command) -> None:
        if context_id not in self._contexts:
            raise ProtocolViolation("presentation context that was not accepted")
        abstract, _ = self._contexts[context_id]
        match message:
            case command.StoreRequest(has_dataset=True) if abstract != uids.VERIFICATION:
                self._incoming = self._admit(context_id, message)
            case command.EchoRequest(has_dataset=False) if abstract == uids.VERIFICATION:
                response = command.Response(
                    command.Field.C_ECHO_RSP, message.message_id, status.SUCCESS, uids.VERIFICATION
                )
                self._respond(connection, context_id, response)
            case command.OtherRequest() | command.FindRequest() | command.GetRequest() | command.MoveRequest():
                self._incoming = None
                self._unrecognised(connection, context_id, message)
            case command.CancelRequest():
                pass
            case _:
                raise ProtocolViolation("message out of place")

    def _unrecognised(
        self, connection: Connection, context_id: int, message: command.OtherRequest | command.Query
    ) -> None:
        match message:
            case command.FindRequest():
                field_code = int(command.Field.C_FIND_RSP)
            case command.GetRequest():
                field_code = int(command.Field.C_GET_RSP)
            case command.MoveRequest():
                field_code = int(command.Field.C_MOVE_RSP)
            case command.OtherRequest():
                field_code = message.field | command.RESPONSE
        response = command.Response(field_code, message.message_id, status.UNRECOGNIZED_OPERATION)
        self._respond(connection, context_id, response)

    def _respond(self, connection: Connection, context_id: int, response: command.Response) -> None:
        values = list(cut(context_id, response, None, self._peer_max_length))

        def send(machine: UpperLayer) -> None:
            for value in values:
                machine.send_data([value])

        if connection.established:
            connection.ask(send)

    # ---------------------------------------------------------------------------------------------------------- store

    def _admit(self, context_id: int, request: command.StoreRequest) -> Incoming:
        abstract, syntax = self._contexts[context_id]
        offer = StoreOffer(
            called_ae=self._called_ae,
            calling_ae=self._calling_ae,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=syntax,
            move_originator_ae=request.move_originator_ae,
            move_originator_id=request.move_originator_id,
        )
        incoming = Incoming(context_id, request, offer, self._settings.max_instance_bytes)
        incoming.begin(abstract, self._handler)
        return incoming

    def _finish(self, connection: Connection) -> None:
        incoming, self._incoming = self._incoming, None
        assert incoming is not None
        refused = incoming.finish()
        if refused is None:
            self._stored += 1
        else:
            self._refused += 1
            # One line tells; a PACS that goes on would fill the log.
            level = logging.WARNING if self._refused == 1 else logging.DEBUG
            code = status.code(refused.status)
            _log.log(level, "DICOM instance of %s refused with %s: %s", self._calling_ae, code, refused.comment)
        response = store_response(incoming.request, refused)
        self._respond(connection, incoming.context_id, response)


def certificate_names(sock: socket.socket) -> frozenset[str]:
    """The names in the certificate that the peer proved, in lower case: DNS names and addresses, else common names.

    A wildcard is a name like another here: it must be configured as it stands.
    """
    if not isinstance(sock, ssl.SSLSocket) or not (certificate := sock.getpeercert()):
        return frozenset()
    alternative: Iterable[tuple[str, str]] = certificate.get("subjectAltName", ())  # type: ignore[assignment]
    names = {value for kind, value in alternative if kind in ("DNS", "IP Address")}
    if not names:
        subject: Iterable[Iterable[tuple[str, str]]] = certificate.get("subject", ())  # type: ignore[assignment]
        names = {value for part in subject for kind, value in part if kind == "commonName"}
    return frozenset(name.lower() for name in names)


def _answer(
    context: pdu.ProposedContext, preference: tuple[str, ...], classes: frozenset[str] | None
) -> pdu.AnsweredContext:
    wanted = uids.is_storage(context.abstract_syntax) if classes is None else context.abstract_syntax in classes
    if context.abstract_syntax != uids.VERIFICATION and not wanted:
        return pdu.AnsweredContext(
            context.id, pdu.ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, context.transfer_syntaxes[0]
        )
    chosen = uids.preferred(context.transfer_syntaxes, preference)
    if chosen is None:
        return pdu.AnsweredContext(
            context.id, pdu.ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, context.transfer_syntaxes[0]
        )
    return pdu.AnsweredContext(context.id, pdu.ContextResult.ACCEPTANCE, chosen)
