"""Whole services: after each hostile input they still answer a good one."""

from __future__ import annotations

import itertools
import re
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset

from drimbox.changes import listener as notes
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError
from drimbox.pacs.dimse import command, pdu, uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.dimse.storage import StoredInstance, StoreOffer
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.record.pseudonym import load_patient_key
from drimbox.reports import mllp
from drimbox.reports.intake import Intake
from drimbox.reports.order_intake import OrderIntake
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam
from drimbox.sandbox.ris.letters import Letter
from fuzz.grammars import dicom, hl7, http
from fuzz.services import Door, exactly, pool, running
from fuzz.target import Broken, Run, Target
from fuzz.targets.datasets import KEY_OBJECT, encoded, images, note
from fuzz.targets.dimse import conversations, message, request
from fuzz.targets.reports import NOW, messages

_CT = "1.2.840.10008.5.1.4.1.1.2"


# --- MLLP, with the real intake and a real database -------------------------------------------------------------------


@asynccontextmanager
async def _intake() -> AsyncIterator[int]:
    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as folder:
        async with pool() as opened:
            incidents = Incidents(opened, SystemClock())
            journal = Journal(opened, load_patient_key(Path(folder) / "audit.key"))

            async def take(*_: object, **__: object) -> None:
                return None

            orders = OrderIntake(
                opened,
                SystemClock(),
                take=take,
                open_incident=incidents.open_for_message,
                journal=journal,
            )
            intake = Intake(
                opened,
                SystemClock(),
                structure_of=lambda _report: "ambroise",
                open_incident=incidents.open_for_message,
                journal=journal,
                orders=orders,
            )
            limits = mllp.Limits(max_bytes=300_000, max_connections=16, message_timeout=20.0, max_discarded=2**20)
            async with mllp.listening(intake.receive, host="127.0.0.1", port=0, limits=limits) as port:
                yield port


@contextmanager
def _mllp() -> Iterator[Run]:
    with running(_intake) as (port, _):
        door, numbers = Door(port), itertools.count()

        def run(data: bytes) -> object:
            answer = door.throw(data, leave_open=len(data) % 5 == 0)
            verdicts = re.findall(rb"\rMSA\|([A-Z]{2})\|", answer)
            # The database is up: nothing may be put off.
            if b"AR" in verdicts:
                raise Broken("a message is put off though the database is up")
            letter = Letter(exam("E"), f"GOOD{next(numbers)}")
            with door.connect() as sock:
                sock.sendall(mllp.START + letters.oru(letter, NOW) + mllp.END)
                good = exactly(sock, 1)
                while not good.endswith(mllp.END):
                    good += exactly(sock, 1)
            if f"MSA|AA|{letter.control_id}\r".encode() not in good:
                raise Broken("a good message is not accepted any more")
            return len(verdicts), sorted(set(verdicts))

        try:
            yield run
        finally:
            door.close()


def _frames() -> Iterator[bytes]:
    for one in messages():
        yield mllp.START + one + mllp.END
    yield b"".join(mllp.START + one + mllp.END for one in itertools.islice(messages(), 3))
    yield mllp.START + b"A" * 310_000 + mllp.END


# --- DICOM ------------------------------------------------------------------------------------------------------------


