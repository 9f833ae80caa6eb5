"""The listener for rejection notes: real senders, what it refuses, and "Success" never before the commit."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pydicom
import pytest
from psycopg import sql
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context

from changes.iocm_wire import ask, associated, encoded, store
from changes.iocm_wire import data as wire_data
from drimbox.changes.listener import ListenerSettings, listening
from drimbox.console.advice import advice_for
from drimbox.foundation.clock import SystemClock
from drimbox.pacs.dimse import pdu
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.sandbox.listeners import caller_context
from drimbox.sandbox.pacs import rejections
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.key_notes import key_note, write_note
from drimbox.sandbox.pacs.rejections import rejection_note, rejection_of_all
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.store.database import Pool, opened
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import load_trust, server_context
from pacs.parrot import read_pdu

STORESCU, DCMSEND, ECHOSCU = "/usr/bin/storescu", "/usr/bin/dcmsend", "/usr/bin/echoscu"
needs_dcmtk = pytest.mark.skipif(not Path(STORESCU).exists(), reason="DCMTK is not installed: apt-get install dcmtk")
OUR_AE = "DRIMBOX_IOCM"
CT = "1.2.840.10008.5.1.4.1.1.2"
SETTINGS = ListenerSettings(OUR_AE, frozenset({"PACS_A"}))
[STUDY] = EXAMS["U"]
SERIES = STUDY.series[0]
TWO = [(SERIES, 1), (SERIES, 2)]
SUCCESS, AGAIN, MISMATCH, CANNOT = 0x0000, 0xA700, 0xA900, 0xC000


@asynccontextmanager
async def listener(pool: Pool, settings: ListenerSettings = SETTINGS, **options: Any) -> AsyncIterator[int]:
    opener = Incidents(pool, SystemClock()).open_for_note
    async with listening(settings, pool, open_incident=opener, journal=Journal(pool), **options) as port:
        yield port


@pytest.fixture
async def port(pool: Pool) -> AsyncIterator[int]:
    async with listener(pool) as port:
        yield port


async def send(port: int, *notes: Dataset, calling: str = "PACS_A", **options: Any) -> list[int]:
    return await asyncio.to_thread(
        rejections.send, "127.0.0.1", port, notes, calling=calling, called=options.pop("called", OUR_AE), **options
    )


async def dcmtk(program: str, port: int, *arguments: str | Path, calling: str = "PACS_A") -> str:
    """Run one of DCMTK's senders; gives its exit code and what it says."""
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    command = [program, "-v", "-aet", calling, "-aec", OUR_AE, "127.0.0.1", str(port), *map(str, arguments)]

    def run() -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        return f"{done.returncode} {done.stdout}{done.stderr}"

    return await asyncio.to_thread(run)


async def rows(pool: Pool, query: str) -> list[dict[str, Any]]:
    async with pool.connection() as connection:
        return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type]


async def causes(pool: Pool) -> list[tuple[str, str]]:
    found = await rows(pool, "SELECT args FROM procrastinate_jobs WHERE task_name = 'resync_study' ORDER BY id")
    return [(row["args"]["study_uid"], row["args"]["cause"]) for row in found]


async def rejected(pool: Pool) -> set[tuple[str, str, str]]:
    found = await rows(
        pool, "SELECT study_uid, sop_instance_uid, title FROM rejected_instance WHERE released_at IS NULL"
    )
    return {(row["study_uid"], row["sop_instance_uid"], row["title"]) for row in found}


async def open_codes(pool: Pool) -> list[str]:
    return [row["code"] for row in await rows(pool, "SELECT code FROM incident WHERE closed_at IS NULL ORDER BY code")]


async def nothing_was_taken(pool: Pool) -> None:
    assert await rows(pool, "SELECT 1 FROM change_note") == []
    assert await causes(pool) == []


# ------------------------------------------------------------------------------------------------------- real senders


