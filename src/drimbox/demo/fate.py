"""What became of a message at site A, as its operator sees it: in the box's own database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg

from drimbox.store import embedded

_WORK = """SELECT count(*) FROM procrastinate_jobs
WHERE status IN ('todo', 'doing') AND (args ->> 'report_id')::bigint IN
(SELECT report.id FROM report JOIN message ON message.id = message_id WHERE control_id = %s)"""
_QUEUE = """SELECT reason FROM incident WHERE closed_at IS NULL AND severity = 'error' AND report_id IN
(SELECT report.id FROM report JOIN message ON message.id = message_id WHERE control_id = %s) ORDER BY id"""


@dataclass(frozen=True, slots=True)
class Fate:
    """``settled``: nothing is left to be done; ``problems``: what the operator's queue says of it, in French."""

    settled: bool
    problems: tuple[str, ...]


async def fate_of(state: Path, control_id: str) -> Fate:
    """What became of the message with this MSH-10; ``state`` is the folder of the box. Raises ``Unavailable``."""
    dsn = embedded.address(state / "postgres")
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        work = await (await connection.execute(_WORK, (control_id,))).fetchone()
        queue = await (await connection.execute(_QUEUE, (control_id,))).fetchall()
    return Fate(settled=work == (0,), problems=tuple(reason for (reason,) in queue))
