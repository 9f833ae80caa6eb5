"""What an import is: who asked for which images, for which target, and how far it has come. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from drimbox.identity.ins import Ins
from drimbox.record.audit import Actor


class State(StrEnum):
    """Where an import stands. The first four go on by themselves; ``LOGIN`` once its user is logged in again."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    LOGIN = "login"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (State.QUEUED, State.RUNNING, State.WAITING, State.LOGIN)


class Fate(StrEnum):
    """Where one instance stands. ``PRESENT``: the target had it before; ``FOUND``: stored, and found again there."""

    WAITING = "waiting"
    STORED = "stored"
    FOUND = "found"
    PRESENT = "present"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ImportedPatient:
    """Whose images these are: what they are checked by, and what they are given.

    ``label`` names the patient on the page of imports. ``accession``: None keeps the source's number. ``traits`` are
    those of the call, as ``means.Differing`` reads them; ``decided``: the user goes on although images name the
    patient otherwise.
    """

    ins: Ins
    local_id: str
    issuer: str
    issuer_name: str
    label: str
    accession: str | None = None
    accession_issuer: str = ""
    traits: Mapping[str, str] = field(default_factory=dict)
    decided: bool = False

    def __repr__(self) -> str:
        return "ImportedPatient(…)"


@dataclass(frozen=True, slots=True)
class WantedInstance:
    """One instance as the KOS lists it."""

    sop_instance_uid: str
    sop_class_uid: str


@dataclass(frozen=True, slots=True)
class WantedSeries:
    """One series of an import, with where the KOS says that it is."""

    series_uid: str
    retrieve_url: str
    number: int | None
    modality: str
    description: str
    instances: tuple[WantedInstance, ...]


@dataclass(frozen=True, slots=True)
class NewImport:
    """An import that is asked for. ``stored_as`` is the Study Instance UID that it takes at the target."""

    person: str
    actor: Actor
    structure: str
    target: str
    study_uid: str
    stored_as: str
    kos_uid: str
    title: str
    study_date: str
    patient: ImportedPatient
    series: tuple[WantedSeries, ...]

    def __repr__(self) -> str:
        return f"NewImport({self.study_uid}, {self.target})"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many instances stand where; ``fetched`` are on our disk or beyond."""

    total: int
    fetched: int
    stored: int
    found: int
    refused: int

    @property
    def done(self) -> int:
        """Those that the target has."""
        return self.stored + self.found


@dataclass(frozen=True, slots=True)
class Import:
    """An import as the ledger has it. ``reason`` says in French what it waits for, or how it ended."""

    id: int
    asked_at: dt.datetime
    person: str
    actor: Actor
    structure: str
    target: str
    study_uid: str
    stored_as: str
    kos_uid: str
    title: str
    study_date: str
    patient: ImportedPatient
    state: State
    code: str
    reason: str
    tries: int
    due_at: dt.datetime
    verified: bool
    cancelled: bool
    counts: Counts
    ended_at: dt.datetime | None = None

    @property
    def open(self) -> bool:
        """Is there still something to come?"""
        return self.state in OPEN

    @property
    def percent(self) -> int:
        """How far it has come: fetching counts for one half, storing for the other; once over, what is stored."""
        counts = self.counts
        if not counts.total:
            return 100
        if not self.open:
            # A full bar would say that nothing is missing.
            return 100 * counts.done // counts.total
        over = counts.done + counts.refused
        return min(100, 50 * (max(counts.fetched, over) + over) // counts.total)

    def __repr__(self) -> str:
        return f"Import({self.id}, {self.state.value})"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of an import as the ledger has it."""

    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    fate: Fate
    status: int | None = None
    code: str = ""
    detail: str = ""
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a turn learnt of one instance."""

    sop_instance_uid: str
    fate: Fate
    status: int | None = None
    code: str = ""
    detail: str = ""


def told(found: Import) -> str:
    """How an import stands, as its user reads it."""
    counts = found.counts
    whole = f"{grouped(counts.done)} sur {grouped(counts.total)}"
    agreed = "s" if counts.done > 1 else ""
    if found.state is State.DONE:
        return f"{whole} enregistrée{agreed} et retrouvée{agreed}" if found.verified else f"{whole} enregistrée{agreed}"
    if found.state is State.PARTIAL:
        again = f" et retrouvée{agreed}" if found.verified and counts.done else ""
        return f"Import partiel : {whole} enregistrée{agreed}{again}"
    if found.state is State.FAILED:
        return f"Import impossible : {whole} enregistrée{agreed}"
    if found.state is State.CANCELLED:
        return f"Import annulé : {whole} enregistrée{agreed}"
    return f"{whole} enregistrée{agreed}, {grouped(counts.fetched)} reçue{'s' if counts.fetched > 1 else ''}"


def grouped(number: int) -> str:
    """A number as it is written in French: thousands apart."""
    return f"{number:,}".replace(",", "\u202f")


def reasons(instances: Sequence[Instance]) -> tuple[tuple[str, int], ...]:
    """Why instances are not there, most frequent first, in the target's or the source's own words."""
    counted: dict[str, int] = {}
    for each in instances:
        if each.fate is not Fate.REFUSED:
            continue
        status = f" (statut {each.status:04X}H)" if each.status is not None else ""
        text = f"{each.detail or each.code or 'refusée'}{status}"
        counted[text] = counted.get(text, 0) + 1
    return tuple(sorted(counted.items(), key=lambda pair: -pair[1]))
