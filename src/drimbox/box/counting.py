"""``drimbox statistics``: the counts as a table on the terminal, and as CSV files (DB.SO.87, decision 21)."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from drimbox.box.journal import written
from drimbox.box.operator import on_database
from drimbox.box.settings import Settings
from drimbox.foundation.clock import PARIS
from drimbox.record import statistics
from drimbox.record.statistics import By, Counted
from drimbox.record.words import row
from drimbox.store.database import Pool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to count, and the files to write: every line, every contextual call."""

    since: dt.date
    until: dt.date
    by: str
    lines: Path | None
    calls: Path | None


def counted(settings: Settings, wanted: Wanted) -> str:
    """Count, write the files, and say it all. Raises ``Refused``, ``Misconfigured``."""

    async def work(pool: Pool) -> str:
        found = await statistics.count(pool, wanted.since, wanted.until, By(wanted.by))
        said = [_table(found)]
        if found.since is not None and found.since.astimezone(PARIS).date() > wanted.since:
            said.append(f"Le journal commence le {found.since.astimezone(PARIS):%d/%m/%Y} : rien d'avant n'est compté.")
        if wanted.lines is not None:
            rows = await written(wanted.lines, _lines(found))
            said.append(f"{rows - 1} lignes dans {wanted.lines.name}")
        if wanted.calls is not None:
            rows = await written(wanted.calls, _calls(pool, wanted))
            said.append(f"{rows - 1} appels contextuels dans {wanted.calls.name}")
        return "\n".join(said)

    return on_database(settings, work)


def _table(found: Counted) -> str:
    head = ("Mesure", "Réussites", "Échecs", "Images", "Volume (ko)")
    rows = [
        (statistics.LABELS[measure], *map(str, (told.successes, told.failures, told.images, round(told.octets / 1000))))
        for measure, told in found.totals().items()
    ]
    widths = [max(len(cells[place]) for cells in (head, *rows)) for place in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(cells, widths, strict=True)) for cells in (head, *rows))
    )


async def _lines(found: Counted) -> AsyncIterator[bytes]:
    yield b"\xef\xbb\xbf" + row(statistics.HEAD)
    for line in found.lines:
        yield row(line.cells())


async def _calls(pool: Pool, wanted: Wanted) -> AsyncIterator[bytes]:
    yield b"\xef\xbb\xbf" + row(statistics.CALLS_HEAD)
    async for call in statistics.calls(pool, wanted.since, wanted.until):
        yield row(call.cells())
