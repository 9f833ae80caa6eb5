"""Operating statistics (DB.SO.87): what was done in a period, as a table and as CSV. Nothing here names a patient."""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from drimbox.console.journal import day
from drimbox.console.web.desk import Visitor, desk_of, page
from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Refused
from drimbox.record import statistics
from drimbox.record.statistics import By, Counted, Measure
from drimbox.record.words import row

PLACE = "/statistiques"
_STEPS = {By.DAY: "jour", By.MONTH: "mois"}
_SHOWN = 600


@dataclass(frozen=True, slots=True)
class Period:
    """What is shown, as the address says it."""

    since: dt.date
    until: dt.date
    by: By

    def query(self) -> str:
        return urlencode({"du": self.since.isoformat(), "au": self.until.isoformat(), "par": self.by.value})


async def shown(request: Request, visitor: Visitor) -> Response:
    """The month under way, or the period asked for."""
    try:
        period = _period(request)
        counted = await _count(request, period)
    except Refused as error:
        period = _month(request)
        return _page(request, visitor, period, await _count(request, period), message=error.reason)
    return _page(request, visitor, period, counted)


async def download(request: Request, visitor: Visitor) -> Response:
    """The lines of the period as CSV."""
    period = _period(request)
    counted = await _count(request, period)

    async def rows() -> AsyncIterator[bytes]:
        yield b"\xef\xbb\xbf" + row(statistics.HEAD)
        for line in counted.lines:
            yield row(line.cells())

    return _csv(rows(), f"drimbox-statistiques-{period.since}-{period.until}.csv")


async def calls(request: Request, visitor: Visitor) -> Response:
    """Every contextual call of the period, a row each (decision 21)."""
    period = _period(request)
    found = statistics.calls(desk_of(request).acts.pool, period.since, period.until)

    async def rows() -> AsyncIterator[bytes]:
        yield b"\xef\xbb\xbf" + row(statistics.CALLS_HEAD)
        async for call in found:
            yield row(call.cells())

    return _csv(rows(), f"drimbox-appels-contextuels-{period.since}-{period.until}.csv")


def _page(request: Request, visitor: Visitor, period: Period, counted: Counted, message: str = "") -> Response:
    return page(
        request,
        "statistics.html",
        visitor=visitor,
        status=400 if message else 200,
        message=message,
        period=period,
        steps=_STEPS,
        totals=[(measure, tally) for measure, tally in counted.totals().items() if tally != statistics.Tally()],
        lines=counted.lines[:_SHOWN],
        left_out=max(0, len(counted.lines) - _SHOWN),
        since=counted.since,
        incomplete=counted.since is not None and counted.since.astimezone(PARIS).date() > period.since,
        labels=statistics.LABELS,
        with_calls=any(line.measure is Measure.CALLS for line in counted.lines),
    )


async def _count(request: Request, period: Period) -> Counted:
    return await statistics.count(desk_of(request).acts.pool, period.since, period.until, period.by)


def _period(request: Request) -> Period:
    given = request.query_params
    month = _month(request)
    by = given.get("par", "")
    return Period(
        day(given["du"]) if given.get("du") else month.since,
        day(given["au"]) if given.get("au") else month.until,
        By(by) if by in {step.value for step in By} else By.DAY,
    )


def _month(request: Request) -> Period:
    today = desk_of(request).clock.now().astimezone(PARIS).date()
    last = calendar.monthrange(today.year, today.month)[1]
    return Period(today.replace(day=1), today.replace(day=last), By.DAY)


def _csv(rows: AsyncIterator[bytes], name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)
