"""The least that a receiver can do: take every instance, write it, answer. What a PACS can send, nothing checked.

``python -m drimbox.bench.pixels.bare PORT FOLDER``. No Nagle, quick acknowledgements, one association after another.
When the first instance of an association is whole is noted in ``FOLDER/first``, on the clock that all processes share.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from drimbox.pacs.dimse import command, pdu, status, uids
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.message import MessageReader, Received, cut
from drimbox.pacs.dimse.part10 import file_head
from drimbox.pacs.dimse.pdu_reader import decode

_LIMITS = Limits()
_BUFFER = 1 << 20


def main() -> None:
    """Receive until killed."""
    port, name = sys.argv[1:]
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        while True:
            peer, _ = listener.accept()
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Association(peer, folder).serve()


class _Association:
    """From the first byte of a connection to its last."""

    def __init__(self, peer: socket.socket, folder: Path) -> None:
        self._peer = peer
        self._folder = folder
        self._reader = MessageReader(_LIMITS)
        self._syntaxes: dict[int, str] = {}
        self._request: command.StoreRequest | None = None
        self._file: BinaryIO | None = None
        self._count = 0

    def serve(self) -> None:
        for kind, body in self._pdus():
            match decode(kind, body, _LIMITS):
                case pdu.AssociateRequest() as request:
                    self._peer.sendall(pdu.encode(self._accepted(request)))
                case pdu.Data(values):
                    for value in values:
                        self._take(value)
                case pdu.ReleaseRequest():
                    self._peer.sendall(pdu.encode(pdu.ReleaseResponse()))
                case _:
                    return

    def _pdus(self) -> Iterator[tuple[int, memoryview]]:
        buffer = memoryview(bytearray(_BUFFER))
        filled = 0
        while count := self._peer.recv_into(buffer[filled:]):
            self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            filled += count
            start = 0
            while filled - start >= pdu.HEADER.size:
                kind, length = pdu.HEADER.unpack_from(buffer, start)
                end = start + pdu.HEADER.size + length
                if end > filled:
                    break
                yield kind, buffer[start + pdu.HEADER.size : end]
                start = end
            buffer[: filled - start] = bytes(buffer[start:filled])
            filled -= start

    def _accepted(self, request: pdu.AssociateRequest) -> pdu.AssociateAccept:
        answers = []
        for context in request.contexts:
            syntax = uids.preferred(context.transfer_syntaxes, uids.AS_STORED) or context.transfer_syntaxes[0]
            self._syntaxes[context.id] = syntax
            answers.append(pdu.AnsweredContext(context.id, pdu.ContextResult.ACCEPTANCE, syntax))
        user = pdu.UserInformation(_LIMITS.pdu_length, uids.IMPLEMENTATION_CLASS, uids.IMPLEMENTATION_VERSION)
        return pdu.AssociateAccept(request.called_ae, request.calling_ae, tuple(answers), user)

    def _take(self, value: pdu.DataValue) -> None:
        part = self._reader.feed(value)
        if isinstance(part, Received) and isinstance(part.command, command.StoreRequest):
            one = self._request = part.command
            self._file = (self._folder / f"{one.sop_instance_uid}.dcm").open("wb", buffering=0)
            head = file_head(one.sop_class_uid, one.sop_instance_uid, self._syntaxes[part.context_id], "BARE")
            self._file.write(head)
        elif part is not None and not isinstance(part, Received) and self._file is not None:
            self._file.write(part.data)
            if part.is_last:
                self._end(value.context_id)

    def _end(self, context_id: int) -> None:
        assert self._file is not None
        assert self._request is not None
        self._file.close()
        one = self._request
        answer = command.Response(
            command.Field.C_STORE_RSP, one.message_id, status.SUCCESS, one.sop_class_uid, one.sop_instance_uid
        )
        self._peer.sendall(b"".join(pdu.encode(pdu.Data((v,))) for v in cut(context_id, answer, None, 16_384)))
        self._count += 1
        if self._count == 1:
            (self._folder / "first").write_text(str(time.monotonic()))


if __name__ == "__main__":
    main()
