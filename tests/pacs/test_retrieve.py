"""Series out of the PACS: whole or an error, never mixed, never more than the reader can take, nothing left behind."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context

from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Rejected, Unavailable
from drimbox.pacs.delivery import Pressure
from drimbox.pacs.dimse import command, pdu, pdu_reader, uids
from drimbox.pacs.retrieve import PacsSeriesSource, StoredInstance
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS, OTHER_STUDY
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from pacs.conftest import OUR_AE, free_port, pacs_of
from pacs.desk import Desk, check_series, collect, desk
from pacs.parrot import accepting, message, parrot, read_one, read_pdu, wait_close

# pynetdicom leaves the socket of an aborted association to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom")


@pytest.fixture
async def at_orthanc(orthanc_pacs: Pacs, our_port: int, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(orthanc_pacs, tmp_path / "spool", our_port) as opened:
        yield opened
        assert opened.folders() == []


@pytest.fixture(scope="module")
def _playing(studies: Path) -> Iterator[tuple[PacsPeer, Faults, int]]:
    faults, port = Faults(), free_port()
    known = [Destination(OUR_AE, "127.0.0.1", port)]
    with embedded_pacs(EmbeddedConfig(studies, "EMBEDDED", known=known), faults) as peer:
        yield peer, faults, port


@pytest.fixture
def faults(_playing: tuple[PacsPeer, Faults, int]) -> Iterator[Faults]:
    yield _playing[1]
    _playing[1].repair()


@pytest.fixture
async def at_embedded(_playing: tuple[PacsPeer, Faults, int], tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(pacs_of(_playing[0], answer_timeout=1.0), tmp_path / "spool", _playing[2]) as opened:
        yield opened
        assert opened.folders() == []


# ------------------------------------------------------------------------------------------------------------ real PACS


@pytest.mark.requirement("DB.SO.32", "DB.CS.83", "exam:B", "exam:C", "exam:D", "exam:E", "exam:F", "exam:G", "exam:N")
async def test_every_series_comes_as_orthanc_holds_it(at_orthanc: Desk, studies: Path) -> None:
    for letter in "BCDEFGIN":
        for study in EXAMS[letter]:
            for series in study.series:
                await check_series(at_orthanc.source(), study, series, studies / letter)


async def test_a_whole_study(at_orthanc: Desk) -> None:
    study = EXAMS["C"][0]
    expected = {uid for series in study.series for uid in study.instance_uids(series)}
    async with at_orthanc.source().retrieve(study.study_uid, None, expected) as instances:
        assert {stored.sop_instance_uid async for stored in instances} == expected


async def test_fewer_than_the_pacs_holds(at_orthanc: Desk) -> None:
    # Orthanc gives up at the first image that we refuse: the rest is asked for by name.
    study = EXAMS["B"][0]
    expected = study.instance_uids(study.series[0])[7:10]
    for series_uid in (study.series_uid(study.series[0]), None):
        async with at_orthanc.source().retrieve(study.study_uid, series_uid, expected) as instances:
            assert sorted([stored.sop_instance_uid async for stored in instances]) == sorted(expected)


@pytest.mark.requirement("D14")
async def test_more_than_the_pacs_holds(at_orthanc: Desk) -> None:
    study = EXAMS["B"][0]
    series = study.series[0]
    expected = [*study.instance_uids(series), "1.2.3.4", "1.2.3.5"]
    got: list[StoredInstance] = []
    with pytest.raises(Rejected, match="20 des 22 images") as error:
        await collect(at_orthanc.source(), study.study_uid, study.series_uid(series), expected, got)
    assert (len(got), error.value.code) == (20, "pacs-instances-missing")


async def test_a_series_that_the_pacs_does_not_hold(at_orthanc: Desk) -> None:
    # Orthanc answers with a failure status here, others with success and nothing sent.
    got: list[StoredInstance] = []
    with pytest.raises((Unavailable, Rejected)):
        await collect(at_orthanc.source(), "1.2.3.4.5.6.7.8.9", "1.2.3.4", ["1.2.3.4.5"], got)
    assert got == []


async def test_nothing_expected_is_nothing_asked(at_orthanc: Desk) -> None:
    async with at_orthanc.source().retrieve("1.2.3", "1.2.3.4", []) as instances:
        assert [stored async for stored in instances] == []


async def test_a_destination_that_orthanc_does_not_know(orthanc_pacs: Pacs, tmp_path: Path) -> None:
    study = EXAMS["B"][0]
    async with desk(orthanc_pacs, tmp_path / "spool") as opened:
        source = PacsSeriesSource(opened.link, opened.inbox, "NOBODY")
        with pytest.raises(Unavailable) as error:
            await collect(source, study.study_uid, None, ["1.2.3"], [])
        assert error.value.code == "pacs-retrieve-failed"


@pytest.mark.requirement("DB.SO.35")
async def test_many_series_at_once_are_never_mixed(
    orthanc_pacs: Pacs, our_port: int, studies: Path, tmp_path: Path
) -> None:
    wanted = [(EXAMS[letter][0], letter) for letter in "BCDEF"] + [(EXAMS["F"][1], "F"), (OTHER_STUDY, "other")]
    jobs = [(study, series, folder) for study, folder in wanted for series in study.series] * 3
    random.Random(1).shuffle(jobs)
    pacs = pacs_of(PacsPeer(orthanc_pacs.ae_title, orthanc_pacs.host, orthanc_pacs.port), max_associations=8)
    async with desk(pacs, tmp_path / "spool", our_port) as opened, asyncio.TaskGroup() as group:
        source = opened.source(pressure=Pressure(instances=2, hold=0.3))
        for index, (study, series, folder) in enumerate(jobs):
            pause = 0.002 * (index % 3)
            group.create_task(check_series(source, study, series, studies / folder, pause))


async def test_speed_and_first_image(
    at_orthanc: Desk, studies: Path, record_property: Callable[[str, object], None]
) -> None:
    study = EXAMS["A"][0]
    series = study.series[0]
    source = at_orthanc.source()
    rounds = []
    for _ in range(2):
        began, first, total = time.monotonic(), 0.0, 0
        async with source.retrieve(study.study_uid, study.series_uid(series), study.instance_uids(series)) as instances:
            async for stored in instances:
                first = first or time.monotonic() - began
                total += stored.size
        rounds.append((time.monotonic() - began, first, total))
    seconds, first, total = min(rounds)
    record_property("C-MOVE of 300 CT, MB/s", round(total / seconds / 1e6))
    print(
        f"\nC-MOVE of 300 CT from a default Orthanc: {total / seconds / 1e6:.0f} MB/s, {300 / seconds:.0f} images/s,",
        end="",
    )
    print(f" first image after {first * 1000:.0f} ms")
    assert total > 157_000_000


async def test_leaving_early_stops_orthanc(at_orthanc: Desk) -> None:
    study = EXAMS["A"][0]
    series = study.series[0]
    began = time.monotonic()
    source = at_orthanc.source(pressure=Pressure(instances=2, hold=5))
    async with source.retrieve(study.study_uid, study.series_uid(series), study.instance_uids(series)) as instances:
        async for stored in instances:
            kept = stored
            break
    assert time.monotonic() - began < 5
    assert not kept.path.exists()
    assert at_orthanc.folders() == []
    await until(lambda: at_orthanc.receiver.associations == 0)


async def test_a_cancelled_reader_stops_orthanc(at_orthanc: Desk) -> None:
    study = EXAMS["A"][0]
    series = study.series[0]
    started = asyncio.Event()

    async def read() -> None:
        source = at_orthanc.source(pressure=Pressure(instances=2, hold=5))
        async with source.retrieve(study.study_uid, study.series_uid(series), study.instance_uids(series)) as instances:
            async for _ in instances:
                started.set()
                await asyncio.sleep(3600)

    task = asyncio.create_task(read())
    await started.wait()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 5
    assert at_orthanc.folders() == []


async def test_a_slow_reader_slows_orthanc_down(at_orthanc: Desk) -> None:
    study = EXAMS["A"][0]
    series = study.series[0]
    source = at_orthanc.source(pressure=Pressure(instances=3, hold=2))
    taken, most = 0, 0
    async with source.retrieve(study.study_uid, study.series_uid(series), study.instance_uids(series)) as instances:
        async for stored in instances:
            stored.path.unlink()
            taken += 1
            waiting = len(list(stored.path.parent.glob("*.dcm")))
            most = max(most, waiting)
            if taken < 10:
                await asyncio.sleep(0.05)
    assert taken == 300
    assert most <= 5


# ---------------------------------------------------------------------------------------------- a PACS that misbehaves

STUDY = EXAMS["B"][0]
SERIES = STUDY.series[0]
UIDS = STUDY.instance_uids(SERIES)


async def take(source: PacsSeriesSource, patient_id: str | None = None) -> list[StoredInstance]:
    got: list[StoredInstance] = []
    await collect(source, STUDY.study_uid, STUDY.series_uid(SERIES), UIDS, got, patient_id=patient_id)
    return got


async def test_the_embedded_pacs_sends_the_same(at_embedded: Desk, studies: Path) -> None:
    for letter in "BCFN":
        study = EXAMS[letter][0]
        await check_series(at_embedded.source(), study, study.series[0], studies / letter)


@pytest.mark.parametrize(
    ("fault", "kind", "code", "peer_code"),
    [
        ({"move_status": 0xA701, "move_after": 0}, Unavailable, "pacs-retrieve-failed", "A701H"),
        ({"move_status": 0xA702, "move_after": 3}, Unavailable, "pacs-retrieve-failed", "A702H"),
        ({"move_status": 0xA801, "move_after": 0}, Unavailable, "pacs-destination-unknown", "A801H"),
        ({"move_status": 0xC123, "move_after": 3}, Unavailable, "pacs-retrieve-failed", "C123H"),
        ({"move_status": 0xFE00, "move_after": 3}, Unavailable, "pacs-retrieve-failed", "FE00H"),
        ({"move_aborts": True, "move_after": 3}, Unavailable, "pacs-aborted", None),
        ({"move_stalls": True, "move_after": 3}, Unavailable, "pacs-silent", None),
        ({"move_after": 3}, Rejected, "pacs-instances-missing", None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
@pytest.mark.requirement("D14")
async def test_a_retrieve_that_fails_says_so(
    fault: dict[str, object],
    kind: type[DrimboxError],
    code: str,
    peer_code: str | None,
    at_embedded: Desk,
    faults: Faults,
) -> None:
    for name, value in fault.items():
        setattr(faults, name, value)
    began = time.monotonic()
    with pytest.raises(kind) as error:
        await take(at_embedded.source())
    assert (error.value.code, error.value.peer_code) == (code, peer_code)
    assert "PACS essai" in error.value.reason
    assert time.monotonic() - began < 10


async def test_one_image_left_out(at_embedded: Desk, faults: Faults) -> None:
    faults.move_changes = lambda dataset: None if dataset.SOPInstanceUID == UIDS[4] else dataset
    with pytest.raises(Rejected, match="19 des 20 images") as error:
        await take(at_embedded.source())
    assert error.value.code == "pacs-instances-missing"


def changed(**values: str) -> Callable[[Dataset], Dataset]:
    def change(dataset: Dataset) -> Dataset:
        if dataset.SOPInstanceUID == UIDS[4]:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)
        return dataset

    return change


@pytest.mark.parametrize("patient_id", [None, "IPP101"])
async def test_another_patients_image_is_never_given(patient_id: str | None, at_embedded: Desk, faults: Faults) -> None:
    faults.move_changes = changed(PatientID=OTHER_STUDY.patient.patient_id)
    got: list[StoredInstance] = []
    with pytest.raises(IdentityMismatch) as error:
        await collect(at_embedded.source(), STUDY.study_uid, STUDY.series_uid(SERIES), UIDS, got, patient_id=patient_id)
    assert UIDS[4] not in [stored.sop_instance_uid for stored in got]
    assert "IPP" not in error.value.reason


async def test_a_series_of_another_patient_altogether(at_embedded: Desk) -> None:
    with pytest.raises(IdentityMismatch):
        await take(at_embedded.source(), patient_id="IPP999")


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
async def test_an_image_of_another_study_is_never_given(keyword: str, at_embedded: Desk, faults: Faults) -> None:
    faults.move_changes = changed(**{keyword: "1.2.3.4"})
    with pytest.raises(Rejected) as error:
        await take(at_embedded.source())
    assert error.value.code == "pacs-wrong-instance"


async def test_an_image_under_another_name_is_not_taken(at_embedded: Desk, faults: Faults) -> None:
    faults.move_changes = changed(SOPInstanceUID="1.2.3.4")
    # It is refused, then the image is asked for by name, and refused again.
    with pytest.raises(Unavailable) as error:
        await take(at_embedded.source())
    assert error.value.peer_code == "A702H"


async def test_a_pacs_that_answers_before_it_has_sent(tmp_path: Path, studies: Path) -> None:
    # The C-MOVE answers at once; the images come by themselves a moment later.
    done = command.Response(command.Field.C_MOVE_RSP, 1, 0, uids.STUDY_ROOT_MOVE, completed=0)
    with parrot(accepting(), echoing_move(done)) as port:
        pacs = Pacs("essai", "127.0.0.1", port, "PYNET")
        async with desk(pacs, tmp_path / "spool") as opened:
            sender = asyncio.create_task(asyncio.to_thread(send_later, opened.receiver.port, studies / "B"))
            got = await take(opened.source(late_timeout=20))
            await sender
            assert len(got) == 20
            assert opened.folders() == []


def echoing_move(done: command.Response) -> Callable[[socket.socket], None]:
    """A step: answer the C-MOVE under its own message id, then the release."""

    def step(sock: socket.socket) -> None:
        _, body = read_pdu(sock)
        asked = command.decode(bytes(pdu_reader.decode_values(memoryview(body))[0].data))
        assert isinstance(asked, command.MoveRequest)
        read_pdu(sock)
        sock.sendall(message(replace(done, message_id=asked.message_id)))
        read_pdu(sock)
        sock.sendall(pdu.encode(pdu.ReleaseResponse()))

    return step


def send_later(port: int, folder: Path) -> None:
    time.sleep(0.5)
    ae = AE("PYNET")
    association = ae.associate(
        "127.0.0.1", port, [build_context("1.2.840.10008.5.1.4.1.1.4", [uids.EXPLICIT_LE])], OUR_AE
    )
    for path in sorted(folder.rglob("*.dcm")):
        assert association.send_c_store(path).Status == 0
    association.release()


async def test_a_pacs_that_keeps_nobody_waiting_for_ever(tmp_path: Path) -> None:
    pending = command.Response(command.Field.C_MOVE_RSP, 1, 0xFF00, uids.STUDY_ROOT_MOVE, remaining=20, completed=0)

    def chatter(sock: socket.socket) -> None:
        for _ in range(100):
            sock.sendall(message(pending))
            time.sleep(0.02)

    with parrot(accepting(), read_one, read_one, chatter, wait_close) as port:
        pacs = Pacs("essai", "127.0.0.1", port, "PACS", retrieve_timeout=0.5)
        async with desk(pacs, tmp_path / "spool") as opened:
            opened.inbox._last_message_id = 0
            with pytest.raises(Unavailable) as error:
                await take(opened.source())
    assert error.value.code == "pacs-too-slow"


async def test_a_pacs_that_is_down(tmp_path: Path) -> None:
    async with desk(Pacs("essai", "127.0.0.1", free_port(), "X", connect_timeout=1), tmp_path / "spool") as opened:
        with pytest.raises(Unavailable, match="injoignable"):
            await take(opened.source())
        assert opened.folders() == []


async def test_retrieves_wait_for_their_turn_but_not_for_ever(at_embedded: Desk, faults: Faults) -> None:
    faults.move_stalls, faults.move_after = True, 1
    peer = at_embedded.link.pacs
    pacs = pacs_of(PacsPeer(peer.ae_title, peer.host, peer.port), max_associations=1, queue_timeout=0.2)
    link = PacsLink(pacs)
    source = PacsSeriesSource(link, at_embedded.inbox, OUR_AE)
    async with source.retrieve(STUDY.study_uid, STUDY.series_uid(SERIES), UIDS) as instances:
        async for _ in instances:
            with pytest.raises(Busy):
                await take(source)
            faults.repair()
            break
    assert len(await take(source)) == 20
    link.close()


async def test_no_retrieve_without_uids(at_embedded: Desk) -> None:
    for study, series, expected in (("*", None, ["1.2"]), ("1.2", "é", ["1.2"]), ("1.2", None, ["a\\b"])):
        with pytest.raises(Rejected):
            async with at_embedded.source().retrieve(study, series, expected):
                pass


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")
