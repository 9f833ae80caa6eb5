"""An association that we open (requestor): connection, negotiation, messages, end. Blocking, one thread uses it.

Whatever goes wrong is one of the errors that a caller can act on; the reasons name the peer as the configuration does.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from drimbox.foundation.errors import Busy, Rejected, Unavailable
from drimbox.pacs.dimse import command, negotiation, pdu, uids
from drimbox.pacs.dimse.connection import Connection
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.machine import Aborted, Indication, Released, UpperLayer
from drimbox.pacs.dimse.message import Fragment, MessageReader, ProtocolViolation, Received, cut
from drimbox.pacs.dimse.negotiation import Agreed, Offer


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
    tls_name: str = ""
    """The name that its certificate must carry; none: ``host``."""
    limits: Limits = field(default_factory=Limits)


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


class Association:
    """An open association. One thread uses it; ``interrupt`` may come from any.

    As a context it is released at the end, or aborted where an error leaves the block.
    """

    def __init__(
        self, peer: Peer, offers: Sequence[Offer], interrupt: Interrupt | None = None, *, window: int = 1
    ) -> None:
        """Opens it. Raises ``Unavailable`` (no connection, no answer), ``Busy`` (refused for now) or ``Rejected``.

        ``window``: the operations that we would have open at once, where the peer allows more than one.
        """
        self.peer = peer
        self.contexts: Mapping[int, Agreed] = {}
        self.window = 1
        self.peer_max_length = 0
        self._reader = MessageReader(peer.limits)
        self._message_id = 0
        self._ended = False
        sock = self._connect()
        self._connection = Connection(sock, UpperLayer(peer.limits), artim=peer.release_timeout, send_timeout=30.0)
        try:
            if interrupt is not None:
                interrupt.watch(self._connection.interrupt)
            self._associate(offers, window)
        except BaseException:
            self._connection.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    def interrupt(self) -> None:
        """Break the connection, from any thread."""
        self._connection.interrupt()

    def release(self) -> None:
        """A-RELEASE; an abort where the peer does not answer it."""
        try:
            if self._connection.established:
                self._connection.ask(UpperLayer.release)
            end = time.monotonic() + self.peer.release_timeout
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

    def next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def offers(self, abstract_syntax: str) -> bool:
        """Did the peer agree on this service?"""
        return any(context.abstract_syntax == abstract_syntax for context in self.contexts.values())

    def context(self, abstract_syntax: str) -> Agreed:
        """The context of a service. Raises ``Rejected`` (``pacs-service-refused``) where the peer refused it."""
        for context in self.contexts.values():
            if context.abstract_syntax == abstract_syntax:
                return context
        raise Rejected(f"{self.peer.name} n'offre pas le service DICOM demandé.", code="pacs-service-refused")

    # --------------------------------------------------------------------------------------------------- for operations

    def send(self, context_id: int, message: command.Command, dataset: bytes | None = None) -> None:
        """One message, small enough to be put together in memory. Raises ``Unavailable``."""
        values = list(cut(context_id, message, dataset, self.peer_max_length))

        def send(machine: UpperLayer) -> None:
            for value in values:
                machine.send_data([value])

        if not self._connection.established:
            self.broken()
        self._connection.ask(send)

    def send_pdus(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Data PDUs that are encoded already (``storing.framed``). Raises ``Unavailable``."""
        if not self._connection.established:
            self.broken()
        self._connection.ask(lambda machine: machine.send_pdus(pieces))

    def messages(self, alive: Callable[[], float] | None = None) -> list[Received | Fragment]:
        """What comes next, perhaps nothing whole yet; fragments are good until the next call. Raises ``Unavailable``.

        ``alive`` tells the monotonic time of the peer's last sign of life outside of this association.
        """
        found: list[Received | Fragment] = []
        try:
            for indication in self._patient(alive):
                if isinstance(indication, pdu.DataValue) and (part := self._reader.feed(indication)) is not None:
                    found.append(part)
        except ProtocolViolation as wrong:
            self.violated(str(wrong))
        return found

    def broken(self) -> NoReturn:
        raise Unavailable(f"{self.peer.name} a rompu l'association.", code="pacs-aborted")

    def violated(self, what: str) -> NoReturn:
        raise Unavailable(f"{self.peer.name} ne respecte pas le protocole DICOM ({what}).", code="pacs-protocol")

    # ------------------------------------------------------------------------------------------------------- internals

    def _connect(self) -> socket.socket:
        peer = self.peer
        try:
            sock = socket.create_connection((peer.host, peer.port), timeout=peer.connect_timeout)
        except OSError as error:
            raise Unavailable(f"{peer.name} est injoignable.", code="pacs-unreachable") from error
        if peer.tls is None:
            return sock
        try:
            return peer.tls.wrap_socket(sock, server_hostname=peer.tls_name or peer.host)
        except OSError as error:
            sock.close()
            detail = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
            raise Unavailable(
                f"La connexion TLS à {peer.name} échoue.", code="pacs-tls", peer_code=str(detail)[:200]
            ) from error

    def _associate(self, offers: Sequence[Offer], window: int) -> None:
        peer = self.peer
        user = pdu.UserInformation(
            peer.limits.pdu_length,
            uids.IMPLEMENTATION_CLASS,
            uids.IMPLEMENTATION_VERSION,
            negotiation.roles(offers),
            pdu.Window(window, 1) if window > 1 else None,
        )
        request = pdu.AssociateRequest(peer.called_ae, peer.calling_ae, negotiation.proposed(offers), user)

        def begin(machine: UpperLayer) -> None:
            machine.associate(request)
            machine.transport_connected()

        self._connection.ask(begin)
        accept = self._awaited(peer.connect_timeout)
        self.peer_max_length = accept.user.max_length
        self.contexts = negotiation.agreed(offers, accept)
        self.window = negotiation.window(window, accept)

    def _awaited(self, timeout: float) -> pdu.AssociateAccept:
        while True:
            for indication in self._receive(timeout):
                match indication:
                    case pdu.AssociateAccept():
                        return indication
                    case pdu.AssociateReject():
                        self._rejected(indication)

    def _rejected(self, reject: pdu.AssociateReject) -> NoReturn:
        name, code = self.peer.name, f"{reject.result}/{reject.source}/{reject.reason}"
        if reject.result == 2:
            raise Busy(f"{name} refuse l'association pour l'instant.", code="pacs-busy", peer_code=code)
        why = {
            (1, 3): f"ne connaît pas notre AE title ({self.peer.calling_ae})",
            (1, 7): f"ne répond pas au nom de {self.peer.called_ae}",
        }.get((reject.source, reject.reason), "refuse l'association")
        raise Rejected(f"{name} {why}.", code="pacs-association-rejected", peer_code=code)

    def _patient(self, alive: Callable[[], float] | None) -> list[Indication]:
        if self._ended:
            self.broken()
        asked = time.monotonic()
        while True:
            since = max(asked, alive()) if alive is not None else asked
            left = since + self.peer.answer_timeout - time.monotonic()
            if left <= 0:
                raise Unavailable(f"{self.peer.name} ne répond plus.", code="pacs-silent")
            with suppress(TimeoutError):
                return self._checked(self._connection.receive(left))

    def _receive(self, timeout: float) -> list[Indication]:
        try:
            return self._checked(self._connection.receive(timeout))
        except TimeoutError as error:
            raise Unavailable(f"{self.peer.name} ne répond pas.", code="pacs-silent") from error

    def _checked(self, indications: list[Indication]) -> list[Indication]:
        if not indications and self._connection.finished:
            self.broken()
        if any(isinstance(i, Aborted | Released | pdu.ReleaseRequest) for i in indications):
            # Answers that came before the break are still given; the break is told to who asks for more.
            self._ended = True
            if not any(isinstance(i, pdu.DataValue) for i in indications):
                self.broken()
        return indications