@pytest.mark.requirement("DB.SO.25", "DB.SO.26", "exam:U")
async def test_a_rejection_note_is_kept_with_its_work(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    assert await send(port, note) == [SUCCESS]
    assert await rejected(pool) == {(STUDY.study_uid, STUDY.instance_uid(SERIES, n), "113001") for n in (1, 2)}
    assert await causes(pool) == [(STUDY.study_uid, "note")]
    [kept] = await rows(pool, "SELECT * FROM change_note")
    assert (kept["sop_instance_uid"], kept["caller"], kept["title"]) == (note.SOPInstanceUID, "PACS_A", "113001")
    stored = pydicom.dcmread(io.BytesIO(kept["object"]))
    assert stored.SOPInstanceUID == note.SOPInstanceUID
    assert stored.CurrentRequestedProcedureEvidenceSequence == note.CurrentRequestedProcedureEvidenceSequence
    [told] = await rows(pool, "SELECT event, outcome, objects FROM audit")
    assert (told["event"], told["outcome"]) == ("110107/RAD-66", 0)
    assert "IPP" not in str(told)
    assert await open_codes(pool) == []


@needs_dcmtk
@pytest.mark.parametrize("syntax", ["-xe", "-xi", "-xb"])
@pytest.mark.requirement("DB.SO.25", "exam:U")
async def test_storescu_in_any_uncompressed_syntax(port: int, pool: Pool, tmp_path: Path, syntax: str) -> None:
    file = write_note(rejection_of_all(STUDY, title=rejections.PATIENT_SAFETY), tmp_path)
    said = await dcmtk(STORESCU, port, syntax, file)
    assert said.startswith("0 "), said
    assert len(await rejected(pool)) == sum(series.images for series in STUDY.series)
    assert await causes(pool) == [(STUDY.study_uid, "note")]


@needs_dcmtk
@pytest.mark.requirement("DB.SO.25")
async def test_dcmsend_of_several_notes(port: int, pool: Pool, tmp_path: Path) -> None:
    for index, letter in enumerate("CEU", 1):
        write_note(rejection_of_all(EXAMS[letter][0], index=index), tmp_path)
    said = await dcmtk(DCMSEND, port, "+sd", tmp_path)
    assert said.startswith("0 "), said
    assert {study for study, _ in await causes(pool)} == {EXAMS[letter][0].study_uid for letter in "CEU"}


@needs_dcmtk
async def test_echo(port: int) -> None:
    assert (await dcmtk(ECHOSCU, port)).startswith("0 ")


@pytest.mark.parametrize(
    ("title", "rejects"),
    [
        (rejections.QUALITY, True),
        (rejections.PATIENT_SAFETY, True),
        (rejections.WRONG_WORKLIST_ENTRY, True),
        (rejections.RETENTION_EXPIRED, True),
        (("113000", "Of Interest"), False),
        (("113010", "Quality Issue"), False),
        (("113030", "Manifest"), False),
    ],
)
@pytest.mark.requirement("DB.SO.26")
async def test_which_titles_reject(port: int, pool: Pool, title: tuple[str, str], rejects: bool) -> None:
    assert await send(port, key_note(STUDY, TWO, title=title)) == [SUCCESS]
    assert len(await rejected(pool)) == (2 if rejects else 0)
    assert await causes(pool) == [(STUDY.study_uid, "note")]


async def test_a_code_of_another_scheme_rejects_nothing(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    note.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99LOCAL"
    assert await send(port, note) == [SUCCESS]
    assert await rejected(pool) == set()
    [kept] = await rows(pool, "SELECT title FROM change_note")
    assert kept["title"] == "99LOCAL:113001"


async def test_a_note_on_several_studies_has_each_looked_at(port: int, pool: Pool) -> None:
    first, second = EXAMS["F"]
    note = rejection_note(first, [(first.series[0], 1)])
    other = rejection_note(second, [(second.series[0], 2)])
    note.CurrentRequestedProcedureEvidenceSequence += list(other.CurrentRequestedProcedureEvidenceSequence)
    assert await send(port, note) == [SUCCESS]
    assert {study for study, _ in await causes(pool)} == {first.study_uid, second.study_uid}
    assert await rejected(pool) == {
        (first.study_uid, first.instance_uid(first.series[0], 1), "113001"),
        (second.study_uid, second.instance_uid(second.series[0], 2), "113001"),
    }


async def test_associations_at_once_do_not_mix(port: int, pool: Pool) -> None:
    studies = [study for letter in "ABCDEGNU" for study in EXAMS[letter]]
    answers = await asyncio.gather(*(send(port, rejection_of_all(study)) for study in studies))
    assert answers == [[SUCCESS]] * len(studies)
    expected = {(s.study_uid, uid, "113001") for s in studies for series in s.series for uid in s.instance_uids(series)}
    assert await rejected(pool) == expected
    assert sorted(await causes(pool)) == sorted((study.study_uid, "note") for study in studies)


# ---------------------------------------------------------------------------------------------------------- once only


@pytest.mark.requirement("DB.SO.26")
async def test_the_same_note_again_has_one_effect(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    assert await send(port, note, note) == [SUCCESS, SUCCESS]
    assert await asyncio.gather(*(send(port, note) for _ in range(4))) == [[SUCCESS]] * 4
    assert len(await rejected(pool)) == 2
    assert len(await causes(pool)) == 1


async def test_the_same_note_at_once_from_many(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    assert await asyncio.gather(*(send(port, note) for _ in range(8))) == [[SUCCESS]] * 8
    assert len(await rejected(pool)) == 2
    assert len(await causes(pool)) == 1


async def test_the_same_note_with_a_corrected_patient_is_the_same(port: int, pool: Pool) -> None:
    note, again = rejection_note(STUDY, TWO), rejection_note(STUDY, TWO)
    again.PatientName = "PAT-TROIS^DOMINIQUE^^"
    again.SeriesDescription = "Rejet, corrigé"
    assert await send(port, note, again) == [SUCCESS, SUCCESS]
    assert len(await causes(pool)) == 1


async def test_a_released_rejection_stays_released(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO, title=rejections.RETENTION_EXPIRED)
    await send(port, note)
    async with pool.connection() as connection:
        await connection.execute("UPDATE rejected_instance SET released_at = now()")
    assert await send(port, note) == [SUCCESS]
    assert await rejected(pool) == set()


@pytest.mark.requirement("DB.SO.26")
async def test_another_content_under_the_same_uid_is_refused(port: int, pool: Pool) -> None:
    assert await send(port, rejection_note(STUDY, TWO)) == [SUCCESS]
    assert await send(port, rejection_note(STUDY, TWO[:1])) == [MISMATCH]
    assert await send(port, rejection_note(STUDY, TWO, title=rejections.PATIENT_SAFETY)) == [MISMATCH]
    assert {title for _, _, title in await rejected(pool)} == {"113001"}
    assert len(await causes(pool)) == 1
    [incident] = await rows(pool, "SELECT code, study_uid, history FROM incident")
    assert (incident["code"], incident["study_uid"]) == ("iocm-conflict", STUDY.study_uid)
    assert len(incident["history"]) == 2


# -------------------------------------------------------------------------------------------------------- who and what


@pytest.mark.parametrize(("calling", "called"), [("SOMEONE", OUR_AE), ("PACS_A", "OTHER")])
async def test_others_are_not_let_in(port: int, pool: Pool, calling: str, called: str) -> None:
    with pytest.raises(ConnectionError):
        await send(port, rejection_note(STUDY, TWO), calling=calling, called=called)
    await nothing_was_taken(pool)


@pytest.mark.requirement("DB.SO.25")
async def test_every_other_presentation_context_is_refused(port: int) -> None:
    asked = {
        "image": CT,
        "manifest of another kind": "1.2.840.10008.5.1.4.1.1.88.11",
        "private": "1.2.250.1.9999.1",
        "find": "1.2.840.10008.5.1.4.1.2.2.1",
        "note": KEY_OBJECT_SELECTION,
        "echo": "1.2.840.10008.1.1",
    }

    def negotiate() -> set[str]:
        association = AE("PACS_A").associate("127.0.0.1", port, [build_context(uid) for uid in asked.values()], OUR_AE)
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        association.release()
        return accepted

    assert await asyncio.to_thread(negotiate) == {asked["note"], asked["echo"]}


async def test_a_request_for_an_image_under_the_context_of_a_note_is_refused(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    answer = await asyncio.to_thread(store, port, OUR_AE, encoded(note), str(note.SOPInstanceUID), CT)
    assert answer == 0x0122
    await nothing_was_taken(pool)


async def test_over_tls_with_a_client_certificate(pool: Pool, authority: TestAuthority) -> None:
    pair = authority.issue(
        Profile.SSL_SERV, "iocm", common_name="iocm", unit="1750803447", organisation="S", hosts=("localhost",)
    )
    client = authority.issue(
        Profile.ORG_AUTH_CLI, "pacs-client", common_name="PACS", unit="1750803447", organisation="S"
    )
    server = server_context(load_credential(pair.certificate, pair.key), load_trust([authority.roots]))
    async with listener(pool, tls=server) as port:
        with pytest.raises(ConnectionError):
            await send(port, rejection_note(STUDY, TWO), tls=caller_context(authority), timeout=5)
        await nothing_was_taken(pool)
        known = caller_context(authority, client)
        answers = await asyncio.to_thread(
            rejections.send,
            "localhost",
            port,
            [rejection_note(STUDY, TWO)],
            calling="PACS_A",
            called=OUR_AE,
            tls=known,
        )
        assert answers == [SUCCESS]


# ------------------------------------------------------------------------------------------------------------ bad notes


def without(*keywords: str) -> Callable[[Dataset], None]:
    def change(note: Dataset) -> None:
        for keyword in keywords:
            delattr(note, keyword)

    return change


def nothing_rejected(note: Dataset) -> None:
    note.CurrentRequestedProcedureEvidenceSequence = []
    note.ContentSequence = []


def wrong_study(note: Dataset) -> None:
    note.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = ""


@pytest.mark.parametrize(
    ("change", "answer", "code"),
    [
        (without("StudyInstanceUID"), CANNOT, "iocm-unreadable"),
        (without("SeriesInstanceUID"), CANNOT, "iocm-unreadable"),
        (nothing_rejected, CANNOT, "iocm-empty"),
        (wrong_study, CANNOT, "iocm-study"),
    ],
)
@pytest.mark.requirement("DB.SO.25", "DB.SO.21")
async def test_a_malformed_note_is_told_to_pacs_and_operator(
    port: int, pool: Pool, change: Callable[[Dataset], None], answer: int, code: str
) -> None:
    note = rejection_note(STUDY, TWO)
    change(note)
    assert await send(port, note, note) == [answer, answer]
    await nothing_was_taken(pool)
    # However often it comes: one line.
    [incident] = await rows(pool, "SELECT code, reason, history FROM incident")
    assert incident["code"] == code
    assert len(incident["history"]) == 2
    assert "PACS_A" in incident["reason"]
    assert await send(port, rejection_note(STUDY, TWO)) == [SUCCESS]


async def test_many_bad_notes_at_once_are_one_line_with_its_advice(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    nothing_rejected(note)
    assert await asyncio.gather(*(send(port, note) for _ in range(8))) == [[CANNOT]] * 8
    [incident] = await Incidents(pool, SystemClock()).list()
    assert len(incident.history) == 8
    advice = advice_for(incident)
    assert "PACS" in advice.text
    assert advice.press == "discard"


async def test_a_note_under_the_uid_of_another_is_refused(port: int, pool: Pool) -> None:
    data = encoded(rejection_note(STUDY, TWO))
    assert await asyncio.to_thread(store, port, OUR_AE, data, "1.2.3.4") == MISMATCH
    await nothing_was_taken(pool)
    assert await open_codes(pool) == ["iocm-mismatch"]


async def test_another_object_inside_is_refused(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    note.SOPClassUID = CT
    assert await asyncio.to_thread(store, port, OUR_AE, encoded(note), str(note.SOPInstanceUID)) == MISMATCH
    await nothing_was_taken(pool)
    assert await open_codes(pool) == ["iocm-class"]


@pytest.mark.parametrize("cut", [0, 1, 7, 40, 300, 0.5, 0.9, -1])
async def test_a_truncated_note_is_never_taken_for_a_whole_one(port: int, pool: Pool, cut: float) -> None:
    note = rejection_note(STUDY, TWO)
    data = encoded(note)
    end = int(len(data) * cut) if isinstance(cut, float) else cut
    answer = await asyncio.to_thread(store, port, OUR_AE, data[:end], str(note.SOPInstanceUID))
    assert answer in (CANNOT, MISMATCH)
    await nothing_was_taken(pool)
    assert len(await open_codes(pool)) == 1


async def test_an_association_cut_inside_a_note_leaves_nothing(port: int, pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)

    def cut() -> None:
        with associated(port, OUR_AE) as sock:
            sock.sendall(ask(str(note.SOPInstanceUID)) + wire_data(encoded(note), last=False))

    await asyncio.to_thread(cut)
    assert await send(port, note) == [SUCCESS]
    assert await open_codes(pool) == []
    assert len(await causes(pool)) == 1


async def test_a_huge_note_is_refused_and_told(pool: Pool) -> None:
    async with listener(pool, replace(SETTINGS, max_note_bytes=2**16)) as port:
        note = rejection_note(STUDY, TWO)
        note.ImageComments = "x" * 2**16
        note["ImageComments"].VR = "UT"
        assert await send(port, note) == [AGAIN]
        await nothing_was_taken(pool)
        assert await open_codes(pool) == ["iocm-size"]
        assert await send(port, rejection_note(STUDY, TWO)) == [SUCCESS]


async def test_a_note_that_does_not_end_is_cut_off_and_harms_no_other(pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)

    def begin(port: int) -> tuple[int, bytes]:
        with associated(port, OUR_AE) as sock:
            sock.sendall(ask(str(note.SOPInstanceUID)) + wire_data(encoded(note)[:200], last=False))
            return read_pdu(sock)

    async with listener(pool, replace(SETTINGS, message_timeout=0.5)) as port:
        slow = asyncio.create_task(asyncio.to_thread(begin, port))
        assert await send(port, note) == [SUCCESS]
        kind, _ = await slow
        assert kind == pdu.PduType.ABORT


# ------------------------------------------------------------------------------------------------------ the database


async def lose_database(dsn: str) -> None:
    """Nobody may connect, and who is connected is cut: what a stopped server is to its clients."""
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    async with await psycopg.AsyncConnection.connect(_maintenance(dsn), autocommit=True) as admin:
        await admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(str(name))))
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


async def regain_database(dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    async with await psycopg.AsyncConnection.connect(_maintenance(dsn), autocommit=True) as admin:
        await admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(str(name))))


async def send_again(port: int, note: Dataset) -> int:
    """As a PACS does, until there is another answer than "again": the pool takes its time to find its server."""
    answer = AGAIN
    async with asyncio.timeout(20):
        while answer == AGAIN:
            [answer] = await send(port, note)
    return answer


def _maintenance(dsn: str) -> str:
    return psycopg.conninfo.make_conninfo(dsn, dbname="postgres")


@pytest.mark.requirement("DB.SO.25")
async def test_without_a_database_the_pacs_is_asked_to_send_again(dsn: str) -> None:
    async with opened(dsn, size=2) as pool, listener(pool, replace(SETTINGS, commit_within=1.0)) as port:
        await lose_database(dsn)
        try:
            [answer] = await send(port, rejection_note(STUDY, TWO))
        finally:
            await regain_database(dsn)
        assert answer == AGAIN
        assert await send_again(port, rejection_note(STUDY, TWO)) == SUCCESS
        assert len(await rejected(pool)) == 2
        assert len(await causes(pool)) == 1


async def test_what_cannot_even_be_told_to_the_operator_comes_again(dsn: str) -> None:
    bad = rejection_note(STUDY, TWO)
    nothing_rejected(bad)
    async with opened(dsn, size=2) as pool, listener(pool, replace(SETTINGS, commit_within=1.0)) as port:
        await lose_database(dsn)
        try:
            [answer] = await send(port, bad)
        finally:
            await regain_database(dsn)
        assert answer == AGAIN
        assert await send_again(port, bad) == CANNOT


async def test_success_waits_for_the_commit(port: int, pool: Pool) -> None:
    """Another transaction holds what the note needs: no answer until it is through."""
    note = rejection_note(STUDY, TWO)
    async with pool.connection() as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE rejected_instance IN ACCESS EXCLUSIVE MODE")
            sending = asyncio.create_task(send(port, note))
            await asyncio.sleep(0.5)
            assert not sending.done()
        assert await sending == [SUCCESS]


async def test_a_database_that_stalls_is_not_success(pool: Pool) -> None:
    note = rejection_note(STUDY, TWO)
    async with listener(pool, replace(SETTINGS, commit_within=0.4)) as port:
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE rejected_instance IN ACCESS EXCLUSIVE MODE")
            assert await send(port, note) == [AGAIN]
        assert await send(port, note) == [SUCCESS]
    assert len(await causes(pool)) == 1


async def test_the_listener_ends_while_a_note_is_being_committed(pool: Pool) -> None:
    """It does not wait on itself, and what it had in hand is committed; the PACS has no answer, and sends again."""
    note = rejection_note(STUDY, TWO)

    async def hold(held: asyncio.Event) -> None:
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE rejected_instance IN ACCESS EXCLUSIVE MODE")
            held.set()
            await asyncio.sleep(0.8)

    held = asyncio.Event()
    holding = asyncio.create_task(hold(held))
    await held.wait()
    async with asyncio.timeout(5):
        async with listener(pool) as port:
            sending = asyncio.create_task(send(port, note))
            await asyncio.sleep(0.4)
    await holding
    with pytest.raises(ConnectionError):
        await sending
    async with listener(pool) as port:
        assert await send(port, note) == [SUCCESS]
    assert len(await causes(pool)) == 1
