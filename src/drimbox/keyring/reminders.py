"""Tells the operator in time that certificates end, and what is wrong with the pairs of the box.

Each delay before the end of a certificate opens one line of the queue, once, whatever restarts and however many nodes
there are; the line of the delay before it is closed, and all of them once another certificate is in service. The
notifications of the queue carry them on (``notification``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from drimbox.foundation.clock import PARIS
from drimbox.keyring import records
from drimbox.keyring.inventory import Line
from drimbox.keyring.keeper import Change, Standing
from drimbox.publication.incidents import Incidents
from drimbox.store.database import Pool

PREFIX = "key-"
EXPIRY, REFUSED, UNUSABLE = f"{PREFIX}expiry", f"{PREFIX}refused", f"{PREFIX}unusable"


async def remind(
    pool: Pool, incidents: Incidents, lines: Iterable[Line], delays: Sequence[int], now: dt.datetime
) -> int:
    """Open a line for each delay that is newly reached; how many were opened."""
    opened = 0
    served = [line for line in lines if line.state == "en service" and line.not_after is not None]
    for line in served:
        assert line.not_after is not None
        reached = [delay for delay in delays if line.not_after - now <= dt.timedelta(days=delay)]
        async with pool.connection() as connection, connection.transaction():
            if not await records.remind(connection, line.sha256, line.place, reached, now):
                continue
            await incidents.open_for_note(connection, code=EXPIRY, reason=_reason(line, now), severity="warning")
            opened += 1
        await _close_others(incidents, line, _reason(line, now))
    await _close_replaced(incidents, served)
    return opened


async def tell(pool: Pool, incidents: Incidents, changes: Iterable[Change]) -> None:
    """Tell of the places where something is wrong, and close what is no more."""
    for change in changes:
        wanted = _wrong(change.now)
        for code in (REFUSED, UNUSABLE):
            for incident in await incidents.list(code=code):
                if _about(incident.reason, change.now.place.name) and (code, incident.reason) != wanted:
                    await incidents.close(incident.id, "Une paire qui convient est en service.", "")
        if wanted is not None:
            async with pool.connection() as connection:
                await incidents.open_for_note(connection, code=wanted[0], reason=wanted[1])


def _wrong(standing: Standing) -> tuple[str, str] | None:
    """The code and the words of what is wrong at a place; None when all is well."""
    place, problem = standing.place, standing.problem.rstrip(".")
    who = f"{place.use} de {place.site} [{place.name}]"
    if standing.pair is None:
        return UNUSABLE, f"{who} : aucune paire utilisable. {problem}."
    refused = [
        one
        for one in standing.refused
        if one.credential is None or one.credential.certificate != standing.pair.certificate
    ]
    if refused:
        told = " ".join(f"{one.problem.rstrip('.')}." for one in refused)
        return REFUSED, f"{who} : la nouvelle paire est refusée, celle en service reste. {told}"
    if problem:
        return UNUSABLE, f"{who} : la paire en service ne convient plus. {problem}."
    return None


def _reason(line: Line, now: dt.datetime) -> str:
    assert line.not_after is not None
    until = f"{line.not_after.astimezone(PARIS):%d/%m/%Y}"
    left = (line.not_after - now).days
    when = (
        f"expire le {until}, dans {left} jour{'s' if left > 1 else ''}"
        if left >= 0
        else f"est expiré depuis le {until}"
    )
    return (
        f"{line.use} de {line.site} [{line.place}] : le certificat {line.serial} {when}. Commandez son renouvellement."
    )


async def _close_others(incidents: Incidents, line: Line, reason: str) -> None:
    for incident in await incidents.list(code=EXPIRY):
        if _about(incident.reason, line.place) and incident.reason != reason:
            await incidents.close(incident.id, "Un rappel plus récent, ou un autre certificat, en tient lieu.", "")


async def _close_replaced(incidents: Incidents, served: Sequence[Line]) -> None:
    """Close the lines of certificates that are in service no more."""
    for incident in await incidents.list(code=EXPIRY):
        stands = [line for line in served if _about(incident.reason, line.place)]
        if stands and all(f" certificat {line.serial} " not in incident.reason for line in stands):
            await incidents.close(incident.id, "Un autre certificat est en service.", "")


def _about(reason: str, place: str) -> bool:
    return f" [{place}] :" in reason
