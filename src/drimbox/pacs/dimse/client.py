"""The operations that we ask of a peer (SCU): C-ECHO, C-FIND, C-MOVE, C-GET (PS3.7 9.1). Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.pacs.dimse import command, status, uids
from drimbox.pacs.dimse.association import Association, Interrupt, Peer
from drimbox.pacs.dimse.machine import WrongState
from drimbox.pacs.dimse.message import Fragment, Received
from drimbox.pacs.dimse.negotiation import Offer, services
from drimbox.pacs.dimse.storage import Incoming, StoreHandler, StoreOffer, store_response

MAX_INSTANCE_BYTES = 8 * 2**30


class Answer(NamedTuple):
    """One response with its identifier; the last one of an operation has another status than pending."""

    response: command.Response
    identifier: bytes | None
    transfer_syntax: str


class ClientAssociation(Association):
    """An open association and what is asked over it. ``cancel`` may come from any thread."""

    def __init__(
        self, peer: Peer, offers: Sequence[str | Offer], interrupt: Interrupt | None = None, *, window: int = 1
    ) -> None:
        """Opens it, with services named by their SOP class or offered in full. Raises what ``Association`` raises."""
        full = [one for offer in offers for one in (services((offer,)) if isinstance(offer, str) else (offer,))]
        super().__init__(peer, full, interrupt, window=window)

    def __enter__(self) -> ClientAssociation:
        return self

    def echo(self) -> None:
        """C-ECHO. Raises ``Unavailable``."""
        message = command.EchoRequest(self.next_message_id())
        for answer in self.operation(uids.VERIFICATION, message, None):
            if answer.response.status != status.SUCCESS:
                code = status.code(answer.response.status)
                raise Unavailable(f"{self.peer.name} répond à l'écho par le statut {code}.", peer_code=code)

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

    def get(
        self,
        sop_class: str,
        encode: Callable[[str], bytes],
        handler: StoreHandler,
        *,
        message_id: int,
        most: int = MAX_INSTANCE_BYTES,
    ) -> Iterator[Answer]:
        """C-GET (PS3.7 9.1.3): the peer stores to us over this association, to where ``handler`` says.

        Each C-STORE is answered as it ends; ``most`` bytes at the most are taken of an instance.
        """
        request = command.GetRequest(message_id, sop_class)
        return self.operation(sop_class, request, encode, stores=_Stores(self, handler, most))

    def operation(
        self,
        sop_class: str,
        request: command.EchoRequest | command.Query,
        encode: Callable[[str], bytes] | None,
        alive: Callable[[], float] | None = None,
        stores: _Stores | None = None,
    ) -> Iterator[Answer]:
        """Sends a request and gives its answers, the final one last.

        Raises ``Unavailable`` when the peer aborts, breaks off or says nothing in time: the answers given until then
        are not the whole.
        """
        context = self.context(sop_class)
        self.send(context.id, request, encode(context.transfer_syntax) if encode else None)
        try:
            for response, identifier in self._responses(alive, stores):
                if response.message_id != request.message_id:
                    self.violated("answers to another request")
                yield Answer(response, identifier, context.transfer_syntax)
                if status.kind(response.status) is not status.Kind.PENDING:
                    return
        finally:
            if stores is not None:
                stores.give_up()

    def cancel(self, sop_class: str, message_id: int) -> None:
        """C-CANCEL, from any thread; the operation still ends with a final answer."""
        with suppress(Rejected, Unavailable, WrongState):
            self.send(self.context(sop_class).id, command.CancelRequest(message_id))

    def _responses(
        self, alive: Callable[[], float] | None, stores: _Stores | None
    ) -> Iterator[tuple[command.Response, bytes | None]]:
        response: command.Response | None = None
        identifier = bytearray()
        while True:
            if stores is not None:
                stores.flush()
            for part in self.messages(alive):
                match part:
                    case Received(_, command.Response() as answer):
                        response = answer
                        identifier.clear()
                        if not answer.has_dataset:
                            yield answer, None
                    case Received(context_id, command.StoreRequest(has_dataset=True) as request) if stores is not None:
                        response = None
                        stores.begin(context_id, request)
                    case Received():
                        self.violated("request where an answer must come")
                    case Fragment(data, is_last) if response is not None:
                        if len(identifier) + len(data) > self.peer.limits.identifier_length:
                            self.violated("identifier too long")
                        identifier += data
                        if is_last:
                            yield response, bytes(identifier)
                    case Fragment(data, is_last) if stores is not None:
                        stores.data(data, is_last)


class _Stores:
    """What the peer stores to us on behalf of our C-GET: one instance at a time (PS3.7 9.3.3.3)."""

    def __init__(self, association: ClientAssociation, handler: StoreHandler, most: int) -> None:
        self._association = association
        self._handler = handler
        self._most = most
        self._incoming: Incoming | None = None

    def begin(self, context_id: int, request: command.StoreRequest) -> None:
        context = self._association.contexts.get(context_id)
        if context is None or not context.stored_to_us:
            self._association.violated("stores in a context that was not agreed on")
        peer = self._association.peer
        offer = StoreOffer(
            called_ae=peer.calling_ae,
            calling_ae=peer.called_ae,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=context.transfer_syntax,
            move_originator_ae=request.move_originator_ae,
            move_originator_id=request.move_originator_id,
        )
        self._incoming = Incoming(context_id, request, offer, self._most)
        self._incoming.begin(context.abstract_syntax, self._handler)

    def data(self, data: bytes | memoryview, is_last: bool) -> None:
        if self._incoming is None:
            return
        self._incoming.write(data)
        if is_last:
            incoming, self._incoming = self._incoming, None
            refused = incoming.finish()
            self._association.send(incoming.context_id, store_response(incoming.request, refused))

    def flush(self) -> None:
        """The receive buffer is about to be used again."""
        if self._incoming is not None:
            self._incoming.flush()

    def give_up(self) -> None:
        """The operation is over: what has not come whole by now will not."""
        if self._incoming is not None:
            self._incoming.give_up()
            self._incoming = None
