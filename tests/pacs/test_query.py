"""What a study holds: Orthanc, the embedded PACS, and every way of not answering."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from drimbox.foundation.errors import Busy, DrimboxError, Rejected, Unavailable
from drimbox.pacs.dimse import command, status, uids
from drimbox.pacs.identifier import Tag, encoder
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Study
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS, INSTANCE_ROOT, PATIENT_ISSUER, SampleStudy
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from pacs.conftest import free_port, pacs_of
from pacs.parrot import accepting, message, parrot, read_one, wait_close

# pynetdicom leaves the socket of an aborted association to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom")


async def find(pacs: Pacs, study_uid: str) -> Study | None:
    link = PacsLink(pacs)
    try:
        return await PacsStudyFinder(link).find(study_uid)
    finally:
        link.close()


@contextmanager
def embedded(folder: Path, faults: Faults | None = None, **changes: object) -> Iterator[Pacs]:
    known = [Destination("DRIMBOX", "127.0.0.1", free_port())]
    with embedded_pacs(EmbeddedConfig(folder, "EMBEDDED", known=known), faults) as peer:
        yield pacs_of(peer, **changes)


@pytest.fixture(scope="module")
def _playing(studies: Path) -> Iterator[tuple[PacsPeer, Faults]]:
    faults = Faults()
    known = [Destination("DRIMBOX", "127.0.0.1", free_port())]
    with embedded_pacs(EmbeddedConfig(studies, "EMBEDDED", known=known), faults) as peer:
        yield peer, faults


@pytest.fixture
def faults(_playing: tuple[PacsPeer, Faults]) -> Iterator[Faults]:
    """The faults of ``playing``, none at first."""
    yield _playing[1]
    _playing[1].repair()


@pytest.fixture
def playing(_playing: tuple[PacsPeer, Faults]) -> PacsPeer:
    """An embedded PACS with the sample studies."""
    return _playing[0]


def check(study: Study | None, sample: SampleStudy) -> None:
    assert study is not None
    assert study.study_uid == sample.study_uid
    assert (study.patient_id, study.patient_id_issuer) == ("IPP101", PATIENT_ISSUER)
    assert (study.patient_name, study.birth_date, study.sex) == ("PAT-TROIS^DOMINIQUE", "19790328", "F")
    assert (study.accession_number, study.accession_issuer) == (sample.accession_number, sample.accession_issuer)
    assert (study.study_date, study.study_time) == ("20210108", "102500")
    assert (study.description, study.referring_physician) == (sample.description, "DOC0036790^KIT")
    assert study.modalities == (sample.modality,)
    assert [s.series_uid for s in study.series] == [sample.series_uid(s) for s in sample.series]
    for series, wanted in zip(study.series, sample.series, strict=True):
        assert [i.sop_instance_uid for i in series.instances] == list(sample.instance_uids(wanted))
        assert [i.number for i in series.instances] == list(range(1, wanted.images + 1))
        assert (series.description, series.body_part) == (wanted.description, sample.body_part)
        assert series.number == wanted.key - 200
    assert study.instance_count == sum(s.images for s in sample.series)


# ------------------------------------------------------------------------------------------------------------ real PACS


@pytest.mark.requirement("DB.SO.12", "DB.SO.14", "exam:A", "exam:C", "exam:E", "exam:F", "exam:G")
async def test_the_studies_of_the_exams_in_orthanc(orthanc_pacs: Pacs) -> None:
    link = PacsLink(orthanc_pacs)
    finder = PacsStudyFinder(link)
    for letter in "ACEFG":
        for sample in EXAMS[letter]:
            check(await finder.find(sample.study_uid), sample)
    link.close()


@pytest.mark.requirement("DB.SO.15", "D7")
async def test_a_study_that_orthanc_does_not_hold(orthanc_pacs: Pacs) -> None:
    assert await find(orthanc_pacs, "1.2.3.4.5.6.7.8.9") is None


async def test_an_ae_title_that_orthanc_does_not_know(orthanc_peer: PacsPeer) -> None:
    with pytest.raises(DrimboxError) as error:
        await find(pacs_of(orthanc_peer, calling_ae_title="STRANGER"), EXAMS["E"][0].study_uid)
    assert isinstance(error.value, Unavailable | Rejected)


async def test_many_questions_at_once(orthanc_pacs: Pacs) -> None:
    link = PacsLink(orthanc_pacs)
    finder = PacsStudyFinder(link)
    samples = [study for letter in "BDEFGI" for study in EXAMS[letter]] * 3
    for study, sample in zip(await asyncio.gather(*(finder.find(s.study_uid) for s in samples)), samples, strict=True):
        check(study, sample)
    link.close()


async def test_a_thousand_instances(
    orthanc_pacs: Pacs, orthanc_peer: PacsPeer, record_property: Callable[[str, object], None]
) -> None:
    for data in thousand():
        debian.rest(orthanc_peer, "POST", "/instances", data)
    began = time.monotonic()
    study = await find(orthanc_pacs, "1.2.9")
    seconds = time.monotonic() - began
    assert study is not None
    assert (len(study.series), study.instance_count) == (5, 1000)
    record_property("C-FIND of 1,000 instances, s", round(seconds, 2))
    print(f"\nC-FIND of 1,000 instances in 5 series, default Orthanc: {seconds:.2f} s")


def thousand() -> Iterator[bytes]:
    dataset = small("1.2.9")
    for index in range(1000):
        dataset.SeriesInstanceUID = f"1.2.9.{index % 5}"
        dataset.SOPInstanceUID = f"1.2.9.{index % 5}.{index}"
        dataset.InstanceNumber = str(index)
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        yield buffer.getvalue()


def small(study_uid: str, charset: str = "ISO_IR 100") -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    dataset.SpecificCharacterSet = charset
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.7"), f"{study_uid}.1.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, f"{study_uid}.1"
    dataset.PatientName, dataset.PatientID = "TEST", "T1"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20210108", "", ""
    dataset.StudyID, dataset.ReferringPhysicianName, dataset.StudyDescription = "", "", ""
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "OT", "1", "1"
    return dataset


# -------------------------------------------------------------------------------------------------------- embedded PACS


async def test_the_embedded_pacs_answers_the_same(playing: PacsPeer) -> None:
    pacs = pacs_of(playing)
    for letter in "BEF":
        for sample in EXAMS[letter]:
            check(await find(pacs, sample.study_uid), sample)
    assert await find(pacs, "1.2.3.4.5.6.7.8.9") is None


async def test_names_and_issuers_as_the_images_have_them(tmp_path: Path) -> None:
    names = {"ISO_IR 100": "Hélène^Éloïse", "ISO_IR 192": "Œuvre^Chloé", "": "PLAIN^NAME"}
    for index, (charset, name) in enumerate(names.items()):
        dataset = small(f"1.2.7.{index}", charset)
        dataset.PatientName, dataset.StudyDescription = name, name.replace("^", " ")
        dataset.IssuerOfPatientID = "LOCAL"
        dataset.save_as(tmp_path / f"{index}.dcm", enforce_file_format=True)
    with embedded(tmp_path, patient_issuer="1.2.250.1", accession_issuer="1.2.250.2") as pacs:
        for index, name in enumerate(names.values()):
            study = await find(pacs, f"1.2.7.{index}")
            assert study is not None
            assert (study.patient_name, study.description) == (name, name.replace("^", " "))
            # A local name is no OID: the configured one stands in.
            assert (study.patient_id_issuer, study.accession_issuer) == ("1.2.250.1", "1.2.250.2")


EXAM_B = EXAMS["B"][0].study_uid


@pytest.mark.parametrize(
    ("fault", "kind", "peer_code"),
    [
        ({"find_status": 0xA700}, Unavailable, "A700H"),
        ({"find_status": 0xC001}, Unavailable, "C001H"),
        ({"find_status": 0xFE00}, Unavailable, "FE00H"),
        ({"find_status": 0xA900}, Rejected, "A900H"),
        ({"find_status": 0x0122}, Rejected, "0122H"),
        ({"find_status": 0xA700, "find_after": 0}, Unavailable, "A700H"),
        ({"find_aborts": True}, Unavailable, None),
        ({"find_aborts": True, "find_after": 0}, Unavailable, None),
        ({"find_stalls": True}, Unavailable, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
@pytest.mark.requirement("D7")
async def test_a_failure_is_never_an_empty_answer(
    fault: dict[str, object], kind: type[DrimboxError], peer_code: str | None, playing: PacsPeer, faults: Faults
) -> None:
    for name, value in fault.items():
        setattr(faults, name, value)
    for uid in (EXAM_B, "1.2.3.4.5.6.7.8.9"):
        with pytest.raises(kind) as error:
            await find(pacs_of(playing, answer_timeout=0.5), uid)
        assert error.value.peer_code == peer_code
        assert "PACS essai" in error.value.reason


@pytest.mark.requirement("D7")
async def test_a_pacs_that_is_down(tmp_path: Path) -> None:
    pacs = Pacs("essai", "127.0.0.1", free_port(), "X", connect_timeout=1)
    with pytest.raises(Unavailable, match="injoignable"):
        await find(pacs, EXAM_B)


async def test_a_pacs_that_ignores_the_keys(playing: PacsPeer, faults: Faults) -> None:
    faults.find_ignores_keys = True
    for uid in (EXAM_B, "1.2.3.4.5.6.7.8.9"):
        with pytest.raises(Rejected) as error:
            await find(pacs_of(playing), uid)
        assert error.value.code == "pacs-wrong-answer"


def without(keyword: str, value: str) -> Callable[[Dataset], Dataset | None]:
    return lambda answer: None if str(answer.get(keyword, "")) == value else answer


@pytest.mark.parametrize(
    ("letter", "keyword", "value"),
    [("B", "SOPInstanceUID", f"{INSTANCE_ROOT}.102.201.34"), ("D", "SeriesNumber", "2")],
    ids=["an image", "a series"],
)
async def test_a_list_shorter_than_announced_is_not_an_answer(
    letter: str, keyword: str, value: str, playing: PacsPeer, faults: Faults
) -> None:
    study_uid = EXAMS[letter][0].study_uid
    faults.find_changes = without(keyword, value)
    with pytest.raises(Unavailable) as error:
        await find(pacs_of(playing), study_uid)
    assert error.value.code == "pacs-truncated"
    assert await find(pacs_of(playing, checks_counts=False), study_uid) is not None


async def test_a_study_described_two_ways() -> None:
    def answer(patient_id: str) -> bytes:
        response = command.Response(command.Field.C_FIND_RSP, 1, status.PENDING, uids.STUDY_ROOT_FIND, has_dataset=True)
        identifier = encoder("STUDY", {Tag.STUDY_UID: "1.2.7", Tag.PATIENT_ID: patient_id})
        return message(response, identifier(uids.EXPLICIT_LE))

    done = message(command.Response(command.Field.C_FIND_RSP, 1, 0, uids.STUDY_ROOT_FIND))
    script = answer("T1") + answer("T2") + done
    with parrot(accepting(), read_one, read_one, script, wait_close) as port, pytest.raises(Rejected) as error:
        await find(Pacs("essai", "127.0.0.1", port, "X"), "1.2.7")
    assert error.value.code == "pacs-ambiguous"
    assert "T1" not in error.value.reason


async def test_more_answers_than_a_study_has(playing: PacsPeer) -> None:
    with pytest.raises(Unavailable) as error:
        await find(pacs_of(playing, max_answers=10), EXAM_B)
    assert error.value.code == "pacs-too-many-answers"


async def test_a_query_that_never_ends(playing: PacsPeer) -> None:
    with pytest.raises(Unavailable) as error:
        await find(pacs_of(playing, query_timeout=0.0001), EXAM_B)
    assert error.value.code == "pacs-too-slow"


@pytest.mark.parametrize("identifier", [b"\xff" * 40, b"", b"1.2"], ids=["junk", "empty", "short"])
async def test_an_identifier_that_cannot_be_read(identifier: bytes) -> None:
    response = command.Response(command.Field.C_FIND_RSP, 1, status.PENDING, uids.STUDY_ROOT_FIND, has_dataset=True)
    script = [accepting(), read_one, read_one, message(response, identifier), wait_close]
    with parrot(*script) as port, pytest.raises((Unavailable, Rejected)):
        await find(Pacs("essai", "127.0.0.1", port, "X", answer_timeout=0.5), "1.2.7")


async def test_no_question_without_a_uid(tmp_path: Path) -> None:
    for uid in ("", "*", "1.2.*", "1.2\\1.3", "abc"):
        with pytest.raises(Rejected):
            await find(Pacs("essai", "127.0.0.1", 1, "X"), uid)


async def test_questions_wait_for_their_turn_but_not_for_ever(playing: PacsPeer, faults: Faults) -> None:
    faults.find_stalls = True
    link = PacsLink(pacs_of(playing, max_queries=1, queue_timeout=0.2))
    finder = PacsStudyFinder(link)
    first = asyncio.create_task(finder.find(EXAM_B))
    await asyncio.sleep(0.1)
    with pytest.raises(Busy) as error:
        await finder.find(EXAM_B)
    assert error.value.retry_after
    began = time.monotonic()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert time.monotonic() - began < 3
    faults.repair()
    assert await finder.find(EXAM_B) is not None
    link.close()
