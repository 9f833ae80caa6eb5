"""``drimbox speedtest`` against real PACSs: by itself, and through the box that runs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import psycopg
import pytest
from click.testing import CliRunner
from speedtest_site import Configure, Held, Scripted, free_port, scripted, settings_of

from drimbox.box.keys import of_neighbours
from drimbox.box.operator import shell_user
from drimbox.box.pacs_links import accessible, linked, receiver_settings
from drimbox.box.settings import Settings
from drimbox.box.speedtest import Options, measured
from drimbox.box.traces import recording
from drimbox.cli import main
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_client import HttpClient
from drimbox.keyring.keeper import Keyring
from drimbox.pacs import inbox
from drimbox.pacs.dimse.receiver import receiving
from drimbox.record.audit import Journal
from drimbox.speedtest import door
from drimbox.speedtest.measuring import Progress
from drimbox.store import database
from drimbox.trust.watch import TrustWatch

pytestmark = pytest.mark.requirement("DB.SO.102")
NAME = "PAT-TROIS"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["speedtest", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("way", ["move", "get"])
def test_a_study_is_measured_by_the_way_that_is_configured(
    held: Held, configure: Configure, tmp_path: Path, way: str
) -> None:
    file = configure(pacs_port=held.peer.port, dicom_port=held.dicom_port, more=f'retrieve = "{way}"')
    picture, report = tmp_path / "mesure.png", tmp_path / "mesure.json"
    status, said = run("--config", file, "--study", held.compressed.study_uid, "--picture", picture, "--json", report)
    assert status == 0, said
    assert {"move": "C-MOVE", "get": "C-GET"}[way] in said
    assert "12 sur 12" in said
    assert "JPEG-LS lossless (12)" in said
    assert "transcode" not in said
    told = json.loads(report.read_text("utf-8"))
    assert len(told["arrivals"]) == told["images"] == 12
    assert told["bytes"] == pytest.approx(held.compressed.bytes, rel=0.01)
    assert 0 < told["first_image_seconds"] <= told["arrivals"][-1][0]
    assert imagecodecs.png_decode(picture.read_bytes()).shape[1] == 1400


def test_nothing_of_the_patient_is_written_and_no_image_stays(
    held: Held, configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = configure(pacs_port=held.peer.port, dicom_port=held.dicom_port)
    report = tmp_path / "mesure.json"
    status, said = run("--config", file, "--study", held.native.study_uid, "--json", report)
    assert status == 0, said
    for text in (said, report.read_text("utf-8"), caplog.text):
        assert NAME not in text
        assert held.native.instances[0] not in text
    assert held.native.study_uid not in report.read_text("utf-8")
    assert not list((tmp_path / "state").rglob("*.dcm"))


def audited(dsn: str) -> list[tuple[str, int, str, str, list[str]]]:
    """The measurements of the audit journal: action, outcome and its text, who, what."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT action, outcome, outcome_text, actor->>'person', objects FROM audit "
            "WHERE event = '110104/speedtest' ORDER BY id"
        ).fetchall()
    return [(*row[:4], [one["identifier"] for one in row[4]]) for row in rows]  # type: ignore[misc]


@pytest.mark.requirement("DB.SO.46")
async def test_who_measured_with_which_study_is_in_the_journal(held: Held, configure: Configure, dsn: str) -> None:
    """By itself and through the box that runs, where it succeeded and where not."""
    file = configure(pacs_port=held.peer.port, dicom_port=held.dicom_port)
    study = held.compressed.study_uid
    await asyncio.to_thread(run, "--config", file, "--study", study)
    await asyncio.to_thread(run, "--config", file, "--study", "1.2.3")
    settings = settings_of(file)
    shutil.rmtree(settings.box.state_dir)
    async with running_box(settings):
        await asyncio.to_thread(measured, settings, Options(study))
    (first, unknown, third) = audited(dsn)
    assert first == third == ("R", 0, "", shell_user().person, ["PACS scanner", study])
    assert unknown[1] == 4
    assert unknown[2].startswith("study-unknown")
    assert unknown[4] == ["PACS scanner", "1.2.3"]


async def test_what_cannot_be_written_down_is_not_done(held: Held, configure: Configure, dsn: str) -> None:
    settings = settings_of(configure(pacs_port=held.peer.port, dicom_port=held.dicom_port))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE audit RENAME TO gone")
        with pytest.raises(DrimboxError) as caught:
            await asyncio.to_thread(measured, settings, Options(held.compressed.study_uid))
        connection.execute("ALTER TABLE gone RENAME TO audit")
    assert caught.value.code == "audit-silent"


