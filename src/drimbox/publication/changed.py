"""What others than reports said of a study: instances that notes rejected (IOCM), a deletion (OMI^O23).

Instances rejected as expired (113039) come back when the PACS, which was to delete them, lists them anew: they are
released as soon as it lists them no longer. All others stay out for good (standards.md B.1).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass, replace

from drimbox.identity.ins import Ins
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION, REJECTIONS, without
from drimbox.pacs.study import Study
from drimbox.publication.finding import Found
from drimbox.store.database import Pool

EXPIRED = "113039"


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A study declared deleted; ``ins`` is the patient that the message named, None when it named none."""

    ins: Ins | None = None

    def is_of(self, ins: Ins) -> bool:
        """Does it concern a study of that patient? A message that names no patient goes by the study's UID alone."""
        return self.ins is None or self.ins == ins


@dataclass(frozen=True, slots=True)
class Said:
    """What was said of a study.

    ``out`` are the SOP Instance UIDs that no KOS lists: rejected instances, and the rejection notes themselves;
    ``expired`` those of them that are to be released. ``withdrawn_by`` is the message that declared the study deleted,
    0 when it is not known any more; ``withdrawn`` whether one did.
    """

    out: frozenset[str] = frozenset()
    expired: frozenset[str] = frozenset()
    withdrawn: bool = False
    withdrawn_by: int = 0


class ChangedStudies:
    """The tables ``change_note``, ``rejected_instance`` and ``withdrawn_study``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of(self, study_uid: str, *, since_report: int | None = None) -> Said:
        """What holds now. With ``since_report``, a deletion counts only when it was declared after that report came."""
        values = {"study": study_uid, "report": since_report, "codes": sorted(REJECTIONS), "expired": EXPIRED}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_SAID, values)).fetchone()
        assert row is not None
        rejected, notes = row["rejected"] or (), row["notes"] or ()
        return Said(
            frozenset((*rejected, *notes)),
            frozenset(row["expired"] or ()),
            row["withdrawn"],
            row["withdrawn_by"] or 0,
        )

    async def release(self, study_uid: str, instances: Collection[str], now: dt.datetime) -> None:
        """The PACS no longer lists these expired instances: if they come again, they are accepted again."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE rejected_instance SET released_at = %s WHERE study_uid = %s AND title = %s "
                "AND released_at IS NULL AND sop_instance_uid = ANY (%s)",
                (now, study_uid, EXPIRED, list(instances)),
            )


def expired_and_gone(said: Said, study: Study | None) -> frozenset[str]:
    """The expired instances that the PACS, which was asked successfully, does not list any more."""
    if study is None:
        return said.expired
    return said.expired - {i.sop_instance_uid for s in study.series for i in s.instances}


def admitted(said: Said, found: Found) -> Found:
    """A study as the PACS lists it, without what was rejected."""
    notes = tuple(note for note in found.notes if note.sop_uid not in said.out)
    return replace(found, study=without(found.study, said.out), notes=notes)


def has_images(study: Study) -> bool:
    """Does it hold anything but Key Object Selections, which only point at images?"""
    return any(i.sop_class_uid != KEY_OBJECT_SELECTION for s in study.series for i in s.instances)


_SAID = """
SELECT
    (SELECT array_agg(DISTINCT sop_instance_uid) FROM rejected_instance
     WHERE study_uid = %(study)s AND released_at IS NULL) AS rejected,
    (SELECT array_agg(DISTINCT sop_instance_uid) FROM rejected_instance
     WHERE study_uid = %(study)s AND released_at IS NULL AND title = %(expired)s) AS expired,
    (SELECT array_agg(sop_instance_uid) FROM change_note
     WHERE study_uid = %(study)s AND title = ANY (%(codes)s)) AS notes,
    w.study_uid IS NOT NULL AS withdrawn,
    w.message_id AS withdrawn_by
FROM (SELECT 1) AS one LEFT JOIN withdrawn_study w ON w.study_uid = %(study)s
    AND (%(report)s::bigint IS NULL OR NOT EXISTS (
        SELECT 1 FROM report r WHERE r.id = %(report)s
        AND coalesce(w.message_id < r.message_id, w.withdrawn_at < r.received_at)))
"""
