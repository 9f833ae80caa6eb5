"""A large archive: the walk takes its time from the rate, and no memory; its queries read no KOS."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from walk_world import NOW, OLD, Site, led

from drimbox.reconciliation.hours import parse_ranges
from drimbox.reconciliation.steps import next_target
from drimbox.reconciliation.walk import Kind, State
from drimbox.reconciliation.words import expected_end, forecast, report


async def walked(site: Site, number: int) -> tuple[float, int]:
    """Seconds and octets of memory (the most) for a walk through so many studies."""
    await site.stock(number)
    walk = await site.start(rate=6000)
    driver = site.driver()
    site.compare.clock = None  # what the test itself would remember
    seen = 0

    async def examine(target: object) -> dict[object, str]:
        nonlocal seen
        seen += 1
        return {}

    driver.examine = examine  # type: ignore[assignment]
    async with led(driver) as connection:
        tracemalloc.start()
        begun = time.monotonic()
        while seen < number:
            site.clock.advance(await driver.round(connection) or 0.01)
        site.clock.advance(1)
        await driver.round(connection)
        seconds, most = time.monotonic() - begun, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    walk = await site.walk()
    assert (walk.state, walk.done) == (State.DONE, number)
    return seconds, most


@pytest.mark.requirement("DB.SO.28")
async def test_memory_does_not_grow_with_the_archive(site: Site) -> None:
    seconds, most = await walked(site, 800)
    assert most < 2 * 2**20
    assert seconds < 30


@pytest.mark.slow
@pytest.mark.requirement("DB.SO.28")
async def test_twenty_thousand_studies(site: Site) -> None:
    seconds, most = await walked(site, 20_000)
    assert most < 2 * 2**20
    assert seconds < 240


@pytest.mark.requirement("DB.SO.28", "DB.SO.88")
async def test_how_long_a_hundred_thousand_studies_take(site: Site) -> None:
    """At 30 a minute 55.6 hours; resting by day from Monday to Friday, from Tuesday 10:00 on, until Sunday."""
    await site.stock(10)
    walk = await site.start(rate=30)
    await site.rows("UPDATE walk SET total = 100000")
    walk = await site.walk()
    assert forecast(walk, NOW, ()) == "16/07/2026 à 17:33"
    assert forecast(walk, NOW, parse_ranges(["lun-ven 08:00-20:00"])) == "18/07/2026 à 15:33"
    # Slower than the rate, it is the pace that tells.
    await site.rows("UPDATE walk SET done = 50000, busy = 50000 * 3.6")
    walk = await site.walk()
    end = expected_end(walk, NOW, ())
    assert end is not None
    assert (end - NOW).total_seconds() == 50_000 * 3.6
    lines = report(walk, NOW, ())
    assert "  50\u202f000 examens sur 100\u202f000 (50 %)" in lines
    assert "  fin prévue : 16/07/2026 à 12:00" in lines


@pytest.mark.requirement("DB.SO.31")
async def test_the_addresses_of_a_large_archive_are_read_from_an_index(site: Site) -> None:
    await site.stock(4000)
    await site.stock(3, base=OLD, first=9001)
    await site.rows("ANALYZE publication")
    driver = site.driver(Kind.ADDRESS)
    async with led(driver) as connection:
        begun = time.monotonic()
        await driver.round(connection)
        assert time.monotonic() - begun < 2
        walk = await site.walk(Kind.ADDRESS)
        assert walk.total == 3
        target = await next_target(connection, walk)
    assert target is not None
    assert target.study_uid in {f"1.2.3.{n}" for n in (9001, 9002, 9003)}
