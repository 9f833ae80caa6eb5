"""The association that we open: real peers, and peers that misbehave byte by byte."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drimbox.foundation.errors import Busy, Rejected, Unavailable
from drimbox.pacs.dimse import command, pdu, status, uids
from drimbox.pacs.dimse.association import Interrupt, Peer
from drimbox.pacs.dimse.client import Answer, ClientAssociation
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.identifier import Tag, encoder
from drimbox.sandbox.pacs.peer import PacsPeer
from pacs.conftest import free_port
from pacs.parrot import Step, accepting, message, parrot, read_one, wait_close

FIND = uids.STUDY_ROOT_FIND
STUDY = encoder("STUDY", {Tag.STUDY_UID: "1.2.3"})
FOUND = encoder("STUDY", {Tag.STUDY_UID: "1.2.3"})(uids.EXPLICIT_LE)


def peer(port: int, **changes: object) -> Peer:
    values: dict[str, object] = {"connect_timeout": 0.5, "answer_timeout": 0.5, **changes}
    return Peer("Le PACS essai", "127.0.0.1", port, "PACS", "DRIMBOX", **values)  # type: ignore[arg-type]


def pending(message_id: int = 1, code: int = status.PENDING, identifier: bytes = FOUND) -> bytes:
    answer = command.Response(command.Field.C_FIND_RSP, message_id, code, FIND, has_dataset=True)
    return message(answer, identifier)


def final(code: int = 0, message_id: int = 1) -> bytes:
    return message(command.Response(command.Field.C_FIND_RSP, message_id, code, FIND))


RELEASE = pdu.encode(pdu.ReleaseResponse())


def found(port: int, **changes: object) -> list[Answer]:
    with ClientAssociation(peer(port, **changes), (FIND,)) as association:
        return list(association.find(FIND, STUDY))


def test_answers_and_release() -> None:
    with parrot(accepting(), read_one, read_one, pending(), pending(), final(), read_one, RELEASE) as port:
        answers = found(port)
    assert [answer.response.status for answer in answers] == [0xFF00, 0xFF00, 0]
    assert [answer.identifier for answer in answers] == [FOUND, FOUND, None]


def test_answers_in_one_piece_with_the_final_and_the_close() -> None:
    with parrot(accepting(), read_one, read_one, pending() + pending() + final()) as port:
        assert len(found(port)) == 3


def test_implicit_vr_where_the_peer_prefers_it() -> None:
    with parrot(accepting(uids.IMPLICIT_LE), read_one, read_one, final(), read_one, RELEASE) as port:
        assert found(port)[0].transfer_syntax == uids.IMPLICIT_LE


def test_nobody_listens() -> None:
    with pytest.raises(Unavailable) as error:
        found(free_port())
    assert error.value.code == "pacs-unreachable"


@pytest.mark.parametrize(
    ("reject", "kind", "code"),
    [
        (pdu.AssociateReject(1, 1, 3), Rejected, "pacs-association-rejected"),
        (pdu.AssociateReject(1, 1, 7), Rejected, "pacs-association-rejected"),
        (pdu.AssociateReject(2, 3, 2), Busy, "pacs-busy"),
    ],
)
def test_the_association_is_rejected(reject: pdu.AssociateReject, kind: type[Exception], code: str) -> None:
    with parrot(read_one, pdu.encode(reject)) as port, pytest.raises(kind) as error:
        found(port)
    assert error.value.code == code  # type: ignore[attr-defined]
    assert error.value.peer_code == f"{reject.result}/{reject.source}/{reject.reason}"  # type: ignore[attr-defined]


def test_the_service_is_not_offered() -> None:
    with parrot(accepting(result=3), wait_close) as port, pytest.raises(Rejected) as error:
        found(port)
    assert error.value.code == "pacs-service-refused"


ABORT = pdu.encode(pdu.Abort(0, 0))
WRONG: dict[str, tuple[list[Step], str]] = {
    "silence at once": ([wait_close], "pacs-silent"),
    "closed at once": ([], "pacs-aborted"),
    "abort instead of accept": ([read_one, ABORT], "pacs-aborted"),
    "web page": ([read_one, b"HTTP/1.1 400 Bad Request\r\n\r\n", wait_close], "pacs-aborted"),
    "silence after the request": ([accepting(), read_one, read_one, wait_close], "pacs-silent"),
    "silence after an answer": ([accepting(), read_one, read_one, pending(), wait_close], "pacs-silent"),
    "closed after the request": ([accepting(), read_one, read_one], "pacs-aborted"),
    "closed after an answer": ([accepting(), read_one, read_one, pending()], "pacs-aborted"),
    "closed inside an answer": ([accepting(), read_one, read_one, pending()[:-5]], "pacs-aborted"),
    "abort after an answer": ([accepting(), read_one, read_one, pending(), ABORT, wait_close], "pacs-aborted"),
    "release after an answer": (
        [accepting(), read_one, read_one, pending(), pdu.encode(pdu.ReleaseRequest()), wait_close],
        "pacs-aborted",
    ),
    "answer to another": ([accepting(), read_one, read_one, pending(9), wait_close], "pacs-protocol"),
    "request instead": (
        [accepting(), read_one, read_one, message(command.EchoRequest(1)), wait_close],
        "pacs-protocol",
    ),
    "data without command": (
        [accepting(), read_one, read_one, pdu.encode(pdu.Data((pdu.DataValue(1, False, True, b"x"),))), wait_close],
        "pacs-protocol",
    ),
    "endless identifier": (
        [accepting(), read_one, read_one, pending(identifier=bytes(5000)), wait_close],
        "pacs-protocol",
    ),
    "bytes that are no PDU": ([accepting(), read_one, read_one, b"\xff" * 20, wait_close], "pacs-aborted"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.requirement("D7")
def test_a_peer_that_misbehaves_is_unavailable(name: str) -> None:
    steps, code = WRONG[name]
    with parrot(*steps) as port, pytest.raises(Unavailable) as error:
        found(port, limits=Limits(identifier_length=4000))
    assert error.value.code == code
    assert error.value.reason.startswith("Le PACS essai ")


def test_interrupted_from_another_thread() -> None:
    interrupt = Interrupt()
    with parrot(accepting(), read_one, read_one, wait_close) as port:
        threading.Timer(0.2, interrupt.set).start()
        began = time.monotonic()
        with (
            pytest.raises(Unavailable),
            ClientAssociation(peer(port, answer_timeout=20), (FIND,), interrupt) as association,
        ):
            list(association.find(FIND, STUDY))
        assert time.monotonic() - began < 5


def test_interrupted_before_it_began() -> None:
    interrupt = Interrupt()
    interrupt.set()
    with parrot(wait_close) as port, pytest.raises(Unavailable):
        ClientAssociation(peer(port), (FIND,), interrupt)


def test_a_peer_that_does_not_answer_the_release_is_aborted() -> None:
    with parrot(accepting(), read_one, read_one, final(), wait_close) as port:
        assert len(found(port, release_timeout=0.2)) == 1


def test_a_sign_of_life_elsewhere_is_patience() -> None:
    with parrot(accepting(), read_one, read_one, lambda _: time.sleep(1.0), final(), read_one, RELEASE) as port:
        alive = time.monotonic()

        def tick() -> float:
            return max(alive, time.monotonic() - 0.1)

        with ClientAssociation(peer(port), (uids.STUDY_ROOT_MOVE,)) as association:
            answers = list(association.move(uids.STUDY_ROOT_MOVE, "X", STUDY, message_id=1, alive=tick))
    assert len(answers) == 1


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[int]:
    if not Path("/usr/bin/storescp").exists():
        pytest.skip("DCMTK is not installed: apt-get install dcmtk")
    port = free_port()
    process = subprocess.Popen(["/usr/bin/storescp", "-aet", "PACS", "-od", str(tmp_path), str(port)])
    yield port
    process.terminate()
    process.wait(10)


def test_echo_to_dcmtk(storescp: int) -> None:
    for attempt in range(50):
        try:
            with ClientAssociation(peer(storescp, answer_timeout=5), (uids.VERIFICATION,)) as association:
                association.echo()
                association.echo()
            return
        except Unavailable:
            if attempt == 49:
                raise
            time.sleep(0.05)


def test_echo_to_orthanc(orthanc_peer: PacsPeer) -> None:
    known = Peer("Orthanc", orthanc_peer.host, orthanc_peer.port, orthanc_peer.ae_title, "DRIMBOX")
    with ClientAssociation(known, (uids.VERIFICATION,)) as association:
        association.echo()