class _Shelf:
    """Takes what comes, and throws it away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._coming: set[Path] = set()

    def admit(self, _offer: StoreOffer) -> _Place:
        path = self._folder / f"{next(self._numbers)}.dcm"
        self._coming.add(path)
        return _Place(path, self._coming)

    def left(self) -> list[Path]:
        """Files that nobody is writing any more; a peer that was left in the middle of one may still hold it."""
        return [path for path in self._folder.glob("*.dcm") if path not in self._coming and path.exists()]


class _Place:
    def __init__(self, path: Path, coming: set[Path]) -> None:
        self.path = path
        self._coming = coming

    def progress(self) -> None:
        pass

    def landed(self, stored: StoredInstance) -> None:
        stored.path.unlink()
        self._coming.discard(self.path)

    def lost(self) -> None:
        self._coming.discard(self.path)


@contextmanager
def _receiver() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as folder:
        settings = ReceiverSettings(
            destinations={"DRIMBOX": (uids.EXPLICIT_LE, uids.IMPLICIT_LE)},
            allowed_callers=frozenset({"PACS_A"}),
            artim_timeout=2.0,
            idle_timeout=5.0,
            max_instance_bytes=2**20,
        )
        shelf = _Shelf(Path(folder))
        with receiving(settings, shelf) as receiver:
            door = Door(receiver.port)

            def run(data: bytes) -> object:
                answer = door.throw(data, leave_open=len(data) % 7 == 0, first=_first(data))
                _good_store(door, "DRIMBOX", _CT, 1, images()[1])
                if shelf.left():
                    raise Broken("an instance that was handed over, or cut, is still in the spool")
                return [kind for kind, _ in _units(answer)][:6]

            try:
                yield run
            finally:
                door.close()


def _first(data: bytes) -> int:
    """The first PDU, the association, is mostly sent alone: what comes before its answer ends it."""
    return 0 if len(data) % 6 == 5 else 6 + int.from_bytes(data[2:6], "big")


def _good_store(door: Door, called: str, sop_class: str, context: int, dataset: bytes) -> None:
    """A peer that does everything right stores one instance."""
    with door.connect() as sock:
        sock.sendall(request(called))
        kind, _ = _next(sock)
        if kind != pdu.PduType.ASSOCIATE_AC:
            raise Broken(f"a good association is answered by PDU {kind}")
        sent = command.StoreRequest(1, sop_class, "1.2.3.4.5")
        sock.sendall(message(sent, dataset, context))
        kind, body = _next(sock)
        read = command.decode(body[6:]) if kind == pdu.PduType.DATA_TF else None
        if not isinstance(read, command.Response) or read.status != 0:
            raise Broken("a good instance is not taken any more")
        sock.sendall(pdu.encode(pdu.ReleaseRequest()))
        if _next(sock)[0] != pdu.PduType.RELEASE_RP:
            raise Broken("a good release is not answered")


def _next(sock: socket.socket) -> tuple[int, bytes]:
    head = exactly(sock, 6)
    return head[0], exactly(sock, int.from_bytes(head[2:], "big"))


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 6 <= len(data):
        size = int.from_bytes(data[at + 2 : at + 6], "big")
        yield data[at], data[at + 6 : at + 6 + size]
        at += 6 + size


# --- rejection notes --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _desk() -> AsyncIterator[int]:
    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as folder:
        async with pool() as opened:
            settings = notes.ListenerSettings("DRIMBOX", frozenset({"PACS_A"}))
            journal = Journal(opened, load_patient_key(Path(folder) / "audit.key"))
            opener = Incidents(opened, SystemClock()).open_for_note
            async with notes.listening(settings, opened, open_incident=opener, journal=journal) as port:
                yield port


@contextmanager
def _iocm() -> Iterator[Run]:
    good = note()
    with running(_desk) as (port, _):
        door = Door(port)

        def run(data: bytes) -> object:
            answer = door.throw(data, leave_open=len(data) % 7 == 0, first=_first(data))
            _good_store(door, "DRIMBOX", KEY_OBJECT, 5, good)
            return [kind for kind, _ in _units(answer)][:6]

        try:
            yield run
        finally:
            door.close()


def _noted() -> Iterator[bytes]:
    for title in ("113000", "113001", "113037", "113039"):
        sent = command.StoreRequest(1, KEY_OBJECT, "1.2.3.4.5")
        yield request() + message(sent, note(title), 5) + pdu.encode(pdu.ReleaseRequest())


def inside(random, data, corpus):  # type: ignore[no-untyped-def]
    """The data set of the last message is changed as what it is, and sent whole again."""
    units = list(_units(data))
    values = [body[6:] for kind, body in units if kind == 4 and len(body) > 6 and not body[5] & 1]
    changed = random.choice(dicom.FILE)(random, b"".join(values) or note(), ())
    context, sop_class = random.choice(((5, KEY_OBJECT), (1, _CT)))
    return request() + message(command.StoreRequest(1, sop_class, "1.2.3.4.5"), changed, context)


# --- WADO-RS ----------------------------------------------------------------------------------------------------------


@contextmanager
def _wado() -> Iterator[Run]:
    sys.path.append(str(Path(__file__).parents[2] / "images"))
    import world  # type: ignore[import-not-found]

    from drimbox.images.workers import worker_pool
    from drimbox.sandbox.pki import TestAuthority

    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as name:
        folder = Path(name)
        keys = world.make_keys(TestAuthority(folder / "pki"))
        (folder / "scratch").mkdir()

        @asynccontextmanager
        async def service() -> AsyncIterator[tuple[int, str, str]]:
            async with worker_pool(size=1) as workers:
                box = world.make_box(keys, workers, folder / "scratch")
                made = box.add(world.make_exam(folder, images=2))
                async with world.listening(box):
                    yield box.port, made.study_uid, made.kos_uid

        with running(service) as ((port, study, kos), _):
            door = Door(port, keys.client())
            good = (
                f"GET /dicom-web-rs/studies/{study} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer good\r\n"
                f"KOS-SOPInstanceUID: {kos}\r\nConnection: close\r\n\r\n"
            ).encode()

            def run(data: bytes) -> object:
                # Seeds name the study by what stays the same from run to run.
                real = data.replace(b"{study}", study.encode()).replace(b"{kos}", kos.encode())
                answer = door.throw(real, leave_open=len(data) % 7 == 0)
                statuses = re.findall(rb"HTTP/1\.1 (\d{3})", answer[:2000])
                if b"500" in statuses:
                    raise Broken("a request ends in an internal error")
                back = door.ask(good)
                if not back.startswith(b"HTTP/1.1 200") or not back.rstrip(b"\r\n0").endswith(b"--"):
                    raise Broken("a good request is not served whole any more")
                return statuses[:3]

            try:
                yield run
            finally:
                door.close()


def _requests() -> Iterator[bytes]:
    head = (
        "Host: localhost\r\nAuthorization: Bearer good\r\nKOS-SOPInstanceUID: {kos}\r\n"
        'Accept: multipart/related; type="application/dicom"; transfer-syntax=*;q=0.9, application/dicom;q=0.1\r\n\r\n'
    )
    for path in (
        "/studies/{study}",
        "/studies/{study}/series/1.2.3",
        "/studies/{study}/series/1.2.3/instances/1.2.3.4",
        "/studies/{study}/series/1.2.3/instances/1.2.3.4/frames/1,2",
        "/studies/{study}/metadata",
        "/studies/{study}/rendered?window=1,2,linear",
        "",
    ):
        yield f"GET /dicom-web-rs{path} HTTP/1.1\r\n{head}".encode()
    yield b"OPTIONS /dicom-web-rs HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    yield b"POST /dicom-web-rs/studies/{study} HTTP/1.1\r\nHost: x\r\n" + chunked


# --- the client of a hostile PACS -------------------------------------------------------------------------------------

_PAUSE = b"\xaa\xbb\xcc\xdd"
"""Between what the PACS says: it waits for the next question."""


@contextmanager
def _find() -> Iterator[Run]:
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, running(_loop) as (_, stage):
        port = int(listener.getsockname()[1])
        threading.Thread(target=_speak, args=(listener, said), daemon=True).start()
        site = Pacs("fuzz", "127.0.0.1", port, "PACS_A", connect_timeout=5.0, answer_timeout=0.5, query_timeout=20.0)
        finder = PacsStudyFinder(PacsLink(replace(site)))

        def run(data: bytes) -> object:
            said[:] = data.split(_PAUSE)
            study = stage.do(finder.find("1.2.3"), 60.0)
            if study is not None and study.study_uid != "1.2.3":
                raise Broken("another study than the one asked for")
            return study is None or len(study.series)

        yield run


@asynccontextmanager
async def _loop() -> AsyncIterator[None]:
    yield


def _speak(listener: socket.socket, said: list[bytes]) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock, suppress(OSError, Broken):
            sock.settimeout(0.2)
            for part in list(said):
                kind, body = _next(sock)
                while kind == pdu.PduType.DATA_TF and not (not body[5] & 1 and body[5] & 2):
                    kind, body = _next(sock)
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass


def _answers() -> Iterator[bytes]:
    accepted = pdu.encode(
        pdu.AssociateAccept(
            "PACS_A",
            "DRIMBOX",
            (pdu.AnsweredContext(1, 0, uids.EXPLICIT_LE),),
            pdu.UserInformation(16384, "1.2.3", "FUZZ"),
        )
    )

    def found(number: int, *datasets: Dataset) -> bytes:
        parts = b""
        for one in datasets:
            parts += message(command.Response(0x8020, number, 0xFF00, has_dataset=True), encoded(one))
        return parts + message(command.Response(0x8020, number, 0))

    study, series, image = Dataset(), Dataset(), Dataset()
    for one in (study, series, image):
        one.SpecificCharacterSet, one.StudyInstanceUID = "ISO_IR 100", "1.2.3"
    study.PatientID, study.PatientName, study.PatientBirthDate = "IPP101", "PAT-TROIS^DOMINIQUE", "19790328"
    study.AccessionNumber, study.NumberOfStudyRelatedSeries = "ACN105", "1"
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "1.2.250.1.925.1", "ISO"
    study.IssuerOfAccessionNumberSequence = [issuer]
    series.SeriesInstanceUID, series.Modality, series.SeriesNumber = "1.2.3.4", "CT", "1"
    series.NumberOfSeriesRelatedInstances = "1"
    image.SeriesInstanceUID, image.SOPClassUID, image.SOPInstanceUID = "1.2.3.4", _CT, "1.2.3.4.5"
    image.InstanceNumber = "1"
    whole = [accepted, found(1, study), found(2, series), found(3, image), pdu.encode(pdu.ReleaseResponse())]
    yield _PAUSE.join(whole)
    yield _PAUSE.join((accepted, found(1), pdu.encode(pdu.ReleaseResponse())))
    yield _PAUSE.join((accepted, message(command.Response(0x8020, 1, 0xA700, error_comment="x"))))
    yield pdu.encode(pdu.AssociateReject(1, 1, 7))


def by_part(random, data, corpus):  # type: ignore[no-untyped-def]
    """One of the things that the PACS says is changed, as PDUs or in the data set inside."""
    parts = data.split(_PAUSE)
    at = random.randrange(len(parts))
    change = random.choice((*dicom.PDU, *dicom.FILE))
    parts[at] = change(random, parts[at], (parts[at],))
    return _PAUSE.join(parts)


TARGETS = (
    Target("mllp_service", _mllp, _frames, (), (*hl7.MUTATORS,), largest=320_000, slow=True, seconds=30.0),
    Target("dicom_service", _receiver, conversations, (), (*dicom.PDU, inside), slow=True, seconds=30.0),
    Target("iocm_service", _iocm, _noted, (), (*dicom.PDU, inside), slow=True, seconds=30.0),
    Target("wado_service", _wado, _requests, (), http.MULTIPART, slow=True, seconds=30.0),
    Target("pacs_client", _find, _answers, (DrimboxError,), (by_part, by_part), slow=True, seconds=30.0),
)
