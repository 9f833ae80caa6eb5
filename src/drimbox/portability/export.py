"""The archive written as XDM media: streaming, resumable, nothing twice (DB.SO.29)."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import DrimboxError, Misconfigured, Unavailable
from drimbox.portability import layout
from drimbox.portability.compose import Row, set_files, sets_of
from drimbox.portability.journal import Journal
from drimbox.portability.layout import refused
from drimbox.portability.sinks import FolderSink, Sink, ZipSink, holds_archive, is_zip, journal_path, writing
from drimbox.portability.stored import Amount, Choice, Position, StoredArchive, looking_at
from drimbox.portability.volume import Emitter, volume_files
from drimbox.store.database import Pool

__all__ = ["Choice", "Emitter", "ExportReport", "Left", "export_archive"]

DEFAULT_VOLUME = 100_000
_MOST_LEFT = 1000

Progress = Callable[[int, int], None]
"""Told how many sets are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Left:
    """A version that could not be written, and why."""

    kos_uid: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did, interruptions included.

    ``pending`` versions are on their way to the DMP, ``abandoned`` ones were refused by it: neither left. ``failed``
    could not be written. ``changed`` sets came or changed while the export went on: export them with ``since`` =
    ``started_at``.
    """

    started_at: dt.datetime
    sets: int = 0
    versions: int = 0
    volumes: int = 0
    octets: int = 0
    pending: int = 0
    abandoned: int = 0
    changed: int = 0
    failures: int = 0
    failed: tuple[Left, ...] = ()
    resumed: bool = False

    def words(self) -> list[str]:
        """For the operator, line by line."""
        lines = [
            f"{self.sets} lots, {self.versions} KOS, {self.volumes} volumes, {self.octets / 2**20:.1f} Mio"
            + (" (export repris)" if self.resumed else "")
        ]
        if self.pending:
            lines.append(f"  {self.pending} KOS en cours de publication ne sont pas exportés : relancez plus tard")
        if self.abandoned:
            lines.append(f"  {self.abandoned} KOS refusés par le DMP ne sont pas exportés")
        if self.changed:
            day = f"{self.started_at.astimezone(PARIS):%Y-%m-%d}"
            lines.append(f"  {self.changed} lots ont changé pendant l'export : complétez par un export --since {day}")
        lines += [f"  non exporté : KOS {left.kos_uid} : {left.reason} ({left.code})" for left in self.failed]
        return lines


@dataclass(slots=True)
class _Course:
    """Where the export stands: kept in the journal from time to time."""

    started: str
    position: Position | None = None
    volume: str = ""
    volumes: int = 0
    in_volume: int = 0
    month: str = ""
    parts: int = 0
    taken: int = 0
    sets: int = 0
    versions: int = 0
    octets: int = 0
    failures: int = 0
    failed: list[Sequence[str]] = field(default_factory=list)
    sink: Mapping[str, Any] = field(default_factory=dict)

    @property
    def started_at(self) -> dt.datetime:
        return dt.datetime.fromisoformat(self.started)

    def report(self, amount: Amount, *, changed: int, resumed: bool) -> ExportReport:
        return ExportReport(
            started_at=self.started_at,
            sets=self.sets,
            versions=self.versions,
            volumes=self.volumes,
            octets=self.octets,
            pending=amount.pending,
            abandoned=amount.abandoned,
            changed=changed,
            failures=self.failures,
            failed=tuple(Left(*left) for left in self.failed),
            resumed=resumed,
        )


async def export_archive(
    pool: Pool,
    target: Path,
    *,
    emitter: Emitter,
    clock: Clock,
    choice: Choice | None = None,
    volume_size: int = DEFAULT_VOLUME,
    progress: Progress | None = None,
    checkpoint_every: int = 500,
) -> ExportReport:
    """Write the archive to ``target``, a folder or a file that ends in ``.zip``; go on with one that was cut.

    ``volume_size`` is the greatest number of sets of a volume, ``checkpoint_every`` how many sets at the most are
    written again after a cut. Raises ``Refused`` (``archive-exists``: an archive is there already;
    ``archive-damaged``), ``Misconfigured`` (``archive-options``: the cut export had other options),
    ``Unavailable`` (``disk-full``, ``disk``, ``database``, ``archive-busy``): what was written stays, and the same call
    goes on from there.
    """
    choice = choice or Choice()
    size = max(1, min(volume_size, layout.MAX_SETS))
    with ExitStack() as stack:
        journal, course, resumed = await asyncio.to_thread(_begin, target, choice, size, clock, stack)
        sink: Sink = await asyncio.to_thread(ZipSink if is_zip(target) else FolderSink, target, course.sink)
        stack.callback(sink.close)
        work = _Export(sink, journal, course, emitter, size, checkpoint_every)
        try:
            async with looking_at(pool, choice) as stored:
                await work.run(stored, progress or (lambda done, total: None))
            async with looking_at(pool, choice) as stored:
                amount = await stored.amount()
                changed = max(await stored.changed(course.started_at), amount.sets - course.taken)
            await asyncio.to_thread(work.finish)
        except psycopg.Error as error:
            raise Unavailable(
                "Base PostgreSQL perdue pendant l'export : relancez la même commande, il reprendra", code="database"
            ) from error
    return course.report(amount, changed=changed, resumed=resumed)


def _begin(target: Path, choice: Choice, size: int, clock: Clock, stack: ExitStack) -> tuple[Journal, _Course, bool]:
    """The journal of this export, and where it stands."""
    path = journal_path(target)
    with writing():
        if holds_archive(target):
            raise refused("Il y a déjà une archive à cet endroit : choisissez-en un autre", "exists")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(path)
        stack.callback(journal.close)
        options = {
            "structure": choice.structure,
            "since": choice.since.isoformat() if choice.since else None,
            "until": choice.until.isoformat() if choice.until else None,
            "size": size,
        }
        if not journal.states:
            course = _Course(clock.now().isoformat())
            journal.add({**asdict(course), "options": options})
            return journal, course, False
        first, last = journal.states[0], journal.states[-1]
    if first.get("options") != options:
        raise Misconfigured(
            "L'export interrompu avait d'autres options : reprenez-les, ou supprimez-le", code="archive-options"
        )
    try:
        told = {name: value for name, value in last.items() if name != "options"}
        course = _Course(**told)
        course.position = (str(told["position"][0]), int(told["position"][1])) if told["position"] else None
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise refused("L'export interrompu est abîmé : supprimez-le et recommencez", "damaged") from error
    return journal, course, course.position is not None


class _Export:
    """One export, going on."""

    def __init__(
        self, sink: Sink, journal: Journal, course: _Course, emitter: Emitter, size: int, checkpoint_every: int
    ) -> None:
        self._sink = sink
        self._journal = journal
        self._course = course
        self._emitter = emitter
        self._size = size
        self._checkpoint_every = checkpoint_every

    async def run(self, stored: StoredArchive, progress: Progress) -> None:
        """Write every set that is not written yet."""
        course = self._course
        amount = await stored.amount()
        progress(course.taken, amount.sets)
        async for found in stored.sets(course.position):
            rows = await stored.versions(found.ids)
            await asyncio.to_thread(self._take, rows, found.position)
            progress(course.taken, amount.sets)

    def _take(self, rows: Sequence[Row], position: Position) -> None:
        """Write the sets of some versions that were prepared together. On a thread."""
        course = self._course
        for group in sets_of(rows):
            if course.month != position[0] or course.in_volume == self._size:
                self._turn_to(position[0])
            folder = layout.set_folder(course.in_volume + 1)
            try:
                files = set_files(group, folder)
            except DrimboxError as error:
                course.failures += len(group)
                if len(course.failed) < _MOST_LEFT:
                    course.failed += [(row["kos_uid"], error.code, error.reason) for row in group]
                continue
            self._sink.write_set(course.volume, folder, files, _day(group[0]))
            course.in_volume += 1
            course.sets += 1
            course.versions += len(group)
            course.octets += sum(map(len, files.values()))
        course.position = position
        course.taken += 1
        if course.taken % self._checkpoint_every == 0:
            self._checkpoint()

    def _turn_to(self, month: str) -> None:
        """Close the volume that is open, and begin the next one."""
        course = self._course
        self._close_volume()
        course.parts = course.parts + 1 if course.month == month else 1
        course.month, course.in_volume = month, 0
        course.volume = layout.volume(month, course.parts)
        course.volumes += 1

    def _close_volume(self) -> None:
        course = self._course
        if course.volume:
            files = volume_files(self._emitter, course.volume, course.in_volume)
            self._sink.write_volume(course.volume, files, course.started_at.astimezone(PARIS))

    def _checkpoint(self) -> None:
        self._course.sink = self._sink.checkpoint()
        with writing():
            self._journal.add(asdict(self._course))

    def finish(self) -> None:
        """The archive is whole. On a thread."""
        self._close_volume()
        self._sink.finish()
        with writing():
            self._journal.done()


def _day(row: Row) -> dt.datetime:
    prepared: dt.datetime = row["prepared_at"]
    return prepared.astimezone(PARIS)
