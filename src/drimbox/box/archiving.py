"""Export and import of the archive of KOS, on the box's own database, with a progress bar and a line in the journal."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from drimbox import __version__
from drimbox.box.operator import on_database, shell_user
from drimbox.box.settings import Settings
from drimbox.box.settings.box import StructureSection
from drimbox.box.structures import pacs_of, submitting
from drimbox.foundation.clock import PARIS, SystemClock
from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.portability.export import Choice, Emitter, ExportReport, export_archive
from drimbox.portability.importing import ImportReport, Target, import_archive
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Event, Journal, Kind, Object, Outcome, Thing
from drimbox.store.database import Pool

T = TypeVar("T")
Progress = Callable[[int, int], None]
Ended = tuple[bool, list[str]]
"""Was all of it done, and what to tell the administrator."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export: one structure or all, days (both included), how to reach the site, sets of a volume."""

    structure: str | None
    since: dt.date | None
    until: dt.date | None
    contact: str
    volume_size: int


def exported(settings: Settings, target: Path, wanted: Wanted) -> Ended:
    """Export the archive to ``target``. Raises as ``portability.export.export_archive``."""
    chosen = [s for s in settings.structures if wanted.structure in (None, s.id)]
    if not chosen:
        raise Misconfigured(
            f"La structure {wanted.structure} n'est pas dans la configuration", code="archive-structure"
        )
    emitter = Emitter(
        settings.box.name, [submitting(section) for section in chosen], wanted.contact, version=__version__
    )
    until = wanted.until + dt.timedelta(days=1) if wanted.until else None
    choice = Choice(wanted.structure, _start(wanted.since), _start(until))

    async def work(pool: Pool, progress: Progress) -> ExportReport:
        return await export_archive(
            pool,
            target,
            emitter=emitter,
            clock=SystemClock(),
            choice=choice,
            volume_size=wanted.volume_size,
            progress=progress,
        )

    report = _run(settings, "Export", Kind.ARCHIVE_EXPORTED, target, work)
    return report.failures == 0, report.words()


def imported(settings: Settings, source: Path, *, pacs: str | None, structure: str | None) -> Ended:
    """Import the archive at ``source``. Raises as ``portability.importing.import_archive``."""
    name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]

    async def work(pool: Pool, progress: Progress) -> ImportReport:
        return await import_archive(
            pool,
            source,
            targets=[_target(settings, section) for section in settings.structures],
            ins_range=settings.box.environment,
            incidents=Incidents(pool, SystemClock()),
            clock=SystemClock(),
            pacs=pacs,
            structure=structure,
            journal=settings.box.state_dir / f"archive-import-{name}.jnl",
            progress=progress,
        )

    report = _run(settings, "Import", Kind.ARCHIVE_IMPORTED, source, work)
    return report.refused == 0, report.words()


def _start(day: dt.date | None) -> dt.datetime | None:
    return dt.datetime(day.year, day.month, day.day, tzinfo=PARIS) if day else None


def _target(settings: Settings, section: StructureSection) -> Target:
    identifiers = (section.identifier, section.legal_identifier, *section.also_known_as)
    return Target(
        id=section.id,
        structure=submitting(section),
        sector=section.sector,
        identifiers=tuple(dict.fromkeys(i for i in identifiers if i)),
        pacs=pacs_of(section, [p.id for p in settings.pacs]),
    )


def _run(settings: Settings, title: str, kind: Kind, place: Path, work: Callable[[Pool, Progress], Awaitable[T]]) -> T:
    """Do the work, and write it in the audit journal, failed or not."""

    async def run(pool: Pool) -> T:
        journal = Journal(pool)
        try:
            with _bar(title) as progress:
                done = await work(pool, progress)
        except DrimboxError as error:
            await journal.write(None, _event(kind, place, f"{error.code}: {error.reason}"))
            raise
        await journal.write(None, _event(kind, place))
        return done

    settings.box.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return on_database(settings, run)


def _event(kind: Kind, place: Path, failure: str = "") -> Event:
    """The media, and by whom (PS3.15 A.5.3.3, A.5.3.6). The patients on them are too many to be told one by one."""
    return Event(
        kind,
        shell_user(),
        (Object(Thing.SYSTEM, place.name),),
        outcome=Outcome.SERIOUS_FAILURE if failure else Outcome.SUCCESS,
        outcome_text=failure,
    )


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Progress]:
    """A progress bar on standard error."""
    with click.progressbar(length=1, label=title, file=sys.stderr, show_pos=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield progress
