"""An XDM archive read into the archive of this box: checked, resumable, the same twice (DB.SO.30)."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

import psycopg
import psycopg_pool

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Refused, Unavailable
from drimbox.portability import layout
from drimbox.portability.check import CheckedSet, Range, check_set
from drimbox.portability.course import Course, ImportReport, RefusedSet
from drimbox.portability.layout import refused
from drimbox.portability.placing import Target, place_set
from drimbox.portability.sources import SetFiles, Source, opened, reading, volume_of
from drimbox.publication.incidents import Incidents
from drimbox.reports.report import normal_structure_id
from drimbox.store.database import Pool

__all__ = ["ImportReport", "RefusedSet", "Target", "import_archive"]

_log = logging.getLogger(__name__)

# An archive whose first sets are all refused for one reason is given with the wrong options, or is no archive of ours.
_HOPELESS = 50

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Told how many sets are done, and of how many."""


async def import_archive(
    pool: Pool,
    source: Path,
    *,
    targets: Sequence[Target],
    ins_range: Range,
    incidents: Incidents,
    clock: Clock,
    pacs: str | None = None,
    structure: str | None = None,
    journal: Path | None = None,
    progress: Progress | None = None,
    checkpoint_every: int = 200,
) -> ImportReport:
    """Read an archive, a folder or a zip, into the archive of this box.

    A set belongs to the one of ``targets`` that its authors name, else to ``structure`` (a short name) when it is
    given. ``pacs`` is the PACS that holds the studies, where the archive does not name one of the structure's.
    ``journal`` is a file in which the progress is kept until the end, every ``checkpoint_every`` sets: a cut import
    goes on from there.

    A set that cannot be imported is refused whole, told in the operator's queue, and the rest goes on. Raises
    ``Refused`` when the archive itself cannot be read; ``Misconfigured`` (``archive-structure``, ``archive-pacs``,
    ``archive-hopeless``: the first sets are all refused for the same reason); ``Unavailable`` (``database``,
    ``archive-read``, ``archive-busy``): the same call goes on from there.
    """
    _check_choices(targets, structure, pacs)
    work = _Import(pool, targets, ins_range, incidents, clock, pacs, structure, layout.label((source.name,)))
    with ExitStack() as stack:
        archive = await asyncio.to_thread(stack.enter_context, opened(source))
        course = await asyncio.to_thread(Course, journal, source, stack)
        try:
            await work.run(archive, course, progress or (lambda done, total: None), checkpoint_every)
        except (psycopg.OperationalError, psycopg_pool.PoolTimeout) as error:
            raise Unavailable(
                "Base PostgreSQL perdue pendant l'import : relancez la même commande, il reprendra", code="database"
            ) from error
        await asyncio.to_thread(course.done)
    return course.report


def _check_choices(targets: Sequence[Target], structure: str | None, pacs: str | None) -> None:
    if structure is not None and structure not in {t.id for t in targets}:
        raise Misconfigured(f"La structure {structure} n'est pas dans la configuration", code="archive-structure")
    if pacs is not None and not any(pacs in t.pacs for t in targets):
        raise Misconfigured(f"Aucune structure n'a de PACS {pacs} dans la configuration", code="archive-pacs")


