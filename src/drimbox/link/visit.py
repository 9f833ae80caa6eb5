"""Who looks at what through the link in a report, once the door has opened."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from drimbox.identity.ins import Ins


class Visitor(StrEnum):
    """What the visitor said to be, and proved."""

    PATIENT = "patient"
    PROFESSIONAL = "professional"


@dataclass(frozen=True, slots=True)
class Who:
    """The person behind a visit: a professional has a name and a number (RPPS), a patient has none."""

    visitor: Visitor
    since: dt.datetime
    name: str = ""
    number: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """One open door: one visitor, one study of one patient, read only.

    ``key`` names it in paths; it opens nothing alone.
    """

    key: str
    who: Who
    ins: Ins
    study_uid: str
    kos_uid: str
    series_uid: str | None
