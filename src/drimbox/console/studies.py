"""The archived versions of the KOS, found by study, by accession number or by document; never by patient."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import LiteralString
from xml.sax.saxutils import escape as xml_escape

from drimbox.national.dmp.metadata.datatypes import escape
from drimbox.store.database import Pool

MAX_FOUND = 50
MAX_QUERY = 128


@dataclass(frozen=True, slots=True)
class Found:
    """A study of a structure. ``state`` is that of its newest version, empty when nothing was ever published."""

    structure: str
    study_uid: str
    versions: int
    state: str
    changed_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the KOS, without its octets and without the patient."""

    id: int
    structure: str
    kos_uid: str
    state: str
    document_ids: tuple[str, ...]
    pacs: str
    submission_uid: str
    entry_uuid: str | None
    replaces: int | None
    prepared_at: dt.datetime
    sent_at: dt.datetime | None
    confirmed_at: dt.datetime | None
    ended_at: dt.datetime | None


class Studies:
    """Reads ``publication``, ``report`` and ``incident``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def search(self, text: str) -> tuple[Found, ...]:
        """Studies that carry this study UID, KOS UID, report id or accession number; ``MAX_FOUND`` + 1 at the most.

        A study of which nothing was published is known by its study UID and its report ids alone.
        """
        text = text.strip()[:MAX_QUERY]
        if not text or "\x00" in text:
            return ()
        # An accession number stands in XML, its separators escaped by us (HL7), perhaps not by a former product.
        values = {
            "text": text,
            "written": xml_escape(text),
            "escaped": xml_escape(escape(text)),
            "limit": MAX_FOUND + 1,
        }
        async with self._pool.connection() as connection:
            published = await (await connection.execute(_PUBLISHED, values)).fetchall()
            others = await (await connection.execute(_NOT_PUBLISHED, values)).fetchall()
        found = [Found(**row) for row in published]
        known = {(f.structure, f.study_uid) for f in found}
        found += [
            Found(row["structure"], row["study_uid"], 0, "", None)
            for row in others
            if (row["structure"], row["study_uid"]) not in known
        ]
        return tuple(found[: MAX_FOUND + 1])

    async def versions(self, study_uid: str) -> tuple[Version, ...]:
        """Every version of a study, of all structures, newest first."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT id, structure, kos_uid, state, document_ids, pacs, submission_uid, entry_uuid, replaces, "
                    "prepared_at, sent_at, confirmed_at, ended_at FROM publication WHERE study_uid = %s "
                    "ORDER BY id DESC LIMIT 500",
                    (study_uid,),
                )
            ).fetchall()
        return tuple(Version(**{**row, "document_ids": tuple(row["document_ids"])}) for row in rows)

    async def structures(self, study_uid: str) -> tuple[str, ...]:
        """The structures that ever had to do with a study."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_STRUCTURES, {"study": study_uid})).fetchall()
        return tuple(row["structure"] for row in rows)


# The study of each version that matches in one way or another: each branch has its own index.
_PUBLISHED: LiteralString = """
SELECT structure, study_uid, count(*) AS versions, (array_agg(state ORDER BY id DESC))[1] AS state,
       max(greatest(prepared_at, sent_at, confirmed_at, ended_at)) AS changed_at
FROM publication
WHERE (structure, study_uid) IN (
    SELECT structure, study_uid FROM publication WHERE study_uid = %(text)s
    UNION SELECT structure, study_uid FROM publication WHERE kos_uid = %(text)s
    UNION SELECT structure, study_uid FROM publication WHERE document_ids @> ARRAY[%(text)s::text]
    UNION SELECT structure, study_uid FROM publication
          WHERE accessions_of(metadata) && ARRAY[
              encode(convert_to(%(written)s, 'UTF8'), 'escape'), encode(convert_to(%(escaped)s, 'UTF8'), 'escape')
          ]
)
GROUP BY structure, study_uid ORDER BY max(id) DESC LIMIT %(limit)s
"""

_NOT_PUBLISHED: LiteralString = """
SELECT DISTINCT structure, study_uid FROM incident WHERE study_uid = %(text)s
UNION SELECT structure, study_uid FROM reported_study WHERE study_uid = %(text)s
UNION SELECT structure, study_uid FROM reported_study WHERE documents @> ARRAY[%(text)s::text]
UNION SELECT incident.structure, incident.study_uid FROM report JOIN incident ON incident.report_id = report.id
      WHERE report.document_id = %(text)s AND incident.study_uid <> ''
LIMIT %(limit)s
"""

_STRUCTURES: LiteralString = """
SELECT structure FROM publication WHERE study_uid = %(study)s
UNION SELECT structure FROM reported_study WHERE study_uid = %(study)s
UNION SELECT structure FROM incident WHERE study_uid = %(study)s AND structure <> ''
ORDER BY structure
"""
