"""A real PACS (Debian's Orthanc with the sample studies) and our own receiver, for the tests of this room."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from drimbox.pacs.site import Pacs
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.exams import EXAMS, OTHER_STUDY
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pacs.samples import write_study

OUR_AE = "DRIMBOX"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample studies as files: ``<letter>/<number>/<series>/I<n>.dcm``."""
    folder = tmp_path_factory.mktemp("studies")
    for letter in "ABCDEFGIN":
        for study in EXAMS[letter]:
            write_study(study, folder / letter)
    write_study(OTHER_STUDY, folder / "other")
    return folder


@pytest.fixture(scope="session")
def our_port() -> int:
    """Where our receiver listens: the PACSs are told before it does."""
    return free_port()


@pytest.fixture(scope="session")
def orthanc_peer(studies: Path, our_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacsPeer]:
    """A default Debian Orthanc that holds the sample studies."""
    if not debian.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    known = [Destination(name, "127.0.0.1", our_port) for name in (OUR_AE, "FINDSCU", "MOVESCU")]
    config = debian.OrthancConfig(tmp_path_factory.mktemp("orthanc"), "PACS_A", free_port(), free_port(), known)
    with debian.orthanc(config, sorted(studies.rglob("*.dcm"))) as peer:
        yield peer


@pytest.fixture
def orthanc_pacs(orthanc_peer: PacsPeer) -> Pacs:
    """The same, as the settings of a box describe it."""
    return pacs_of(orthanc_peer)


def pacs_of(peer: PacsPeer, **changes: object) -> Pacs:
    values: dict[str, object] = {"answer_timeout": 10.0, **changes}
    return Pacs(id="essai", host=peer.host, port=peer.port, ae_title=peer.ae_title, **values)  # type: ignore[arg-type]
