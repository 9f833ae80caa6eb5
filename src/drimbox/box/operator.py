"""What an operator does from the command line: read the queue of what could not be done, and act on it."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from drimbox.box.settings import Settings
from drimbox.box.state import database_of
from drimbox.console.acts import ActRefused, Acts
from drimbox.foundation.clock import PARIS, SystemClock
from drimbox.foundation.uids import is_uid
from drimbox.publication.incidents import Incident, Incidents
from drimbox.record.audit import Actor, Journal
from drimbox.store import database
from drimbox.store.database import Pool

T = TypeVar("T")


def listed(settings: Settings, *, closed: bool, limit: int) -> str:
    """The queue, newest first, one line each: what is open, or everything."""

    async def read(pool: Pool) -> tuple[Incident, ...]:
        return await Incidents(pool, SystemClock()).list(open_only=not closed, limit=limit)

    found = on_database(settings, read)
    return "\n".join(_line(incident) for incident in found) or "La file est vide."


def shown(settings: Settings, number: int) -> str | None:
    """One line of the queue with its history; None when there is none of that number."""

    async def read(pool: Pool) -> Incident | None:
        return await Incidents(pool, SystemClock()).one(number)

    incident = on_database(settings, read)
    if incident is None:
        return None
    steps = (
        f"  {step.at.astimezone(PARIS):%d/%m/%Y %H:%M:%S}  {step.text}{f' (par {step.by})' if step.by else ''}"
        for step in incident.history
    )
    return "\n".join([_line(incident), *steps])


def retried(settings: Settings, number: int) -> str:
    """Try a line again now; says what was done. Raises ``ActRefused``."""
    return on_database(settings, lambda pool: _acts(pool).retry(number, shell_user()))


def resynced(settings: Settings, number: int) -> str:
    """Have the study of a line compared with PACS and DMP; says what was done. Raises ``ActRefused``."""
    return on_database(settings, lambda pool: _acts(pool).resync(number, shell_user()))


def compared(settings: Settings, study_uid: str, structure: str) -> str:
    """Have a study compared with PACS and DMP, for one structure or for all; says what was done.

    Raises ``ActRefused`` when the box has nothing of the study.
    """
    if not is_uid(study_uid):
        raise ActRefused("Ce n'est pas un identifiant d'examen (Study Instance UID)", "study-uid")
    return on_database(settings, lambda pool: _acts(pool).resync_of(structure, study_uid, shell_user()))


def discarded(settings: Settings, number: int, reason: str) -> str:
    """File a line without follow-up, for a reason; says what was done. Raises ``ActRefused``."""
    return on_database(settings, lambda pool: _acts(pool).discard(number, reason, shell_user()))


def shell_user() -> Actor:
    """Who is at the command line, as the machine knows them."""
    return Actor(person=f"os:{os.environ.get('SUDO_USER') or getpass.getuser()}", system="ligne de commande")


def on_database(settings: Settings, work: Callable[[Pool], Awaitable[T]]) -> T:
    """Do something with the box's database, whether the box runs or not."""
    with database_of(settings) as dsn:
        return on_dsn(dsn, work)


def on_dsn(dsn: str, work: Callable[[Pool], Awaitable[T]]) -> T:
    """The same, with a database that runs already."""

    async def run() -> T:
        async with database.opened(dsn, size=2) as pool:
            return await work(pool)

    database.migrate(dsn)
    return asyncio.run(run())


def _acts(pool: Pool) -> Acts:
    return Acts(pool, Incidents(pool, SystemClock()), Journal(pool))


def _line(incident: Incident) -> str:
    state = "clos" if incident.closed_at else {"error": "ERREUR", "warning": "alerte"}[incident.severity]
    study = f" examen {incident.study_uid}" if incident.study_uid else ""
    peer = f" [{incident.peer_code}]" if incident.peer_code else ""
    at = f"{incident.opened_at.astimezone(PARIS):%d/%m/%Y %H:%M}"
    return f"{incident.id:>6}  {at}  {state:<7} {incident.code:<22} {incident.reason}{peer}{study}"
