"""What a walk is, what it meets and what it finds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from drimbox.foundation.errors import Refused


class Kind(StrEnum):
    """What a walk is for."""

    RECONCILIATION = "reconciliation"  # DB.SO.28
    ADDRESS = "address"  # DB.SO.31


class Mode(StrEnum):
    """What a walk does about a study that is not as it should be."""

    REPAIR = "repair"
    REPORT = "report"


class State(StrEnum):
    """Where a walk stands."""

    RUNNING = "running"
    PAUSED = "paused"  # by the administrator
    DONE = "done"
    STOPPED = "stopped"  # by the administrator, for good


ACTIVE = (State.RUNNING, State.PAUSED)


class Finding(StrEnum):
    """What was found out about a study, or done about it."""

    # Compared only.
    GONE = "gone"
    BACK = "back"
    CONTENT = "content"
    PATIENT = "patient"
    MISSING = "missing"
    SEVERAL = "several"
    VISIBILITY = "visibility"
    PACS_REFUSES = "pacs-refuses"
    DMP_REFUSES = "dmp-refuses"
    UNUSABLE = "unusable"
    # Repaired.
    REPLACED = "replaced"
    DEPUBLISHED = "depublished"
    PUBLISHED = "published"
    STOPPED = "stopped"
    LEFT = "left"
    # In both.
    DEFECT = "defect"


class WalkRefused(Refused):
    """What was asked of a walk cannot be done now."""

    def __init__(self, reason: str, code: str = "walk-impossible") -> None:
        super().__init__(reason, code=code)


@dataclass(frozen=True, slots=True)
class Walk:
    """One walk. ``rate`` is in studies a minute; ``busy`` counts the seconds that it really walked; ``note`` says what
    it waits for, in French, empty when it goes on."""

    id: int
    kind: Kind
    mode: Mode
    state: State
    rate: int
    base: str
    started_at: dt.datetime
    ended_at: dt.datetime | None
    started_by: str
    total: int
    done: int
    position: int
    last: int
    findings: Mapping[str, int]
    note: str
    stepped_at: dt.datetime | None
    busy: float

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def left(self) -> int:
        """Studies still to be seen; some may have changed by themselves meanwhile, and are not met any more."""
        return max(self.total - self.done, 0) if self.active else 0

    @property
    def pace(self) -> float:
        """Seconds for one study: as it went so far, or as the rate promises."""
        promised = 60 / self.rate
        return max(self.busy / self.done, promised) if self.done >= 20 else promised


@dataclass(frozen=True, slots=True)
class Target:
    """One study to look at: the newest version of a structure's KOS of it. ``was`` is the state of that version."""

    position: int
    structure: str
    study_uid: str
    was: str


@dataclass(frozen=True, slots=True)
class Found:
    """One line of what a walk found. ``detail`` is a code or a few words, never health data."""

    position: int
    structure: str
    study_uid: str
    kind: str
    at: dt.datetime
    detail: str


def walk_of(row: Mapping[str, Any]) -> Walk:
    return Walk(**{**row, "kind": Kind(row["kind"]), "mode": Mode(row["mode"]), "state": State(row["state"])})
