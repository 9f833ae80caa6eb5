"""``./drimbox demo`` as it is typed: it starts over, plays, keeps its data, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from drimbox.sandbox.pacs import orthanc

pytestmark = [pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
LONGEST = 180.0
STUDY = "1.2.250.1.213.4.5.2.1.105"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A state folder outside of pytest's own, which other runs shut to the account of PostgreSQL."""
    if not orthanc.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    with tempfile.TemporaryDirectory(prefix="drimbox-command-") as folder:
        yield Path(folder) / "demo"


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, in a session of its own as in a terminal; it must end by itself."""
    # Two runs that start at the same moment must not find the same ports free.
    command = [str(ROOT / "drimbox"), "demo", "--ports", str(18000 + random.randrange(600) * 20), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd="/"
    )
    # One that hangs shows where, and is a failed test rather than the end of all.
    patience = threading.Timer(LONGEST, lambda: kill_family(process.pid))
    patience.start()
    try:
        yield process
    finally:
        patience.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def kill_family(pid: int) -> None:
    """The process and whatever it started, so that none of them holds our end of the pipe."""
    for each in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
        with suppress(psutil.NoSuchProcess):
            each.kill()


def until(process: subprocess.Popen[str], words: str) -> str:
    """What the command says up to these words."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"« {words} » was not said:\n{said}")


def interrupted(process: subprocess.Popen[str]) -> int:
    """Ctrl-C goes to the whole group, as a terminal sends it; the exit status."""
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout is not None
    process.stdout.read()
    return process.wait(40)


def left_behind(folder: Path) -> list[str]:
    """The command lines of processes that have to do with the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if entry.name.isdigit() and int(entry.name) != os.getpid() and str(folder) in line:
            found.append(line)
    return found


def nothing_is_left(folder: Path) -> None:
    deadline = time.monotonic() + 5
    while left_behind(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_behind(folder) == []


def view(endpoints: dict[str, Any], path: str = "/documents") -> Any:
    context = ssl.create_default_context(cafile=endpoints["certificates"]["ca"])
    with urllib.request.urlopen(endpoints["dmp"]["view"] + path, context=context, timeout=20) as answer:
        return json.load(answer)


def current_kos(endpoints: dict[str, Any]) -> dict[str, Any]:
    """The one KOS of exam E that the DMP shows."""
    [kos] = [
        d
        for d in view(endpoints)
        if d["mime"] == "application/dicom"
        and d["status"].endswith(":Approved")
        and any(r.split("^")[0] == STUDY for r in d["references"])
    ]
    return dict(kos)


def test_ctrl_c_while_it_starts(folder: Path) -> None:
    with demo("--fresh", "--state", str(folder)) as process:
        until(process, "Les PACS et les DRIMbox")
        time.sleep(1)
        assert interrupted(process) == 0
    nothing_is_left(folder)


def test_ctrl_c_reaches_it_whoever_started_it(folder: Path) -> None:
    """A launcher that blocks the signal blocks it in all that it starts."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with demo("--fresh", "--state", str(folder)) as process:
            until(process, "La visionneuse")
            assert interrupted(process) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    nothing_is_left(folder)


@pytest.mark.requirement("D23", "exam:E")
def test_once_from_nothing_with_an_official_message(folder: Path, samples: Path, tmp_path: Path) -> None:
    """``--fresh`` forgets what was; every image is compared; the figures are written."""
    folder.mkdir(exist_ok=True)
    (folder / "old").write_text("of an earlier demonstration")
    figures = tmp_path / "figures.json"
    message = samples / "hl7v2" / "CR_E-ORU.hl7"
    with demo(
        "--once", "--fresh", "--state", str(folder), "--message", str(message), "--json", str(figures)
    ) as process:
        said = until(process, "Tout est vrai.")
        assert process.wait(40) == 0
    assert not (folder / "old").exists()
    assert "26 image(s) reçue(s)" in said
    told = json.loads(figures.read_text("utf-8"))
    assert (told["ok"], told["images"], told["problems"]) == (True, 26, [])
    for step in ("report_to_ack", "ack_to_kos", "login", "first_image", "all_images"):
        assert told["seconds"][step] >= 0
    assert all(size > 10_000_000 for size in told["resident_bytes"].values())
    nothing_is_left(folder)


def test_a_second_start_keeps_the_data_and_ctrl_c_ends_it(folder: Path, samples: Path) -> None:
    begun = dt.datetime.now(dt.UTC)
    message = samples / "hl7v2" / "CR_E-ORU.hl7"
    with demo("--state", str(folder), "--message", str(message)) as process:
        said = until(process, "Ctrl-C arrête tout")
        # The same report says nothing new: the KOS of the first start is the current one.
        assert "rien de nouveau" in said
        endpoints = json.loads((folder / "endpoints.json").read_text("utf-8"))
        kos = current_kos(endpoints)
        assert dt.datetime.fromisoformat(kos["registered"]) < begun
        assert serves(endpoints, kos["unique_id"])
        assert interrupted(process) == 0
    nothing_is_left(folder)
    # What needs no process to be read says nothing of a mesh that is no more.
    assert not (folder / "endpoints.json").exists()


def serves(endpoints: dict[str, Any], kos_uid: str) -> bool:
    """Does site A serve the images of exam E to a box that holds the KOS?"""
    auth = endpoints["certificates"]["sites"]["b"]["auth"]
    context = ssl.create_default_context(cafile=endpoints["certificates"]["ca"])
    context.load_cert_chain(auth["certificate"], auth["key"])
    asked = json.dumps({"user": "doc0036790", "client_id": "drimbox-site-b"}).encode()
    request = urllib.request.Request(
        endpoints["psc"]["helpers"] + "/token", asked, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        token = json.load(answer)["access_token"]
    request = urllib.request.Request(
        f"{endpoints['wado_rs']['base']}/studies/{STUDY}",
        headers={"Authorization": f"Bearer {token}", "KOS-SOPInstanceUID": kos_uid, "Accept": "multipart/related"},
    )
    with urllib.request.urlopen(request, context=context, timeout=60) as answer:
        return bool(answer.status == 200 and answer.read().count(b"\r\nContent-Type: application/dicom") == 26)


def test_a_folder_that_is_none_of_ours_is_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with demo("--once", "--fresh", "--state", str(tmp_path)) as process:
        said = until(process, "Échec")
        assert process.wait(20) == 1
    assert "n'est pas le dossier d'une démonstration" in said
    assert (tmp_path / "thesis.txt").exists()
