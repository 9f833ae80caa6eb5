"""The one way to tell the time. A clock is passed in, so that tests can hold it still."""

from __future__ import annotations

import datetime as dt
import time
from typing import Protocol
from zoneinfo import ZoneInfo

PARIS = ZoneInfo("Europe/Paris")


class Clock(Protocol):
    """Tells the instant and measures durations."""

    def now(self) -> dt.datetime:
        """The current instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that only go forward."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class FixedClock:
    """A clock for tests: stands still until it is moved."""

    def __init__(self, instant: dt.datetime) -> None:
        self._instant = instant.astimezone(dt.UTC)
        self._elapsed = 0.0

    def now(self) -> dt.datetime:
        return self._instant

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        self._instant += dt.timedelta(seconds=seconds)
        self._elapsed += seconds


def has_neighbours(instant: dt.datetime) -> bool:
    """Is it far enough from both ends of the calendar to be told in any time zone, with a year of four digits?"""
    return 1000 <= instant.year <= 9998


def hl7_timestamp(instant: dt.datetime) -> str:
    """``YYYYMMDDHHMMSS+ZZZZ`` in Paris time (HL7 v2 and CDA TS)."""
    return instant.astimezone(PARIS).strftime("%Y%m%d%H%M%S%z")


def utc_digits(instant: dt.datetime) -> str:
    """``YYYYMMDDHHMMSS`` in UTC: the DTM of XDS metadata (ITI TF-3 4.2.3.1.7)."""
    return instant.astimezone(dt.UTC).strftime("%Y%m%d%H%M%S")


def iso_utc(instant: dt.datetime) -> str:
    """``YYYY-MM-DDTHH:MM:SS.mmmZ``: xs:dateTime in UTC."""
    return instant.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"
