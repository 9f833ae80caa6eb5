"""Does the PACS still hold these images, and of the same patient? Asked before anything is served from the cache.

Decision 25, DB.SO.40: the answer is remembered for a short time; all who ask meanwhile share one query.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.foundation.clock import Clock
from drimbox.images.ports import StudyFinder
from drimbox.pacs.study import Study

_REMEMBERED = 64


@dataclass(frozen=True, slots=True, repr=False)
class Confirmed:
    """What the PACS said: the series of each instance, and who the patient is."""

    instances: Mapping[str, str]
    patient: tuple[str, ...]


class Confirmations:
    """The answers of the PACSs, by PACS and study."""

    def __init__(self, clock: Clock, remember: float) -> None:
        self._clock = clock
        self._remember = remember
        self._known: OrderedDict[tuple[str, str], tuple[float, Confirmed]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[Confirmed]] = {}

    async def confirm(self, finder: StudyFinder, pacs: str, study_uid: str) -> Confirmed:
        """Raises ``Unavailable`` or ``Rejected`` when the PACS does not answer: that confirms nothing."""
        key = (pacs, study_uid)
        known = self._known.get(key)
        if known is not None and self._clock.monotonic() - known[0] < self._remember:
            return known[1]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(finder, key))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def forget(self, pacs: str, study_uid: str) -> None:
        """What was said of a study no longer holds."""
        self._known.pop((pacs, study_uid), None)
        # Nor does what it is just about to say.
        self._asking.pop((pacs, study_uid), None)

    async def close(self) -> None:
        """Stop asking."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _ask(self, finder: StudyFinder, key: tuple[str, str]) -> Confirmed:
        asked = self._clock.monotonic()
        confirmed = _confirmed(await finder.find(key[1]))
        if self._remember > 0 and self._asking.get(key) is asyncio.current_task():
            self._known[key] = (asked, confirmed)
            self._known.move_to_end(key)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return confirmed

    def _answered(self, key: tuple[str, str], task: asyncio.Task[Confirmed]) -> None:
        if self._asking.get(key) is task:
            del self._asking[key]
        if not task.cancelled():
            # Looked at here, in case everybody who asked has left.
            task.exception()


def _confirmed(study: Study | None) -> Confirmed:
    if study is None:
        return Confirmed({}, ())
    instances = {i.sop_instance_uid: s.series_uid for s in study.series for i in s.instances}
    who = (study.patient_id, study.patient_id_issuer, study.patient_name, study.birth_date, study.sex)
    return Confirmed(instances, (*who, study.accession_number))
