"""Imports into real and into misbehaving PACSs: nothing lost, nothing twice, nothing mixed, and it is said as it is."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from import_world import INS, LOCAL_ID, PERSON, Logins, Sources, free_port, importing, make_exam, pacs_at, until

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.importing import staging
from drimbox.importing.coercion import Renaming
from drimbox.importing.desk import Identifiers
from drimbox.importing.orders import Fate, State, reasons, told
from drimbox.record.audit import Kind, Outcome
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.store.database import Pool

KNOWN = (Destination("DRIMBOX_B", "127.0.0.1", 1),)
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return tmp_path / "stored"


@pytest.fixture
def peer(stored: Path, faults: Faults) -> Iterator[PacsPeer]:
    with embedded_pacs(EmbeddedConfig(stored, "PACS_B", known=KNOWN), faults) as peer:
        yield peer


def held(folder: Path) -> dict[str, pydicom.Dataset]:
    return {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, folder.glob("*.dcm"))}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.dcm")]


def plain(path: Path, folder: Path) -> bytes:
    """The pixels, uncompressed by DCMTK where they are compressed."""
    if pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed:
        subprocess.run(["/usr/bin/dcmdjpls", path, folder / "plain.dcm"], check=True)
        path = folder / "plain.dcm"
    return bytes(pydicom.dcmread(path).PixelData)


@pytest.mark.requirement("DB.CO.60", "DB.CO.73", "DB.CO.76", "DB.CO.77", "D24")
async def test_a_study_is_stored_and_found_in_orthanc(pool: Pool, tmp_path: Path) -> None:
    if not debian.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    exam = make_exam("D", tmp_path)
    config = debian.OrthancConfig(tmp_path / "orthanc", "PACS_B", free_port(), free_port(), KNOWN)
    with debian.orthanc(config) as peer:
        sources = Sources(exam)
        async with importing(pool, tmp_path / "imports", sources, pacs_at(peer)) as box:
            number = await box.ask(exam)
            done = await box.state(number, State.DONE)
            assert told(done) == "24 sur 24 enregistrées et retrouvées"
            assert done.verified
            assert {i.fate for i in await box.ledger.instances(number)} == {Fate.FOUND}
            # A second time, nothing travels: it is there already.
            again = await box.state(await box.ask(exam), State.DONE)
            assert told(again) == "24 sur 24 enregistrées et retrouvées"
            assert len(sources.asked) == len(exam.series)
            events = [e for e in box.journal.events if e.kind is Kind.IMAGES_IMPORTED]
            assert [e.outcome for e in events] == [Outcome.SUCCESS] * 2
            assert events[0].patient == INS
            assert {accept for _, accept in sources.asked} == {
                ("1.2.840.10008.1.2.4.70 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.1 1.2.840.10008.1.2",)
            }
        # Nothing of it stays on our disk.
        assert [p.name for p in (tmp_path / "imports").iterdir()] == []
        found = debian.rest(peer, "GET", "/patients?expand")
        assert f'"PatientID" : "{LOCAL_ID}"'.encode() in found
        assert found.count(b'"PatientID"') == 1


@pytest.mark.requirement("DB.CO.74", "DB.CO.78")
async def test_selected_series_alone_under_new_uids(pool: Pool, tmp_path: Path, peer: PacsPeer, stored: Path) -> None:
    exam = make_exam("D", tmp_path).only(1)
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
        rules = Identifiers(accession="replaced", uids="replaced")
        done = await box.state(await box.ask(exam, rules=rules), State.DONE)
        assert done.counts.found == len(exam.series[0].instances)
    renaming = Renaming(exam.study_uid)
    found = held(stored)
    assert set(found) == {renaming(i.sop_instance_uid) for i in exam.series[0].instances}
    for ds in found.values():
        assert (ds.PatientID, ds.AccessionNumber) == (LOCAL_ID, "")
        assert ds.StudyInstanceUID == renaming(exam.study_uid)
        former = ds.OriginalAttributesSequence[-1].ModifiedAttributesSequence[0]
        assert former.StudyInstanceUID == exam.study_uid
        assert former.AccessionNumber


async def test_the_pacs_refuses_half(pool: Pool, tmp_path: Path, peer: PacsPeer, stored: Path, faults: Faults) -> None:
    exam = make_exam("B", tmp_path)
    faults.store_answers = lambda number, _: 0xC000 if number % 2 else 0x0000
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
        number = await box.ask(exam)
        partial = await box.state(number, State.PARTIAL)
        assert told(partial) == "Import partiel : 10 sur 20 enregistrées et retrouvées"
        assert partial.percent == 50
        instances = await box.ledger.instances(number)
        assert sorted(i.status for i in instances if i.fate is Fate.REFUSED) == [0xC000] * 10
        assert reasons(instances) == (("Le PACS a refusé cette image (statut C000H)", 10),)
        (event,) = (e for e in box.journal.events if e.kind is Kind.IMAGES_IMPORTED)
        assert event.outcome is Outcome.MINOR_FAILURE
        # The rest is offered, and comes once the PACS is well again.
        faults.repair()
        assert await box.desk.again(number, PERSON)
        assert told(await box.state(number, State.DONE)) == "20 sur 20 enregistrées et retrouvées"
    assert set(held(stored)) == exam.uids


async def test_no_room_now_is_tried_again(pool: Pool, tmp_path: Path, peer: PacsPeer, faults: Faults) -> None:
    exam = make_exam("B", tmp_path)
    faults.store_answers = lambda number, _: 0xA700 if number < 15 else 0xB000
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
        number = await box.ask(exam)
        await box.state(number, State.DONE)
        assert {i.status for i in await box.ledger.instances(number)} == {0xB000}
        assert box.means.fetcher.images.handed == 20  # type: ignore[attr-defined]


async def test_a_pacs_that_never_has_room_is_not_offered_forever(
    pool: Pool, tmp_path: Path, peer: PacsPeer, faults: Faults
) -> None:
    exam = make_exam("B", tmp_path)
    faults.store_answers = lambda number, _: 0xA700
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer), tries=2) as box:
        number = await box.ask(exam)
        failed = await box.state(number, State.FAILED)
        assert told(failed) == "Import impossible : 0 sur 20 enregistrée"
        assert reasons(await box.ledger.instances(number)) == (("Le PACS n'a plus de place (statut A700H)", 20),)


async def test_a_class_that_the_pacs_refuses(pool: Pool, tmp_path: Path, stored: Path) -> None:
    exam = make_exam("B", tmp_path)
    config = EmbeddedConfig(stored, "PACS_B", known=KNOWN, takes={"1.2.840.10008.5.1.4.1.1.2": [EXPLICIT]})
    with embedded_pacs(config) as peer:
        async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
            number = await box.ask(exam)
            await box.state(number, State.FAILED)
            ((reason, count),) = reasons(await box.ledger.instances(number))
            assert (reason, count) == ("Le PACS n'accepte pas ce type d'image (classe SOP)", 20)


@pytest.mark.parametrize(("letter", "takes"), [("H", EXPLICIT), ("H", IMPLICIT), ("B", IMPLICIT), ("D", EXPLICIT)])
async def test_the_syntax_that_the_pacs_takes(
    letter: str, takes: str, pool: Pool, tmp_path: Path, stored: Path
) -> None:
    exam = make_exam(letter, tmp_path)
    classes = {i.sop_class_uid for s in exam.series for i in s.instances}
    with embedded_pacs(EmbeddedConfig(stored, "PACS_B", known=KNOWN, takes={uid: [takes] for uid in classes})) as peer:
        async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
            await box.state(await box.ask(exam), State.DONE)
    for uid, ds in held(stored).items():
        assert ds.file_meta.TransferSyntaxUID == takes
        assert ds.PixelData == plain(exam.files[uid], tmp_path)
        assert ds.PatientID == LOCAL_ID


async def test_the_pacs_dies_in_the_middle_and_comes_back(pool: Pool, tmp_path: Path, stored: Path) -> None:
    exam = make_exam("B", tmp_path)
    faults, port = Faults(store_aborts_after=7), free_port()
    sources = Sources(exam)
    config = EmbeddedConfig(stored, "PACS_B", port, known=KNOWN)
    pacs = pacs_at(PacsPeer("PACS_B", "127.0.0.1", port))
    async with importing(pool, tmp_path / "imports", sources, pacs) as box:
        with embedded_pacs(config, faults):
            number = await box.ask(exam)

            async def some() -> bool:
                return (await box.order(number)).counts.done >= 7

            await until(some)
        waiting = await box.state(number, State.WAITING)
        assert waiting.reason
        assert waiting.counts.fetched == 20
        with embedded_pacs(config):
            assert told(await box.state(number, State.DONE)) == "20 sur 20 enregistrées et retrouvées"
    # Fetched once only.
    assert sources.handed == 20
    assert set(held(stored)) == exam.uids


async def test_the_user_leaves_and_what_is_here_goes_on(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("D", tmp_path)
    logins = Logins()
    sources = Sources(exam)

    class Leaving(Sources):
        pass

    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer), logins=logins) as box:
        # Logged out between the first series and the second.
        fetch = sources.fetch_series

        def once(*args: object, **kwargs: object) -> object:
            logins.here = False
            return fetch(*args, **kwargs)  # type: ignore[arg-type]

        sources.fetch_series = once  # type: ignore[method-assign, assignment]
        number = await box.ask(exam)
        left = await box.state(number, State.LOGIN)
        assert left.counts.done == 12
        assert "prochaine connexion" in left.reason
        await asyncio.sleep(0.3)
        assert (await box.order(number)).state is State.LOGIN
        sources.fetch_series = fetch  # type: ignore[method-assign]
        logins.here = True
        box.runner.wake()
        assert told(await box.state(number, State.DONE)) == "24 sur 24 enregistrées et retrouvées"
    assert sources.handed == 24


async def test_the_token_dies_in_mid_transfer(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("B", tmp_path)
    logins = Logins()
    sources = Sources(exam, fails_after=8, error=Rejected("Session terminée", code="login-ended"))
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer), logins=logins) as box:
        number = await box.ask(exam)

        async def stopped() -> bool:
            logins.here = logins.here and not sources.handed >= 8
            return (await box.order(number)).state is State.LOGIN and not logins.here

        await until(stopped)
        assert (await box.order(number)).counts.done == 8
        sources.fails_after, logins.here = None, True
        box.runner.wake()
        await box.state(number, State.DONE)


@pytest.mark.requirement("DB.CO.68")
async def test_an_image_of_another_ins_is_never_imported(
    pool: Pool, tmp_path: Path, peer: PacsPeer, stored: Path
) -> None:
    exam = make_exam("D", tmp_path)
    another = Ins.of("279035121518989", "1.2.250.1.213.1.4.11")
    other = make_exam("D", tmp_path / "other", ins=another)
    wrong = exam.series[1].instances[5].sop_instance_uid
    sources = Sources(exam, wrong={wrong: other.files[wrong]})
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer), whole_series=True) as box:
        number = await box.ask(exam)
        partial = await box.state(number, State.PARTIAL)
        assert partial.counts.found == 12
        (reason,) = reasons(await box.ledger.instances(number))
        assert reason[1] == 12
        assert "INS" in reason[0]
    assert set(held(stored)) == {i.sop_instance_uid for i in exam.series[0].instances}


@pytest.mark.requirement("DB.CO.68")
async def test_nor_is_it_stored_when_images_are_stored_as_they_come(
    pool: Pool, tmp_path: Path, peer: PacsPeer, stored: Path
) -> None:
    exam = make_exam("B", tmp_path)
    other = make_exam("B", tmp_path / "other", ins=Ins.of("279035121518989", "1.2.250.1.213.1.4.11"))
    wrong = sorted(exam.uids)[10]
    async with importing(
        pool, tmp_path / "imports", Sources(exam, wrong={wrong: other.files[wrong]}), pacs_at(peer)
    ) as box:
        ended = await box.state(await box.ask(exam), State.PARTIAL, State.FAILED)
        assert ended.code in ("ins-absent", "ins-differs")
    for ds in held(stored).values():
        issued = [i for i in ds.OtherPatientIDsSequence if "IssuerOfPatientIDQualifiersSequence" in i]
        assert INS.oid in {i.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID for i in issued}
    assert wrong not in held(stored)


async def test_another_name_asks_for_a_decision(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("B", tmp_path)

    def differing(patient: object, image: object) -> tuple[str, ...]:
        return ("Nom de naissance",)

    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer), differing=differing) as box:
        number = await box.ask(exam)
        failed = await box.state(number, State.FAILED)
        assert failed.code == "traits-differ"
        assert "nom de naissance" in failed.reason
        assert await box.desk.again(number, PERSON, decided=True)
        await box.state(number, State.DONE)


async def test_the_study_lies_there_under_another_patient(
    pool: Pool, tmp_path: Path, peer: PacsPeer, stored: Path
) -> None:
    exam = make_exam("B", tmp_path)
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
        await box.state(await box.ask(exam), State.DONE)
        number = await box.ask(exam, local_id="IPP-OTHER")
        failed = await box.state(number, State.FAILED)
        assert failed.code == "pacs-patient"
    assert {ds.PatientID for ds in held(stored).values()} == {LOCAL_ID}


async def test_a_cancelled_import_stops_and_leaves_nothing(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("B", tmp_path)
    async with importing(pool, tmp_path / "imports", Sources(exam, pause=0.05), pacs_at(peer)) as box:
        number = await box.ask(exam)

        async def begun() -> bool:
            return (await box.order(number)).counts.done >= 2

        await until(begun)
        assert await box.desk.under_way(PERSON) == 1
        assert not await box.desk.cancel(number, "somebody else")
        assert await box.desk.cancel(number, PERSON)
        cancelled = await box.state(number, State.CANCELLED)
        assert 2 <= cancelled.counts.done < 20
        assert told(cancelled).startswith("Import annulé : ")
        assert await box.desk.under_way(PERSON) == 0
        assert [p for p in (tmp_path / "imports").iterdir() if p.is_dir()] == []
        # The rest of it is there for the asking.
        assert await box.desk.again(number, PERSON)
        await box.state(number, State.DONE)


async def test_an_import_is_cancelled_from_another_box(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    """Two boxes on one database: the one that a browser happens to be on need not be the one that imports."""
    exam = make_exam("B", tmp_path)
    async with importing(pool, tmp_path / "imports", Sources(exam, stops_at=6), pacs_at(peer)) as box:
        number = await box.ask(exam)

        async def begun() -> bool:
            return (await box.order(number)).counts.done >= 2

        await until(begun)
        async with importing(pool, tmp_path / "other", Sources(exam), pacs_at(peer), node="other") as other:
            assert await other.desk.cancel(number, PERSON)
            cancelled = await other.state(number, State.CANCELLED, seconds=15)
        assert 2 <= cancelled.counts.done <= 6

        async def cleared() -> bool:
            return not [p for p in (tmp_path / "imports").iterdir() if p.is_dir()]

        await until(cleared)
        # What was cancelled may be asked for again, and be cancelled again.
        assert await box.desk.again(number, PERSON)
        assert await box.desk.cancel(number, PERSON)
        await box.state(number, State.CANCELLED)


async def test_the_source_fails_and_is_asked_again(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("B", tmp_path)
    sources = Sources(exam, fails_after=12, error=Unavailable("DRIMbox source injoignable", code="source-unreachable"))
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer), shortest=0.3) as box:
        number = await box.ask(exam)
        waiting = await box.state(number, State.WAITING)
        assert waiting.reason == "DRIMbox source injoignable"
        assert waiting.counts.done == 12
        sources.fails_after = None
        await box.state(number, State.DONE)


async def test_given_up_after_a_day_it_says_what_is_missing(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("B", tmp_path)
    sources = Sources(exam, fails_after=12, error=Unavailable("DRIMbox source injoignable", code="source-unreachable"))
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer), give_up=dt.timedelta(seconds=0)) as box:
        number = await box.ask(exam)
        partial = await box.state(number, State.PARTIAL)
        assert told(partial) == "Import partiel : 12 sur 20 enregistrées"
        assert reasons(await box.ledger.instances(number)) == (("DRIMbox source injoignable", 8),)


async def test_series_that_the_source_refuses_do_not_stop_the_others(
    pool: Pool, tmp_path: Path, peer: PacsPeer
) -> None:
    exam = make_exam("D", tmp_path)
    sources = Sources(exam)
    real = sources.fetch_series

    def refusing(url: str, **more: object) -> object:
        if url.endswith(exam.series[0].series_uid):
            raise Rejected("La source n'a plus ces images", code="images-gone")
        return real(url, **more)  # type: ignore[arg-type]

    sources.fetch_series = refusing  # type: ignore[method-assign, assignment]
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer)) as box:
        number = await box.ask(exam)
        partial = await box.state(number, State.PARTIAL)
        assert partial.counts.found == 12
        assert reasons(await box.ledger.instances(number)) == (("La source n'a plus ces images", 12),)


async def test_what_has_no_lossless_form_is_asked_for_as_it_is(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("N", tmp_path)
    sources = Sources(exam, only=frozenset({"1.2.840.10008.1.2.4.50"}))
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer)) as box:
        await box.state(await box.ask(exam), State.DONE)
    assert [accept for _, accept in sources.asked] == [
        ("1.2.840.10008.1.2.4.70 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.1 1.2.840.10008.1.2",),
        ("1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.91",),
    ]


async def test_the_disk_fills(pool: Pool, tmp_path: Path, peer: PacsPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    exam = make_exam("B", tmp_path)
    full = threading.Event()
    full.set()
    move = staging._move

    def no_room(source: Path, target: Path) -> None:
        if full.is_set() and len(list(target.parent.glob("*.dcm"))) + written[0] >= 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        written[0] += 1
        move(source, target)

    written = [0]
    monkeypatch.setattr(staging, "_move", no_room)
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer), shortest=0.3) as box:
        number = await box.ask(exam)
        waiting = await box.state(number, State.WAITING)
        assert waiting.reason == "Espace disque insuffisant sur la DRIMbox"
        assert waiting.counts.done >= 1
        full.clear()
        await box.state(number, State.DONE)


async def test_killed_and_started_again(pool: Pool, tmp_path: Path, peer: PacsPeer, stored: Path) -> None:
    exam = make_exam("B", tmp_path)
    async with importing(pool, tmp_path / "imports", Sources(exam, pause=0.05), pacs_at(peer)) as box:
        number = await box.ask(exam)

        async def begun() -> bool:
            return (await box.order(number)).counts.done >= 3

        await until(begun)
    # The process is gone; the import is not.
    assert (await box.order(number)).open
    sources = Sources(exam)
    # Another node of the same database leaves it alone: what was fetched is not there.
    async with importing(pool, tmp_path / "elsewhere", Sources(exam), pacs_at(peer), node="another"):
        await asyncio.sleep(0.2)
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer)) as box:
        assert told(await box.state(number, State.DONE)) == "20 sur 20 enregistrées et retrouvées"
    assert set(held(stored)) == exam.uids


async def test_killed_without_a_word(pool: Pool, dsn: str, tmp_path: Path, peer: PacsPeer, stored: Path) -> None:
    here = Path(__file__).parent
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(here / "import_process.py"),
        dsn,
        str(tmp_path / "box"),
        str(peer.port),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here), os.environ["PYTHONPATH"]))},
    )
    assert process.stdout is not None
    number = int(await process.stdout.readline())
    exam = make_exam("B", tmp_path)
    sources = Sources(exam)

    async def half_way() -> bool:
        # Their number: the last of them may just be being written.
        return len(names(stored)) >= 8

    await until(half_way)
    process.kill()
    await process.wait()
    async with importing(pool, tmp_path / "box" / "imports", sources, pacs_at(peer)) as box:
        assert (await box.order(number)).open
        assert told(await box.state(number, State.DONE)) == "20 sur 20 enregistrées et retrouvées"
        # What had arrived in the PACS did not travel there again, whatever the database had heard of it.
        fates = [i.fate for i in await box.ledger.instances(number)]
        assert fates.count(Fate.PRESENT) + fates.count(Fate.FOUND) == 20
    assert set(held(stored)) == exam.uids


async def test_what_lost_power_is_fetched_again(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("B", tmp_path)
    port = free_port()
    down = pacs_at(PacsPeer("PACS_B", "127.0.0.1", port), connect_timeout=0.2)
    async with importing(pool, tmp_path / "imports", Sources(exam), down) as box:
        number = await box.ask(exam)
        await box.state(number, State.WAITING)
    folder = tmp_path / "imports" / str(number)
    (folder / "boot").write_text("another start of the machine")
    for path in (folder / "ready").iterdir():
        path.write_bytes(b"")
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
        await box.state(number, State.DONE)


async def test_two_imports_of_one_study_go_one_after_the_other(
    pool: Pool, tmp_path: Path, peer: PacsPeer, stored: Path
) -> None:
    exam = make_exam("D", tmp_path)
    sources = Sources(exam, pause=0.01)
    async with importing(pool, tmp_path / "imports", sources, pacs_at(peer)) as box:
        first, second = await box.ask(exam), await box.ask(exam)
        await box.state(first, State.DONE)
        await box.state(second, State.DONE)
    assert sources.handed == 24
    assert len(held(stored)) == 24


async def test_a_pacs_that_says_stored_and_has_it_not(
    pool: Pool, tmp_path: Path, peer: PacsPeer, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = make_exam("B", tmp_path)
    lost = sorted(exam.uids)[3]
    monkeypatch.setattr("drimbox.importing.course._LOOK_AGAIN", (0.0, 0.05))
    faults.find_changes = lambda answer: None if answer.get("SOPInstanceUID") == lost else answer
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer, checks_counts=False), tries=2) as box:
        number = await box.ask(exam)
        partial = await box.state(number, State.PARTIAL)
        assert told(partial) == "Import partiel : 19 sur 20 enregistrées et retrouvées"
        ((reason, count),) = reasons(await box.ledger.instances(number))
        assert count == 1
        assert "ne la retrouve pas" in reason


async def test_a_pacs_without_questions_is_not_said_to_be_verified(
    pool: Pool, tmp_path: Path, peer: PacsPeer, faults: Faults
) -> None:
    exam = make_exam("B", tmp_path)
    faults.find_status = 0x0122
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
        done = await box.state(await box.ask(exam), State.DONE)
        assert told(done) == "20 sur 20 enregistrées"
        assert "n'est pas vérifiée" in done.reason


async def test_imports_of_others_are_not_seen(pool: Pool, tmp_path: Path, peer: PacsPeer) -> None:
    exam = make_exam("B", tmp_path)
    async with importing(pool, tmp_path / "imports", Sources(exam), pacs_at(peer)) as box:
        number = await box.ask(exam)
        await box.state(number, State.DONE)
        assert [o.id for o in await box.desk.of_person(PERSON)] == [number]
        assert await box.desk.of_person("somebody") == []
        assert await box.desk.find(number, "somebody") is None
        assert await box.desk.brought("cabinet", [exam.study_uid]) == {exam.study_uid: State.DONE}
        assert await box.ledger.forget(dt.datetime.now(dt.UTC)) == 1
        assert await box.ledger.find(number) is None
