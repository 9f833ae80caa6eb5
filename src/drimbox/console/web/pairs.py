"""The inventory of certificates, for administrators: what is in service and until when; a renewed pair installed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from drimbox.console.keys import KeyRoom
from drimbox.console.web.desk import NotHere, Visitor, desk_of, page, see_other
from drimbox.console.web.uploads import content_of
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.keyring.acts import pair_of
from drimbox.keyring.inventory import as_csv
from drimbox.trust.fitness import Unfit

PLACE = "/inventaire"


async def shown(request: Request, visitor: Visitor) -> Response:
    return await _page(request, visitor)


async def download(request: Request, visitor: Visitor) -> Response:
    name = f"drimbox-certificats-{desk_of(request).clock.now():%Y%m%d}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    table = as_csv(await _room(request).inventory())
    return Response(table.encode("utf-8"), media_type="text/csv; charset=utf-8", headers=headers)


async def install(request: Request, visitor: Visitor) -> Response:
    """The key goes from the form to the vault; it is shown, logged and written nowhere else."""
    place = visitor.field("reglage")
    try:
        data, key = content_of(visitor.field("fichier")), content_of(visitor.field("cle"))
        if not data:
            raise Refused("Choisissez le fichier de la paire", code="key-file")
        password = visitor.field("phrase").encode("utf-8") or None
        pair = pair_of(data, key or None, password)
        visitor.session.tell(await _room(request).acts.install(place, pair, visitor.actor))
    except DrimboxError as error:
        return await _page(request, visitor, error=error, chosen=place)
    return see_other(PLACE)


async def remove(request: Request, visitor: Visitor) -> Response:
    try:
        visitor.session.tell(await _room(request).acts.remove(visitor.field("reglage"), visitor.actor))
    except DrimboxError as error:
        return await _page(request, visitor, error=error)
    return see_other(PLACE)


async def _page(request: Request, visitor: Visitor, *, error: DrimboxError | None = None, chosen: str = "") -> Response:
    room = _room(request)
    messages = list(map(str, error.breaches)) if isinstance(error, Unfit) else [f"{error.reason}."] if error else []
    return page(
        request,
        "pairs.html",
        visitor=visitor,
        status=400 if error is not None else 200,
        messages=messages,
        lines=await room.inventory(),
        places=room.acts.keyring.places,
        chosen=chosen,
    )


def _room(request: Request) -> KeyRoom:
    room = desk_of(request).keys
    if room is None:
        raise NotHere("Les certificats ne se gèrent pas ici")
    return room
