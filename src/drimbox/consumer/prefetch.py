"""Likely priors, fetched once the user is in front of the list: same modality and region as the call says.

Nothing is shown or counted as viewed by this, but each KOS is retrieved in the user's name: it is a setting, off by
default. Exams that deserve a warning or a decision first are left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from drimbox.consumer.call import Filters
from drimbox.consumer.exams import Exam, narrowed
from drimbox.foundation.errors import DrimboxError

_log = logging.getLogger(__name__)


def likely(exams: Sequence[Exam], asked: Filters, most: int) -> list[Exam]:
    """The newest exams of the modality and region of the call; none where it names neither."""
    if not asked.modalities and not asked.regions:
        return []
    alike = narrowed(exams, Filters(modalities=asked.modalities, regions=asked.regions))
    return [e for e in alike if e.images is not None and not e.images.warning][:most]


class Prefetcher:
    """Fetches ``most`` exams for each call, one after the other, in the background."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: dict[str, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self, call_id: str, exams: Sequence[Exam], asked: Filters, fetch: Callable[[Exam], Awaitable[None]]
    ) -> bool:
        """Once for a call; ``fetch`` opens an exam and waits for its images. False when there is nothing to do."""
        chosen = likely(exams, asked, self._most)
        if not chosen or call_id in self._begun:
            return False
        self._begun[call_id] = None
        while len(self._begun) > 10_000:
            del self._begun[next(iter(self._begun))]
        task = asyncio.create_task(self._run(chosen, fetch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, chosen: Sequence[Exam], fetch: Callable[[Exam], Awaitable[None]]) -> None:
        for exam in chosen:
            try:
                await fetch(exam)
            except DrimboxError as error:
                _log.info("a prior was not fetched ahead: %s", error.code)
            except Exception as error:  # noqa: BLE001 - the boundary of a task
                _log.error("a prior was not fetched ahead: %s", type(error).__name__, exc_info=error)
                return
