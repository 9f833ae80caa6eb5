"""Keeps a note with its effects: what it rejects, and the work on its studies. In the caller's transaction."""

from __future__ import annotations

from enum import Enum

from drimbox.changes.decide import Change, decide
from drimbox.foundation.errors import Refused
from drimbox.pacs.keynotes import read_note
from drimbox.publication.triggers import Cause, defer_resync
from drimbox.store.database import Connection


class Kept(Enum):
    """What became of a note. ``AGAIN``: it was there already, and had its effects then."""

    NEW = "new"
    AGAIN = "again"
    CONFLICT = "conflict"


async def keep(connection: Connection, change: Change, *, caller: str, file: bytes) -> Kept:
    """Store one note; ``file`` is the whole Part 10 object, ``caller`` the AE title that sent it.

    A note of a UID that is known, and that says the same, has no second effect; one that says something else is not
    taken. Another note of the same UID that is just being stored is waited for.
    """
    row = await (
        await connection.execute(
            "INSERT INTO change_note (sop_instance_uid, caller, study_uid, title, object) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (sop_instance_uid) DO NOTHING RETURNING 1",
            (change.note_uid, caller, change.study_uid, change.title, file),
        )
    ).fetchone()
    if row is None:
        return Kept.AGAIN if await _stored(connection, change.note_uid) == change else Kept.CONFLICT
    for study_uid, instances in change.rejected.items():
        await connection.execute(
            "INSERT INTO rejected_instance (note_uid, study_uid, sop_instance_uid, title) "
            "SELECT %s, %s, uid, %s FROM unnest(%s::text[]) AS uid",
            (change.note_uid, study_uid, change.title, list(instances)),
        )
    for study_uid in change.studies:
        await defer_resync(connection, study_uid, Cause.NOTE)
    return Kept.NEW


async def _stored(connection: Connection, note_uid: str) -> Change | None:
    """What the note that is there asks for; None when an earlier version of this program could read it and we not."""
    row = await (
        await connection.execute("SELECT object FROM change_note WHERE sop_instance_uid = %s", (note_uid,))
    ).fetchone()
    assert row is not None
    try:
        return decide(read_note(bytes(row["object"])))
    except Refused:
        return None
