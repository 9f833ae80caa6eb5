"""Operating statistics, counted from the audit journal (DB.SO.87): what was done, for whom, how it ended, how much.

Table 8 of the specification is not public: what it asks for is counted here as far as it can be deduced
(rem-source.md 9). Days and months are those of Paris. What the retention removed from the journal is not counted;
``Counted.since`` says from when the journal knows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, LiteralString

from drimbox.foundation.clock import PARIS
from drimbox.foundation.errors import Refused
from drimbox.record.audit import Kind, Outcome
from drimbox.store.database import Pool


class By(StrEnum):
    """What a line covers."""

    DAY = "day"
    MONTH = "month"


class Measure(StrEnum):
    """What is counted."""

    REPORTS = "reports"
    ORDERS = "orders"
    NOTES = "notes"
    PUBLISHED = "kos-published"
    REPLACED = "kos-replaced"
    DEPUBLISHED = "kos-depublished"
    SERVED = "images-served"
    CALLS = "contextual-calls"
    SEARCHES = "dmp-searches"
    CHECKS = "dmp-access-checks"
    DOCUMENTS = "documents-read"
    FETCHED = "images-fetched"
    VIEWED = "images-viewed"
    IMPORTED = "images-imported"
    EXPORTED = "images-exported"
    LOGINS = "logins"


LABELS: Mapping[Measure, str] = {
    Measure.REPORTS: "Comptes rendus reçus",
    Measure.ORDERS: "Messages sur un examen reçus (OMI)",
    Measure.NOTES: "Notes du PACS reçues (IOCM)",
    Measure.PUBLISHED: "KOS publiés",
    Measure.REPLACED: "KOS remplacés",
    Measure.DEPUBLISHED: "KOS dépubliés",
    Measure.SERVED: "Demandes d'images",
    Measure.CALLS: "Appels contextuels",
    Measure.SEARCHES: "Recherches au DMP",
    Measure.CHECKS: "Vérifications d'autorisation au DMP",
    Measure.DOCUMENTS: "Documents du DMP lus",
    Measure.FETCHED: "Séries d'images reçues d'autres sources",
    Measure.VIEWED: "Consultations d'images",
    Measure.IMPORTED: "Imports d'images au PACS",
    Measure.EXPORTED: "Exports d'images (ZIP, PDI)",
    Measure.LOGINS: "Connexions",
}
HEAD = ("debut", "fin", "structure", "mesure", "libelle", "reussites", "echecs", "images", "kilo_octets")
CALLS_HEAD = ("Date", "Heure", "Structure", "Nombre_Appel", "Statut_Appel")
MOST_DAYS = 366 * 10

_MEASURES: Mapping[Kind, Measure] = {
    Kind.REPORT_RECEIVED: Measure.REPORTS,
    Kind.MDM_RECEIVED: Measure.REPORTS,
    Kind.ORDER_RECEIVED: Measure.ORDERS,
    Kind.NOTE_RECEIVED: Measure.NOTES,
    Kind.KOS_PUBLISHED: Measure.PUBLISHED,
    Kind.KOS_DEPUBLISHED: Measure.DEPUBLISHED,
    Kind.IMAGES_SERVED: Measure.SERVED,
    # An access that is refused is told by the reason of the refusal.
    Kind.TOKEN_REFUSED: Measure.SERVED,
    Kind.NODE_REFUSED: Measure.SERVED,
    Kind.CONTEXTUAL_CALL: Measure.CALLS,
    Kind.DMP_QUERIED: Measure.SEARCHES,
    Kind.DMP_ACCESS_CHECKED: Measure.CHECKS,
    Kind.DOCUMENT_RETRIEVED: Measure.DOCUMENTS,
    Kind.IMAGES_FETCHED: Measure.FETCHED,
    Kind.IMAGES_VIEWED: Measure.VIEWED,
    Kind.IMAGES_IMPORTED: Measure.IMPORTED,
    Kind.IMAGES_EXPORTED: Measure.EXPORTED,
    Kind.LOGIN: Measure.LOGINS,
}


@dataclass(frozen=True, slots=True)
class Tally:
    """How often, how it ended; ``images`` and ``octets`` where the measure has some."""

    successes: int = 0
    failures: int = 0
    images: int = 0
    octets: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.successes + other.successes,
            self.failures + other.failures,
            self.images + other.images,
            self.octets + other.octets,
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One measure of one structure (empty: of none) in the day or month that begins at ``start``."""

    start: dt.date
    end: dt.date
    structure: str
    measure: Measure
    tally: Tally

    def cells(self) -> tuple[str, ...]:
        """The line as a row of a table, under ``HEAD``."""
        told = self.tally
        what = (self.start.isoformat(), self.end.isoformat(), self.structure, self.measure.value, LABELS[self.measure])
        return (*what, *map(str, (told.successes, told.failures, told.images, round(told.octets / 1000))))


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted. ``since`` is the oldest event that the journal still has, none when it is empty."""

    lines: tuple[Line, ...]
    since: dt.datetime | None

    def totals(self) -> Mapping[Measure, Tally]:
        """The whole period, every structure; each measure in its order."""
        found = {measure: Tally() for measure in Measure}
        for line in self.lines:
            found[line.measure] += line.tally
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """One contextual call (decision 21)."""

    at: dt.datetime
    structure: str
    well: bool

    def cells(self) -> tuple[str, ...]:
        """The call as a row of a table, under ``CALLS_HEAD``."""
        at = self.at.astimezone(PARIS)
        return (f"{at:%d/%m/%Y}", f"{at:%H:%M:%S}", self.structure, "1", "succes" if self.well else "erreur")


async def count(pool: Pool, since: dt.date, until: dt.date, by: By) -> Counted:
    """Everything from one day to another, that one included. Raises ``Refused`` (``statistics-period``)."""
    _check(since, until)
    values = {"since": since, "until": until, "by": by.value, "events": sorted({kind.code for kind in _MEASURES})}
    async with pool.connection() as connection:
        rows = await (await connection.execute(_COUNT, values)).fetchall()
        oldest = await (await connection.execute("SELECT min(at) AS at FROM audit")).fetchone()
    kinds = {(kind.code, kind.action.value): kind for kind in Kind}
    found: dict[tuple[dt.date, str, Measure], Tally] = {}
    for row in rows:
        measure = _MEASURES.get(kinds[row["event"], row["action"]])
        if measure is None:
            continue
        if row["replaced"]:
            measure = Measure.REPLACED
        place = (row["start"], row["structure"], measure)
        tally = Tally(row["successes"], row["failures"], int(row["images"]), int(row["octets"]))
        found[place] = found.get(place, Tally()) + tally
    order = {measure: place for place, measure in enumerate(Measure)}
    lines = [
        Line(start, _end(start, by), structure, measure, tally) for (start, structure, measure), tally in found.items()
    ]
    lines.sort(key=lambda line: (line.start, line.structure, order[line.measure]))
    return Counted(tuple(lines), oldest["at"] if oldest else None)


def calls(pool: Pool, since: dt.date, until: dt.date) -> AsyncIterator[Call]:
    """Every contextual call of the period, oldest first. Raises ``Refused`` (``statistics-period``), at once."""
    _check(since, until)
    return _all_calls(pool, since, until)


async def _all_calls(pool: Pool, since: dt.date, until: dt.date) -> AsyncIterator[Call]:
    after = 0
    while rows := await _calls(pool, since, until, after):
        for row in rows:
            yield Call(row["at"], row["structure"], row["outcome"] == Outcome.SUCCESS)
        after = rows[-1]["id"]


async def _calls(pool: Pool, since: dt.date, until: dt.date, after: int) -> Sequence[dict[str, Any]]:
    values = {"since": since, "until": until, "event": Kind.CONTEXTUAL_CALL.code, "after": after}
    async with pool.connection() as connection:
        return await (await connection.execute(_CALLS, values)).fetchall()


def _check(since: dt.date, until: dt.date) -> None:
    if not dt.timedelta() <= until - since <= dt.timedelta(days=MOST_DAYS):
        raise Refused("La période va d'un jour à un autre, plus tard, dix ans au plus", code="statistics-period")


def _end(start: dt.date, by: By) -> dt.date:
    if by is By.DAY:
        return start
    following = (start.replace(day=28) + dt.timedelta(days=4)).replace(day=1)
    return following - dt.timedelta(days=1)


_PERIOD = """
at >= %(since)s::date::timestamp AT TIME ZONE 'Europe/Paris'
AND at < (%(until)s::date + 1)::timestamp AT TIME ZONE 'Europe/Paris'
"""

# Whoever serves images tells "12 images, 6291456 octets, ..." of the study, whoever receives them "12/12" of a series.
# A KOS that took the place of another is known by the archive.
_COUNT: LiteralString = f"""
SELECT start, structure, event, action, replaced, count(*) FILTER (WHERE well) AS successes,
    count(*) FILTER (WHERE NOT well) AS failures, coalesce(sum(images), 0) AS images, coalesce(sum(octets), 0) AS octets
