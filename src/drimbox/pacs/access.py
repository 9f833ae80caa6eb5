"""One PACS as the rest of the box uses it: a finder and a source, by whichever way works (DB.SO.12, DB.SO.32).

A way that does not work is remembered and the next one tried, as long as nothing has come by the first. What went wrong
is never hidden: where no way works, the error is that of the first; and that a study is not there is believed of a
way only where those that are preferred to it say so too, or are not offered at all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.uids import new_uid
from drimbox.pacs.contents import Contents
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.query import StudyFinder
from drimbox.pacs.retrieve import SeriesSource
from drimbox.pacs.site import PacsLink
from drimbox.pacs.study import Study
from drimbox.pacs.ways import Ways, is_not_offered, lesson

T = TypeVar("T")


class AnyFinder:
    """``StudyFinder`` by the first way that works; what it finds is noted for those who retrieve."""

    def __init__(self, finders: Mapping[str, StudyFinder], ways: Ways, contents: Contents) -> None:
        self._finders = finders
        self._ways = ways
        self._contents = contents

    async def find(self, study_uid: str) -> Study | None:
        failures: dict[str, DrimboxError] = {}
        without: str | None = None
        for name in self._ways.in_order():
            if without is not None and not self._outranks(name, without):
                continue
            try:
                study = await self._finders[name].find(study_uid)
            except DrimboxError as error:
                failures[name] = error
                self._ways.failed(name, error)
                if not lesson(error).another:
                    raise
                continue
            if study is not None:
                self._ways.worked(name, tuple(failures))
                self._contents.note(study)
                return study
            if without is None or self._outranks(name, without):
                without = name
        first = next(iter(failures.values()), None)
        if first is not None and (without is None or any(self._may_hide(f, without) for f in failures.items())):
            raise first
        return None

    def _may_hide(self, failure: tuple[str, DrimboxError], without: str) -> bool:
        """Could the way that failed hold what the way ``without`` does not?"""
        name, error = failure
        return self._outranks(name, without) and not is_not_offered(error)

    def _outranks(self, name: str, other: str) -> bool:
        return self._ways.names.index(name) < self._ways.names.index(other)


class AnySource:
    """``SeriesSource`` by the first way that works."""

    def __init__(self, sources: Mapping[str, SeriesSource], ways: Ways) -> None:
        self._sources = sources
        self._ways = ways

    @property
    def way(self) -> str:
        """The way that would be tried first now; after a retrieve, the one that worked."""
        return self._ways.in_order()[0]

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        asked = (study_uid, series_uid, expected, patient_id)
        async with AsyncExitStack() as kept, aclosing(self._given(kept, *asked)) as given:
            yield given

    async def _given(
        self,
        kept: AsyncExitStack,
        study_uid: str,
        series_uid: str | None,
        expected: Collection[str],
        patient_id: str | None,
    ) -> AsyncGenerator[StoredInstance, None]:
        failures: dict[str, DrimboxError] = {}
        for name in self._ways.in_order():
            come = False
            async with AsyncExitStack() as stack:
                try:
                    instances = await stack.enter_async_context(
                        self._sources[name].retrieve(study_uid, series_uid, expected, patient_id=patient_id)
                    )
                    async for stored in instances:
                        if not come:
                            # From here on its files are the reader's, until the block of ``retrieve`` is left.
                            come = True
                            self._ways.worked(name, tuple(failures))
                            kept.push_async_exit(stack.pop_all())
                        yield stored
                    return
                except DrimboxError as error:
                    if come:
                        raise
                    failures[name] = error
                    self._ways.failed(name, error)
                    if not lesson(error).another:
                        raise
        if failures:
            raise next(iter(failures.values()))


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a PACS was found to do just now; None: not asked, or it could not be found out.

    ``web`` answers for QIDO-RS; ``problems`` says in French why something could not be found out or does not work.
    """

    echo: bool | None = None
    find: bool | None = None
    move: bool | None = None
    get: bool | None = None
    web: bool | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PacsAccess:
    """A PACS ready for use."""

    link: PacsLink
    finder: StudyFinder
    source: SeriesSource
    web: StudyFinder | None = None

    async def probe(self) -> Abilities:
        """What it does, found out now (``probed``)."""
        return await probed(self.link, self.web)


async def probed(link: PacsLink, web: StudyFinder | None = None) -> Abilities:
    """Finds out what a PACS does: C-ECHO, the services it agrees to, a QIDO-RS for a study that cannot be."""
    problems: list[str] = []

    async def echoes() -> bool:
        await link.echo()
        return True

    asking = await _told(link.offered((uids.VERIFICATION, uids.STUDY_ROOT_FIND)), problems)
    retrieving = await _told(link.offered(_RETRIEVING, retrieving=True), problems)
    return Abilities(
        echo=await _told(echoes(), problems) if asking is not None else None,
        find=None if asking is None else uids.STUDY_ROOT_FIND in asking,
        move=None if retrieving is None else uids.STUDY_ROOT_MOVE in retrieving,
        get=None if retrieving is None else uids.STUDY_ROOT_GET in retrieving,
        web=None if web is None else await _told(_answers(web), problems),
        problems=tuple(dict.fromkeys(problems)),
    )


_RETRIEVING = (uids.STUDY_ROOT_MOVE, uids.STUDY_ROOT_GET)


async def _answers(finder: StudyFinder) -> bool:
    return await finder.find(new_uid()) is None


async def _told(asked: Awaitable[T], problems: list[str]) -> T | None:
    """The answer; None where there is none, and ``problems`` says why."""
    try:
        return await asked
    except DrimboxError as error:
        problems.append(error.reason)
        return None
