"""What an operator does from the command line: read the queue of what could not be done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from drimbox.box.run import database_of
from drimbox.box.settings import Settings
from drimbox.foundation.clock import PARIS, SystemClock
from drimbox.publication.incidents import Incident, Incidents
from drimbox.store import database

T = TypeVar("T")


def listed(settings: Settings, *, closed: bool, limit: int) -> str:
    """The queue, newest first, one line each: what is open, or everything."""

    async def read(incidents: Incidents) -> tuple[Incident, ...]:
        return await incidents.list(open_only=not closed, limit=limit)

    found = _with_queue(settings, read)
    return "\n".join(_line(incident) for incident in found) or "La file est vide."


def shown(settings: Settings, number: int) -> str | None:
    """One line of the queue with its history; None when there is none of that number."""

    async def read(incidents: Incidents) -> tuple[Incident, ...]:
        return await incidents.list(open_only=False, before=number + 1, limit=1)

    found = [incident for incident in _with_queue(settings, read) if incident.id == number]
    if not found:
        return None
    steps = (f"  {step.at.astimezone(PARIS):%d/%m/%Y %H:%M:%S}  {step.text}" for step in found[0].history)
    return "\n".join([_line(found[0]), *steps])


def _line(incident: Incident) -> str:
    state = "clos" if incident.closed_at else {"error": "ERREUR", "warning": "alerte"}[incident.severity]
    study = f" examen {incident.study_uid}" if incident.study_uid else ""
    peer = f" [{incident.peer_code}]" if incident.peer_code else ""
    at = f"{incident.opened_at.astimezone(PARIS):%d/%m/%Y %H:%M}"
    return f"{incident.id:>6}  {at}  {state:<7} {incident.code:<22} {incident.reason}{peer}{study}"


def _with_queue(settings: Settings, read: Callable[[Incidents], Awaitable[T]]) -> T:
    async def run(dsn: str) -> T:
        async with database.opened(dsn, size=2) as pool:
            return await read(Incidents(pool, SystemClock()))

    with database_of(settings) as dsn:
        database.migrate(dsn)
        return asyncio.run(run(dsn))
