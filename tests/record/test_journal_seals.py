"""The chain of seals: made beside writers without stopping them, and showing whatever was done to the journal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from drimbox.foundation.errors import Refused
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Outcome, Search, Thing
from drimbox.record.pseudonym import PatientKey, load_patient_key
from drimbox.record.retention import removable, remove
from drimbox.record.seals import Sealer
from drimbox.record.verification import last, verified, verify
from drimbox.store.database import Pool

ITSELF = Actor(system="drimbox")


@pytest.fixture
def key(tmp_path: Path) -> PatientKey:
    return load_patient_key(tmp_path / "keys" / "audit.key")


async def written(pool: Pool, key: PatientKey, count: int, *, days_old: int = 0) -> None:
    journal = Journal(pool, key)
    async with pool.connection() as connection:
        for number in range(count):
            await journal.write(connection, Event(Kind.STARTED, ITSELF, (Object(Thing.SYSTEM, str(number)),)))
        if days_old:
            await unruled(
                connection,
                "UPDATE audit SET at = at - make_interval(days => %s) WHERE id NOT IN "
                "(SELECT id FROM audit ORDER BY id DESC OFFSET %s)",
                days_old,
                count,
            )


async def unruled(connection: psycopg.AsyncConnection[dict[str, object]], query: LiteralString, *values: object) -> int:
    """What somebody does who owns the database."""
    await connection.execute("ALTER TABLE audit DISABLE RULE audit_no_update, DISABLE RULE audit_no_delete")
    done = await connection.execute(query, values)
    await connection.execute("ALTER TABLE audit ENABLE RULE audit_no_update, ENABLE RULE audit_no_delete")
    return done.rowcount


async def changed(pool: Pool, query: LiteralString) -> None:
    async with pool.connection() as connection:
        assert await unruled(connection, query) > 0


@pytest.mark.requirement("DB.CS.08")
async def test_a_journal_that_nobody_touched_is_whole(pool: Pool, key: PatientKey) -> None:
    sealer = Sealer(pool, key, most=10)
    assert await sealer.seal() == 0
    assert (await verify(pool, key)).whole
    await written(pool, key, 25)
    assert await sealer.seal() == 3
    await written(pool, key, 5)
    found = await verify(pool, key)
    assert (found.whole, found.events, found.unsealed, found.head.number) == (True, 25, 5, 3)
    assert await sealer.seal() == 1
    assert (await verify(pool, key)).unsealed == 0


@pytest.mark.requirement("DB.CS.08")
@pytest.mark.parametrize(
    ("attack", "told"),
    [
        ("UPDATE audit SET outcome = 12 WHERE id = 7", "altérée"),
        ("UPDATE audit SET at = at - interval '1 microsecond' WHERE id = 12", "altérée"),
        ('UPDATE audit SET actor = actor || \'{"person": "899700000009"}\' WHERE id = 3', "altérée"),
        ("DELETE FROM audit WHERE id = 8", "9 présentes, 10 scellées"),
        ("DELETE FROM audit WHERE id > 20", "Traces 21 à 30"),
        (
            "WITH gone AS (DELETE FROM audit WHERE id = 8 RETURNING *) INSERT INTO audit (id, at, event, action, "
            "outcome, correlation, actor, objects) OVERRIDING SYSTEM VALUE "
            "SELECT id, at, event, action, outcome, 'x', actor, objects FROM gone",
            "altérée",
        ),
    ],
)
async def test_whatever_is_done_to_an_event_shows(
    pool: Pool, key: PatientKey, attack: LiteralString, told: str
) -> None:
    await written(pool, key, 30)
    await Sealer(pool, key, most=10).seal()
    await changed(pool, attack)
    found = await verify(pool, key)
    assert not found.whole
    assert told in " ".join(found.problems)


@pytest.mark.requirement("DB.CS.08")
async def test_whatever_is_done_to_a_seal_shows(pool: Pool, key: PatientKey, tmp_path: Path) -> None:
    await written(pool, key, 30)
    await Sealer(pool, key, most=10).seal()
    head = (await verify(pool, key)).head
    attacks: tuple[tuple[LiteralString, str], ...] = (
        ("UPDATE audit_seal SET events = 9 WHERE number = 2", "Scellé 2 altéré"),
        ("UPDATE audit_seal SET seal = digest WHERE number = 1", "Scellé 1 altéré"),
        ("DELETE FROM audit_seal WHERE number = 2", "Scellés 2 à 2 absents"),
        ("DELETE FROM audit_seal WHERE number = 3", "Scellés 3 à 3 retirés"),
        (
            "INSERT INTO audit_seal SELECT 4, 'removal', 1, 30, 30, now() - interval '1 day', 180, '', now(), key, "
            "seal FROM audit_seal WHERE number = 3",
            "Scellé 4 altéré",
        ),
    )
    for attack, told in attacks:
        async with pool.connection() as connection:
            await connection.execute("DROP RULE audit_seal_no_update ON audit_seal")
            await connection.execute("DROP RULE audit_seal_no_delete ON audit_seal")
            assert (await connection.execute(attack)).rowcount == 1
            await connection.commit()
            found = await verify(pool, key, str(head))
            assert told in " ".join(found.problems), found.problems
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM audit_seal")
            await connection.execute("CREATE RULE audit_seal_no_update AS ON UPDATE TO audit_seal DO INSTEAD NOTHING")
            await connection.execute("CREATE RULE audit_seal_no_delete AS ON DELETE TO audit_seal DO INSTEAD NOTHING")
        await Sealer(pool, key, most=10).seal()
        head = (await verify(pool, key)).head

    stranger = await verify(pool, load_patient_key(tmp_path / "other.key"))
    assert "autre clé" in stranger.problems[0]
    with pytest.raises(Refused, match="numéro:empreinte"):
        await verify(pool, key, "la tête")
    assert (await verify(pool, key, str(head))).whole
    assert not (await verify(pool, key, f"{head.number}:{'0' * 16}")).whole


@pytest.mark.requirement("DB.CS.08")
async def test_events_that_are_committed_late_are_under_the_seal_of_their_place(pool: Pool, key: PatientKey) -> None:
    """An id is given before the commit: a transaction that is slow must not find its place sealed."""
    journal = Journal(pool, key)
    sealer = Sealer(pool, key, wait=0.3)
    async with pool.connection() as slow:
        await journal.write(slow, Event(Kind.STARTED, ITSELF))
        await written(pool, key, 3)
        assert await sealer.seal() == 0
        sealing = asyncio.create_task(Sealer(pool, key).seal())
        await asyncio.sleep(0.1)
        assert not sealing.done()
        await written(pool, key, 2)
        await slow.commit()
        assert await sealing == 1
    found = await verify(pool, key)
    assert (found.whole, found.events, found.unsealed) == (True, 4, 2)


@pytest.mark.requirement("DB.CS.08")
async def test_many_writers_and_two_sealers_at_once(pool: Pool, key: PatientKey) -> None:
    journal = Journal(pool, key)
    over = asyncio.Event()

    async def write(worker: int) -> None:
        for number in range(40):
            try:
                async with pool.connection() as connection:
                    await journal.write(connection, Event(Kind.STARTED, ITSELF, (Object(Thing.SYSTEM, f"{worker}"),)))
                    if number % 5 == 0:
                        raise LookupError
            except LookupError:
                pass

    async def seal() -> None:
        sealer = Sealer(pool, key, most=7)
        while not over.is_set():
            await sealer.seal()

    sealers = [asyncio.create_task(seal()) for _ in range(2)]
    await asyncio.gather(*(write(worker) for worker in range(3)))
    over.set()
    await asyncio.gather(*sealers)
    await Sealer(pool, key).seal()
    found = await verify(pool, key)
    assert (found.whole, found.events, found.unsealed) == (True, 96, 0)


@pytest.mark.requirement("DB.CS.09")
async def test_only_what_is_older_than_the_retention_leaves(pool: Pool, key: PatientKey) -> None:
    sealer = Sealer(pool, key, most=10)
    await written(pool, key, 20, days_old=400)
    await sealer.seal()
    await written(pool, key, 10, days_old=200)
    await sealer.seal()
    await written(pool, key, 5)
    await sealer.seal()
    journal = Journal(pool, key)
    by = Actor(person="os:installer")
    assert await removable(pool, 365) == 20
    with pytest.raises(Refused, match="180 jours"):
        await remove(pool, key, journal, keep_days=179, by=by)
    assert (await remove(pool, key, journal, keep_days=365, by=by)).events == 20
    assert (await remove(pool, key, journal, keep_days=365, by=by)).events == 0
    assert await removable(pool, 365) == 0
    await sealer.seal()
    found = await verify(pool, key)
    assert (found.whole, found.events) == (True, 16)
    [trace] = await journal.search(Search(kind=Kind.AUDIT_REMOVED), by)
    assert trace.event.objects == (
        Object(Thing.SYSTEM, "journal", "20 traces de plus de 365 jours, jusqu'au numéro 20"),
    )
    # What was removed cannot come back unseen, and nothing else can follow it.
    async with pool.connection() as connection:
        assert (await connection.execute("DELETE FROM audit")).rowcount == 0
    assert (await remove(pool, key, journal, keep_days=190, by=by)).events == 10
    assert (await verify(pool, key)).whole
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO audit (id, event, action, outcome, correlation, actor, objects) OVERRIDING SYSTEM VALUE "
            "VALUES (4, '110100/110120', 'E', 0, 'x', '{}', '[]')"
        )
    assert "tout a été retiré" in (await verify(pool, key)).problems[0]


@pytest.mark.requirement("DB.CS.08", "DB.CS.09")
async def test_what_was_altered_is_not_removed(pool: Pool, key: PatientKey) -> None:
    await written(pool, key, 10, days_old=400)
    await Sealer(pool, key).seal()
    await changed(pool, "UPDATE audit SET outcome = 12 WHERE id = 4")
    with pytest.raises(Refused, match="rien n'est retiré"):
        await remove(pool, key, Journal(pool, key), keep_days=365, by=ITSELF)
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT count(*) AS n FROM audit")).fetchone()
    assert row == {"n": 10}


@pytest.mark.requirement("DB.CS.09")
async def test_the_database_itself_lets_nothing_else_go(pool: Pool, dsn: str, key: PatientKey) -> None:
    await written(pool, key, 4, days_old=400)
    await Sealer(pool, key).seal()
    async with pool.connection() as connection:
        assert (await connection.execute("DELETE FROM audit WHERE id = 2")).rowcount == 0
        assert (await connection.execute("DELETE FROM audit_seal")).rowcount == 0
        assert (await connection.execute("UPDATE audit_seal SET events = 0")).rowcount == 0
    with psycopg.connect(dsn, autocommit=True) as own:
        for table in ("audit", "audit_seal"):
            with pytest.raises(psycopg.errors.RaiseException):
                own.execute(f"TRUNCATE {table}")
        with pytest.raises(psycopg.errors.CheckViolation):
            own.execute(
                "INSERT INTO audit_seal SELECT 2, 'removal', 1, 4, 4, now(), 10, '', now(), key, seal FROM audit_seal"
            )
        # Even with a removal in the chain, what is not old enough stays.
        own.execute(
            "INSERT INTO audit_seal SELECT 2, 'removal', 1, 4, 4, now() + interval '1 year', 180, '', now(), key, seal "
            "FROM audit_seal"
        )
        assert own.execute("DELETE FROM audit").rowcount == 0


@pytest.mark.requirement("DB.CS.08")
async def test_the_last_verification_is_told_by_the_journal(pool: Pool, key: PatientKey) -> None:
    assert await last(pool) is None
    await written(pool, key, 3)
    await Sealer(pool, key).seal()
    journal = Journal(pool, key)
    await verified(pool, key, journal, Actor(person="899700000001", name="Camille Essai"))
    told = await last(pool)
    assert told is not None
    assert (told.by, told.whole, told.problems) == ("Camille Essai", True, "")
    assert "1 scellés, 3 traces" in told.summary
    await changed(pool, "UPDATE audit SET outcome = 12 WHERE id = 2")
    await verified(pool, key, journal, ITSELF)
    told = await last(pool)
    assert told is not None
    assert (told.by, told.whole) == ("drimbox", False)
    assert "Traces 1 à 3" in told.problems
    [trace] = [r for r in await journal.search(Search(kind=Kind.AUDIT_VERIFIED), ITSELF) if r.event.outcome]
    assert trace.event.outcome is Outcome.SERIOUS_FAILURE
