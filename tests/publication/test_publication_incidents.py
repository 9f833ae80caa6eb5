"""The operator's queue: one line for a cause, its history, what closes it."""

from __future__ import annotations

import pytest
from publication_examples import World, letter_of

STUDY = "1.2.250.1.213.4.5.2.1.105"


async def open_one(world: World, code: str = "study-unknown", **more: object) -> int:
    async with world.archive.transaction() as transaction:
        return await world.incidents.open(
            transaction,
            structure="ambroise",
            study_uid=STUDY,
            code=code,
            reason="Examen inconnu",
            **more,  # type: ignore[arg-type]
        )


@pytest.mark.requirement("DB.SO.21")
async def test_the_same_cause_on_a_study_is_one_line_with_a_history(world: World) -> None:
    first = await open_one(world, report_id=await world.receive(letter_of()))
    world.clock.advance(3600)
    later = await world.receive(letter_of(control_id="M2"))
    assert await open_one(world, report_id=later, peer_code="A700") == first
    assert await open_one(world, "dmp-rejected") != first
    [incident] = [i for i in await world.queue() if i.id == first]
    assert (incident.report_id, incident.peer_code) == (later, "A700")
    assert [s.text for s in incident.history] == ["Examen inconnu", "Examen inconnu [A700]"]
    assert (incident.history[1].at - incident.opened_at).total_seconds() == 3600


async def test_a_long_history_keeps_its_beginning_and_its_end(world: World) -> None:
    async with world.archive.transaction() as transaction:
        for number in range(150):
            await world.incidents.open(
                transaction, structure="ambroise", study_uid=STUDY, code="waiting", reason=f"essai {number}"
            )
    [incident] = await world.queue()
    texts = [step.text for step in incident.history]
    assert len(texts) == 100
    assert texts[:10] == [f"essai {n}" for n in range(10)]
    assert texts[-1] == "essai 149"


@pytest.mark.requirement("DB.SO.21")
async def test_an_operator_notes_and_closes(world: World) -> None:
    incident_id = await open_one(world)
    await world.incidents.note(incident_id, "RIS prévenu", "899700367909")
    await world.incidents.close(incident_id, "Doublon", "899700367909")
    assert await world.queue() == ()
    [incident] = await world.incidents.list(open_only=False, study_uid=STUDY)
    assert [(s.text, s.by) for s in incident.history[1:]] == [
        ("RIS prévenu", "899700367909"),
        ("Doublon", "899700367909"),
    ]
    # The same cause again opens a new line.
    assert await open_one(world) != incident_id


async def test_refused_messages_each_have_their_line(world: World) -> None:
    async with world.pool.connection() as connection:
        for _ in range(2):
            row = await (
                await connection.execute(
                    "INSERT INTO message (sender, control_id, digest, raw, answer, accepted) "
                    "VALUES ('RIS', '', '', '', '', false) RETURNING id"
                )
            ).fetchone()
            assert row is not None
            await world.incidents.open_for_message(
                connection, code="hl7-pid", reason="Segment PID absent", message_id=row["id"]
            )
    queue = await world.queue()
    assert [i.code for i in queue] == ["hl7-pid", "hl7-pid"]
    assert queue[0].label == f"Message n° {queue[0].message_id}"


async def test_the_queue_is_read_page_by_page(world: World) -> None:
    for number in range(5):
        await open_one(world, f"code-{number}")
    newest = await world.incidents.list(limit=2)
    assert [i.code for i in newest] == ["code-4", "code-3"]
    assert [i.code for i in await world.incidents.list(before=newest[-1].id, limit=9)] == ["code-2", "code-1", "code-0"]


async def test_a_report_that_is_not_there_still_makes_a_line(world: World) -> None:
    await open_one(world, report_id=123456)
    [incident] = await world.queue()
    assert incident.report_id is None
