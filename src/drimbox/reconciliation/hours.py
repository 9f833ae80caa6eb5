"""The hours in which walks rest, in Paris time: ``22:00-06:00``, ``lun-ven 07:30-19:00``, ``sam,dim 00:00-24:00``."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Misconfigured

_DAYS = ("lun", "mar", "mer", "jeu", "ven", "sam", "dim")
_TEXT = re.compile(r"(?:([a-z,-]+) +)?([0-2]?[0-9]):([0-5][0-9]) *- *([0-2]?[0-9]):([0-5][0-9])")
_DAY = dt.timedelta(days=1)
_WEEK = 7 * _DAY
# Ranges of one week, each a day long at the most, met one after the other: more than that is without end.
_LONGEST_CHAIN = 64
_LONGEST_FORECAST = 5_000  # weeks


@dataclass(frozen=True, slots=True)
class Range:
    """Every one of ``days`` (0 is Monday) from ``start`` on, for ``length``: over midnight too."""

    days: frozenset[int]
    start: dt.time
    length: dt.timedelta

    def around(self, local: dt.datetime) -> Iterator[tuple[dt.datetime, dt.datetime]]:
        """Its occurrences, as wall clocks show them, from the day before ``local`` to a week after it."""
        for day in range(-1, 8):
            date = local.date() + day * _DAY
            if date.weekday() in self.days:
                begin = dt.datetime.combine(date, self.start)
                yield begin, begin + self.length


def parse_range(text: str) -> Range:
    """One range. Raises ``Misconfigured`` (``hours``)."""
    found = _TEXT.fullmatch(text.strip().lower())
    if found is None:
        raise _mistake(text)
    days, *numbers = found.groups()
    from_hour, from_minute, to_hour, to_minute = map(int, numbers)
    start, end = from_hour * 60 + from_minute, to_hour * 60 + to_minute
    if start >= 24 * 60 or end > 24 * 60:
        raise _mistake(text)
    minutes = end - start if end > start else end - start + 24 * 60
    return Range(_days(days, text), dt.time(from_hour, from_minute), dt.timedelta(minutes=minutes))


def parse_ranges(texts: Sequence[str]) -> tuple[Range, ...]:
    """All of them. Raises ``Misconfigured`` (``hours``), also when they leave no hour of the week."""
    ranges = tuple(map(parse_range, texts))
    # Any instant will do: they come back every week.
    if resumes_at(dt.datetime(2026, 1, 5, tzinfo=dt.UTC), ranges) is None:
        raise Misconfigured("Les plages de suspension couvrent toute la semaine", code="hours")
    return ranges


def resumes_at(now: dt.datetime, ranges: Sequence[Range]) -> dt.datetime | None:
    """When work may go on: ``now`` itself outside of every range, else their end (UTC); None when there is none."""
    at = now
    for _ in range(_LONGEST_CHAIN):
        end = _end_of_rest(at, ranges)
        if end is None:
            return at
        at = end
    return None


def ends_at(now: dt.datetime, work: dt.timedelta, ranges: Sequence[Range]) -> dt.datetime | None:
    """When so much work will be done, begun now and left off in every range; None when that cannot be told."""
    week = _free(now, now + _WEEK, ranges)
    if not week:
        return None
    # Weeks that are filled whole are not gone through one by one.
    weeks = max(work // week - 1, 0)
    if weeks > _LONGEST_FORECAST:
        return None
    at, left = now + weeks * _WEEK, work - weeks * week
    while True:
        resumed = resumes_at(at, ranges)
        if resumed is None:
            return None
        rest = _next_rest(resumed, ranges)
        if rest is None or resumed + left <= rest:
            return resumed + left
        left -= rest - resumed
        at = rest


def _free(at: dt.datetime, end: dt.datetime, ranges: Sequence[Range]) -> dt.timedelta:
    """How much of that time is outside of every range."""
    free = dt.timedelta()
    while at < end:
        resumed = resumes_at(at, ranges)
        if resumed is None or resumed >= end:
            break
        at = min(_next_rest(resumed, ranges) or end, end)
        free += at - resumed
    return free


def _end_of_rest(at: dt.datetime, ranges: Sequence[Range]) -> dt.datetime | None:
    """The latest end of the ranges that ``at`` is in; None outside of them."""
    local = at.astimezone(PARIS).replace(tzinfo=None)
    ends = [end for one in ranges for begin, end in one.around(local) if begin <= local < end]
    return max(_instants(max(ends))) if ends else None


def _next_rest(at: dt.datetime, ranges: Sequence[Range]) -> dt.datetime | None:
    local = at.astimezone(PARIS).replace(tzinfo=None)
    begins = [min(_instants(begin)) for one in ranges for begin, _ in one.around(local)]
    return min((begin for begin in begins if begin > at), default=None)


def _instants(local: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """What that hour on the wall may mean: two instants on the nights when clocks are changed."""
    return tuple(local.replace(tzinfo=PARIS, fold=fold).astimezone(dt.UTC) for fold in (0, 1))  # type: ignore[return-value]


def _days(text: str | None, whole: str) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise _mistake(whole)
        day, end = _DAYS.index(first), _DAYS.index(last or first)
        found.add(day)
        while day != end:
            day = (day + 1) % 7
            found.add(day)
    return frozenset(found)


def _mistake(text: str) -> Misconfigured:
    return Misconfigured(
        f"Plage de suspension illisible : {text[:40]!r} (attendu : 22:00-06:00, ou lun-ven 07:30-19:00)", code="hours"
    )
