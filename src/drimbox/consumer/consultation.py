"""The consultation of a patient's DMP: may it be consulted at all, then what does it hold, told as it comes.

TD0.2 always comes first (DMP/UX.08); then KOS and reports are searched for side by side, and what is new since the last
visit (EX_3.1-1020). What cannot be known is said as such: a DMP that does not answer is never an empty one, and a part
that failed is a trouble beside the parts that came.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from drimbox.consumer.call import ContextualCall, Filters
from drimbox.consumer.consultant import Consultant, require_consent
from drimbox.consumer.exams import Exam, exams_of, narrowed, registered_among
from drimbox.consumer.permission import Barred, checked
from drimbox.consumer.ports import AuditJournal, Dmp
from drimbox.consumer.searching import Entries, kos_criteria, report_criteria, search
from drimbox.consumer.users import UserMemory
from drimbox.foundation.errors import DrimboxError
from drimbox.national.dmp.metadata.model import DocumentEntry
from drimbox.record.audit import Kind, Object, Thing
from drimbox.reports.report import Coded

_log = logging.getLogger(__name__)

LOINC = "2.16.840.1.113883.6.1"
IMAGING_REPORT = Coded("18748-4", LOINC, "CR d'imagerie médicale")

KOS, REPORTS, NEWS = "kos", "reports", "news"
#: What each part of a search is called on the screen when it failed.
PARTS = {
    KOS: "Les images (KOS) n’ont pas toutes pu être recherchées dans le DMP",
    REPORTS: "Les comptes rendus n’ont pas tous pu être recherchés dans le DMP",
    NEWS: "Les nouveautés depuis votre dernière visite n’ont pas pu être demandées au DMP : elles ne sont ni comptées, "
    "ni signalées, ni filtrées",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that did not answer, in a row of its own; ``part`` names it for another try."""

    part: str
    text: str
    reason: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The exams that answer the filters so far, newest first; ``others`` counts those that do not answer them.

    ``waiting``: parts of the search that are still on their way; ``fresh``: entryUUIDs registered since ``since``, the
    last visit or, for want of one, the configured period; None when that is not known.
    """

    exams: tuple[Exam, ...]
    others: int
    at: dt.datetime
    waiting: frozenset[str] = frozenset()
    troubles: tuple[Trouble, ...] = ()
    fresh: frozenset[str] | None = None
    since: dt.datetime | None = None
    first_visit: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not be known what the DMP holds."""

    reason: str
    code: str


Finding = Barred | Found | Failed
Tell = Callable[[Finding], None]


class Bell:
    """Rung at each change of what a page shows; those who wait for news hear it."""

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self.count += 1
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def beyond(self, count: int, seconds: float) -> int:
        """The count, as soon as it is another one than ``count``, or when the time is up."""
        try:
            async with asyncio.timeout(seconds):
                while self.count == count:
                    await self._rung.wait()
        except TimeoutError:
            pass
        return self.count


