"""The counts of the journal: each kind where it belongs, by days and months of Paris, nothing counted twice."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from drimbox.box.traces import event_of
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.images.ports import Access
from drimbox.record import statistics
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Outcome, Thing, failed
from drimbox.record.pseudonym import load_patient_key
from drimbox.record.statistics import By, Measure, Tally
from drimbox.store.database import Pool
from publication.publication_examples import letter_of, study_of, world_on

ITSELF = Actor(system="drimbox")


async def at(pool: Pool, instant: str, *events: Event) -> None:
    async with pool.connection() as connection:
        for event in events:
            await Journal(pool).write(connection, event)
        await connection.execute("ALTER TABLE audit DISABLE RULE audit_no_update")
        await connection.execute(
            "UPDATE audit SET at = %s WHERE id IN (SELECT id FROM audit ORDER BY id DESC LIMIT %s)",
            (dt.datetime.fromisoformat(instant), len(events)),
        )
        await connection.execute("ALTER TABLE audit ENABLE RULE audit_no_update")


def access(images: int, octets: int, *, status: int = 200, code: str = "") -> Event:
    return event_of(
        Access(
            at=dt.datetime(2026, 3, 29, tzinfo=dt.UTC),
            status=status,
            code=code,
            reason="x" if code else "",
            caller="DRIMbox B",
            certificate=None,
            address="192.0.2.7",
            national_id="899700218896",
            profession="10",
            structure="ambroise",
            study_uid="1.2.3",
            series_uid="1.2.3.4",
            instance_uid="",
            kos_uid="1.2.3.5",
            ins=None,
            instances=images,
            bytes_sent=octets,
            seconds=1.5,
            first_seconds=0.25,
            syntaxes=("1.2.840.10008.1.2.1",),
        )
    )


@pytest.mark.requirement("DB.SO.87")
async def test_images_are_counted_with_their_number_and_volume(pool: Pool) -> None:
    cut = access(3, 1_500_000, code="pacs-cut")
    await at(pool, "2026-03-29T12:00:00+00:00", access(12, 6_291_456), access(1, 2_000), cut)
    await at(pool, "2026-03-29T13:00:00+00:00", access(0, 0, status=401, code="token-refused"))
    await at(pool, "2026-03-29T13:00:00+00:00", access(0, 0, status=403, code="profession-refused"))
    found = await statistics.count(pool, dt.date(2026, 3, 1), dt.date(2026, 3, 31), By.MONTH)
    served = {line.structure: line.tally for line in found.lines if line.measure is Measure.SERVED}
    total = Tally()
    for tally in served.values():
        total += tally
    assert total == Tally(successes=2, failures=3, images=16, octets=6_291_456 + 2_000 + 1_500_000)
    assert found.totals()[Measure.SERVED] == total


@pytest.mark.requirement("DB.SO.87")
async def test_days_and_months_are_those_of_paris(pool: Pool) -> None:
    call = Event(Kind.CONTEXTUAL_CALL, ITSELF)
    # Summer time: midnight in Paris is 22:00 UTC; winter time: 23:00 UTC.
    await at(pool, "2026-06-30T21:59:59+00:00", call)
    await at(pool, "2026-06-30T22:00:00+00:00", call)
    await at(pool, "2026-12-31T22:59:59+00:00", call)
    await at(pool, "2026-12-31T23:00:00+00:00", call)
    by_day = await statistics.count(pool, dt.date(2026, 6, 30), dt.date(2026, 12, 31), By.DAY)
    assert [(line.start.isoformat(), line.tally.successes) for line in by_day.lines] == [
        ("2026-06-30", 1),
        ("2026-07-01", 1),
        ("2026-12-31", 1),
    ]
    by_month = await statistics.count(pool, dt.date(2026, 1, 1), dt.date(2027, 1, 31), By.MONTH)
    assert [(line.start.isoformat(), line.end.isoformat()) for line in by_month.lines] == [
        ("2026-06-01", "2026-06-30"),
        ("2026-07-01", "2026-07-31"),
        ("2026-12-01", "2026-12-31"),
        ("2027-01-01", "2027-01-31"),
    ]
    assert by_month.since == dt.datetime(2026, 6, 30, 21, 59, 59, tzinfo=dt.UTC)


@pytest.mark.requirement("DB.SO.87")
async def test_a_published_and_then_replaced_kos(pool: Pool) -> None:
    """As the publication itself writes it."""
    world = world_on(pool)
    world.pacs.hold(study_of())
    await world.run(letter_of())
    world.pacs.hold(study_of(images=4))
    await world.run(letter_of().corrected("1.2.250.1.213.9.9", "AGAIN"))
    today = dt.datetime.now(dt.UTC).date()
    span = (today - dt.timedelta(days=1), today + dt.timedelta(days=1))
    totals = (await statistics.count(pool, *span, By.MONTH)).totals()
    async with pool.connection() as connection:
        rows = await (
            await connection.execute(
                "SELECT count(*) FILTER (WHERE replaces IS NULL) AS fresh, count(*) AS n FROM publication"
            )
        ).fetchall()
    assert totals[Measure.PUBLISHED].successes == rows[0]["fresh"] == 1
    assert totals[Measure.REPLACED].successes == rows[0]["n"] - 1
    assert totals[Measure.REPLACED].successes == 1


@pytest.mark.requirement("DB.SO.87")
async def test_every_measure_and_what_is_none(pool: Pool, tmp_path: Path) -> None:
    journal = Journal(pool, load_patient_key(tmp_path / "k"))
    kinds = {
        Kind.REPORT_RECEIVED: Measure.REPORTS,
        Kind.MDM_RECEIVED: Measure.REPORTS,
        Kind.ORDER_RECEIVED: Measure.ORDERS,
        Kind.NOTE_RECEIVED: Measure.NOTES,
        Kind.KOS_DEPUBLISHED: Measure.DEPUBLISHED,
        Kind.DMP_QUERIED: Measure.SEARCHES,
        Kind.DMP_ACCESS_CHECKED: Measure.CHECKS,
        Kind.DOCUMENT_RETRIEVED: Measure.DOCUMENTS,
        Kind.IMAGES_VIEWED: Measure.VIEWED,
        Kind.IMAGES_EXPORTED: Measure.EXPORTED,
        Kind.LOGIN: Measure.LOGINS,
    }
    for kind in Kind:
        await journal.write(None, Event(kind, ITSELF))
    for kind in kinds:
        await journal.write(None, failed(Event(kind, ITSELF), Unavailable("x", code="x")))
    fetched = (Object(Thing.STUDY, "1.2"), Object(Thing.SERIES, "1.2.3", "7/9"))
    await journal.write(None, Event(Kind.IMAGES_FETCHED, ITSELF, fetched))
    stored = (Object(Thing.SERIES, "1.2.3", "5/5"), Object(Thing.SERIES, "1.2.4", "2/3"))
    await journal.write(None, Event(Kind.IMAGES_IMPORTED, ITSELF, stored, outcome=Outcome.MINOR_FAILURE))
    today = dt.datetime.now(dt.UTC).date()
    totals = (
        await statistics.count(pool, today - dt.timedelta(days=1), today + dt.timedelta(days=1), By.MONTH)
    ).totals()
    for measure in set(kinds.values()):
        expected = 2 if measure is Measure.REPORTS else 1
        assert (totals[measure].successes, totals[measure].failures) == (expected, expected), measure
    assert totals[Measure.FETCHED] == Tally(2, 0, 7, 0)
    assert totals[Measure.IMPORTED] == Tally(1, 1, 7, 0)
    # Sessions, searches of this journal and the like are no operation.
    assert sum(t.successes + t.failures for t in totals.values()) == len(statistics._MEASURES) + len(kinds) + 2


@pytest.mark.requirement("DB.SO.87", "D21")
async def test_each_contextual_call_is_a_row(pool: Pool) -> None:
    call = Event(Kind.CONTEXTUAL_CALL, ITSELF)
    await at(pool, "2026-07-14T22:30:00+00:00", call)
    await at(pool, "2026-07-15T08:00:00+00:00", failed(call, Refused("x", code="call-ins")))
    await at(pool, "2026-07-16T08:00:00+00:00", call)
    rows = [one.cells() async for one in statistics.calls(pool, dt.date(2026, 7, 15), dt.date(2026, 7, 15))]
    assert rows == [("15/07/2026", "00:30:00", "", "1", "succes"), ("15/07/2026", "10:00:00", "", "1", "erreur")]


@pytest.mark.parametrize(("since", "until"), [("2026-07-02", "2026-07-01"), ("1990-01-01", "2026-01-01")])
async def test_a_period_that_is_none_is_refused(pool: Pool, since: str, until: str) -> None:
    with pytest.raises(Refused, match="période"):
        await statistics.count(pool, dt.date.fromisoformat(since), dt.date.fromisoformat(until), By.DAY)
