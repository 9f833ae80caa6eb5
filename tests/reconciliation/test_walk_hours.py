"""The hours in which walks rest: every way to write them, over midnight, on the nights when clocks change."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Misconfigured
from drimbox.reconciliation.hours import Range, ends_at, parse_range, parse_ranges, resumes_at


def paris(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=PARIS).astimezone(dt.UTC)


# 14 July 2026 is a Tuesday.
@pytest.mark.requirement("DB.SO.28")
@pytest.mark.parametrize(
    ("ranges", "now", "resumes"),
    [
        ([], "2026-07-14 10:00", "2026-07-14 10:00"),
        (["22:00-06:00"], "2026-07-14 21:59", "2026-07-14 21:59"),
        (["22:00-06:00"], "2026-07-14 22:00", "2026-07-15 06:00"),
        (["22:00-06:00"], "2026-07-15 05:59", "2026-07-15 06:00"),
        (["22:00-06:00"], "2026-07-15 06:00", "2026-07-15 06:00"),
        (["lun-ven 07:30-19:00"], "2026-07-14 12:00", "2026-07-14 19:00"),
        (["lun-ven 07:30-19:00"], "2026-07-18 12:00", "2026-07-18 12:00"),
        # The night that begins on Friday ends on Saturday.
        (["ven 20:00-08:00"], "2026-07-18 03:00", "2026-07-18 08:00"),
        (["ven 20:00-08:00"], "2026-07-17 03:00", "2026-07-17 03:00"),
        # Over the end of the week; several that follow one another.
        (["sam-lun 08:00-12:00", "dim 12:00-18:00"], "2026-07-19 09:00", "2026-07-19 18:00"),
        (["sam,dim 00:00-24:00"], "2026-07-18 10:00", "2026-07-20 00:00"),
        (["08:00-08:00", "08:00-09:00"], "2026-07-18 10:00", None),
        # Clocks are put forward on 29 March 2026 and back on 25 October.
        (["01:00-04:00"], "2026-03-29 01:30", "2026-03-29 04:00"),
        (["01:00-04:00"], "2026-10-25 01:30", "2026-10-25 04:00"),
    ],
)
def test_when_a_walk_rests(ranges: list[str], now: str, resumes: str | None) -> None:
    found = resumes_at(paris(now), [parse_range(r) for r in ranges])
    assert found == (paris(resumes) if resumes else None)


@pytest.mark.parametrize(
    "text",
    ["", "8h-9h", "08:00", "25:00-26:00", "08:00-24:01", "24:00-08:00", "08:60-09:00", "mon 08:00-09:00", "lun-", "é"],
)
def test_ranges_that_mean_nothing(text: str) -> None:
    with pytest.raises(Misconfigured) as error:
        parse_range(text)
    assert error.value.code == "hours"


def test_ranges_that_leave_no_hour() -> None:
    for texts in (["00:00-24:00"], ["08:00-20:00", "20:00-08:00"], ["lun-ven 00:00-24:00", "sam,dim 00:00-00:00"]):
        with pytest.raises(Misconfigured, match="toute la semaine"):
            parse_ranges(texts)
    assert len(parse_ranges(["08:00-20:00", "20:00-07:59"])) == 2


@pytest.mark.parametrize(
    ("ranges", "now", "hours", "end"),
    [
        ([], "2026-07-14 10:00", 5, "2026-07-14 15:00"),
        (["lun-ven 08:00-20:00"], "2026-07-14 19:00", 5, "2026-07-15 01:00"),
        (["lun-ven 08:00-20:00"], "2026-07-14 10:00", 13, "2026-07-15 21:00"),
        (["lun-ven 08:00-20:00"], "2026-07-17 07:00", 10, "2026-07-18 05:00"),
        # 100 hours of work, 12 each weekday night, from Tuesday evening: the weekend counts whole.
        (["lun-ven 08:00-20:00"], "2026-07-14 20:00", 100, "2026-07-21 00:00"),
    ],
)
def test_when_so_much_work_will_be_done(ranges: list[str], now: str, hours: int, end: str) -> None:
    assert ends_at(paris(now), dt.timedelta(hours=hours), [parse_range(r) for r in ranges]) == paris(end)


_TIMES = st.builds("{:02d}:{:02d}-{:02d}:{:02d}".format, *[st.integers(0, n) for n in (23, 59, 23, 59)])
_DAYS = st.sampled_from(["", "lun ", "mar-jeu ", "ven-lun ", "sam,dim ", "mer,ven-sam "])
_RANGES = st.lists(st.builds(lambda d, t: parse_range(d + t), _DAYS, _TIMES), max_size=4)
_INSTANTS = st.integers(0, 2 * 365 * 1440).map(lambda m: paris("2026-01-01 00:00") + dt.timedelta(minutes=m))


def rests(at: dt.datetime, ranges: list[Range]) -> bool:
    """Written again: the wall clock, today's ranges and yesterday's."""
    local = at.astimezone(PARIS).replace(tzinfo=None)
    for one in ranges:
        for days in (0, 1):
            date = local.date() - dt.timedelta(days=days)
            begin = dt.datetime.combine(date, one.start)
            if date.weekday() in one.days and begin <= local < begin + one.length:
                return True
    return False


@given(_RANGES, _INSTANTS)
def test_the_end_of_a_rest_is_the_first_instant_that_is_not_one(ranges: list[Range], now: dt.datetime) -> None:
    end = resumes_at(now, ranges)
    if end is None:
        week = (now + dt.timedelta(minutes=m) for m in range(0, 7 * 1440, 7))
        assert all(rests(at, ranges) for at in week)
        return
    assert end >= now
    assert not rests(end, ranges)
    assert (end == now) == (not rests(now, ranges))
    # On the nights when clocks change, an hour on the wall comes twice or never: resting longer does no harm.
    if end > now and end.astimezone(PARIS).utcoffset() == now.astimezone(PARIS).utcoffset():
        assert rests(end - dt.timedelta(seconds=1), ranges)


@given(_RANGES, _INSTANTS, st.integers(0, 200))
def test_a_forecast_leaves_just_the_work_outside_of_the_rests(
    ranges: list[Range], now: dt.datetime, hours: int
) -> None:
    end = ends_at(now, dt.timedelta(hours=hours), ranges)
    if end is None:
        assert resumes_at(now, ranges) is None
        return
    assert end - now >= dt.timedelta(hours=hours)
    if not ranges:
        assert end - now == dt.timedelta(hours=hours)
