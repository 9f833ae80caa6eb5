"""C-STORE as its user (PS3.7 9.1.1): many instances over one association, as many open at once as the peer allows.

The instance goes from the file to the socket: one buffer is read full, and the kernel is given its slices between the
heads of the PDUs, so that nothing is copied together and no PDU ever leaves in two pieces.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.pacs.dimse import command, pdu
from drimbox.pacs.dimse.association import Association
from drimbox.pacs.dimse.message import DEFAULT_LENGTH, PDV_OVERHEAD, Fragment, Received, cut

_BUFFER = 1 << 20
_HEAD = pdu.HEADER.size + pdu.VALUE_HEAD.size


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One instance to send: a Part 10 file whose data set begins at ``start``; sizes are in bytes.

    ``head`` stands in the place of the first ``rest`` bytes of ``path``; ``start`` and ``size`` are those of the file
    that comes of it.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    start: int
    size: int
    head: bytes = field(default=b"", repr=False)
    rest: int = 0


class CannotRead(Exception):
    """The file cannot be read to its announced end: the association is left in the middle of a data set."""


def room_of(peer_max_length: int) -> int:
    """Bytes of a data set that fit in one PDU of the peer; even, as fragments should be (PS3.8 Annex E)."""
    return max(((peer_max_length or DEFAULT_LENGTH) - PDV_OVERHEAD) & ~1, 2)


def framed(context_id: int, data: memoryview, room: int, *, ends: bool) -> Iterator[bytes | memoryview]:
    """P-DATA-TF PDUs around ``data``, as heads and slices in turn; ``ends``: the data set is over with it."""
    full = _head(context_id, room, is_last=False)
    last = max(len(data) - 1, 0) // room * room
    for start in range(0, last, room):
        yield full
        yield data[start : start + room]
    yield _head(context_id, len(data) - last, is_last=ends)
    yield data[last:]


def _head(context_id: int, length: int, *, is_last: bool) -> bytes:
    outer = pdu.HEADER.pack(pdu.PduType.DATA_TF, length + PDV_OVERHEAD)
    return outer + pdu.VALUE_HEAD.pack(length + 2, context_id, is_last << 1)


class Storing:
    """The C-STORE operations of one association. One thread uses it."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._room = room_of(association.peer_max_length)
        self._buffer = bytearray(max(_BUFFER // self._room, 1) * self._room)
        self._contexts = {(c.abstract_syntax, c.transfer_syntax): c.id for c in association.contexts.values()}
        self._open: dict[int, Outgoing] = {}
        self._answers: deque[Received | Fragment] = deque()

    @property
    def open(self) -> list[Outgoing]:
        """What was sent, or was being sent, and has no answer yet."""
        return list(self._open.values())

    @property
    def full(self) -> bool:
        """Must an answer come before the next instance may go?"""
        return len(self._open) >= self._association.window

    def accepts(self, instance: Outgoing) -> bool:
        """Did the peer agree on the instance's class in its syntax?"""
        return (instance.sop_class_uid, instance.transfer_syntax_uid) in self._contexts

    def send(self, instance: Outgoing) -> None:
        """Sends one instance. Raises ``Unavailable``, and ``CannotRead`` or ``OSError`` for the file.

        After an error the association can only be aborted, unless it is that the file cannot be opened.
        """
        context_id = self._contexts[instance.sop_class_uid, instance.transfer_syntax_uid]
        with instance.path.open("rb", buffering=0) as file:
            message_id = self._association.next_message_id()
            request = command.StoreRequest(message_id, instance.sop_class_uid, instance.sop_instance_uid)
            pieces: list[bytes | memoryview] = [
                pdu.encode(pdu.Data((value,)))
                for value in cut(context_id, request, None, self._association.peer_max_length)
            ]
            self._open[message_id] = instance
            for data, ends in self._chunks(file.fileno(), instance):
                pieces += framed(context_id, data, self._room, ends=ends)
                self._association.send_pdus(pieces)
                pieces = []

    def answer(self) -> tuple[Outgoing, command.Response]:
        """The next answer, and what it is about. Raises ``Unavailable``."""
        while not self._answers:
            # Several may have come at once.
            self._answers += self._association.messages()
        answer = self._answers.popleft()
        if not isinstance(answer, Received) or not isinstance(response := answer.command, command.Response):
            self._association.violated("something else where a C-STORE response must come")
        if response.field != command.Field.C_STORE_RSP or response.message_id not in self._open:
            self._association.violated("answers to another request")
        return self._open.pop(response.message_id), response

    def _chunks(self, file: int, instance: Outgoing) -> Iterator[tuple[memoryview, bool]]:
        left, offset = instance.size, instance.start
        while True:
            view = memoryview(self._buffer)[: min(left, len(self._buffer))]
            _read(file, view, offset, instance)
            left -= len(view)
            offset += len(view)
            yield view, not left
            if not left:
                return


def _read(file: int, view: memoryview, offset: int, instance: Outgoing) -> None:
    """Fill ``view`` with what stands at ``offset`` of the instance's file. Raises ``CannotRead``, ``OSError``."""
    new = instance.head[offset : offset + len(view)]
    view[: len(new)] = new
    done, shift = len(new), instance.rest - len(instance.head)
    while done < len(view):
        count = os.preadv(file, [view[done:]], offset + done + shift)
        if not count:
            raise CannotRead("file shorter than it was")
        done += count
