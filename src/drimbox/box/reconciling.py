"""What an administrator does with walks from the command line, on the box's own database, whether it runs or not."""

from __future__ import annotations

import csv
from collections.abc import Awaitable, Callable
from typing import TextIO

from drimbox.box.operator import on_database, shell_user
from drimbox.box.settings import Settings
from drimbox.box.settings.source import SourceSection
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured
from drimbox.reconciliation import words
from drimbox.reconciliation.acts import WalkActs
from drimbox.reconciliation.hours import parse_ranges
from drimbox.reconciliation.listing import HEAD, lines
from drimbox.reconciliation.walk import Kind, Mode, Walk, WalkRefused
from drimbox.reconciliation.walks import Walks
from drimbox.record.audit import Actor, Journal
from drimbox.store.database import Pool


def started(settings: Settings, kind: Kind, mode: str | None, rate: int | None) -> str:
    """Begin a walk; says what was done. Raises ``WalkRefused``, ``Misconfigured``."""
    chosen = _source(settings).reconciliation
    if kind is Kind.ADDRESS:
        return _act(settings, lambda acts, by: acts.start(kind, Mode.REPAIR, rate or chosen.address_rate, by))
    how = Mode(mode or chosen.mode)
    return _act(settings, lambda acts, by: acts.start(kind, how, rate or chosen.rate, by))


def paused(settings: Settings, kind: Kind) -> str:
    return _act(settings, lambda acts, by: acts.pause(kind, by))


def resumed(settings: Settings, kind: Kind) -> str:
    return _act(settings, lambda acts, by: acts.resume(kind, by))


def stopped(settings: Settings, kind: Kind) -> str:
    return _act(settings, lambda acts, by: acts.stop(kind, by))


def status(settings: Settings) -> str:
    """The walks under way, else the last ones."""
    hours = parse_ranges(_source(settings).reconciliation.suspended)

    async def read(pool: Pool) -> tuple[Walk, ...]:
        return await Walks(pool).latest(6)

    found = on_database(settings, read)
    shown = [walk for walk in found if walk.active] or list(found[:2])
    now = SystemClock().now()
    return "\n".join(line for walk in shown for line in words.report(walk, now, hours)) or "Aucun parcours jusqu'ici."


def listed(settings: Settings, walk_id: int | None, kind: str, out: TextIO) -> None:
    """Write what a walk found (none: the last reconciliation) as CSV, without health data. Raises ``WalkRefused``."""

    async def write(pool: Pool) -> None:
        walks = Walks(pool)
        recent = await walks.latest(100) if walk_id is None else ()
        walk = (
            await walks.one(walk_id)
            if walk_id is not None
            else next((w for w in recent if w.kind is Kind.RECONCILIATION), None)
        )
        if walk is None:
            raise WalkRefused("Ce parcours n'existe pas", "walk-unknown")
        table = csv.writer(out, delimiter=";", lineterminator="\n")
        table.writerow(HEAD)
        async for line in lines(walks, walk.id, kind=kind):
            table.writerow(line)

    on_database(settings, write)


def _act(settings: Settings, act: Callable[[WalkActs, Actor], Awaitable[str]]) -> str:
    base = _source(settings).wado.base

    async def work(pool: Pool) -> str:
        return await act(WalkActs(pool, Journal(pool), SystemClock(), base), shell_user())

    return on_database(settings, work)


def _source(settings: Settings) -> SourceSection:
    if settings.source is None:
        raise Misconfigured("Cette DRIMbox n'est pas une source : elle n'a pas d'archive à parcourir", code="no-source")
    return settings.source
