"""The C-STORE receiver: real senders, other callers, hostile callers, memory and speed."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, build_context
from pynetdicom.presentation import PresentationContext

from drimbox.foundation.errors import Misconfigured
from drimbox.pacs.dimse import command, pdu, pdu_reader, status, uids
from drimbox.pacs.dimse.association import Peer
from drimbox.pacs.dimse.client import ClientAssociation
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.receiver import ReceiverSettings, StorageReceiver, receiving
from drimbox.pacs.dimse.storage import StoredInstance, StoreOffer, StoreRefused
from drimbox.sandbox.pki import Profile, TestAuthority
from pacs.parrot import message, read_pdu

STORESCU = "/usr/bin/storescu"
needs_dcmtk = pytest.mark.skipif(not Path(STORESCU).exists(), reason="DCMTK is not installed: apt-get install dcmtk")
CT = "1.2.840.10008.5.1.4.1.1.2"


class Shelf:
    """A handler that takes everything into a folder, and remembers what was said to it."""

    def __init__(self, folder: Path, refuse: Callable[[StoreOffer], StoreRefused | None] = lambda _: None) -> None:
        self.folder = folder
        self.offers: list[StoreOffer] = []
        self.stored: list[StoredInstance] = []
        self.lost = 0
        self._refuse = refuse
        self._numbers = itertools.count()

    def admit(self, offer: StoreOffer) -> Place:
        self.offers.append(offer)
        if refused := self._refuse(offer):
            raise refused
        return Place(self, self.folder / f"{next(self._numbers)}.dcm")

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


class Place:
    def __init__(self, shelf: Shelf, path: Path) -> None:
        self._shelf = shelf
        self._path = path

    @property
    def path(self) -> Path:
        return self._path

    def progress(self) -> None:
        pass

    def landed(self, stored: StoredInstance) -> None:
        self._shelf.stored.append(stored)

    def lost(self) -> None:
        self._shelf.lost += 1


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return Shelf(folder)


def settings(**changes: object) -> ReceiverSettings:
    values: dict[str, object] = {
        "destinations": {"DRIMBOX": uids.AS_STORED},
        "allowed_callers": frozenset({"STORESCU", "ECHOSCU", "PYNET", "RAW"}),
        **changes,
    }
    return ReceiverSettings(**values)  # type: ignore[arg-type]


def pynetdicom_sends(ae: AE, port: int, contexts: list[PresentationContext], files: list[Path]) -> list[int] | None:
    """What it was answered; None where its own reactor took an answer before whoever waited for it could."""
    ae.dimse_timeout = 10
    association = ae.associate("127.0.0.1", port, contexts, "DRIMBOX")
    assert association.is_established
    given = []
    for path in files:
        answer = association.send_c_store(path)
        if "Status" not in answer:
            return None
        given.append(int(answer.Status))
    association.release()
    return given


def storescu(port: int, *args: str | Path, called: str = "DRIMBOX") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return subprocess.run(
        [STORESCU, "-aec", called, "127.0.0.1", str(port), *map(str, args)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def dataset_of(path: Path) -> pydicom.Dataset:
    dataset = pydicom.dcmread(path)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    return dataset


# ------------------------------------------------------------------------------------------------------- real senders


@needs_dcmtk
@pytest.mark.requirement("DB.CS.83")
def test_what_dcmtk_sends_lands_whole(shelf: Shelf, studies: Path) -> None:
    with receiving(settings(), shelf) as receiver:
        done = storescu(receiver.port, "+sd", "+r", studies / "B", studies / "other")
        assert done.returncode == 0, done.stderr
        assert receiver.port > 0
    sent = {
        str(d.SOPInstanceUID): d
        for d in map(dataset_of, [*studies.glob("[B]/**/*.dcm"), *studies.glob("other/**/*.dcm")])
    }
    assert len(shelf.stored) == len(sent) == 32
    for stored in shelf.stored:
        received = pydicom.dcmread(stored.path)
        assert received.file_meta.MediaStorageSOPClassUID == stored.sop_class_uid == received.SOPClassUID
        assert received.file_meta.MediaStorageSOPInstanceUID == stored.sop_instance_uid == received.SOPInstanceUID
        assert received.file_meta.TransferSyntaxUID == stored.transfer_syntax_uid == uids.EXPLICIT_LE
        assert received.file_meta.SourceApplicationEntityTitle == "STORESCU"
        assert stored.size == stored.path.stat().st_size
        assert dataset_of(stored.path) == sent[stored.sop_instance_uid]
    assert not [path for path in shelf.files() if path.suffix == ".part"]


@pytest.mark.requirement("DB.CS.83")
@pytest.mark.parametrize("letter", ["C", "D", "F", "N", "G"])
def test_what_pynetdicom_sends_lands_as_it_lies(letter: str, shelf: Shelf, studies: Path) -> None:
    files = sorted((studies / letter).rglob("*.dcm"))[:4]
    ae = AE("PYNET")
    syntaxes = {pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID for path in files}
    classes = {pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID for path in files}
    contexts = [build_context(uid, [syntax]) for uid in classes for syntax in syntaxes]
    with receiving(settings(), shelf) as receiver:
        for _ in range(3):
            if given := pynetdicom_sends(ae, receiver.port, contexts, files):
                break
            shelf.stored.clear()
        assert given == [0] * len(files)
    for sent, stored in zip(files, shelf.stored, strict=True):
        assert pydicom.dcmread(stored.path) == pydicom.dcmread(sent)
        assert stored.transfer_syntax_uid in syntaxes
        # The data set itself, byte for byte.
        assert stored.path.read_bytes()[-1000:] == sent.read_bytes()[-1000:]


@needs_dcmtk
def test_echo() -> None:
    with receiving(settings(), Shelf(Path("/nonexistent"))) as receiver:
        done = subprocess.run(
            ["/usr/bin/echoscu", "-aec", "DRIMBOX", "127.0.0.1", str(receiver.port)], timeout=20, check=False
        )
        assert done.returncode == 0


@needs_dcmtk
@pytest.mark.parametrize(
    ("callers", "called", "reason"),
    [
        (frozenset({"STORESCU"}), "NOBODY", "Called AE Title Not Recognized"),
        (frozenset({"ELSE"}), "DRIMBOX", "Calling AE Title Not Recognized"),
        (frozenset(), "DRIMBOX", "Calling AE Title Not Recognized"),
    ],
)
def test_only_known_names_associate(
    callers: frozenset[str], called: str, reason: str, shelf: Shelf, studies: Path
) -> None:
    file = next((studies / "B").rglob("*.dcm"))
    with receiving(settings(allowed_callers=callers), shelf) as receiver:
        done = storescu(receiver.port, file, called=called)
    assert done.returncode != 0
    assert reason in done.stderr
    assert shelf.offers == []


@pytest.mark.requirement("DB.SO.85")
def test_each_destination_has_its_own_preference(shelf: Shelf) -> None:
    chosen = {}
    orders = {"VIEW": (uids.LOSSY[0], uids.EXPLICIT_LE), "IMPORT": ("1.2.840.10008.1.2.4.80", uids.EXPLICIT_LE)}
    with receiving(settings(destinations=orders), shelf) as receiver:
        for called in orders:
            ae = AE("PYNET")
            proposed = [uids.EXPLICIT_LE, "1.2.840.10008.1.2.4.80", uids.LOSSY[0]]
            association = ae.associate("127.0.0.1", receiver.port, [build_context(CT, proposed)], called)
            chosen[called] = association.accepted_contexts[0].transfer_syntax[0]
            association.release()
    assert chosen == {"VIEW": uids.LOSSY[0], "IMPORT": "1.2.840.10008.1.2.4.80"}


def test_what_is_taken_and_what_is_not(shelf: Shelf) -> None:
    proposed = {
        CT: [uids.EXPLICIT_LE, uids.IMPLICIT_LE],
        "1.2.840.10008.5.1.4.1.1.88.59": [uids.IMPLICIT_LE, uids.EXPLICIT_LE],
        "1.3.12.2.1107.5.9.1": [uids.EXPLICIT_LE],
        "1.2.840.10008.1.1": [uids.IMPLICIT_LE],
        uids.STUDY_ROOT_FIND: [uids.EXPLICIT_LE],
        "1.2.840.10008.5.1.4.1.1.4": ["1.2.3.4.5"],
    }
    ae = AE("PYNET")
    with receiving(settings(), shelf) as receiver:
        contexts = [build_context(uid, syntaxes) for uid, syntaxes in proposed.items()]
        association = ae.associate("127.0.0.1", receiver.port, contexts, "DRIMBOX")
        taken = {str(c.abstract_syntax): str(c.transfer_syntax[0]) for c in association.accepted_contexts}
        refused = {str(c.abstract_syntax): c.result for c in association.rejected_contexts}
        association.release()
    assert taken == {
        CT: uids.EXPLICIT_LE,
        "1.2.840.10008.5.1.4.1.1.88.59": uids.EXPLICIT_LE,
        "1.3.12.2.1107.5.9.1": uids.EXPLICIT_LE,
        "1.2.840.10008.1.1": uids.IMPLICIT_LE,
    }
    assert refused == {uids.STUDY_ROOT_FIND: 3, "1.2.840.10008.5.1.4.1.1.4": 4}


def test_nobody_is_asked_to_lose_pixels() -> None:
    assert uids.preferred([uids.LOSSY[0], uids.IMPLICIT_LE], uids.AS_STORED) == uids.IMPLICIT_LE
    assert uids.preferred([uids.EXPLICIT_LE, "1.2.840.10008.1.2.4.80"], uids.AS_STORED) == "1.2.840.10008.1.2.4.80"
    assert uids.preferred(["1.2.3"], uids.AS_STORED) is None


@needs_dcmtk
def test_a_refusal_is_told_and_nothing_is_kept(shelf: Shelf, studies: Path) -> None:
    refusing = Shelf(shelf.folder, lambda _: StoreRefused(status.NOT_AUTHORIZED, "not expected"))
    with receiving(settings(), refusing) as receiver:
        done = storescu(receiver.port, "-v", next((studies / "B").rglob("*.dcm")))
    assert "0x124" in done.stderr
    assert refusing.files() == []


@needs_dcmtk
def test_an_instance_too_long_is_refused_and_the_association_goes_on(shelf: Shelf, studies: Path) -> None:
    files = sorted((studies / "B").rglob("*.dcm"))[:2]
    small = settings(max_instance_bytes=50_000)
    with receiving(small, shelf) as receiver:
        done = storescu(receiver.port, "-v", "--no-halt", *files)
        assert done.stderr.count("Refused: OutOfResources") == 2
    assert shelf.lost == 2
    assert shelf.files() == []


@needs_dcmtk
def test_no_room_on_the_disk_is_told(shelf: Shelf, studies: Path) -> None:
    shutil.rmtree(shelf.folder)
    with receiving(settings(), shelf) as receiver:
        done = storescu(receiver.port, "-v", next((studies / "B").rglob("*.dcm")))
    assert "Refused: OutOfResources" in done.stderr
    assert shelf.lost == 1


def test_the_port_is_taken(shelf: Shelf) -> None:
    with receiving(settings(), shelf) as receiver, pytest.raises(Misconfigured, match=str(receiver.port)):
        StorageReceiver(settings(port=receiver.port), shelf)


def test_over_tls(shelf: Shelf, studies: Path, authority: TestAuthority) -> None:
    pair = authority.issue(
        Profile.SSL_SERV, "dicom", common_name="localhost", unit="U", organisation="O", hosts=["localhost"]
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    client = ssl.create_default_context(cafile=str(authority.roots))
    path = next((studies / "B").rglob("*.dcm"))
    with receiving(settings(), shelf, tls=server) as receiver:
        ae = AE("PYNET")
        contexts = [build_context("1.2.840.10008.5.1.4.1.1.4", [uids.EXPLICIT_LE])]
        association = ae.associate("127.0.0.1", receiver.port, contexts, "DRIMBOX", tls_args=(client, "localhost"))
        assert association.is_established
        assert association.send_c_store(path).Status == 0
        association.release()
        # A caller without TLS gets no association, and harms nobody.
        with raw(receiver, associated=False) as plain:
            plain.sendall(request())
            assert read_pdu(plain)[0] != pdu.PduType.ASSOCIATE_AC
    assert pydicom.dcmread(shelf.stored[0].path) == pydicom.dcmread(path)


# ------------------------------------------------------------------------------------------------- scripted callers


def request(*, calling: str = "RAW", abstract: str = CT, max_length: int = 16384) -> bytes:
    contexts = (
        pdu.ProposedContext(1, abstract, (uids.EXPLICIT_LE,)),
        pdu.ProposedContext(3, uids.VERIFICATION, (uids.IMPLICIT_LE,)),
    )
    user = pdu.UserInformation(max_length, "1.2.3", "RAW")
    return pdu.encode(pdu.AssociateRequest("DRIMBOX", calling, contexts, user))


@contextmanager
def raw(receiver: StorageReceiver, *, associated: bool = True) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=20) as sock:
        if associated:
            sock.sendall(request())
            assert read_pdu(sock)[0] == pdu.PduType.ASSOCIATE_AC
        yield sock


def response(sock: socket.socket) -> command.Response:
    kind, body = read_pdu(sock)
    assert kind == pdu.PduType.DATA_TF
    answer = command.decode(bytes(pdu_reader.decode_values(memoryview(body))[0].data))
    assert isinstance(answer, command.Response)
    return answer


def store(uid: str = "1.2.3.4", sop_class: str = CT, **originator: object) -> command.StoreRequest:
    return command.StoreRequest(5, sop_class, uid, **originator)  # type: ignore[arg-type]


def test_a_dataset_in_many_small_pieces(shelf: Shelf) -> None:
    data = os.urandom(1000)
    with receiving(settings(), shelf) as receiver, raw(receiver) as sock:
        sock.sendall(message(store(move_originator_ae="BOX", move_originator_id=9)))
        for start in range(0, 1000, 10):
            value = pdu.DataValue(1, False, start == 990, data[start : start + 10])
            sock.sendall(pdu.encode(pdu.Data((value,))))
        assert response(sock) == command.Response(command.Field.C_STORE_RSP, 5, status.SUCCESS, CT, "1.2.3.4")
        (stored,) = shelf.stored
    assert stored.path.read_bytes().endswith(data)
    assert shelf.offers[0] == StoreOffer("DRIMBOX", "RAW", CT, "1.2.3.4", uids.EXPLICIT_LE, "BOX", 9)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (store(sop_class="1.2.840.10008.5.1.4.1.1.4"), status.SOP_CLASS_NOT_SUPPORTED),
        (store(uid="../../etc/passwd"), status.INVALID_INSTANCE),
        (store(uid=""), status.INVALID_INSTANCE),
        (command.FindRequest(5, CT), status.UNRECOGNIZED_OPERATION),
        (command.OtherRequest(0x0130, 5, True), status.UNRECOGNIZED_OPERATION),
    ],
    ids=["other class", "path", "no uid", "find", "n-action"],
)
def test_requests_that_are_answered_no(asked: command.Command, answered: int, shelf: Shelf) -> None:
    with receiving(settings(), shelf) as receiver, raw(receiver) as sock:
        sock.sendall(message(asked, b"some data set"))
        assert response(sock).status == answered
        sock.sendall(message(store(), b"data"))
        assert response(sock).status == status.SUCCESS
    assert len(shelf.stored) == 1


@pytest.mark.parametrize(
    "data",
    [
        message(store(), None),
        message(store(), b"data", context_id=5),
        message(command.EchoRequest(1), None),
        message(command.Response(command.Field.C_STORE_RSP, 1, 0)),
        pdu.encode(pdu.Data((pdu.DataValue(1, False, True, b"data"),))),
        pdu.encode(pdu.Data((pdu.DataValue(1, True, True, b"no command"),))),
        b"\x04\0\xff\xff\xff\xff",
        b"\x99\0\0\0\0\0",
        request(),
    ],
    ids=[
        "nothing follows",
        "no such context",
        "echo out of place",
        "response",
        "data first",
        "no command",
        "too long",
        "no pdu",
        "again",
    ],
)
def test_a_peer_that_breaks_the_protocol_is_aborted(data: bytes, shelf: Shelf) -> None:
    quick = settings(idle_timeout=0.3)
    with receiving(quick, shelf) as receiver:
        with raw(receiver) as sock:
            sock.sendall(data)
            assert read_pdu(sock)[0] == pdu.PduType.ABORT
        with raw(receiver) as sock:
            sock.sendall(message(store(), b"data"))
            assert response(sock).status == status.SUCCESS
    assert [path.suffix for path in shelf.files()] == [".dcm"]


def test_a_sender_that_vanishes_leaves_nothing(shelf: Shelf) -> None:
    with receiving(settings(), shelf) as receiver:
        with raw(receiver) as sock:
            sock.sendall(message(store()))
            sock.sendall(pdu.encode(pdu.Data((pdu.DataValue(1, False, False, bytes(5000)),))))
            until(lambda: bool(shelf.files()))
        until(lambda: not shelf.files())
    assert shelf.lost == 1


@pytest.mark.parametrize("dribble", [False, True], ids=["silent", "dribbling"])
def test_who_is_too_slow_is_cut(dribble: bool, shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    slow = settings(idle_timeout=0.4, message_timeout=0.6)
    with receiving(slow, shelf) as receiver, raw(receiver) as sock:
        sock.sendall(message(store()))
        sock.settimeout(0.1)
        end, kind = time.monotonic() + 5, 0
        while time.monotonic() < end and kind != pdu.PduType.ABORT:
            if dribble:
                sock.sendall(pdu.encode(pdu.Data((pdu.DataValue(1, False, False, b"xx"),))))
            kind, _ = read_pdu(sock)
        assert kind == pdu.PduType.ABORT
        time.sleep(0.8)  # it stays, deaf: that is no reason to say it again and again
    assert shelf.files() == []
    assert len([record for record in caplog.records if "aborted" in record.getMessage()]) == 1


def test_who_connects_and_says_nothing_is_cut(shelf: Shelf) -> None:
    with receiving(settings(artim_timeout=0.3), shelf) as receiver, raw(receiver, associated=False) as sock:
        sock.sendall(b"\x01\0\0")
        assert sock.recv(10) == b""


def test_more_associations_than_allowed(shelf: Shelf) -> None:
    with receiving(settings(max_associations=2), shelf) as receiver:
        with raw(receiver), raw(receiver), raw(receiver, associated=False) as third:
            assert receiver.associations == 2
            third.sendall(request())
            kind, body = read_pdu(third)
            assert pdu_reader.decode(kind, memoryview(body), Limits()) == pdu.AssociateReject(2, 3, 2)
        until(lambda: receiver.associations == 0)
        with raw(receiver):
            assert receiver.associations == 1


def test_a_crowd_of_connections_is_cut_short(shelf: Shelf) -> None:
    with receiving(settings(max_associations=2), shelf) as receiver:
        crowd = [socket.create_connection(("127.0.0.1", receiver.port), timeout=20) for _ in range(30)]
        # Two that may associate, and a few that may be told why not.
        until(lambda: sum(map(is_cut, crowd)) == 20)
        for sock in crowd:
            sock.close()
        until(lambda: len(receiver._sessions) == 0)
        with raw(receiver):
            pass


def is_cut(sock: socket.socket) -> bool:
    """Has the other side ended the connection?"""
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_stopping_breaks_what_is_open(shelf: Shelf) -> None:
    with receiving(settings(), shelf) as receiver:
        sock = socket.create_connection(("127.0.0.1", receiver.port), timeout=20)
        sock.sendall(request())
        read_pdu(sock)
        sock.sendall(message(store()))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert read_pdu(sock)[0] == 0
    sock.close()
    assert shelf.files() == []


def test_senders_at_once_are_kept_apart(shelf: Shelf) -> None:
    def send(number: int, receiver: StorageReceiver) -> None:
        with raw(receiver) as sock:
            for index in range(20):
                sock.sendall(message(store(f"1.{number}.{index}"), bytes([number]) * 20_000))
                assert response(sock).sop_instance_uid == f"1.{number}.{index}"

    with receiving(settings(), shelf) as receiver:
        threads = [threading.Thread(target=send, args=(number, receiver)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(shelf.stored) == 160
    for stored in shelf.stored:
        number = int(stored.sop_instance_uid.split(".")[1])
        assert stored.path.read_bytes()[-20_000:] == bytes([number]) * 20_000


# ----------------------------------------------------------------------------------------------------- memory and speed


@needs_dcmtk
def test_memory_does_not_grow_with_what_is_received(
    shelf: Shelf, studies: Path, record_property: Callable[[str, object], None]
) -> None:
    with receiving(settings(), shelf) as receiver:
        assert storescu(receiver.port, "+sd", "+r", studies / "B").returncode == 0
        before = resident()
        began = time.monotonic()
        assert storescu(receiver.port, "+sd", "+r", studies / "A").returncode == 0
        seconds = time.monotonic() - began
        grown = resident() - before
    received = [s for s in shelf.stored if s.size > 500_000]
    total = sum(s.size for s in received)
    assert len(received) == 300
    assert grown < 8 * 2**20, f"{grown} bytes for {total} received"
    record_property("default storescu, MB/s", round(total / seconds / 1e6))
    print(f"\ndefault storescu -> receiver: {total / seconds / 1e6:.0f} MB/s, {300 / seconds:.0f} images/s")
    print(f"resident memory: +{grown / 2**20:.1f} MiB for {total / 1e6:.0f} MB received")


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("last", [pdu.encode(pdu.ReleaseRequest()), request()], ids=["release", "associate"])
def test_an_answer_that_is_no_longer_awaited_is_not_given(
    last: bytes, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """What a peer sends behind its question, in the same piece, ends the association: that is no failure of ours."""
    with receiving(settings(), shelf) as receiver, raw(receiver, associated=last[0] != 1) as sock:
        sock.sendall(last + b"\xff\0\0\0\0\0")
        assert read_pdu(sock)[0] == pdu.PduType.ABORT
    assert not [record for record in caplog.records if record.exc_info]


def test_an_instance_whose_identifier_is_no_text_is_refused_by_its_name(shelf: Shelf) -> None:
    sent = message(store("1.2.3.4"), b"x" * 10).replace(b"1.2.3.4\0", b"1.2.\xe9.4\0")
    with receiving(settings(), shelf) as receiver, raw(receiver) as sock:
        sock.sendall(sent)
        assert response(sock).status == status.INVALID_INSTANCE


_FEW_FILES = """
import os, resource, sys, time
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.dimse.storage import StoreRefused

class Nobody:
    def admit(self, offer):
        raise StoreRefused(0x0124, "not expected")

settings = ReceiverSettings({"DRIMBOX": ("1.2.840.10008.1.2.1",)}, frozenset({"MODALITY"}), max_associations=500)
with receiving(settings, Nobody()) as receiver:
    most = len(os.listdir("/proc/self/fd")) + 10
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(receiver.port, flush=True)
    time.sleep(60)
"""


def test_a_crowd_that_takes_every_file_does_not_end_the_listener() -> None:
    """No connection can be accepted for a while; then they can again."""
    with subprocess.Popen(
        [sys.executable, "-c", _FEW_FILES], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        crowd = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(40)]
        time.sleep(0.5)
        for sock in crowd:
            sock.close()
        peer = Peer("x", "127.0.0.1", port, "DRIMBOX", "MODALITY", connect_timeout=5.0, answer_timeout=5.0)
        with ClientAssociation(peer, (uids.VERIFICATION,)) as association:
            association.echo()
        process.kill()
        assert b"not accepted" in process.communicate()[1], "the test no longer shows anything"
