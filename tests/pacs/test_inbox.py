"""Whose is this instance? No image ever reaches a retrieve that it is not for."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import IdentityMismatch, Misconfigured, Rejected
from drimbox.pacs.delivery import Delivery, Expectation, Pressure
from drimbox.pacs.dimse import status
from drimbox.pacs.dimse.storage import StoredInstance, StoreOffer, StoreRefused
from drimbox.pacs.inbox import Inbox, opened
from drimbox.sandbox.pacs.exams import EXAMS, OTHER_STUDY

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    with opened(tmp_path / "spool") as inbox:
        yield inbox


def expectation(*instances: str, **changes: object) -> Expectation:
    values: dict[str, object] = {
        "pacs_id": "essai",
        "study_uid": "1.2",
        "series_uid": None,
        "instances": frozenset(instances),
        "destination_ae": "DRIMBOX",
        "originator_ae": "DRIMBOX",
        **changes,
    }
    return Expectation(**values)  # type: ignore[arg-type]


def offer(uid: str, **changes: object) -> StoreOffer:
    values: dict[str, object] = {
        "called_ae": "DRIMBOX",
        "calling_ae": "PACS",
        "sop_class_uid": MR,
        "sop_instance_uid": uid,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "move_originator_ae": None,
        "move_originator_id": None,
        **changes,
    }
    return StoreOffer(**values)  # type: ignore[arg-type]


class Reader:
    """What a retrieve gets."""

    def __init__(self, inbox: Inbox, expected: Expectation, pressure: Pressure | None = None) -> None:
        self.got: list[StoredInstance] = []
        self.failures = 0
        self.delivery: Delivery = inbox.expect(expected, self.got.append, self._failed, pressure or Pressure())

    def _failed(self) -> None:
        self.failures += 1


def land(inbox: Inbox, announced: StoreOffer, file: Path) -> None:
    """What the receiver does with one instance."""
    landing = inbox.admit(announced)
    landing.path.write_bytes(file.read_bytes())
    stored = StoredInstance(
        announced.sop_class_uid,
        announced.sop_instance_uid,
        announced.transfer_syntax_uid,
        landing.path,
        file.stat().st_size,
    )
    landing.landed(stored)


STUDY = EXAMS["B"][0]
SERIES = STUDY.series[0]
INSTANCES = STUDY.instance_uids(SERIES)


def image(studies: Path, index: int = 1) -> Path:
    return studies / "B" / "102" / "201" / f"I{index}.dcm"


def of_b(**changes: object) -> Expectation:
    return expectation(*INSTANCES, study_uid=STUDY.study_uid, series_uid=STUDY.series_uid(SERIES), **changes)


def test_an_expected_instance_lands(inbox: Inbox, studies: Path) -> None:
    reader = Reader(inbox, of_b(patient_id="IPP101"))
    land(inbox, offer(INSTANCES[0]), image(studies))
    assert [stored.sop_instance_uid for stored in reader.got] == [INSTANCES[0]]
    assert reader.delivery.missing == sorted(INSTANCES[1:])
    assert reader.got[0].path.exists()
    inbox.end(reader.delivery)
    assert not reader.got[0].path.parent.exists()


@pytest.mark.parametrize(
    "announced",
    [
        offer("1.2.3.9"),
        offer(INSTANCES[0], called_ae="ELSE"),
        offer(INSTANCES[0], calling_ae="STRANGER"),
        offer(INSTANCES[0], move_originator_ae="OTHERBOX"),
        offer(INSTANCES[0], move_originator_id=60000),
    ],
    ids=["not expected", "other destination", "other sender", "other originator", "other retrieve"],
)
def test_what_is_not_for_a_retrieve_is_refused(announced: StoreOffer, inbox: Inbox) -> None:
    inbox._last_message_id = 10
    reader = Reader(inbox, of_b(storing_ae_titles=frozenset({"PACS"})))
    with pytest.raises(StoreRefused) as refused:
        inbox.admit(announced)
    assert refused.value.status == status.NOT_AUTHORIZED
    assert list(reader.delivery.folder.iterdir()) == []


def test_the_originator_may_be_left_unchecked(inbox: Inbox, studies: Path) -> None:
    reader = Reader(inbox, of_b(checks_originator=False))
    land(inbox, offer(INSTANCES[0], move_originator_ae="X", move_originator_id=60000), image(studies))
    assert len(reader.got) == 1


def test_the_same_instance_twice_is_taken_once(inbox: Inbox, studies: Path) -> None:
    reader = Reader(inbox, of_b())
    land(inbox, offer(INSTANCES[0]), image(studies))
    with pytest.raises(StoreRefused):
        land(inbox, offer(INSTANCES[0]), image(studies))
    assert len(reader.got) == 1


def test_two_retrieves_of_one_instance_get_one_each(inbox: Inbox, studies: Path) -> None:
    one, two = Reader(inbox, of_b()), Reader(inbox, of_b())
    land(
        inbox,
        offer(INSTANCES[0], move_originator_ae="DRIMBOX", move_originator_id=two.delivery.message_id),
        image(studies),
    )
    assert (len(one.got), len(two.got)) == (0, 1)
    land(inbox, offer(INSTANCES[0]), image(studies))
    assert (len(one.got), len(two.got)) == (1, 1)
    assert one.got[0].path != two.got[0].path


def test_what_is_just_coming_in_is_still_missing(inbox: Inbox, studies: Path) -> None:
    reader = Reader(inbox, expectation(INSTANCES[0], study_uid=STUDY.study_uid))
    landing = inbox.admit(offer(INSTANCES[0]))
    assert reader.delivery.missing == [INSTANCES[0]]
    assert not reader.delivery.wait_until_landed(0.05)
    landing.path.write_bytes(image(studies).read_bytes())
    landing.landed(StoredInstance(MR, INSTANCES[0], "1.2.840.10008.1.2.1", landing.path, 1))
    assert reader.delivery.missing == []
    assert reader.delivery.wait_until_landed(0.05)


def test_what_is_cut_is_awaited_again(inbox: Inbox, studies: Path) -> None:
    reader = Reader(inbox, of_b())
    inbox.admit(offer(INSTANCES[0])).lost()
    assert INSTANCES[0] in reader.delivery.missing
    land(inbox, offer(INSTANCES[0]), image(studies))
    assert len(reader.got) == 1


def test_after_the_end_nothing_lands(inbox: Inbox, studies: Path) -> None:
    reader = Reader(inbox, of_b())
    late = inbox.admit(offer(INSTANCES[0]))
    late.path.write_bytes(image(studies).read_bytes())
    with late.path.open("ab") as coming:
        inbox.end(reader.delivery)
        # It is still being written; nothing of it stays on the disk.
        assert not reader.delivery.folder.exists()
        coming.write(b"more")
    with pytest.raises(StoreRefused):
        late.landed(StoredInstance(MR, INSTANCES[0], "1.2.840.10008.1.2.1", late.path, 1))
    assert not reader.delivery.folder.exists()
    with pytest.raises(StoreRefused):
        inbox.admit(offer(INSTANCES[1]))
    assert reader.got == []


@pytest.mark.parametrize("change", ["study", "series", "instance", "class"])
def test_a_file_that_is_something_else(change: str, inbox: Inbox, studies: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(image(studies))
    keyword = {
        "study": "StudyInstanceUID",
        "series": "SeriesInstanceUID",
        "instance": "SOPInstanceUID",
        "class": "SOPClassUID",
    }
    setattr(dataset, keyword[change], "1.2.3.4")
    dataset.save_as(tmp_path / "wrong.dcm")
    reader = Reader(inbox, of_b())
    with pytest.raises(StoreRefused) as refused:
        land(inbox, offer(INSTANCES[0]), tmp_path / "wrong.dcm")
    assert refused.value.status == status.CANNOT_UNDERSTAND
    assert isinstance(reader.delivery.error, Rejected)
    assert (reader.got, reader.failures) == ([], 1)
    assert INSTANCES[0] in reader.delivery.missing


@pytest.mark.parametrize("known", ["IPP101", None])
def test_another_patients_image_stops_the_retrieve(
    known: str | None, inbox: Inbox, studies: Path, tmp_path: Path
) -> None:
    dataset = pydicom.dcmread(image(studies, 2))
    dataset.PatientID = OTHER_STUDY.patient.patient_id
    dataset.save_as(tmp_path / "wrong.dcm")
    reader = Reader(inbox, of_b(patient_id=known))
    land(inbox, offer(INSTANCES[0]), image(studies))
    with pytest.raises(StoreRefused):
        land(inbox, offer(INSTANCES[1]), tmp_path / "wrong.dcm")
    assert isinstance(reader.delivery.error, IdentityMismatch)
    assert "IPP" not in reader.delivery.error.reason
    assert len(reader.got) == 1


def test_a_file_that_is_no_dicom(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    reader = Reader(inbox, of_b())
    with pytest.raises(StoreRefused):
        land(inbox, offer(INSTANCES[0]), tmp_path / "junk")
    assert reader.failures == 1


def test_a_slow_reader_holds_the_sender_back(inbox: Inbox, studies: Path) -> None:
    reader = Reader(inbox, of_b(), Pressure(instances=2, hold=30))
    times: list[float] = []

    def send() -> None:
        for index in range(5):
            land(inbox, offer(INSTANCES[index]), image(studies, index + 1))
            times.append(time.monotonic())

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.3)
    assert (len(reader.got), len(times)) == (3, 2)  # the third is there, its response is not
    for stored in list(reader.got):
        reader.delivery.taken(stored)
    sender.join(10)
    assert len(times) == 5


def test_a_held_response_goes_out_in_time_for_the_peer(inbox: Inbox, studies: Path) -> None:
    Reader(inbox, of_b(), Pressure(instances=0, hold=0.2))
    began = time.monotonic()
    land(inbox, offer(INSTANCES[0]), image(studies))
    assert 0.2 <= time.monotonic() - began < 5


def test_big_instances_press_by_their_size(inbox: Inbox, studies: Path) -> None:
    Reader(inbox, of_b(), Pressure(bytes=1000, hold=0.2))
    began = time.monotonic()
    land(inbox, offer(INSTANCES[0]), image(studies))
    assert time.monotonic() - began >= 0.2


def test_a_spool_is_for_one_process_and_cleaned_of_the_last(tmp_path: Path) -> None:
    left = tmp_path / "retrieve-00000001"
    left.mkdir()
    (left / "000001.dcm").write_bytes(b"left behind")
    (tmp_path / "other").mkdir()
    with opened(tmp_path):
        assert not left.exists()
        assert (tmp_path / "other").exists()  # not ours, not touched
        with pytest.raises(Misconfigured), opened(tmp_path):
            pass
    with opened(tmp_path) as inbox:
        folder = Reader(inbox, expectation("1.2.3")).delivery.folder
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


_KILLED = """
import pathlib, sys, time
from drimbox.pacs import inbox
from drimbox.pacs.delivery import Expectation, Pressure
from drimbox.pacs.dimse.storage import StoreOffer
spool = pathlib.Path(sys.argv[1])
with inbox.opened(spool) as desk:
    awaited = Expectation("essai", "1.2.3", None, frozenset({"1.2.3.1", "1.2.3.2"}), "", "")
    delivery = desk.alone(awaited, lambda _: None, lambda: None, Pressure())
    for uid in awaited.instances:
        landing = delivery.admit(StoreOffer("", "", "1.2.9", uid, "1.2.840.10008.1.2.1", None, None))
        landing.path.write_bytes(b"PAT-TROIS" * 1000)
    print("holding", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_gone_with_the_next_start(tmp_path: Path) -> None:
    """Images in transit lie in clear: for as long as one retrieve, or until the box is back."""
    spool = tmp_path / "spool"
    with subprocess.Popen([sys.executable, "-c", _KILLED, str(spool)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        # Nobody else looks into it.
        assert {stat.S_IMODE(path.stat().st_mode) for path in (spool, *spool.glob("retrieve-*"))} == {0o700}
        process.kill()
    assert len(list(spool.rglob("*.dcm"))) == 2, "the test no longer shows anything"
    with opened(spool):
        assert [path.name for path in spool.iterdir()] == [".lock"]


def test_message_ids_are_never_shared(inbox: Inbox) -> None:
    inbox._last_message_id = 65533
    readers = [Reader(inbox, expectation("1.2.3")) for _ in range(4)]
    assert [reader.delivery.message_id for reader in readers] == [65534, 65535, 1, 2]
    inbox._last_message_id = 65534
    assert Reader(inbox, expectation("1.2.3")).delivery.message_id == 3


uids = st.sampled_from([f"1.2.{n}" for n in range(4)])
expected_sets = st.lists(
    st.tuples(st.frozensets(uids, min_size=1), st.sampled_from(["BOX1", "BOX2"]), st.sampled_from(["D1", "D2"])),
    min_size=1,
    max_size=4,
)
offers = st.lists(
    st.tuples(
        uids,
        st.sampled_from(["D1", "D2"]),
        st.sampled_from([None, "BOX1", "BOX2", "PACS"]),
        st.none() | st.integers(1, 6),
    ),
    max_size=12,
)


@given(expected_sets, offers)
def test_an_instance_lands_only_where_it_is_expected(
    tmp_path_factory: pytest.TempPathFactory,
    expected: list[tuple[frozenset[str], str, str]],
    announced: list[tuple[str, str, str | None, int | None]],
) -> None:
    inbox = Inbox(tmp_path_factory.mktemp("spool"))
    inbox._last_message_id = 0
    readers = [Reader(inbox, expectation(*uids, originator_ae=box, destination_ae=to)) for uids, box, to in expected]
    taken: set[tuple[int, str]] = set()
    for uid, called, box, number in announced:
        arriving = offer(uid, called_ae=called, move_originator_ae=box, move_originator_id=number)
        fitting = [
            reader.delivery
            for reader in readers
            if uid in reader.delivery.expectation.instances
            and called == reader.delivery.expectation.destination_ae
            and box in (None, "PACS", reader.delivery.expectation.originator_ae)
            and number in (None, reader.delivery.message_id)
            and (reader.delivery.message_id, uid) not in taken
        ]
        try:
            landing = inbox.admit(arriving)
        except StoreRefused:
            assert fitting == []
            continue
        owner = landing._delivery
        assert owner in fitting
        assert landing.path.parent == owner.folder
        taken.add((owner.message_id, uid))
