"""Lines of the operator's queue about the market certificate: one open line for each cause, closed when it is over."""

from __future__ import annotations

from drimbox.publication.incidents import Incidents
from drimbox.store.database import Connection

PREFIX = "market-"
ORDER, LATE, BY_HAND, LISTENER, SERVED = (
    f"{PREFIX}order",
    f"{PREFIX}late",
    f"{PREFIX}by-hand",
    f"{PREFIX}listener",
    f"{PREFIX}served",
)
_CODES = (ORDER, LATE, BY_HAND, LISTENER, SERVED)


async def tell(connection: Connection, incidents: Incidents, code: str, reason: str) -> None:
    """Open a line, or add to the one that is open for this cause when it has something new to say."""
    found = await incidents.list(code=code, limit=1)
    if not found:
        await incidents.open_for_note(connection, code=code, reason=reason)
    elif all(reason not in step.text for step in found[0].history[-1:]):
        await incidents.note(found[0].id, reason, "")


async def over(incidents: Incidents, text: str, *codes: str) -> None:
    """Close what no longer holds; all of it without ``codes``."""
    for code in codes or _CODES:
        for incident in await incidents.list(code=code):
            await incidents.close(incident.id, text, "")
