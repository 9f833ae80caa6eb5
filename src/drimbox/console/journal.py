"""What the pages of the audit journal and of the statistics stand on (DB.CS.08 to CS.10, DB.SO.87)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Authority, Ins
from drimbox.record.audit import Journal, Kind, Search
from drimbox.record.keeper import JournalKeeper

MAX_FIELD = 200
PAGE_EVENTS = 100


@dataclass(frozen=True, slots=True)
class JournalRoom:
    """``range`` is that of the INS of this box: ``test`` or ``production``."""

    journal: Journal
    keeper: JournalKeeper
    range: str

    @property
    def authorities(self) -> Mapping[str, str]:
        """The OIDs that an INS of this box may have, with their names."""
        return {a.oid: a.name.replace("_", " ") for a in Authority if a.range == self.range}


def wanted(fields: Mapping[str, str]) -> Search:
    """The search that a form, or a command line, asks for. Raises ``Refused`` with a reason that repeats nothing.

    ``fields``: ``matricule`` and ``oid``, ``personne``, ``identifiant``, ``nature`` (name of a ``Kind``), ``du`` and
    ``au`` (days of Paris, both included), ``travail``, ``avant`` (an id to go on from).
    """
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    if any(len(value) > MAX_FIELD or not value.isprintable() for value in given.values()):
        raise Refused(f"Critère illisible ou de plus de {MAX_FIELD} caractères", code="journal-search")
    matricule = given.get("matricule", "").replace(" ", "")
    return Search(
        patient=Ins.of(matricule, given.get("oid", "")) if matricule else None,
        person=given.get("personne", ""),
        identifier=given.get("identifiant", ""),
        kind=_kind(given.get("nature", "")),
        correlation=given.get("travail", ""),
        since=_midnight(given.get("du", "")),
        until=_midnight(given.get("au", ""), after=True),
        before=_number(given.get("avant", "")),
        limit=PAGE_EVENTS + 1,
    )


def day(text: str) -> dt.date:
    """``2026-07-14``. Raises ``Refused`` (``journal-search``)."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise Refused("Date attendue sous la forme AAAA-MM-JJ", code="journal-search") from None


def _midnight(text: str, *, after: bool = False) -> dt.datetime | None:
    """The beginning of a day of Paris, or its end; years that no journal has are refused."""
    if not text:
        return None
    found = day(text)
    if not 2000 <= found.year <= 2200:
        raise Refused("Année hors du journal", code="journal-search")
    return dt.datetime.combine(found + dt.timedelta(days=after), dt.time(), PARIS)


def _kind(name: str) -> Kind | None:
    try:
        return Kind[name] if name else None
    except KeyError:
        raise Refused("Nature de trace inconnue", code="journal-search") from None


def _number(text: str) -> int | None:
    if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refused("Page inconnue", code="journal-search")
    return int(text) if text else None
