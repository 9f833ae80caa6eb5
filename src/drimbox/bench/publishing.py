"""Reports carried to the DMP, everything included; and which part of it takes the processor."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from drimbox.bench import judge
from drimbox.bench import site as sites
from drimbox.bench.intake import Lost, sent
from drimbox.bench.messages import SMALL, Messages
from drimbox.bench.rows import Row, ratio
from drimbox.bench.site import Site
from drimbox.foundation.http_client import HttpClient
from drimbox.sandbox.listeners import caller_context
from drimbox.sandbox.pki import TestAuthority

_CONNECTIONS = 8
_PATIENCE = 600.0
# The numbers of the submissions that the judge is given ready-made.
_AFTER = 500_000


async def measure(site: Site, numbers: Sequence[int]) -> list[Row]:
    """Send the reports of these numbers at once, and wait until each has its KOS in the DMP."""
    maker = Messages(f"P{time.monotonic_ns()}", SMALL)
    messages = [maker.one(number) for number in numbers]
    before, begun = site.processor(), time.monotonic()
    await sent(site.ports.mllp_a, messages, _CONNECTIONS)
    accepted = time.monotonic() - begun
    await _published(site, len(numbers))
    seconds, after = time.monotonic() - begun, site.processor()
    await _check(site, len(numbers))
    carried = Row("reports carried to the DMP, from the first byte of the first to the last KOS", "/s")
    carried.values.append(len(numbers) / seconds)
    took = Row("reports accepted while others are being published", "/s", [len(numbers) / accepted])
    shares = [
        Row(f"processor time of {name} for one publication", "ms", [1000 * (after[name] - before[name]) / len(numbers)])
        for name in after
    ]
    own = sum(after[name] - before[name] for name in ("the box", "its PostgreSQL"))
    possible = Row(
        "publications that the box and its PostgreSQL leave room for on one core", "/s", [len(numbers) / own]
    )
    alone = await judge.measure(site, range(_AFTER, _AFTER + len(numbers) // 2))
    return [
        carried,
        alone,
        ratio("reports carried to the DMP: ratio to the judge alone", carried, alone),
        took,
        *shares,
        possible,
    ]


async def _published(site: Site, count: int) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        [done] = await sites.one(site.dsn, "SELECT count(*) FROM publication WHERE state = 'current'")
        if done == count:
            return
        await asyncio.sleep(0.1)
    raise Lost("not every report was carried to the DMP")


async def _check(site: Site, count: int) -> None:
    """The DMP itself says what it holds."""
    async with HttpClient() as http:
        tls = caller_context(TestAuthority(site.folder / "national" / "pki"))
        reply = await http.send("GET", f"{site.national.dmp_view}/documents", tls=tls)
    held = [d for d in json.loads(reply.body) if d["mime"] == "application/dicom"]
    if len(held) < count:
        raise Lost(f"{count} KOS were confirmed, the DMP holds {len(held)}")
