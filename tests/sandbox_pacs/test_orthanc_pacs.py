"""Debian's Orthanc as sandbox PACS: filled once, reachable as a hospital's would be, stopped in order."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from base64 import b64encode
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.orthanc import OrthancConfig
from drimbox.sandbox.pacs.peer import Destination
from drimbox.sandbox.pacs.samples import write_exam

KEYS = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "AccessionNumber")
pytestmark = pytest.mark.skipif(not debian.installed(), reason="apt-get install orthanc orthanc-dicomweb")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path) -> OrthancConfig:
    known = [Destination("FINDSCU", "127.0.0.1", 1)]
    return OrthancConfig(tmp_path / "orthanc", "PACS_A", free_port(), free_port(), known)


def count(peer: object) -> int:
    return int(json.loads(debian.rest(peer, "GET", "/statistics"))["CountInstances"])  # type: ignore[arg-type]


def test_filled_at_the_first_start_and_kept(config: OrthancConfig, tmp_path: Path) -> None:
    files = write_exam("S", tmp_path / "files")
    with debian.orthanc(config, files) as peer:
        assert count(peer) == len(files)
        with pytest.raises(HTTPError) as refused:
            urlopen(f"{peer.rest_url}/statistics", timeout=10)
        assert refused.value.code == 401
        refused.value.close()
        token = b64encode(f"{peer.rest_user}:{peer.rest_password}".encode()).decode()
        question = Request(f"{peer.dicomweb_url}/studies", headers={"Authorization": f"Basic {token}"})
        with urlopen(question, timeout=10) as answer:
            assert json.loads(answer.read())[0]["0020000D"]["Value"] == [EXAMS["S"][0].study_uid]
        found = subprocess.run(
            ["/usr/bin/findscu", "-S", "-aec", "PACS_A", "127.0.0.1", str(peer.port), *KEYS],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert "ACN120" in found.stdout + found.stderr
        instance = json.loads(debian.rest(peer, "GET", "/instances"))[0]
        debian.rest(peer, "DELETE", f"/instances/{instance}")
        assert peer.rest_password not in repr(peer)
    with debian.orthanc(config, files) as peer:
        assert count(peer) == len(files) - 1  # what was done to it lasts; it is not filled again
    with pytest.raises(Unavailable):
        debian.rest(peer, "GET", "/system", timeout=1)


def test_one_that_was_left_behind_is_replaced(config: OrthancConfig) -> None:
    running = debian.orthanc(config)
    running.__enter__()
    # What its parent's death leaves: a process, and its number in the folder.
    left = int((config.state / "orthanc.pid").read_text())
    try:
        with debian.orthanc(config) as peer:
            assert int((config.state / "orthanc.pid").read_text()) != left
            assert count(peer) == 0
    finally:
        running.__exit__(None, None, None)


def test_another_process_of_that_number_is_left_alone(config: OrthancConfig) -> None:
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        config.state.mkdir(parents=True)
        (config.state / "orthanc.pid").write_text(str(stranger.pid))
        debian.stop_leftover(config.state)
        assert stranger.poll() is None
    finally:
        os.kill(stranger.pid, signal.SIGTERM)
        stranger.wait()


def test_a_port_that_is_taken(config: OrthancConfig) -> None:
    began = time.monotonic()
    with socket.create_server(("0.0.0.0", config.dicom_port)), pytest.raises(Misconfigured, match="ports"):
        debian.orthanc(config).__enter__()
    assert time.monotonic() - began < 20
