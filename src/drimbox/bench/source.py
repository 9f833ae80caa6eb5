"""``drimbox bench source``: what the source takes in and carries out, each beside a limit or a peer of the same run."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from drimbox.bench import backlog, intake, manifests, publishing, site
from drimbox.bench.rows import Row

_MANY, _VERY_MANY = 1_000, 10_000
# The studies of the reports that are carried to the DMP come first, the large ones after them.
_REPORTS = 300
_PIECE = 500


async def measure(rounds: int, length: int) -> list[Row]:
    """All of it, each part in a folder of its own; ``length`` is that of the backlog."""
    rows: list[Row] = []
    async with _folder() as folder:
        rows += await intake.measure(folder, rounds)
    studies = dict.fromkeys(range(_REPORTS), 1) | {_REPORTS: _MANY, _REPORTS + 1: _VERY_MANY}
    async with _folder() as folder, site.running(folder, studies) as place:
        rows += await publishing.measure(place, range(_REPORTS))
        rows += await manifests.measure(place, _REPORTS, _MANY, rounds)
        rows += await manifests.measure(place, _REPORTS + 1, _VERY_MANY, rounds)
    async with _folder() as folder:
        rows += await backlog.measure(folder, length, _PIECE)
    return rows


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="drimbox-bench-") as folder:
        yield Path(folder)