def test_images_that_come_uncompressed_leave_a_doubt_that_is_told(held: Held, configure: Configure) -> None:
    file = configure(pacs_port=held.peer.port, dicom_port=held.dicom_port)
    _, said = run("--config", file, "--study", held.native.study_uid)
    assert "un transcodage ne peut être ni constaté ni exclu" in said


def test_a_pacs_that_transcodes_is_told(held: Held, configure: Configure) -> None:
    with scripted(Scripted(held.native, held.dicom_port, told_syntax="1.2.840.10008.1.2.4.80")) as pacs:
        file = configure(pacs_port=pacs.port, dicom_port=held.dicom_port, more='retrieve = "move"')
        _, said = run("--config", file, "--study", held.native.study_uid)
    assert "ATTENTION : Le PACS transcode : 10 images" in said
    assert "Explicit VR LE (10)" in said
    assert "JPEG-LS lossless (10)" in said


def test_a_pacs_that_says_what_it_sends_is_believed(held: Held, configure: Configure) -> None:
    with scripted(Scripted(held.native, held.dicom_port, told_syntax="1.2.840.10008.1.2.1")) as pacs:
        file = configure(pacs_port=pacs.port, dicom_port=held.dicom_port, more='retrieve = "move"')
        _, said = run("--config", file, "--study", held.native.study_uid)
    assert "transcod" not in said


def test_uncompressed_images_that_were_lossy_are_told(held: Held, configure: Configure) -> None:
    with scripted(Scripted(held.native, held.dicom_port, lossy=True)) as pacs:
        file = configure(pacs_port=pacs.port, dicom_port=held.dicom_port, more='retrieve = "move"')
        _, said = run("--config", file, "--study", held.native.study_uid)
    assert "Le PACS transcode probablement" in said


def test_a_pacs_that_waits_before_each_image_is_told(held: Held, configure: Configure) -> None:
    with scripted(Scripted(held.native, held.dicom_port, pause=0.2)) as pacs:
        file = configure(pacs_port=pacs.port, dicom_port=held.dicom_port, more='retrieve = "move"')
        _, said = run("--config", file, "--study", held.native.study_uid)
    assert "Nagle" in said
    assert "200 ms" in said
    assert "inférieur aux 100 Mbit/s" in said


def test_without_a_study_a_recent_one_is_taken(held: Held, configure: Configure) -> None:
    with scripted(Scripted(held.native, held.dicom_port)) as pacs:
        file = configure(pacs_port=pacs.port, dicom_port=held.dicom_port, more='retrieve = "move"')
        status, said = run("--config", file)
        assert status == 0, said
    assert "10 sur 10" in said
    ranged = [one for one in pacs.asked if "StudyDate" in one and "-" in one.StudyDate]
    assert ranged
    assert not any("PatientName" in one for one in ranged)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("unreachable", "est injoignable"),
        ("unknown study", "ne connaît pas cet examen"),
        ("no recent study", "nommez-en un par --study"),
        ("not a UID", "n'est pas un identifiant d'examen"),
        ("unknown pacs", "nommez l'un de ceux-ci par --pacs : scanner"),
        ("port taken", "ne peut pas être ouvert"),
        ("not writable", "ne peut pas être écrit"),
    ],
)
def test_each_failure_has_its_reason(held: Held, configure: Configure, what: str, reason: str) -> None:
    port = free_port() if what == "unreachable" else held.peer.port
    dicom_port = held.peer.port if what == "port taken" else held.dicom_port
    file = configure(pacs_port=port, dicom_port=dicom_port)
    study = {"unknown study": "1.2.3", "not a UID": "x", "no recent study": ""}.get(what, held.native.study_uid)
    arguments: list[object] = ["--config", file]
    if study:
        arguments += ["--study", study]
    if what == "unknown pacs":
        arguments += ["--pacs", "autre"]
    if what == "not writable":
        arguments += ["--picture", "/nowhere/mesure.png"]
    status, said = run(*arguments)
    assert status == 1
    assert reason in said
    assert "Traceback" not in said


def test_a_pacs_that_stops_half_way_is_a_failure(held: Held, configure: Configure) -> None:
    with scripted(Scripted(held.native, held.dicom_port, fail_after=2)) as pacs:
        file = configure(pacs_port=pacs.port, dicom_port=held.dicom_port, more='retrieve = "move"')
        status, said = run("--config", file, "--study", held.native.study_uid)
    assert status == 1
    assert "Débit" not in said


# ------------------------------------------------------------------------------------------------ through a running box


