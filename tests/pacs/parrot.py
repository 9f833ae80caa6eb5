"""A peer that plays a script, byte for byte: what no real implementation would send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from drimbox.pacs.dimse import command, pdu, pdu_reader
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.message import cut

Step = bytes | Callable[[socket.socket], None]


def read_pdu(sock: socket.socket) -> tuple[int, bytes]:
    """The next PDU: its type and its variable field; type 0 when the peer has closed."""
    with suppress(OSError):
        head = _exactly(sock, 6)
        if head:
            return head[0], _exactly(sock, int.from_bytes(head[2:], "big"))
    return 0, b""


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            return b""
        data += more
    return data


def read_one(sock: socket.socket) -> None:
    """A step: wait for one PDU, whatever it is."""
    read_pdu(sock)


def wait_close(sock: socket.socket) -> None:
    """A step: wait until the peer has gone."""
    while read_pdu(sock)[0]:
        pass


def accepting(syntax: str = "1.2.840.10008.1.2.1", result: int = 0, max_length: int = 16384) -> Step:
    """A step: read the A-ASSOCIATE-RQ and accept (or refuse) every context."""

    def step(sock: socket.socket) -> None:
        _, body = read_pdu(sock)
        asked = pdu_reader.decode(pdu.PduType.ASSOCIATE_RQ, memoryview(body), limits())
        assert isinstance(asked, pdu.AssociateRequest)
        answers = tuple(pdu.AnsweredContext(context.id, result, syntax) for context in asked.contexts)
        user = pdu.UserInformation(max_length, "1.2.3", "PARROT")
        sock.sendall(pdu.encode(pdu.AssociateAccept(asked.called_ae, asked.calling_ae, answers, user)))

    return step


def message(answer: command.Command, dataset: bytes | None = None, context_id: int = 1) -> bytes:
    """The PDUs of a DIMSE message."""
    return b"".join(pdu.encode(pdu.Data((value,))) for value in cut(context_id, answer, dataset, 16384))


def limits() -> Limits:
    return Limits()


@contextmanager
def parrot(*steps: Step, connections: int = 1) -> Iterator[int]:
    """A server that plays the script on each connection, then closes it; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=_serve, args=(listener, steps, connections), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.close()
        thread.join(20)
        assert not thread.is_alive()


def _serve(listener: socket.socket, steps: Sequence[Step], connections: int) -> None:
    for _ in range(connections):
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock, suppress(OSError):
            sock.settimeout(20)
            for step in steps:
                if isinstance(step, bytes):
                    sock.sendall(step)
                else:
                    step(sock)
