"""What the peers of the box do now, asked in the background: a page never waits for a PACS that is down."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from drimbox.foundation.clock import Clock

Check = Callable[[], Awaitable[Mapping[str, bool]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, peer by peer, and when; ``at`` is None before the first answer."""

    states: Mapping[str, bool] = field(default_factory=dict)
    at: dt.datetime | None = None


class HealthWatch:
    """Asks again when the last answer is older than ``every`` seconds and somebody looks."""

    def __init__(self, check: Check | None, clock: Clock, *, every: float = 30.0, patience: float = 1.0) -> None:
        self._check = check
        self._clock = clock
        self._every = every
        self._patience = patience
        self._seen = Seen()
        self._task: asyncio.Task[None] | None = None

    @property
    def watches(self) -> bool:
        return self._check is not None

    async def look(self) -> Seen:
        """The last answer; the very first one is waited for, ``patience`` seconds at the most."""
        if self._check is None:
            return self._seen
        old = self._seen.at is None or (self._clock.now() - self._seen.at).total_seconds() >= self._every
        if old and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask(self._check))
        if self._seen.at is None and self._task is not None:
            await asyncio.wait([self._task], timeout=self._patience)
        return self._seen

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self, check: Check) -> None:
        try:
            states = await check()
        except Exception:  # noqa: BLE001 - the boundary of a background task, which records the failure
            # An old answer shown as fresh would be a lie.
            _log.exception("the state of the peers could not be asked")
            self._seen = Seen()
            return
        self._seen = Seen(dict(states), self._clock.now())