class Consultation:
    """One search on its way, or its finding. ``filters`` are those it was asked with.

    ``former`` is what an earlier search found: shown until this one has something to show (DB.CO.55).
    """

    def __init__(
        self, filters: Filters, work: Callable[[Tell], Awaitable[Finding]], bell: Bell, former: Found | None = None
    ) -> None:
        self.filters = filters
        self.former = former
        self.finding: Finding | None = None
        self._bell = bell
        self._task = asyncio.create_task(self._run(work))

    @property
    def searching(self) -> bool:
        """Is the DMP still being asked?"""
        return not self._task.done()

    @property
    def shown(self) -> Found | None:
        """The rows that there are to show: this search's, else the former one's unless access is barred now."""
        if isinstance(self.finding, Found):
            return self.finding
        return None if isinstance(self.finding, Barred) else self.former

    async def wait(self, seconds: float) -> Finding | None:
        """The finding once the search is over; what there is so far, perhaps None, when it takes longer."""
        await asyncio.wait((self._task,), timeout=seconds)
        return self.finding

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _told(self, finding: Finding) -> None:
        self.finding = finding
        self._bell.ring()

    async def _run(self, work: Callable[[Tell], Awaitable[Finding]]) -> None:
        """A task boundary: whatever happens becomes a finding that the page can show."""
        try:
            finding = await work(self._told)
        except DrimboxError as error:
            finding = Failed(error.reason, error.code)
        except Exception:  # noqa: BLE001 - a task boundary
            _log.exception("a consultation failed")
            finding = Failed("Erreur interne de la DRIMbox : la recherche n'a pas abouti", "internal")
        self.finding = finding
        # The bell is rung once the task counts as done.
        asyncio.get_running_loop().call_soon(self._bell.ring)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, about whom, in whose name. ``news_days``: how far back is new for who comes the first time."""

    who: Consultant
    call: ContextualCall
    filters: Filters
    report_types: Sequence[Coded] = (IMAGING_REPORT,)
    last_visit: dt.datetime | None = None
    news_days: int = 90


async def consult(
    dmp: Dmp,
    journal: AuditJournal,
    users: UserMemory,
    question: Question,
    tell: Tell,
    *,
    now: Callable[[], dt.datetime],
) -> Finding:
    """TD0.2, then TD3.1 if it may be, ``tell``-ing what comes as it comes; gives the last of it.

    Each request is in the journal before its outcome is told. Raises ``Rejected`` (``no-consent``) for a call whose
    consent lets nothing be asked (decision 18).
    """
    require_consent(question.call)
    asked_at = now()
    patient = question.call.ins
    try:
        barred = await checked(dmp, journal, question.who, patient)
    except DrimboxError as error:
        return Failed(error.reason, error.code)
    if barred is not None:
        return barred
    gathered = _Gathered(question, asked_at, tell)
    await asyncio.gather(
        gathered.part(KOS, lambda: _searched(dmp, journal, question, gathered, KOS, asked_at)),
        gathered.part(REPORTS, lambda: _searched(dmp, journal, question, gathered, REPORTS, asked_at)),
        gathered.part(NEWS, lambda: _news(dmp, journal, question, gathered, asked_at)),
    )
    finding = gathered.finding()
    if isinstance(finding, Found) and not finding.troubles:
        await users.visited(question.who.person, patient, asked_at)
    return finding


@dataclass(slots=True)
class _Gathered:
    """What has come so far of one search."""

    question: Question
    at: dt.datetime
    tell: Tell
    entries: dict[str, DocumentEntry] = field(default_factory=dict)
    fresh: frozenset[str] | None = None
    waiting: set[str] = field(default_factory=lambda: {KOS, REPORTS, NEWS})
    errors: dict[str, DrimboxError] = field(default_factory=dict)

    async def part(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except DrimboxError as error:
            self.errors[name] = error
        self.waiting.discard(name)
        if self.waiting and self.entries:
            self.tell(self.finding())

    def came(self, entries: Entries) -> None:
        self.entries.update({e.entry_id or e.unique_id: e for e in entries})

    def finding(self) -> Finding:
        failed = self.errors.get(KOS)
        if failed is not None and REPORTS in self.errors and not self.entries:
            return Failed(failed.reason, failed.code)
        question = self.question
        try:
            exams = exams_of(
                tuple(self.entries.values()), question.call.ins, report_types=[c.code for c in question.report_types]
            )
        except DrimboxError as error:
            return Failed(error.reason, error.code)
        answering = narrowed(exams, question.filters)
        if question.filters.since_last_visit and NEWS not in self.errors:
            answering = registered_among(answering, self.fresh or ())
        return Found(
            answering,
            len(exams) - len(answering),
            self.at,
            frozenset(self.waiting),
            tuple(Trouble(part, PARTS[part], error.reason, error.code) for part, error in self.errors.items()),
            self.fresh,
            _since(question, self.at),
            question.last_visit is None,
        )


async def _searched(
    dmp: Dmp, journal: AuditJournal, question: Question, gathered: _Gathered, part: str, now: dt.datetime
) -> None:
    def told(entries: Entries) -> None:
        gathered.came(entries)
        if gathered.waiting and entries:
            gathered.tell(gathered.finding())

    filters = question.filters
    criteria = kos_criteria(filters) if part == KOS else report_criteria(filters, question.report_types)
    await search(dmp, journal, question.who, question.call.ins, criteria, told, now=now)


async def _news(dmp: Dmp, journal: AuditJournal, question: Question, gathered: _Gathered, now: dt.datetime) -> None:
    who, patient = question.who, question.call.ins
    asked = (Object(Thing.QUERY, "FindSubmissionSets"),)
    try:
        fresh = await dmp.registered_since(who.dmp, patient, _since(question, now))
    except DrimboxError as error:
        await journal.write(None, who.event(Kind.DMP_QUERIED, patient, asked, error))
        raise
    await journal.write(None, who.event(Kind.DMP_QUERIED, patient, asked))
    gathered.fresh = fresh


def _since(question: Question, now: dt.datetime) -> dt.datetime:
    return question.last_visit or now - dt.timedelta(days=question.news_days)
