"""Notes as bytes, and a caller that sends any bytes as a note."""

from __future__ import annotations

import io
import socket

from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset

from drimbox.pacs.dimse import command, pdu, pdu_reader, uids
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION
from pacs.parrot import message, read_pdu


def encoded(note: Dataset) -> bytes:
    """The data set in Explicit VR Little Endian, without any file around it."""
    out = io.BytesIO()
    file = DicomFileLike(out)
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, note)
    return out.getvalue()


def associated(port: int, called: str, *, calling: str = "PACS_A") -> socket.socket:
    """A connection with an association for notes."""
    context = pdu.ProposedContext(1, KEY_OBJECT_SELECTION, (uids.EXPLICIT_LE,))
    user = pdu.UserInformation(16384, "1.2.3", "RAW")
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(pdu.encode(pdu.AssociateRequest(called, calling, (context,), user)))
    assert read_pdu(sock)[0] == pdu.PduType.ASSOCIATE_AC
    return sock


def ask(sop_uid: str, sop_class: str = KEY_OBJECT_SELECTION) -> bytes:
    """A C-STORE-RQ; its data set is still to come."""
    return message(command.StoreRequest(5, sop_class, sop_uid))


def data(content: bytes, *, last: bool = True) -> bytes:
    """The PDUs of a data set; without ``last``, more of it is to come."""
    pieces = [content[at : at + 16_000] for at in range(0, len(content), 16_000)] or [b""]
    values = [pdu.DataValue(1, False, last and n == len(pieces), piece) for n, piece in enumerate(pieces, 1)]
    return b"".join(pdu.encode(pdu.Data((value,))) for value in values)


def status_of(sock: socket.socket) -> int:
    """The status of the response that comes next."""
    kind, body = read_pdu(sock)
    assert kind == pdu.PduType.DATA_TF
    answer = command.decode(bytes(pdu_reader.decode_values(memoryview(body))[0].data))
    assert isinstance(answer, command.Response)
    return answer.status


def store(port: int, called: str, content: bytes, sop_uid: str, sop_class: str = KEY_OBJECT_SELECTION) -> int:
    """Send bytes as a note, in an association of its own; the status of the response."""
    with associated(port, called) as sock:
        sock.sendall(ask(sop_uid, sop_class) + data(content))
        return status_of(sock)
