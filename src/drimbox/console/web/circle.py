"""The network, for administrators: whom the whitelist names, fetched now; the revocation lists (decision 16)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from drimbox.console.circle import CircleRoom, in_french
from drimbox.console.web.desk import NotHere, Visitor, desk_of, page, see_other
from drimbox.foundation.errors import DrimboxError

PLACE = "/reseau"
_NAMED = 20


async def shown(request: Request, visitor: Visitor) -> Response:
    return await _page(request, visitor)


async def renew(request: Request, visitor: Visitor) -> Response:
    """Fetch the whitelist now."""
    try:
        renewal = await _room(request).renew(visitor.actor)
    except DrimboxError as error:
        return await _page(request, visitor, error=error)
    visitor.session.tell(f"Liste blanche reçue et valable : {len(renewal.whitelist.domains)} DRIMbox.")
    changes = [in_french(change) for change in renewal.changes] or ["Rien n'y a changé"]
    for change in changes[:_NAMED]:
        visitor.session.tell(f"{change[:300]}.")
    if len(changes) > _NAMED:
        visitor.session.tell(f"Et {len(changes) - _NAMED} autres changements, écrits dans le journal.")
    return see_other(PLACE)


async def _page(request: Request, visitor: Visitor, *, error: DrimboxError | None = None) -> Response:
    room = _room(request)
    held = await room.held()
    return page(
        request,
        "circle.html",
        visitor=visitor,
        status=502 if error is not None else 200,
        error=error,
        room=room,
        held=held,
        end=held.fetched_at + room.max_age if held is not None else None,
        lists=room.lists(),
    )


def _room(request: Request) -> CircleRoom:
    room = desk_of(request).circle
    if room is None:
        raise NotHere("Cette console ne montre pas le réseau")
    return room
