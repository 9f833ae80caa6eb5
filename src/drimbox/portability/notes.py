"""What drimbox keeps of a version and XDM has no place for, as slots of its own in METADATA.XML.

``pacs`` the PACS that holds the study; ``times`` when it was prepared, sent, confirmed, ended; ``fingerprint`` what its
metadata say, in one word; ``replaces`` the KOS before it; ``identity`` who acted; ``reports`` its CR files, oldest
first; ``standing`` those of the reports that stand now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Slots = Mapping[str, tuple[str, ...]]

TIMES: Final = ("prepared", "sent", "confirmed", "ended")
YEARS: Final = (1990, 2200)
"""Other dates are mistakes, and some of them no database keeps."""

_MAX_INSTANT = 40


@dataclass(frozen=True, slots=True)
class Times:
    """When a version was prepared, given to the DMP, confirmed by it, and ended."""

    prepared: dt.datetime
    sent: dt.datetime | None
    confirmed: dt.datetime | None
    ended: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of one version; empty, or None, where an archive says nothing."""

    pacs: str = ""
    times: Times | None = None
    fingerprint: str = ""
    replaces: str = ""
    identity: Sequence[str] = ()
    reports: Sequence[str] = ()
    standing: Sequence[str] | None = None


def to_slots(notes: Notes) -> Slots:
    """The notes as values of slots."""
    times = notes.times
    written = {
        "pacs": (notes.pacs,),
        "times": tuple(f"{n}={t.isoformat()}" for n in TIMES if times and (t := getattr(times, n)) is not None),
        "fingerprint": (notes.fingerprint,),
        "replaces": (notes.replaces,),
        "identity": tuple(notes.identity),
        "reports": tuple(notes.reports),
        # A slot has a value: a study on which no report stands says so in a word.
        "standing": () if notes.standing is None else tuple(notes.standing) or ("none",),
    }
    return {name: values for name, values in written.items() if any(values)}


def from_slots(slots: Slots) -> Notes:
    """The notes of an archive. What is not understood is as if it were not there."""
    standing = slots.get("standing")
    return Notes(
        pacs=_first(slots, "pacs"),
        times=_times(slots.get("times", ())),
        fingerprint=_first(slots, "fingerprint"),
        replaces=_first(slots, "replaces"),
        identity=slots.get("identity", ()),
        reports=slots.get("reports", ()),
        standing=None if standing is None else tuple(name for name in standing if name != "none"),
    )


def _first(slots: Slots, name: str) -> str:
    return next(iter(slots.get(name, ())), "")


def _times(values: Sequence[str]) -> Times | None:
    told = {name: _instant(text) for name, _, text in (value.partition("=") for value in values)}
    prepared = told.get("prepared")
    if prepared is None:
        return None
    return Times(prepared, told.get("sent"), told.get("confirmed"), told.get("ended"))


def _instant(text: str) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(text) if len(text) < _MAX_INSTANT else None
        found = found.astimezone(dt.UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
    return found if found is not None and YEARS[0] <= found.year <= YEARS[1] else None
