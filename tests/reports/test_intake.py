"""What becomes of a message: stored with its jobs before the answer, once, or refused with a line for the operator."""

import asyncio
import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Refused
from drimbox.record.audit import Journal
from drimbox.record.pseudonym import load_patient_key
from drimbox.reports.intake import Intake, StoredReports
from drimbox.reports.mllp import Frame
from drimbox.reports.report import Report
from drimbox.sandbox.ris import exams, letters
from drimbox.sandbox.ris.wire import verdict
from drimbox.store.database import Connection, Pool, opened

NOW = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
LETTER = letters.Letter(exams.exam("F"), "MSG-1")


async def open_incident(
    connection: Connection, *, code: str, reason: str, message_id: int, structure: str = ""
) -> None:
    await connection.execute(
        "INSERT INTO incident (code, reason, message_id, history) VALUES (%s, %s, %s, %s)",
        (code, reason, message_id, Jsonb([])),
    )


def structure_of(report: Report) -> str:
    return "ambroise"


def intake_on(pool: Pool, folder: Path) -> Intake:
    journal = Journal(pool, load_patient_key(folder / "audit.key"))
    return Intake(pool, SystemClock(), structure_of=structure_of, open_incident=open_incident, journal=journal)


@pytest.fixture
def intake(pool: Pool, tmp_path: Path) -> Intake:
    return intake_on(pool, tmp_path)


async def rows(pool: Pool, query: str) -> list[dict[str, object]]:
    async with pool.connection() as connection:
        return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type]


@pytest.mark.requirement("DB.SO.03", "DB.SO.12", "DB.SO.43", "exam:F")
async def test_an_accepted_message_has_its_jobs_before_its_answer(intake: Intake, pool: Pool) -> None:
    answer = await intake.receive(Frame(letters.oru(LETTER, NOW)), "ris")
    assert verdict(answer) == "AA"
    assert b"MSA|AA|MSG-1\r" in answer
    assert b"ACK^R01^ACK" in answer
    stored = await rows(pool, "SELECT task_name, lock FROM procrastinate_jobs ORDER BY id")
    assert [row["lock"] for row in stored] == [f"study:1.2.250.1.213.4.5.2.1.{n}" for n in (106, 107)]
    [report] = await rows(pool, "SELECT id, structure, document_id, operation FROM report")
    assert report["structure"] == "ambroise"
    [told] = await rows(pool, "SELECT event, outcome, objects FROM audit")
    assert (told["event"], told["outcome"]) == ("110107/RAD-128", 0)
    assert "279035121518989" not in str(told)
    assert (await StoredReports(pool).load(int(str(report["id"])))).study_uids()[0].endswith(".106")


async def test_the_same_message_again_gets_the_same_answer_and_one_effect(intake: Intake, pool: Pool) -> None:
    frame = Frame(letters.oru(LETTER, NOW))
    answers = await asyncio.gather(*(intake.receive(frame, "ris") for _ in range(8)))
    answers.append(await intake.receive(frame, "ris"))
    assert len(set(answers)) == 1
    assert len(await rows(pool, "SELECT 1 FROM report")) == 1
    assert len(await rows(pool, "SELECT 1 FROM procrastinate_jobs")) == 2


async def test_another_content_under_a_used_identifier_is_refused(intake: Intake, pool: Pool) -> None:
    await intake.receive(Frame(letters.oru(LETTER, NOW)), "ris")
    answer = await intake.receive(Frame(letters.oru(replace(LETTER, exam=exams.exam("E")), NOW)), "ris")
    assert verdict(answer) == "AE"
    assert b"|205^" in answer
    assert len(await rows(pool, "SELECT 1 FROM report")) == 1


async def test_two_senders_may_use_the_same_identifier(intake: Intake, pool: Pool) -> None:
    for application in ("RIS-1", "RIS-2"):
        frame = Frame(letters.oru(replace(LETTER, application=application), NOW))
        assert verdict(await intake.receive(frame, "ris")) == "AA"
    assert len(await rows(pool, "SELECT 1 FROM report")) == 2


async def test_a_refused_message_is_kept_with_a_line_for_the_operator(intake: Intake, pool: Pool) -> None:
    bad = letters.oru(LETTER, NOW).replace(b"279035121518989^^^", b"279035121518988^^^")
    answer = await intake.receive(Frame(bad), "ris")
    assert verdict(answer) == "AE"
    assert b"\rERR||PID^1^3|102^" in answer
    assert b"2790351215189" not in answer
    assert await rows(pool, "SELECT accepted FROM message") == [{"accepted": False}]
    assert await rows(pool, "SELECT code FROM incident") == [{"code": "ins-key"}]
    assert await rows(pool, "SELECT 1 FROM procrastinate_jobs") == []


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00\xff" * 50, b"MSH", b"MSH|^~\\&|a\x00b|c||||||ORU^R01|1\x00|P|2.5"]
)
async def test_what_is_not_hl7_gets_an_answer_all_the_same(intake: Intake, content: bytes) -> None:
    answer = await intake.receive(Frame(content), "ris")
    assert verdict(answer) == "AE"
    assert answer.startswith(b"MSH|^~\\&|")


async def test_a_message_over_the_limit_is_refused_by_name(intake: Intake, pool: Pool) -> None:
    head = letters.oru(LETTER, NOW)[:2000]
    answer = await intake.receive(Frame(head, whole=False), "ris")
    assert b"MSA|AE|MSG-1\r" in answer
    assert await rows(pool, "SELECT code FROM incident") == [{"code": "hl7-size"}]


async def test_without_a_database_the_sender_is_asked_to_send_again(dsn: str, tmp_path: Path) -> None:
    async with opened(dsn, size=2) as pool:
        intake = intake_on(pool, tmp_path)
    # The pool is closed: every statement fails, as with a server that went away.
    answer = await intake.receive(Frame(letters.oru(LETTER, NOW)), "ris")
    assert verdict(answer) == "AR"


async def test_an_unknown_report_is_said_to_be_so(pool: Pool) -> None:
    with pytest.raises(Refused):
        await StoredReports(pool).load(12345)
