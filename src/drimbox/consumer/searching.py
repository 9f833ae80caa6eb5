"""The questions to the DMP that together find what answers the criteria (TD3.1).

Every change of criterion is a new question (DB.CO.55). Where there are more documents than the DMP gives at once, the
period is halved, newest half first, until each part is given whole: nothing is left out without a word.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence

from drimbox.consumer.call import Filters
from drimbox.consumer.consultant import Consultant
from drimbox.consumer.ports import AuditJournal, Dmp
from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import DrimboxError, Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.national.dmp.codes import KOS_TYPE, Status
from drimbox.national.dmp.metadata.model import DocumentEntry
from drimbox.national.dmp.query import Criteria
from drimbox.record.audit import Kind, Object, Thing
from drimbox.reports.report import Coded

_SEARCHED = (Status.APPROVED, Status.ARCHIVED)
_TOO_MANY = "XDSTooManyResults"
# No document of the DMP is older: it is where the first halving begins.
_BEGINNING = dt.datetime(2004, 1, 1, tzinfo=dt.UTC)
_SHORTEST = dt.timedelta(hours=6)
_MOST_QUESTIONS = 64
# An object of the journal for each document found would be longer than the list itself.
_MOST_OBJECTS = 200

Entries = Sequence[DocumentEntry]


def kos_criteria(filters: Filters) -> Criteria:
    """What finds the KOS: asked by modality and region.

    A document is never older than its exam, so the beginning of the period bounds what is asked; its end cannot.
    """
    regions = filters.regions if all(_is_code(region) for region in filters.regions) else ()
    return Criteria(
        _statuses(filters),
        type_codes=(KOS_TYPE,),
        modalities=filters.modalities,
        regions=regions,
        created_from=_since(filters),
    )


def report_criteria(filters: Filters, report_types: Sequence[Coded]) -> Criteria:
    """What finds the reports: not by modality nor region, which may be coded otherwise there, or not at all, so that
    they would be missing beside their images. What they join decides, here.
    """
    return Criteria(_statuses(filters), type_codes=tuple(report_types), created_from=_since(filters))


async def search(
    dmp: Dmp,
    journal: AuditJournal,
    who: Consultant,
    patient: Ins,
    criteria: Criteria,
    tell: Callable[[Entries], None],
    *,
    now: dt.datetime,
) -> None:
    """Ask, and ``tell`` each part as it comes. Each question is in the journal before its answer is told.

    Raises as the DMP client; what was told before stays told.
    """

    async def ask(part: Criteria) -> Entries:
        try:
            entries = await dmp.find_documents(who.dmp, patient, part)
        except DrimboxError as error:
            await journal.write(None, who.event(Kind.DMP_QUERIED, patient, error=error))
            raise
        found = [Object(Thing.KOS if e.is_kos else Thing.DOCUMENT, e.unique_id) for e in entries[:_MOST_OBJECTS]]
        if len(entries) > _MOST_OBJECTS:
            found.append(Object(Thing.QUERY, "documents", str(len(entries))))
        await journal.write(None, who.event(Kind.DMP_QUERIED, patient, found))
        return entries

    await in_parts(ask, criteria, tell, now=now)


async def in_parts(
    ask: Callable[[Criteria], Awaitable[Entries]],
    criteria: Criteria,
    tell: Callable[[Entries], None],
    *,
    now: dt.datetime,
) -> None:
    """Ask whole; what is too much is asked by halves of its period, newest first.

    Raises what ``ask`` raises; ``Unavailable`` (``too-many-documents``) when even short periods hold too much.
    """
    waiting = [criteria]
    for _ in range(_MOST_QUESTIONS):
        if not waiting:
            return
        part = waiting.pop()
        try:
            tell(await ask(part))
        except Rejected as error:
            if (error.peer_code or "").rpartition(":")[2] != _TOO_MANY:
                raise
            newer, older = _halves(part, now) or _give_up(error)
            waiting += [older, newer]
    if waiting:
        _give_up(None)


def _halves(criteria: Criteria, now: dt.datetime) -> tuple[Criteria, Criteria] | None:
    start = criteria.created_from or _BEGINNING
    end = criteria.created_to or now + dt.timedelta(days=1)
    if end - start <= _SHORTEST:
        return None
    # The DMP knows whole seconds.
    middle = (start + (end - start) / 2).replace(microsecond=0)
    return _between(criteria, middle, criteria.created_to), _between(criteria, criteria.created_from, middle)


def _between(criteria: Criteria, start: dt.datetime | None, end: dt.datetime | None) -> Criteria:
    return Criteria(
        statuses=criteria.statuses,
        type_codes=criteria.type_codes,
        modalities=criteria.modalities,
        regions=criteria.regions,
        created_from=start,
        created_to=end,
    )


def _give_up(cause: Rejected | None) -> tuple[Criteria, Criteria]:
    raise Unavailable(
        "Le DMP tient trop de documents pour les donner tous : la liste n'est pas complète, précisez les critères",
        code="too-many-documents",
    ) from cause


def _statuses(filters: Filters) -> tuple[Status, ...]:
    return (*_SEARCHED, Status.DEPRECATED) if filters.replaced else _SEARCHED


def _since(filters: Filters) -> dt.datetime | None:
    return dt.datetime.combine(filters.first_day, dt.time(), PARIS) if filters.first_day else None


def _is_code(region: str) -> bool:
    """Callers name regions by code or by label; only codes can be asked of the DMP."""
    return region.isascii() and region.isdigit()
