"""The keeper of the journal: seals as time goes by, verifies each night once, and removes only if it is asked to."""

from __future__ import annotations

import datetime as dt

import pytest

from drimbox.foundation.clock import FixedClock
from drimbox.record.audit import Actor, Event, Journal, Kind, Search
from drimbox.record.keeper import Conduct, JournalKeeper
from drimbox.record.pseudonym import PatientKey
from drimbox.record.verification import last, verify
from drimbox.store.database import Pool

KEY = PatientKey(b"k" * 32)
READER = Actor(person="os:test")


async def aged(pool: Pool, days: float) -> None:
    """As if everything had been written and sealed that long ago; what is sealed then does not verify any more."""
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE audit DISABLE RULE audit_no_update")
        await connection.execute("UPDATE audit SET at = at - make_interval(secs => %s)", (days * 86400,))
        await connection.execute("ALTER TABLE audit ENABLE RULE audit_no_update")


class House:
    def __init__(self, pool: Pool, conduct: Conduct) -> None:
        self.pool = pool
        self.clock = FixedClock(dt.datetime.now(dt.UTC))
        self.alarms: list[str] = []
        self.journal = Journal(pool, KEY)
        self.keeper = JournalKeeper(pool, KEY, self.journal, self.clock, conduct, self._alarm)

    async def _alarm(self, reason: str) -> None:
        self.alarms.append(reason)

    async def write(self, count: int = 1) -> None:
        for _ in range(count):
            await self.journal.write(None, Event(Kind.STARTED, Actor(system="drimbox")))

    async def traces(self, kind: Kind) -> int:
        return len(await self.journal.search(Search(kind=kind), READER))


@pytest.mark.requirement("DB.CS.08")
async def test_each_night_has_one_verification_whoever_keeps(pool: Pool) -> None:
    house = House(pool, Conduct())
    other = JournalKeeper(pool, KEY, house.journal, house.clock, Conduct(), house._alarm)
    await house.write(3)
    await house.keeper.tick()
    assert (await verify(pool, KEY)).unsealed == 0
    # A new box has nothing of before the last night to verify.
    assert await house.traces(Kind.AUDIT_VERIFIED) == 0
    house.clock.advance(86400)
    await house.keeper.tick()
    assert await house.traces(Kind.AUDIT_VERIFIED) == 1
    # The clock of the journal is the database's: what it just wrote is of that later day.
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE audit DISABLE RULE audit_no_update")
        await connection.execute("UPDATE audit SET at = at + interval '1 day' WHERE event = '110101/verification'")
        await connection.execute("ALTER TABLE audit ENABLE RULE audit_no_update")
    await house.keeper.tick()
    await other.tick()
    assert await house.traces(Kind.AUDIT_VERIFIED) == 1
    told = await last(pool)
    assert told is not None
    assert (told.whole, told.by) == (True, "drimbox")
    assert house.alarms == []


@pytest.mark.requirement("DB.CS.08")
async def test_an_altered_journal_raises_the_alarm(pool: Pool) -> None:
    house = House(pool, Conduct(keep_days=200, nightly=True))
    await house.write(3)
    await house.keeper.tick()
    await aged(pool, 1)
    house.clock.advance(86400)
    await house.keeper.tick()
    assert len(house.alarms) == 1
    assert "altérée" in house.alarms[0]


@pytest.mark.requirement("DB.CS.09")
@pytest.mark.parametrize("nightly", [True, False])
async def test_the_night_removes_only_where_the_site_asked(pool: Pool, nightly: bool) -> None:
    house = House(pool, Conduct(keep_days=200, nightly=nightly))
    await house.write(5)
    await aged(pool, 300)
    await house.keeper.tick()
    await house.write(2)
    await house.keeper.tick()
    house.clock.advance(86400)
    await house.keeper.tick()
    assert await house.traces(Kind.STARTED) == (2 if nightly else 7)
    assert await house.traces(Kind.AUDIT_REMOVED) == (1 if nightly else 0)
    assert house.alarms == []
    assert (await verify(pool, KEY)).whole


async def test_a_verification_that_somebody_asks_for(pool: Pool) -> None:
    house = House(pool, Conduct())
    await house.write(2)
    assert house.keeper.verify_for(READER)
    assert not house.keeper.verify_for(READER)
    await house.keeper.finished()
    assert not house.keeper.verifying
    told = await last(pool)
    assert told is not None
    assert (told.by, told.whole) == ("os:test", True)
    await house.keeper.close()