FROM (
    SELECT date_trunc(%(by)s, at AT TIME ZONE 'Europe/Paris')::date AS start, structure, event, action,
        outcome = 0 AS well,
        event = '110106/ITI-41' AND EXISTS (
            SELECT 1 FROM jsonb_array_elements(objects) AS one JOIN publication AS kos
            ON kos.kos_uid = one ->> 'identifier' WHERE one ->> 'thing' = 'kos' AND kos.replaces IS NOT NULL
        ) AS replaced,
        CASE WHEN event IN ('110104/RAD-107', '110107/C-STORE') THEN (
            SELECT sum(coalesce(substring(one ->> 'detail' FROM '^([0-9]{{1,9}}) images, '),
                substring(one ->> 'detail' FROM '^([0-9]{{1,9}})/[0-9]+'))::bigint)
            FROM jsonb_array_elements(objects) AS one
        ) END AS images,
        CASE WHEN event = '110104/RAD-107' THEN (
            SELECT sum(substring(one ->> 'detail' FROM '^[0-9]+ images, ([0-9]{{1,15}}) octets')::bigint)
            FROM jsonb_array_elements(objects) AS one
        ) END AS octets
    FROM audit WHERE {_PERIOD} AND event = ANY (%(events)s)
) AS events
GROUP BY start, structure, event, action, replaced
"""  # noqa: S608 - our own text

_CALLS: LiteralString = f"""
SELECT id, at, structure, outcome FROM audit WHERE event = %(event)s AND id > %(after)s AND {_PERIOD}
ORDER BY id LIMIT 1000
"""  # noqa: S608 - our own text
