"""Tells what is new in the queue, by each channel: at once when it was silent for long, then grouped.

What was told and when the next try is due are rows: a restart forgets nothing, and of several nodes one tells. A notice
is marked as told after it went out: cut in between, it goes out twice, never not at all.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import psycopg_pool

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.notification.notices import Item, Notice, items_of
from drimbox.store.database import Connection, Pool

FAILED = "notification-failed"
"""The line of the queue that says that a channel does not work; it is not told by any."""

OpenIncident = Callable[[Connection, str, str], Awaitable[None]]
"""Puts a line in the queue: code, reason."""

_MOST = 10_000
_MEMORY = dt.timedelta(days=7)
_FIRST_PAUSE = 60.0
_LONGEST_PAUSE = 3600.0
_PATIENCE = 3  # failures before the queue says so
_log = logging.getLogger(__name__)


class Channel(Protocol):
    """One way to tell. ``tell`` raises ``DrimboxError`` when it did not go out, or may not have."""

    @property
    def name(self) -> str: ...

    async def tell(self, notice: Notice) -> None: ...


@dataclass(frozen=True, slots=True)
class Manner:
    """``every`` and ``poll`` are in seconds; ``box`` and ``console`` are what notices say of the box.

    ``always`` are the codes of warnings that are told even where ``warnings`` are not.
    """

    box: str
    console: str = ""
    every: float = 900.0
    warnings: bool = False
    poll: float = 10.0
    always: tuple[str, ...] = ()


class Teller:
    """Tells by one channel. Get them running with ``telling``."""

    def __init__(self, pool: Pool, clock: Clock, channel: Channel, manner: Manner, open_incident: OpenIncident) -> None:
        self._pool = pool
        self._clock = clock
        self._channel = channel
        self._manner = manner
        self._open_incident = open_incident

    async def begin(self) -> None:
        """From now on; what was in the queue before a channel was first configured is not told by it."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "INSERT INTO notice_channel (channel, since) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (self._channel.name, self._clock.now()),
            )

    async def turn(self) -> int:
        """Tell what is new, if it is time to; how many lines were told."""
        async with self._pool.connection() as connection, connection.transaction():
            row = await (
                await connection.execute(
                    "SELECT * FROM notice_channel WHERE channel = %s FOR UPDATE SKIP LOCKED", (self._channel.name,)
                )
            ).fetchone()
            now = self._clock.now()
            if row is None or not self._may(row, now):
                return 0
            items = await self._new(connection, row, now)
            if not items:
                return 0
            try:
                await self._channel.tell(Notice(self._manner.box, self._manner.console, items))
            except DrimboxError as error:
                await self._failed(connection, row["failures"] + 1, error)
                return 0
            await self._told(connection, items)
        _log.info("%d lines of the queue told by %s", len(items), self._channel.name)
        return len(items)

    def _may(self, row: dict[str, Any], now: dt.datetime) -> bool:
        if row["next_try_at"] is not None and now < row["next_try_at"] <= now + dt.timedelta(
            seconds=2 * _LONGEST_PAUSE
        ):
            return False
        sent = row["sent_at"]
        # A moment in the future is of a clock that was wrong.
        return sent is None or sent > now or now - sent >= dt.timedelta(seconds=self._manner.every)

    async def _new(self, connection: Connection, row: dict[str, Any], now: dt.datetime) -> tuple[Item, ...]:
        rows = await (
            await connection.execute(
                "SELECT * FROM incident AS one WHERE (closed_at IS NULL OR opened_at > %(recent)s) "
                "AND opened_at >= %(since)s AND code <> %(own)s "
                "AND (severity = 'error' OR %(warnings)s OR code = ANY (%(always)s)) "
                "AND NOT EXISTS (SELECT 1 FROM notice WHERE channel = %(channel)s AND incident_id = one.id) "
                "ORDER BY id LIMIT %(most)s",
                {
                    "recent": now - _MEMORY,
                    "since": row["since"],
                    "warnings": self._manner.warnings,
                    "always": list(self._manner.always),
                    "own": FAILED,
                    "channel": self._channel.name,
                    "most": _MOST,
                },
            )
        ).fetchall()
        return items_of(rows)

    async def _told(self, connection: Connection, items: Sequence[Item]) -> None:
        now = self._clock.now()
        await connection.execute(
            "INSERT INTO notice (channel, incident_id, told_at) SELECT %s, unnest(%s::bigint[]), %s "
            "ON CONFLICT DO NOTHING",
            (self._channel.name, [item.id for item in items], now),
        )
        await connection.execute(
            "UPDATE notice_channel SET sent_at = %s, next_try_at = NULL, failures = 0, failure = '' WHERE channel = %s",
            (now, self._channel.name),
        )
        await connection.execute(
            "UPDATE incident SET closed_at = %(now)s, history = history_with(history, jsonb_build_object("
            "'at', %(at)s::text, 'text', 'La notification est repartie', 'by', '')) "
            "WHERE closed_at IS NULL AND code = %(own)s AND starts_with(reason, %(channel)s)",
            {"now": now, "at": now.isoformat(), "own": FAILED, "channel": f"{self._channel.name} : "},
        )

    async def _failed(self, connection: Connection, failures: int, error: DrimboxError) -> None:
        told = f"{error.reason}{f' [{error.peer_code}]' if error.peer_code else ''}"
        _log.warning("nothing told by %s: %s [%s]", self._channel.name, error.code, error.peer_code or "")
        pause = min(_FIRST_PAUSE * 2.0 ** min(failures - 1, 20), _LONGEST_PAUSE)
        await connection.execute(
            "UPDATE notice_channel SET failures = %s, failure = %s, next_try_at = %s WHERE channel = %s",
            (failures, told, self._clock.now() + dt.timedelta(seconds=pause), self._channel.name),
        )
        if failures == _PATIENCE:
            reason = f"{self._channel.name} : l'administrateur n'est pas averti des erreurs : {told}"
            await self._open_incident(connection, FAILED, reason)


@asynccontextmanager
async def telling(tellers: Sequence[Teller], *, poll: float) -> AsyncIterator[None]:
    """Each tells by its channel as long as the block lasts; a channel that hangs holds up no other."""
    for teller in tellers:
        await teller.begin()
    tasks = [asyncio.create_task(_keep_telling(teller, poll)) for teller in tellers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _keep_telling(teller: Teller, poll: float) -> None:
    while True:
        try:
            await teller.turn()
        except (psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed) as error:
            _log.error("queue not told: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - a task boundary: the next round must come
            _log.exception("queue not told")
        await asyncio.sleep(poll)