class _Import:
    """One import, going on."""

    def __init__(
        self,
        pool: Pool,
        targets: Sequence[Target],
        ins_range: Range,
        incidents: Incidents,
        clock: Clock,
        pacs: str | None,
        structure: str | None,
        name: str,
    ) -> None:
        self._pool = pool
        self._by_identifier = {normal_structure_id(i): target for target in targets for i in target.identifiers}
        self._fallback = next((t for t in targets if t.id == structure), None)
        self._ins_range = ins_range
        self._incidents = incidents
        self._clock = clock
        self._pacs = pacs
        self._name = name
        self._open: dict[str, list[int]] = {}

    async def run(self, archive: Source, course: Course, progress: Progress, checkpoint_every: int) -> None:
        report = course.report
        total = await _read(archive.count)
        if total == 0:
            raise refused("Il n'y a pas de lot de soumission XDM à cet endroit", "empty")
        announced = dict(await _read(lambda: list(archive.announced())))
        self._open = await self._left_open()
        progress(report.sets, total)
        found: Counter[str] = Counter()
        sets = archive.sets(course.after)
        try:
            while (files := await _read(lambda: next(sets, None))) is not None:
                await self._set(files, report)
                course.after = files.key
                found[volume_of(files.key)] += 1
                if report.sets % checkpoint_every == 0:
                    await asyncio.to_thread(course.checkpoint)
                progress(report.sets, total)
                self._stop_if_hopeless(report)
        except BaseException:
            # Whatever cut it, what is done need not be done again.
            with suppress(DrimboxError):
                course.checkpoint()
            raise
        if not report.resumed:
            report.warnings["volume-incomplete"] += sum(found[volume] < sets for volume, sets in announced.items())
        report.warnings["ignored-path"] += archive.ignored()
        report.warnings += Counter()

    async def _set(self, files: SetFiles, report: ImportReport) -> None:
        """One set: in, or refused and told. Never both, never neither."""
        label = f"{self._name}/{layout.label(files.key)}"
        checked: CheckedSet | None = None
        target: Target | None = None
        try:
            checked = await asyncio.to_thread(self._checked, files)
            target = self._target(checked)
            placed = await place_set(
                self._pool, checked, target, pacs=self._pacs, incidents=self._incidents, now=self._clock.now()
            )
        except Refused as error:
            told = refused(error.reason, error.code.removeprefix("archive-"))
            await self._refuse(label, told, checked, target)
            report.refuse(label, told)
            return
        await self._settle(label)
        report.count(placed)

    def _checked(self, files: SetFiles) -> CheckedSet:
        """Check a set; a defect of ours refuses this set alone."""
        try:
            return check_set(files, ins_range=self._ins_range)
        except (Refused, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of one set, which records the failure
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__}, {Path(last.filename).name}:{last.lineno}"
            _log.error("set not read: %s", place)
            raise refused(f"Défaut de la passerelle ({place}) : à signaler", "defect") from None

    def _target(self, checked: CheckedSet) -> Target:
        named = (self._by_identifier.get(identifier) for identifier in checked.structures)
        found = next((target for target in named if target is not None), self._fallback)
        if found is None:
            raise refused(
                "La structure du lot n'est pas une de celles que sert la passerelle "
                "(ajoutez son identifiant à also_known_as, ou donnez --structure)",
                "structure",
            )
        return found

    async def _refuse(self, label: str, error: Refused, checked: CheckedSet | None, target: Target | None) -> None:
        """One line in the operator's queue, once."""
        study = checked.versions[0].study_uid if checked else ""
        structure = target.id if target else ""
        reason = f"Archive {label} : {error.reason}"
        async with self._pool.connection() as connection, connection.transaction():
            row = await (
                await connection.execute(
                    "SELECT 1 FROM incident WHERE closed_at IS NULL AND structure = %s AND study_uid = %s "
                    "AND code = %s AND reason = %s",
                    (structure, study, error.code, reason),
                )
            ).fetchone()
            if row is None:
                await self._incidents.open(
                    connection, structure=structure, study_uid=study, code=error.code, reason=reason
                )

    async def _settle(self, label: str) -> None:
        """The set came in: what an earlier try left in the queue about it is over."""
        for incident in self._open.pop(label, ()):
            await self._incidents.close(incident, "Importé", "")

    async def _left_open(self) -> dict[str, list[int]]:
        """What earlier tries of this archive left in the queue, by set."""
        start = f"Archive {self._name}/"
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute(
                    "SELECT id, reason FROM incident WHERE closed_at IS NULL AND starts_with(reason, %s)", (start,)
                )
            ).fetchall()
        found: dict[str, list[int]] = {}
        for row in rows:
            found.setdefault(row["reason"].removeprefix("Archive ").split(" : ")[0], []).append(row["id"])
        return found

    def _stop_if_hopeless(self, report: ImportReport) -> None:
        if report.sets == _HOPELESS == report.refused and len({d.code for d in report.details}) == 1:
            raise Misconfigured(
                f"Les {_HOPELESS} premiers lots sont tous refusés : {report.details[0].reason}. Corrigez et relancez.",
                code="archive-hopeless",
            )


async def _read(read: Callable[[], T]) -> T:
    """Read from the archive, on a thread, with the disk's refusals in words."""

    def run() -> T:
        with reading():
            return read()

    return await asyncio.to_thread(run)
