"""The keeper: the last good list serves for as long as it may, and not a day longer."""

import datetime as dt
import logging

import pytest
from whitelist_signing import SIGNER_CN, SIGNER_OU, Signing, content, domain, signed

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.national.whitelist import Whitelist, WhitelistKeeper, verify
from drimbox.store.database import Pool
from drimbox.trust.chain import TrustStore

START = dt.datetime.now(dt.UTC)
ONE = content(domain("1", "db1.test.fr", "CN=db1.test.fr"))
TWO = content(domain("1", "db1.test.fr", "CN=db1.test.fr,C=FR"), domain("2", "db2.test.fr", "CN=db2.test.fr"))


class Publisher:
    """The agency's site: serves one document, or is down."""

    def __init__(self) -> None:
        self.document: bytes | None = None
        self.asked = 0

    async def fetch(self) -> bytes:
        self.asked += 1
        if self.document is None:
            raise Unavailable("Serveur injoignable")
        return self.document


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def keeper(pool: Pool, publisher: Publisher, clock: FixedClock, trust: TrustStore) -> WhitelistKeeper:
    return make(pool, publisher, clock, trust)


def make(pool: Pool, publisher: Publisher, clock: FixedClock, trust: TrustStore) -> WhitelistKeeper:
    def check(document: bytes) -> Whitelist:
        return verify(document, trust=trust, signer_cn=SIGNER_CN, signer_ou=SIGNER_OU, now=clock.now())

    return WhitelistKeeper(pool, publisher.fetch, check, clock)


async def rows(pool: Pool) -> int:
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT count(*) AS n FROM whitelist")).fetchone()
    assert row is not None
    return int(row["n"])


async def test_before_the_first_list_nobody_is_known(keeper: WhitelistKeeper) -> None:
    with pytest.raises(Unavailable) as none:
        await keeper.current()
    assert none.value.code == "whitelist-none"
    with pytest.raises(Unavailable):
        await keeper.refresh()


@pytest.mark.requirement("D16")
async def test_a_good_list_is_kept_and_found_by_the_next_process(
    keeper: WhitelistKeeper, publisher: Publisher, pool: Pool, clock: FixedClock, trust: TrustStore, good: Signing
) -> None:
    publisher.document = signed(ONE, good)
    assert await keeper.refresh() == await keeper.current()
    other = make(pool, publisher, clock, trust)
    assert (await other.current()).allows_host("db1.test.fr")
    assert publisher.asked == 1


@pytest.mark.requirement("D16")
async def test_a_bad_list_changes_nothing_and_is_reported(
    keeper: WhitelistKeeper, publisher: Publisher, pool: Pool, good: Signing
) -> None:
    publisher.document = signed(ONE, good)
    await keeper.refresh()
    for bad in (ONE.encode(), signed(TWO, good).replace(b"db2", b"db9", 1), b"", None):
        publisher.document = bad
        with pytest.raises((Refused, Unavailable)):
            await keeper.refresh()
    assert (await keeper.current()).allows_host("db1.test.fr")
    assert await rows(pool) == 1


@pytest.mark.requirement("D16")
async def test_the_last_good_list_is_believed_for_seven_days(
    keeper: WhitelistKeeper, publisher: Publisher, clock: FixedClock, good: Signing
) -> None:
    publisher.document = signed(ONE, good)
    await keeper.refresh()
    clock.advance(7 * 86400)
    await keeper.current()
    clock.advance(1)
    with pytest.raises(Unavailable) as old:
        await keeper.current()
    assert old.value.code == "whitelist-age"
    await keeper.refresh()
    await keeper.current()


async def test_an_old_list_is_not_replayed(
    keeper: WhitelistKeeper, publisher: Publisher, clock: FixedClock, good: Signing
) -> None:
    publisher.document = signed(ONE, good.but(at="2026-02-01T00:00:00Z"))
    await keeper.refresh()
    publisher.document = signed(TWO, good.but(at="2026-01-31T00:00:00Z"))
    with pytest.raises(Refused) as replayed:
        await keeper.refresh()
    assert replayed.value.code == "whitelist-older"
    assert not (await keeper.current()).allows_host("db2.test.fr")
    publisher.document = signed(TWO, good.but(at="2026-02-02T00:00:00Z"))
    assert (await keeper.refresh()).allows_host("db2.test.fr")


async def test_another_node_sees_a_new_list_within_a_minute(
    keeper: WhitelistKeeper, publisher: Publisher, pool: Pool, clock: FixedClock, trust: TrustStore, good: Signing
) -> None:
    publisher.document = signed(ONE, good)
    await keeper.refresh()
    other = make(pool, publisher, clock, trust)
    await other.current()
    clock.advance(10)
    publisher.document = signed(TWO, good)
    await keeper.refresh()
    assert not (await other.current()).allows_host("db2.test.fr")
    clock.advance(60)
    assert (await other.current()).allows_host("db2.test.fr")


async def test_what_changed_is_logged(
    keeper: WhitelistKeeper, publisher: Publisher, good: Signing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publisher.document = signed(ONE, good)
    await keeper.refresh()
    assert "first list, 1 DRIMboxes" in caplog.text
    publisher.document = signed(TWO, good)
    await keeper.refresh()
    assert "added db2.test.fr (CN=db2.test.fr)" in caplog.text
    assert "changed db1.test.fr: CN=db1.test.fr -> CN=db1.test.fr,C=FR" in caplog.text
    publisher.document = signed(ONE, good)
    await keeper.refresh()
    assert "removed db2.test.fr" in caplog.text
