"""OMI^O23: the official messages, their variants, what is wrong with bad ones, and what becomes of each."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.changes.orders import take_order
from drimbox.console.messages import patient_of
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.record.pseudonym import load_patient_key
from drimbox.reports import hl7
from drimbox.reports.ack import OrderAnswer
from drimbox.reports.hl7 import MessageError
from drimbox.reports.intake import Intake
from drimbox.reports.mllp import Frame
from drimbox.reports.order_intake import OrderIntake
from drimbox.reports.orders import ImagingOrder, OrderedStudy, StoredOrders, read_order
from drimbox.reports.report import Report
from drimbox.sandbox.ris import exams, letters
from drimbox.sandbox.ris.orders import OrderLetter, omi
from drimbox.sandbox.ris.wire import verdict
from drimbox.store.database import Pool, opened

NOW = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
STUDY = "1.2.250.1.213.4.5.2.1."
LETTER = OrderLetter((exams.exam("W"),), "OMI-1")
CANCEL = replace(LETTER, control="CA", control_id="OMI-CA")


def read(message: bytes) -> ImagingOrder:
    return read_order(hl7.parse(message))


def official(samples: Path, name: str, message_id: str = "20260721101500") -> bytes:
    filled = letters.filled_in(
        (samples / "hl7v2" / name).read_bytes(), letters.Letter(exams.exam("W"), message_id), NOW
    )
    assert b"{{" not in filled
    return filled


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.requirement("exam:W")
def test_the_official_deletion(samples: Path) -> None:
    order = read(official(samples, "CR_W_Suppression-OMI.hl7"))
    assert order.studies == (OrderedStudy(STUDY + "124", deleted=True),)
    assert order.ins is not None
    assert (order.ins.matricule, order.ins.oid) == ("279035121518989", "1.2.250.1.213.1.4.10")
    assert order.application == "RIS-A"


@pytest.mark.requirement("DB.SO.26")
def test_the_official_change(samples: Path) -> None:
    order = read((samples / "hl7v2" / "OMI_O23_informative.hl7").read_bytes())
    assert order.studies == (OrderedStudy(STUDY + "101", deleted=False),)


def test_placeholders_that_nobody_filled_in_change_nothing(samples: Path) -> None:
    raw = (samples / "hl7v2" / "CR_W_Suppression-OMI.hl7").read_bytes()
    assert replace(read(raw), application="RIS-A") == read(official(samples, "CR_W_Suppression-OMI.hl7"))


def test_whose_message_it_is_for_the_journal() -> None:
    known = patient_of(omi(CANCEL, NOW))
    assert known is not None
    assert known.matricule == "279035121518989"
    assert patient_of(omi(CANCEL, NOW).replace(b"IPC|", b"IPX|")) is None


@pytest.mark.parametrize("line_end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("version", ["2.5", "2.5.1", "2.6"])
def test_any_line_end_and_version(line_end: bytes, version: str) -> None:
    message = omi(replace(CANCEL, version=version), NOW).replace(b"\r", line_end)
    assert read(message).studies == (OrderedStudy(STUDY + "124", deleted=True),)


def test_several_orders_and_several_procedures() -> None:
    order = read(omi(replace(LETTER, exams=(exams.exam("F"), exams.exam("E"))), NOW))
    assert [s.study_uid for s in order.studies] == [STUDY + n for n in ("106", "107", "105")]


def test_without_a_patient() -> None:
    assert read(omi(replace(CANCEL, identity=None), NOW)).ins is None


@pytest.mark.parametrize(
    ("control", "deleted"),
    [
        ("CA", True),
        ("ca", True),
        *((code, False) for code in ("NW", "XO", "SC", "RO", "OC", "CR", "DC", "OD", "HD", "SN", "PA", "RE")),
    ],
)
@pytest.mark.requirement("exam:W")
def test_the_table_of_order_controls(control: str, deleted: bool) -> None:
    assert read(omi(replace(LETTER, control=control), NOW)).studies[0].deleted is deleted


def test_what_deletes_is_a_setting() -> None:
    message = hl7.parse(omi(replace(LETTER, control="OC"), NOW))
    assert read_order(message, ("CA", "OC")).studies[0].deleted


@pytest.mark.parametrize("controls", [("CA", "NW"), ("NW", "CA"), ("CA", "CA")])
def test_a_study_goes_on_for_the_order_that_is_not_cancelled(controls: tuple[str, str]) -> None:
    one, other = (omi(replace(LETTER, control=c), NOW).decode() for c in controls)
    both = one + other[other.index("ORC|") :]
    assert read(both.encode()).studies == (OrderedStudy(STUDY + "124", deleted=controls == ("CA", "CA")),)


@pytest.mark.parametrize(
    ("change", "location", "condition"),
    [
        (lambda m: m.replace(b"OMI^O23", b"OMI^O21"), "MSH^1^9", "201"),
        (lambda m: m.replace(b"|2.5.1|", b"|2.3.1|"), "MSH^1^12", "203"),
        (lambda m: m.replace(b"|OMI-1|", b"||"), "MSH^1^10", "101"),
        (lambda m: m.replace(b"ORC|XO|", b"ORC||"), "ORC^1^1", "101"),
        (lambda m: m.replace(b"ORC|XO", b"ZRC|XO"), "IPC^1", "100"),
        (lambda m: m[: m.index(b"IPC|")], "ORC^1", "100"),
        (lambda m: m[: m.index(b"ORC|")], "ORC^1", "100"),
        (lambda m: m.replace(b"IPC|", b"ORC|NW\rIPC|"), "ORC^1", "100"),
        (lambda m: m + b"ORC|NW\r", "ORC^2", "100"),
        (lambda m: m.replace((STUDY + "124^RIS").encode(), b""), "IPC^1^3", "101"),
        (lambda m: m.replace((STUDY + "124^RIS").encode(), b"^RIS"), "IPC^1^3", "101"),
        (lambda m: m.replace((STUDY + "124").encode(), b'""'), "IPC^1^3", "102"),
        (lambda m: m.replace((STUDY + "124").encode(), b"ACN124"), "IPC^1^3", "102"),
        (lambda m: m.replace((STUDY + "124").encode(), b"1." * 40 + b"1"), "IPC^1^3", "102"),
        (lambda m: m + b"IPC|A|B|1.2.x\r", "IPC^2^3", "102"),
        (lambda m: m.replace(b"279035121518989", b"279035121518988"), "PID^1^3", "102"),
        (lambda m: m.replace(b"1.2.250.1.213.1.4.10", b"1.2.3"), "PID^1^3", "102"),
        (lambda m: m.replace(b"INS^^~", b"INS^^~1^^^X&1.2.250.1.213.1.4.10&ISO^INS~"), "PID^1^3", "102"),
        (lambda m: m + b"".join(b"IPC|A|B|1.2.%d\r" % n for n in range(1000)), "IPC", "207"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change: Callable[[bytes], bytes], location: str, condition: str) -> None:
    with pytest.raises(MessageError) as caught:
        read(change(omi(LETTER, NOW)))
    assert (caught.value.location, caught.value.condition) == (location, condition)


_SEGMENTS = st.sampled_from(
    ["PID|||", "ORC|CA|", "ORC|", "ORC|NW", "OBR|1", "IPC|A|B|1.2.3", "IPC|A|B|1.2.3^x~y&z", "IPC", "IPC|||..", "TQ1||"]
)


@given(st.lists(st.one_of(_SEGMENTS, st.text(max_size=30)), max_size=12), st.binary(max_size=40))
def test_any_segments_are_read_or_refused(segments: list[str], tail: bytes) -> None:
    head = r"MSH|^~\&|A|B|||x||OMI^O23^OMI_O23|1|P|2.5.1"
    with_tail = "\r".join([head, *segments]).encode("utf-8", "replace") + tail
    order = None
    with suppress(MessageError):
        order = read(with_tail)
    if order is not None:
        assert order.studies
        assert all(is_uid(study.study_uid) for study in order.studies)


@given(st.permutations(["CA", "CA", "NW"]), st.permutations(["1.2.1", "1.2.2", "1.2.1"]))
def test_a_study_is_deleted_when_every_order_says_so(controls: list[str], studies: list[str]) -> None:
    groups = "".join(f"ORC|{c}\rIPC|A|B|{s}\r" for c, s in zip(controls, studies, strict=True))
    order = read(rf"MSH|^~\&|A|B|||x||OMI^O23|1|P|2.5.1{chr(13)}{groups}".encode())
    for study in order.studies:
        said = {c for c, s in zip(controls, studies, strict=True) if s == study.study_uid}
        assert study.deleted is (said == {"CA"})


# ------------------------------------------------------------------------------------------------------------- effects


def structure_of(report: Report) -> str:
    return "ambroise"


def intake_on(pool: Pool, folder: Path, answer: OrderAnswer = OrderAnswer.ORI) -> Intake:
    journal = Journal(pool, load_patient_key(folder / "audit.key"))
    clock = SystemClock()
    opener = Incidents(pool, clock).open_for_message
    orders = OrderIntake(pool, clock, take=take_order, open_incident=opener, journal=journal, answer=answer)
    return Intake(pool, clock, structure_of=structure_of, open_incident=opener, journal=journal, orders=orders)


@pytest.fixture
def intake(pool: Pool, tmp_path: Path) -> Intake:
    return intake_on(pool, tmp_path)


async def rows(pool: Pool, query: str) -> list[dict[str, Any]]:
    async with pool.connection() as connection:
        return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type]


async def jobs_of(pool: Pool) -> list[tuple[str, str, str]]:
    found = await rows(pool, "SELECT args, lock FROM procrastinate_jobs WHERE task_name = 'resync_study' ORDER BY id")
    return [(row["args"]["study_uid"], row["args"]["cause"], row["lock"]) for row in found]


@pytest.mark.requirement("exam:W", "DB.SO.26", "DB.SO.43")
async def test_the_official_deletion_withdraws_its_study_before_its_answer(
    intake: Intake, pool: Pool, samples: Path
) -> None:
    answer = await intake.receive(Frame(official(samples, "CR_W_Suppression-OMI.hl7")), "ris")
    study = STUDY + "124"
    assert b"|ORI^O24^ORI_O24|" in answer
    assert b"\rMSA|AA|001\r" in answer
    [withdrawn] = await rows(pool, "SELECT study_uid, message_id FROM withdrawn_study")
    assert withdrawn["study_uid"] == study
    assert await jobs_of(pool) == [(study, "order-deleted", f"study:{study}")]
    order = await StoredOrders(pool).load(withdrawn["message_id"])
    assert order.ins is not None
    assert order.ins.matricule == "279035121518989"
    [told] = await rows(pool, "SELECT event, outcome, objects, actor FROM audit")
    assert (told["event"], told["outcome"]) == ("110107/RAD-13", 0)
    assert "279035121518989" not in str(told)
    assert await rows(pool, "SELECT 1 FROM report") == []


@pytest.mark.requirement("DB.SO.26")
async def test_the_official_messages_follow_each_other_under_one_control_id(
    intake: Intake, pool: Pool, samples: Path
) -> None:
    """MSH-10 is 001 in all of them: neither another content nor another run may be taken for a repeat."""
    deletion = official(samples, "CR_W_Suppression-OMI.hl7", "RUN-1")
    change = deletion.replace(b"ORC|CA|", b"ORC|NW|")
    for message in (deletion, change, deletion.replace(b"RUN-1", b"RUN-2")):
        assert verdict(await intake.receive(Frame(message), "ris")) == "AA"
    assert [cause for _, cause, _ in await jobs_of(pool)] == ["order-deleted", "order-changed", "order-deleted"]
    assert len(await rows(pool, "SELECT 1 FROM withdrawn_study")) == 1


async def test_the_same_message_again_gets_the_same_answer_and_one_effect(intake: Intake, pool: Pool) -> None:
    frame = Frame(omi(CANCEL, NOW))
    answers = await asyncio.gather(*(intake.receive(frame, "ris") for _ in range(8)))
    answers.append(await intake.receive(frame, "ris"))
    assert len(set(answers)) == 1
    assert len(await jobs_of(pool)) == 1
    assert len(await rows(pool, "SELECT 1 FROM message")) == 1
    assert len(await rows(pool, "SELECT 1 FROM audit")) == 1


@pytest.mark.requirement("DB.SO.26")
async def test_an_order_that_goes_on_takes_the_withdrawal_back(intake: Intake, pool: Pool) -> None:
    await intake.receive(Frame(omi(CANCEL, NOW)), "ris")
    await intake.receive(Frame(omi(LETTER, NOW)), "ris")
    assert await rows(pool, "SELECT 1 FROM withdrawn_study") == []
    assert [cause for _, cause, _ in await jobs_of(pool)] == ["order-deleted", "order-changed"]


async def test_a_change_before_its_study_is_taken(intake: Intake, pool: Pool) -> None:
    assert verdict(await intake.receive(Frame(omi(LETTER, NOW)), "ris")) == "AA"
    assert await jobs_of(pool) == [(STUDY + "124", "order-changed", f"study:{STUDY}124")]


@pytest.mark.parametrize("operation", ["new", "replace", "delete"])
async def test_a_report_received_takes_no_withdrawal_back(intake: Intake, pool: Pool, operation: str) -> None:
    """It may yet be stopped: what ends the withdrawal is a report carried through."""
    await intake.receive(Frame(omi(CANCEL, NOW)), "ris")
    report = letters.Letter(exams.exam("W"), "CR-1", operation=operation)
    assert verdict(await intake.receive(Frame(letters.oru(report, NOW)), "ris")) == "AA"
    assert len(await rows(pool, "SELECT 1 FROM withdrawn_study")) == 1


async def test_many_orders_on_the_same_studies_at_once(dsn: str, tmp_path: Path) -> None:
    several = tuple(map(exams.exam, "EFW"))
    async with opened(dsn, size=8) as pool:
        intake = intake_on(pool, tmp_path)
        messages = [
            omi(
                replace(
                    LETTER,
                    exams=several if n % 2 else several[::-1],
                    control="CA" if n % 3 else "NW",
                    control_id=f"OMI-{n}",
                ),
                NOW,
            )
            for n in range(40)
        ]
        answers = await asyncio.gather(*(intake.receive(Frame(m), "ris") for m in messages))
        assert {verdict(answer) for answer in answers} == {"AA"}
        assert len(await jobs_of(pool)) == 40 * 4


@pytest.mark.parametrize(
    ("setting", "kind"), [(OrderAnswer.ORI, b"|ORI^O24^ORI_O24|"), (OrderAnswer.ACK, b"|ACK^O23^ACK|")]
)
async def test_the_type_of_the_answer_is_a_setting(
    pool: Pool, tmp_path: Path, setting: OrderAnswer, kind: bytes
) -> None:
    intake = intake_on(pool, tmp_path, setting)
    good = await intake.receive(Frame(omi(LETTER, NOW)), "ris")
    bad = await intake.receive(Frame(omi(LETTER, NOW).replace(b"IPC|", b"IPX|")), "ris")
    assert [verdict(good), verdict(bad)] == ["AA", "AE"]
    assert kind in good
    assert kind in bad
    report = await intake.receive(Frame(letters.oru(letters.Letter(exams.exam("E"), "CR-1"), NOW)), "ris")
    assert b"|ACK^R01^ACK|" in report


async def test_a_refused_order_is_kept_with_a_line_for_the_operator(intake: Intake, pool: Pool) -> None:
    bad = omi(CANCEL, NOW).replace((STUDY + "124^RIS").encode(), b"")
    answer = await intake.receive(Frame(bad), "ris")
    assert b"\rERR||IPC^1^3|101^" in answer
    assert await rows(pool, "SELECT accepted FROM message") == [{"accepted": False}]
    assert await rows(pool, "SELECT code FROM incident") == [{"code": "hl7-required"}]
    assert await jobs_of(pool) == []
    assert await rows(pool, "SELECT 1 FROM withdrawn_study") == []
    [told] = await rows(pool, "SELECT event, outcome FROM audit")
    assert (told["event"], told["outcome"]) == ("110107/RAD-13", 8)


async def test_an_order_over_the_limit_is_refused(intake: Intake, pool: Pool) -> None:
    answer = await intake.receive(Frame(omi(CANCEL, NOW), whole=False), "ris")
    assert verdict(answer) == "AE"
    assert await jobs_of(pool) == []


async def test_without_a_database_the_sender_is_asked_to_send_again(dsn: str, tmp_path: Path) -> None:
    async with opened(dsn, size=2) as pool:
        intake = intake_on(pool, tmp_path)
    # The pool is closed: every statement fails, as with a server that went away.
    for message in (omi(LETTER, NOW), omi(LETTER, NOW).replace(b"IPC|", b"IPX|")):
        answer = await intake.receive(Frame(message), "ris")
        assert verdict(answer) == "AR"
        assert b"|ORI^O24^ORI_O24|" in answer


async def test_a_message_that_is_no_accepted_order_is_said_to_be_so(intake: Intake, pool: Pool) -> None:
    with pytest.raises(Refused):
        await StoredOrders(pool).load(12345)
    await intake.receive(Frame(letters.oru(letters.Letter(exams.exam("E"), "CR-1"), NOW)), "ris")
    [message] = await rows(pool, "SELECT id FROM message")
    with pytest.raises(Refused):
        await StoredOrders(pool).load(message["id"])
