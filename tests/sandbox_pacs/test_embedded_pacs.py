"""The embedded PACS, as DCMTK sees it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from drimbox.foundation.errors import Misconfigured
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pacs.samples import write_exam
from sandbox_pacs.test_orthanc_pacs import free_port

pytestmark = pytest.mark.skipif(not Path("/usr/bin/findscu").exists(), reason="apt-get install dcmtk")


@pytest.fixture(scope="module")
def destination() -> int:
    return free_port()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory, destination: int) -> Iterator[PacsPeer]:
    folder = tmp_path_factory.mktemp("files")
    for letter in "CFS":
        write_exam(letter, folder)
    known = [Destination(name, "127.0.0.1", destination) for name in ("FINDSCU", "MOVESCU", "STORESCU", "ECHOSCU")]
    with embedded_pacs(EmbeddedConfig(folder, "EMBEDDED", known=known), Faults()) as peer:
        yield peer


def found(peer: PacsPeer, *keys: str) -> list[str]:
    options = [part for key in keys for part in ("-k", key)]
    done = subprocess.run(
        ["/usr/bin/findscu", "-S", "-aec", peer.ae_title, *options, peer.host, str(peer.port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return (done.stdout + done.stderr).split("Find Response: ")[1:]


def test_echo(peer: PacsPeer) -> None:
    echo = ["/usr/bin/echoscu", "-aec", peer.ae_title, peer.host, str(peer.port)]
    assert subprocess.run(echo, timeout=60, check=False).returncode == 0


def test_find_by_accession_number(peer: PacsPeer) -> None:
    answers = found(peer, "QueryRetrieveLevel=STUDY", "AccessionNumber=ACN107", "StudyInstanceUID", "PatientName")
    assert len(answers) == 1
    assert EXAMS["F"][1].study_uid in answers[0]
    assert "PAT-TROIS^DOMINIQUE" in answers[0]


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        (("QueryRetrieveLevel=STUDY", "StudyInstanceUID"), 4),
        (("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=PAT-*"), 4),
        (("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "StudyDate=20210101-20210131"), 4),
        (("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "StudyDate=20220101-"), 0),
        (("QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3"), 0),
        (("QueryRetrieveLevel=SERIES", f"StudyInstanceUID={EXAMS['C'][0].study_uid}", "SeriesInstanceUID"), 2),
        (("QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={EXAMS['S'][0].study_uid}", "SOPInstanceUID"), 8),
    ],
)
def test_find(keys: tuple[str, ...], count: int, peer: PacsPeer) -> None:
    assert len(found(peer, *keys)) == count


def test_move(peer: PacsPeer, destination: int, tmp_path: Path) -> None:
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={EXAMS['S'][0].study_uid}")
    receiver = subprocess.Popen(["/usr/bin/storescp", "-aet", "MOVESCU", "+xa", "-od", str(tmp_path), str(destination)])
    try:
        time.sleep(0.3)
        done = subprocess.run(
            [
                "/usr/bin/movescu",
                "-v",
                "-S",
                "-aec",
                peer.ae_title,
                "-aem",
                "MOVESCU",
                *keys,
                peer.host,
                str(peer.port),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    finally:
        receiver.terminate()
        receiver.wait(10)
    assert "Success" in done.stdout + done.stderr
    assert len(list(tmp_path.iterdir())) == 8


def test_a_stored_object_is_found(peer: PacsPeer, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_exam("Z", tmp_path)[0])
    dataset.StudyInstanceUID = "1.2.3.99"
    dataset.save_as(tmp_path / "new.dcm")
    subprocess.run(
        ["/usr/bin/storescu", "-aec", peer.ae_title, peer.host, str(peer.port), str(tmp_path / "new.dcm")],
        timeout=60,
        check=True,
    )
    assert len(found(peer, "QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3.99")) == 1


def test_strangers_are_not_let_in(peer: PacsPeer) -> None:
    done = subprocess.run(
        ["/usr/bin/echoscu", "-aet", "STRANGER", "-aec", peer.ae_title, peer.host, str(peer.port)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0


def test_a_port_that_is_taken(peer: PacsPeer, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured), embedded_pacs(EmbeddedConfig(tmp_path, "X", port=peer.port)):
        pass