@dataclass(frozen=True)
class Means:
    settings: Settings
    clock: Clock
    http: HttpClient
    trust: TrustWatch
    keyring: Keyring


@asynccontextmanager
async def running_box(settings: Settings) -> AsyncIterator[None]:
    """What of a source answers speed tests, on its own ports, holding its folder as a box does."""
    assert settings.source is not None
    state, trust = settings.box.state_dir, TrustWatch(settings.trust.roots, ())
    state.mkdir()
    async with AsyncExitStack() as stack:
        lock = stack.enter_context((state / "box.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        http = await stack.enter_async_context(HttpClient())
        desk = stack.enter_context(inbox.opened(state / "spool"))
        stack.enter_context(receiving(receiver_settings(settings.source.dicom, settings.pacs), desk))
        means = Means(settings, SystemClock(), http, trust, of_neighbours(settings, trust, SystemClock()))
        link = linked(settings.pacs[0], means)
        stack.callback(link.close)
        access = accessible(settings.pacs[0], link, desk, settings.source.dicom.ae_title, means)
        assert settings.database.dsn_file is not None
        pool = await stack.enter_async_context(database.opened(settings.database.dsn_file.read_text(), size=1))
        listening = door.listening(state, {"scanner": access}, SystemClock(), recording(Journal(pool)))
        await stack.enter_async_context(listening)
        yield


async def test_the_box_that_runs_measures_itself(held: Held, configure: Configure) -> None:
    settings = settings_of(configure(pacs_port=held.peer.port, dicom_port=held.dicom_port))
    async with running_box(settings):
        mode = (settings.box.state_dir / "speedtest.sock").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        said = await asyncio.to_thread(measured, settings, Options(held.compressed.study_uid))
    assert "12 sur 12" in said
    assert not (settings.box.state_dir / "speedtest.sock").exists()


async def test_the_box_that_runs_says_why_not(held: Held, configure: Configure) -> None:
    settings = settings_of(configure(pacs_port=held.peer.port, dicom_port=held.dicom_port))
    async with running_box(settings):
        with pytest.raises(DrimboxError) as caught:
            await asyncio.to_thread(measured, settings, Options("1.2.3"))
    assert "ne connaît pas cet examen" in caught.value.reason


async def test_two_at_once_are_one_too_many_and_leaving_ends_a_measurement(held: Held, configure: Configure) -> None:
    with scripted(Scripted(held.native, held.dicom_port, pause=0.5)) as pacs:
        settings = settings_of(configure(pacs_port=pacs.port, dicom_port=held.dicom_port, more='retrieve = "move"'))
        state, study = settings.box.state_dir, held.native.study_uid
        async with running_box(settings):
            begun = asyncio.Event()

            def tell(now: Progress) -> None:
                if now.expected:
                    begun.set()

            first = asyncio.create_task(door.asked(state, "", study, tell, by="os:x"))
            await asyncio.wait_for(begun.wait(), 10)
            with pytest.raises(DrimboxError) as caught:
                await door.asked(state, "", study, lambda _: None, by="os:x")
            assert caught.value.code == "measuring"
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            async with asyncio.timeout(10):
                code = "measuring"
                while code == "measuring":
                    code = await _refusal(state)
            assert code == "study-unknown"
            assert not list(state.rglob("*.dcm"))


async def _refusal(state: Path) -> str:
    with pytest.raises(DrimboxError) as caught:
        await door.asked(state, "", "1.2.3", lambda _: None, by="os:x")
    return caught.value.code


@pytest.mark.parametrize("asked", [b"", b"\n", b"{}\n", b"[1]\n", b'{"pacs": 3}\n', b"\xff\xfe\n", b"x" * 10_000])
async def test_a_strange_question_is_refused(held: Held, configure: Configure, asked: bytes) -> None:
    settings = settings_of(configure(pacs_port=held.peer.port, dicom_port=held.dicom_port))
    async with running_box(settings):
        with door._short(settings.box.state_dir) as path:
            reader, writer = await asyncio.open_unix_connection(path)
        writer.write(asked)
        writer.write_eof()
        answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
        writer.close()
    assert answer["code"] == "question"


async def test_a_box_that_runs_without_answering_is_told(held: Held, configure: Configure) -> None:
    settings = settings_of(configure(pacs_port=held.peer.port, dicom_port=held.dicom_port))
    settings.box.state_dir.mkdir()
    with (settings.box.state_dir / "box.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(DrimboxError) as caught:
            await asyncio.to_thread(measured, settings, Options(held.native.study_uid))
    assert caught.value.code == "box-silent"
