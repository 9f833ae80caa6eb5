"""The key-object notes of a study, out of the PACS: a query tells only that they are there, they must be fetched.

Just these objects are asked for, series by series (C-MOVE to our own receiver). They are small and few: what is not is
refused, and what cannot be had is an error, never "no notes".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from drimbox.foundation.errors import Refused, Rejected, Unavailable
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.keynotes import MAX_BYTES, KeyNote, notes_in, read_note
from drimbox.pacs.study import Study

MAX_NOTES = 1000
MAX_TOTAL_BYTES = 4 * MAX_BYTES


class NoteObjects(Protocol):
    """Gives objects of a series (``pacs.retrieve.PacsSeriesSource``)."""

    def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredInstance]]: ...


class PacsKeyNotes:
    """Reads the notes of studies that one PACS holds."""

    def __init__(self, objects: NoteObjects, *, timeout: float = 120.0) -> None:
        """``timeout``: seconds for all notes of a study; a slower PACS is one that cannot answer now."""
        self._objects = objects
        self._timeout = timeout

    async def of(self, study: Study) -> tuple[KeyNote, ...]:
        """Every note that the PACS lists in the study, by SOP Instance UID; a study without any asks for nothing.

        Raises ``Unavailable`` when they could not all be had, ``Refused`` for what no later try would change: too many
        or too large (``note-count``, ``note-size``), unreadable (``note-unreadable``), of two patients.
        """
        wanted = notes_in(study)
        if not wanted:
            return ()
        if sum(map(len, wanted.values())) > MAX_NOTES:
            raise Refused("L'examen porte trop de notes d'objets clés (Key Object Selection)", code="note-count")
        budget = _Budget()
        notes: list[KeyNote] = []
        try:
            async with asyncio.timeout(self._timeout):
                for series_uid, instances in wanted.items():
                    notes += await self._series(study.study_uid, series_uid, instances, budget)
        except TimeoutError as error:
            raise Unavailable(
                "Le PACS est trop lent à envoyer les notes d'objets clés", code="pacs-too-slow"
            ) from error
        except Rejected as error:
            # Perhaps one went away meanwhile: to be asked again, with the list as it is then.
            raise Unavailable(error.reason, code=error.code, peer_code=error.peer_code) from error
        return tuple(sorted(notes, key=lambda note: note.sop_uid))

    async def _series(
        self, study_uid: str, series_uid: str, instances: Collection[str], budget: _Budget
    ) -> list[KeyNote]:
        notes = []
        async with self._objects.retrieve(study_uid, series_uid, instances) as stored:
            async for one in stored:
                budget.take(one.size)
                notes.append(await asyncio.to_thread(_read, one))
        return notes


def _read(stored: StoredInstance) -> KeyNote:
    try:
        data = stored.path.read_bytes()
    except OSError as error:
        reason = f"Une note d'objets clés reçue du PACS ne peut pas être relue ({error.strerror})"
        raise Unavailable(reason, code="note-spool") from error
    return read_note(data)


class _Budget:
    """How many bytes may still come."""

    def __init__(self) -> None:
        self._left = MAX_TOTAL_BYTES

    def take(self, size: int) -> None:
        self._left -= size
        if size > MAX_BYTES or self._left < 0:
            raise Refused("Les notes d'objets clés de l'examen sont trop volumineuses", code="note-size")
