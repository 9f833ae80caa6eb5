"""C-GET: the same promises as C-MOVE, over one association, against real PACSs and one that misbehaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pydicom
import pytest

from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Rejected, Unavailable
from drimbox.pacs.contents import Contents
from drimbox.pacs.delivery import Pressure
from drimbox.pacs.dimse import command, pdu, pdu_reader, status, uids
from drimbox.pacs.dimse.storage import StoreOffer, StoreRefused
from drimbox.pacs.header import read_header
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsGetSource, StoredInstance, private_expectation
from drimbox.pacs.site import Pacs
from drimbox.pacs.study import Instance, Series, Study
from drimbox.sandbox.pacs.exams import EXAMS, OTHER_STUDY, SampleStudy
from drimbox.sandbox.pacs.peer import PacsPeer
from pacs.conftest import OUR_AE, free_port, pacs_of
from pacs.desk import Desk, check_series, collect, desk
from pacs.parrot import Step, limits, message, parrot, read_pdu, wait_close

DCMQRSCP = "/usr/bin/dcmqrscp"
STUDY = EXAMS["B"][0]
SERIES = STUDY.series[0]
UIDS = list(STUDY.instance_uids(SERIES))
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
async def at_orthanc(orthanc_pacs: Pacs, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(orthanc_pacs, tmp_path / "spool") as opened:
        yield opened
        assert opened.folders() == []


# ------------------------------------------------------------------------------------------------------------ real PACS


@pytest.mark.requirement("DB.SO.32", "DB.CS.83", "exam:B", "exam:C", "exam:D", "exam:E", "exam:F", "exam:G", "exam:N")
async def test_every_series_comes_as_orthanc_holds_it(at_orthanc: Desk, studies: Path) -> None:
    source = at_orthanc.get_source()
    for letter in "BCDEFGIN":
        for study in EXAMS[letter]:
            for series in study.series:
                await check_series(source, study, series, studies / letter)


async def test_a_whole_study_and_a_part_of_one(at_orthanc: Desk) -> None:
    study = EXAMS["E"][0]
    expected = [uid for series in study.series for uid in study.instance_uids(series)]
    got: list[StoredInstance] = []
    await collect(at_orthanc.get_source(), study.study_uid, None, expected, got)
    assert sorted(one.sop_instance_uid for one in got) == sorted(expected)
    got.clear()
    await collect(at_orthanc.get_source(), STUDY.study_uid, STUDY.series_uid(SERIES), UIDS[3:6], got)
    assert sorted(one.sop_instance_uid for one in got) == sorted(UIDS[3:6])


async def test_more_than_orthanc_holds(at_orthanc: Desk) -> None:
    got: list[StoredInstance] = []
    with pytest.raises(Rejected) as error:
        await collect(at_orthanc.get_source(), STUDY.study_uid, STUDY.series_uid(SERIES), [*UIDS, "1.2.3"], got)
    assert (error.value.code, len(got)) == ("pacs-instances-missing", len(UIDS))


async def test_a_study_that_orthanc_does_not_hold(at_orthanc: Desk) -> None:
    with pytest.raises(Rejected) as error:
        await collect(at_orthanc.get_source(), "1.2.3", "1.2.3.4", ["1.2.3.4.5"], [])
    assert error.value.code == "pacs-instances-missing"


async def test_many_series_at_once_are_never_mixed(orthanc_pacs: Pacs, studies: Path, tmp_path: Path) -> None:
    async with desk(orthanc_pacs, tmp_path / "spool") as opened:
        source = opened.get_source()
        wanted = [(letter, EXAMS[letter][0]) for letter in "BCFN" for _ in range(3)]
        await asyncio.gather(
            *(check_series(source, study, study.series[0], studies / letter, 0.01) for letter, study in wanted)
        )
        assert opened.folders() == []


async def test_leaving_early_stops_orthanc(at_orthanc: Desk) -> None:
    source = at_orthanc.get_source()
    async with source.retrieve(STUDY.study_uid, STUDY.series_uid(SERIES), UIDS) as instances:
        first = await anext(aiter(instances))
        assert first.path.exists()
    assert not first.path.exists()
    began = time.monotonic()
    await check_count(source, len(UIDS))
    assert time.monotonic() - began < 5


async def check_count(source: PacsGetSource, count: int) -> None:
    got: list[StoredInstance] = []
    await collect(source, STUDY.study_uid, STUDY.series_uid(SERIES), UIDS, got)
    assert len(got) == count


@pytest.fixture
def dcmqrscp(studies: Path, tmp_path: Path) -> Iterator[PacsPeer]:
    """DCMTK's own PACS, with the instances of one study per syntax."""
    if not Path(DCMQRSCP).exists():
        pytest.skip("dcmtk is not installed")
    store = tmp_path / "qr"
    store.mkdir()
    files = [
        Path(shutil.copy(path, store / f"{letter}-{path.parent.parent.name}-{path.parent.name}-{path.name}"))
        for letter in "BF"
        for path in sorted((studies / letter).rglob("*.dcm"))
    ]
    port = free_port()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQRSCP {store} RW (200, 1024mb) ANY\nAETable END\n"
    )
    subprocess.run(["/usr/bin/dcmqridx", str(store), *map(str, files)], check=True, capture_output=True, timeout=60)
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    process = subprocess.Popen(
        [DCMQRSCP, "-c", str(config)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield PacsPeer("QRSCP", "127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("nobody listens")


async def test_dcmtk_sends_its_series(dcmqrscp: PacsPeer, studies: Path, tmp_path: Path) -> None:
    async with desk(pacs_of(dcmqrscp), tmp_path / "spool") as opened:
        # Its C-FIND does not tell the SOP classes; a query elsewhere has.
        contents = Contents()
        for letter in "BF":
            contents.note(listed(EXAMS[letter][0], studies / letter))
        source = PacsGetSource(opened.link, opened.inbox, PacsStudyFinder(opened.link), contents)
        for letter in "BF":
            study = EXAMS[letter][0]
            await check_series(source, study, study.series[0], studies / letter)
        # Nagle's algorithm on its side: without our quick acknowledgements each image would cost 40 ms.
        began = time.monotonic()
        await check_count(source, len(UIDS))
        assert time.monotonic() - began < 40e-3 * len(UIDS)


def listed(study: SampleStudy, folder: Path) -> Study:
    """The study as a query would tell it."""
    headers = [read_header(path) for path in sorted(folder.rglob("*.dcm"))]
    instances = tuple(Instance(h.sop_class_uid, h.sop_instance_uid) for h in headers if h.study_uid == study.study_uid)
    return Study(study.study_uid, *([""] * 12), series=(Series("1.2.3", "", 1, "", "", instances),))


# ---------------------------------------------------------------------------------------------------- scripted peers


def accepting_get(*, stores: bool = True, answers_roles: bool = True, offers_get: bool = True) -> Step:
    """Accepts the first syntax of every context, and grants (or denies) every role."""

    def step(sock: socket.socket) -> None:
        _, body = read_pdu(sock)
        asked = pdu_reader.decode(pdu.PduType.ASSOCIATE_RQ, memoryview(body), limits())
        assert isinstance(asked, pdu.AssociateRequest)
        answers = tuple(
            pdu.AnsweredContext(c.id, 0 if offers_get or c.id != 1 else 3, c.transfer_syntaxes[0])
            for c in asked.contexts
        )
        roles = tuple(pdu.Role(role.sop_class_uid, not stores, stores) for role in asked.user.roles)
        user = pdu.UserInformation(16384, "1.2.3", "PARROT", roles if answers_roles else ())
        sock.sendall(pdu.encode(pdu.AssociateAccept(asked.called_ae, asked.calling_ae, answers, user)))

    return step


def releasing(sock: socket.socket) -> None:
    """Answers a release, and waits until the peer has gone."""
    while kind := read_pdu(sock)[0]:
        if kind == pdu.PduType.RELEASE_RQ:
            sock.sendall(pdu.encode(pdu.ReleaseResponse()))


class Script:
    """Plays a C-GET: what is stored, each answer read, then the final response to the request."""

    def __init__(self, *stores: Callable[[int], bytes], final: Mapping[str, int] | None = None) -> None:
        self.stores = stores
        self.final = {"status": 0, **(final or {})}
        self.statuses: list[int] = []

    def __call__(self, sock: socket.socket) -> None:
        _, request = read_pdu(sock)
        read_pdu(sock)
        asked = command.decode(request[6:])
        assert isinstance(asked, command.GetRequest)
        for number, store in enumerate(self.stores, start=1):
            sock.sendall(store(number))
            kind, answer = read_pdu(sock)
            if kind != pdu.PduType.DATA_TF:
                return
            response = command.decode(answer[6:])
            if isinstance(response, command.CancelRequest):
                self.final = {"status": 0xFE00}
                break
            assert isinstance(response, command.Response)
            self.statuses.append(response.status)
        final = command.Response(command.Field.C_GET_RSP, asked.message_id, **self.final)  # type: ignore[arg-type]
        sock.sendall(message(final))


Store = Callable[[int], bytes]


def stored(path: Path, uid: str | None = None, sop_class: str | None = None, context: int = 3) -> Store:
    """A C-STORE of a file, by default in the context of the first class in Explicit VR Little Endian."""
    header = read_header(path)
    body = dataset_bytes(path)

    def store(number: int) -> bytes:
        request = command.StoreRequest(number, sop_class or header.sop_class_uid, uid or header.sop_instance_uid)
        return message(request, body, context)

    return store


def dataset_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    meta = int.from_bytes(data[140:144], "little")
    return data[144 + meta :]


def pacs_at(port: int, **changes: object) -> Pacs:
    return pacs_of(PacsPeer("PACS", "127.0.0.1", port), **{"answer_timeout": 1.0, "connect_timeout": 1.0, **changes})


@pytest.fixture
def files(studies: Path) -> list[Path]:
    found = {read_header(path).sop_instance_uid: path for path in (studies / "B").rglob("*.dcm")}
    return [found[uid] for uid in UIDS]


def known() -> Contents:
    """What a query would have told of the study."""
    contents = Contents()
    instances = tuple(Instance(MR, uid) for uid in UIDS)
    series = Series(STUDY.series_uid(SERIES), "MR", 1, "", "", instances)
    contents.note(Study(STUDY.study_uid, *([""] * 12), series=(series,)))
    return contents


async def play(
    script: Sequence[Step], tmp_path: Path, expected: Sequence[str], *, patient_id: str | None = None, **changes: object
) -> list[StoredInstance]:
    got: list[StoredInstance] = []
    with parrot(*script) as port:
        async with desk(pacs_at(port, **changes), tmp_path / "spool") as opened:
            source = PacsGetSource(opened.link, opened.inbox, PacsStudyFinder(opened.link), known())
            try:
                await collect(source, STUDY.study_uid, STUDY.series_uid(SERIES), expected, got, patient_id=patient_id)
            finally:
                assert opened.folders() == []
    return got


async def test_what_is_stored_is_given_and_answered(tmp_path: Path, files: list[Path]) -> None:
    script = Script(*map(stored, files[:3]))
    got = await play([accepting_get(), script, releasing], tmp_path, UIDS[:3])
    assert [one.sop_instance_uid for one in got] == UIDS[:3]
    assert script.statuses == [0, 0, 0]


async def test_a_peer_that_forgets_to_answer_the_roles_may_store(tmp_path: Path, files: list[Path]) -> None:
    got = await play([accepting_get(answers_roles=False), Script(stored(files[0])), releasing], tmp_path, UIDS[:1])
    assert len(got) == 1


@pytest.mark.parametrize("refusal", [{"stores": False}, {"offers_get": False}])
async def test_a_peer_without_c_get(tmp_path: Path, refusal: dict[str, bool]) -> None:
    with pytest.raises(Rejected) as error:
        await play([accepting_get(**refusal), wait_close], tmp_path, UIDS[:1])
    assert error.value.code == "pacs-service-refused"


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(
    ("final", "kind", "code", "peer_code"),
    [
        ({"status": 0xA701}, Unavailable, "pacs-retrieve-failed", "A701H"),
        ({"status": 0xA702, "failed": 2, "completed": 1}, Unavailable, "pacs-retrieve-failed", "A702H"),
        ({"status": 0xB000, "failed": 2, "completed": 1}, Unavailable, "pacs-retrieve-incomplete", "B000H"),
        ({"status": 0xFE00}, Unavailable, "pacs-retrieve-failed", "FE00H"),
        ({"status": 0xC001}, Unavailable, "pacs-retrieve-failed", "C001H"),
        ({"status": 0, "failed": 2}, Unavailable, "pacs-retrieve-incomplete", "0000H"),
        ({"status": 0}, Rejected, "pacs-instances-missing", None),
    ],
)
async def test_what_does_not_come_is_told(
    tmp_path: Path, files: list[Path], final: dict[str, int], kind: type[DrimboxError], code: str, peer_code: str | None
) -> None:
    with pytest.raises(kind) as error:
        await play([accepting_get(), Script(stored(files[0]), final=final), releasing], tmp_path, UIDS[:3])
    assert (error.value.code, error.value.peer_code) == (code, peer_code)


async def test_everything_there_is_success_whatever_the_end_says(tmp_path: Path, files: list[Path]) -> None:
    script = Script(*map(stored, files[:2]), final={"status": 0xB000, "failed": 1})
    assert len(await play([accepting_get(), script, releasing], tmp_path, UIDS[:2])) == 2


def altered(path: Path, target: Path, **values: str) -> Path:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


@pytest.mark.requirement("D14", "D23")
@pytest.mark.parametrize(
    ("values", "kind", "code"),
    [
        ({"StudyInstanceUID": OTHER_STUDY.study_uid}, Rejected, "pacs-wrong-instance"),
        ({"SeriesInstanceUID": "1.2.3.4"}, Rejected, "pacs-wrong-instance"),
        ({"SOPInstanceUID": "1.2.3.4"}, Rejected, "pacs-wrong-instance"),
        ({"PatientID": "AUTRE"}, IdentityMismatch, "pacs-wrong-patient"),
    ],
)
async def test_what_is_not_of_the_study_ends_it(
    tmp_path: Path, files: list[Path], values: dict[str, str], kind: type[DrimboxError], code: str
) -> None:
    wrong = altered(files[1], tmp_path / "wrong.dcm", **values)
    script = Script(stored(files[0]), stored(wrong, uid=UIDS[1]), stored(files[2]))
    with pytest.raises(kind) as error:
        await play([accepting_get(), script, releasing], tmp_path, UIDS[:3], patient_id=STUDY.patient.patient_id)
    assert error.value.code == code
    assert script.statuses[1] == status.CANNOT_UNDERSTAND


async def test_another_studys_instance_is_refused_and_the_rest_comes(tmp_path: Path, files: list[Path]) -> None:
    """It is not what was asked for: it is answered no, and never seen by who reads."""
    other = altered(files[5], tmp_path / "other.dcm", StudyInstanceUID=OTHER_STUDY.study_uid, SOPInstanceUID="1.2.9")
    script = Script(stored(files[0]), stored(other), stored(files[1]))
    got = await play([accepting_get(), script, releasing], tmp_path, UIDS[:2])
    assert [one.sop_instance_uid for one in got] == UIDS[:2]
    assert script.statuses == [0, status.NOT_AUTHORIZED, 0]


async def test_a_peer_that_stops_at_a_refusal_is_asked_for_the_rest_by_name(tmp_path: Path, files: list[Path]) -> None:
    extra = altered(files[5], tmp_path / "other.dcm", SOPInstanceUID="1.2.9")
    first = Script(stored(extra), final={"status": 0xA702, "failed": 1})
    got = await play([accepting_get(), first, Script(stored(files[0])), releasing], tmp_path, UIDS[:1])
    assert [one.sop_instance_uid for one in got] == UIDS[:1]


def cut_short(path: Path) -> Step:
    """Stores half of an instance, and is gone."""

    def step(sock: socket.socket) -> None:
        read_pdu(sock)
        read_pdu(sock)
        data = stored(path)(1)
        sock.sendall(data[: len(data) // 2])

    return step


def stalling(path: Path) -> Step:
    def step(sock: socket.socket) -> None:
        cut_short(path)(sock)
        wait_close(sock)

    return step


def aborting(path: Path) -> Step:
    def step(sock: socket.socket) -> None:
        cut_short(path)(sock)
        sock.sendall(pdu.encode(pdu.Abort(0, 0)))
        wait_close(sock)

    return step


@pytest.mark.parametrize(
    ("behaviour", "codes"),
    [
        (cut_short, {"pacs-aborted"}),
        (stalling, {"pacs-silent"}),
        # In the middle of a PDU an abort is only more of its bytes.
        (aborting, {"pacs-silent", "pacs-aborted"}),
    ],
)
async def test_a_peer_that_goes_in_the_middle_leaves_nothing(
    tmp_path: Path, files: list[Path], behaviour: Callable[[Path], Step], codes: set[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable) as error:
        await play([accepting_get(), behaviour(files[0])], tmp_path, UIDS[:2])
    assert error.value.code in codes
    assert time.monotonic() - began < 5


def dripping(path: Path) -> Step:
    """Each byte a sign of life, and never an end."""

    def step(sock: socket.socket) -> None:
        read_pdu(sock)
        read_pdu(sock)
        for byte in stored(path)(1):
            sock.sendall(bytes((byte,)))
            time.sleep(0.02)

    return step


async def test_a_peer_that_drips_has_its_time(tmp_path: Path, files: list[Path]) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable) as error:
        await play([accepting_get(), dripping(files[0])], tmp_path, UIDS[:2], retrieve_timeout=0.3)
    assert error.value.code == "pacs-too-slow"
    assert time.monotonic() - began < 6


def not_agreed(number: int) -> bytes:
    return message(command.StoreRequest(number, MR, UIDS[0]), bytes(10), 1)


def asks_us(number: int) -> bytes:
    return message(command.FindRequest(number, uids.STUDY_ROOT_FIND), bytes(10))


def wrong_length(number: int) -> bytes:
    whole = message(command.StoreRequest(number, MR, UIDS[0]), bytes(100), 3)
    # The last value claims more bytes than its PDU has.
    return whole[:-106] + (5000).to_bytes(4, "big") + whole[-102:]


def other_answer(number: int) -> bytes:
    return message(command.Response(command.Field.C_GET_RSP, 60000, 0))


@pytest.mark.parametrize("wrong", [not_agreed, asks_us, wrong_length, other_answer])
async def test_a_peer_that_breaks_the_protocol(tmp_path: Path, wrong: Callable[[int], bytes]) -> None:
    with pytest.raises(Unavailable) as error:
        await play([accepting_get(), Script(wrong), wait_close], tmp_path, UIDS[:1])
    assert error.value.code in ("pacs-protocol", "pacs-aborted")


async def test_classes_beyond_one_association_come_over_several(
    tmp_path: Path, studies: Path, files: list[Path]
) -> None:
    """Nine classes: two associations, each asked for its own by name."""
    classes = [f"1.2.840.10008.5.1.4.1.1.{n}" for n in range(100, 109)]
    named = [altered(files[n], tmp_path / f"{n}.dcm", SOPClassUID=classes[n]) for n in range(9)]
    contents = Contents()
    series = Series(STUDY.series_uid(SERIES), "MR", 1, "", "", tuple(map(Instance, classes, UIDS)))
    contents.note(Study(STUDY.study_uid, *([""] * 12), series=(series,)))
    by_uid = dict(zip(UIDS, zip(named, classes, strict=False), strict=False))
    served: list[list[str]] = []

    def step(sock: socket.socket) -> None:
        _, body = read_pdu(sock)
        asked = pdu_reader.decode(pdu.PduType.ASSOCIATE_RQ, memoryview(body), limits())
        assert isinstance(asked, pdu.AssociateRequest)
        answers = tuple(pdu.AnsweredContext(c.id, 0, c.transfer_syntaxes[0]) for c in asked.contexts)
        roles = tuple(pdu.Role(role.sop_class_uid, False, True) for role in asked.user.roles)
        user = pdu.UserInformation(16384, "1.2.3", "PARROT", roles)
        sock.sendall(pdu.encode(pdu.AssociateAccept("A", "B", answers, user)))
        mine = {role.sop_class_uid for role in roles}
        served.append(sorted(mine))
        place = {c.abstract_syntax: c.id for c in reversed(asked.contexts)}
        Script(*(stored(p, sop_class=c, context=place[c]) for p, c in by_uid.values() if c in mine))(sock)
        read_pdu(sock)

    got: list[StoredInstance] = []
    with parrot(step, connections=2) as port:
        async with desk(pacs_at(port), tmp_path / "spool") as opened:
            source = PacsGetSource(opened.link, opened.inbox, PacsStudyFinder(opened.link), contents)
            await collect(source, STUDY.study_uid, STUDY.series_uid(SERIES), UIDS[:9], got)
    assert sorted(one.sop_instance_uid for one in got) == sorted(UIDS[:9])
    assert served == [classes[:8], classes[8:]]


async def test_what_is_stored_to_our_receiver_is_never_for_a_get(tmp_path: Path, files: list[Path]) -> None:
    """Another association cannot put an image into a retrieve that does not come from it."""
    async with desk(pacs_at(free_port()), tmp_path / "spool") as opened:
        delivery = opened.inbox.alone(
            private_expectation("essai", STUDY.study_uid, None, UIDS, None), lambda _: None, lambda: None, Pressure()
        )
        offer = StoreOffer(OUR_AE, "PACS", MR, UIDS[0], uids.EXPLICIT_LE, None, delivery.message_id)
        with pytest.raises(StoreRefused):
            opened.inbox.admit(offer)
        opened.inbox.end(delivery)
        assert opened.folders() == []
