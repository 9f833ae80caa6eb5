"""Walks through the archive, for administrators: begin, pause, stop, see what was found (DB.SO.28, DB.SO.31)."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from drimbox.console.walks import WalkRoom
from drimbox.console.web.desk import NotHere, Visitor, desk_of, number, page, see_other
from drimbox.foundation.errors import Refused
from drimbox.reconciliation import words
from drimbox.reconciliation.listing import HEAD, lines
from drimbox.reconciliation.walk import Finding, Kind, Mode, Walk, WalkRefused

PLACE = "/parcours"
_SHOWN = 200


async def listed(request: Request, visitor: Visitor) -> Response:
    return await _page(request, visitor)


async def begin(request: Request, visitor: Visitor) -> Response:
    room = _room(request)
    rate = number(visitor.field("debit").strip())
    try:
        kind, mode = Kind(visitor.field("genre")), Mode(visitor.field("mode") or Mode.REPAIR)
    except ValueError:
        return await _page(request, visitor, message="Ce parcours n'existe pas")
    try:
        visitor.session.tell(await room.acts.start(kind, mode, rate or 0, visitor.actor))
    except Refused as error:
        return await _page(request, visitor, message=error.reason)
    return see_other(PLACE)


async def pause(request: Request, visitor: Visitor) -> Response:
    kind = (await _walk(request)).kind
    visitor.session.tell(await _room(request).acts.pause(kind, visitor.actor))
    return see_other(PLACE)


async def resume(request: Request, visitor: Visitor) -> Response:
    kind = (await _walk(request)).kind
    visitor.session.tell(await _room(request).acts.resume(kind, visitor.actor))
    return see_other(PLACE)


async def stop(request: Request, visitor: Visitor) -> Response:
    kind = (await _walk(request)).kind
    visitor.session.tell(await _room(request).acts.stop(kind, visitor.actor))
    return see_other(PLACE)


async def shown(request: Request, visitor: Visitor) -> Response:
    """One walk with what it found, a page at a time."""
    room, walk = _room(request), await _any_walk(request)
    kind = request.query_params.get("constat", "")
    kind = kind if kind in {finding.value for finding in Finding} else ""
    place, _, last = request.query_params.get("apres", "").partition("-")
    after = (number(place) or 0, last)
    found = await room.walks.found(walk.id, after=after, kind=kind, limit=_SHOWN + 1)
    return page(
        request,
        "walk.html",
        visitor=visitor,
        walk=walk,
        words=words,
        hours=room.hours,
        repairing=await room.walks.repairing(walk.id),
        found=found[:_SHOWN],
        more=f"{found[_SHOWN - 1].position}-{found[_SHOWN - 1].kind}" if len(found) > _SHOWN else "",
        continued=bool(place),
        kind=kind,
        Finding=Finding,
    )


async def download(request: Request, visitor: Visitor) -> Response:
    """Everything that a walk found, as CSV, without health data."""
    room, walk = _room(request), await _any_walk(request)

    async def rows() -> AsyncIterator[bytes]:
        # A mark for spreadsheets, which would take the accents for something else.
        yield b"\xef\xbb\xbf" + _line(HEAD)
        async for line in lines(room.walks, walk.id):
            yield _line(line)

    name = f"drimbox-parcours-{walk.id}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(rows(), media_type="text/csv; charset=utf-8", headers=headers)


def _line(cells: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode()


async def _page(request: Request, visitor: Visitor, *, message: str = "") -> Response:
    room = _room(request)
    walks = await room.walks.latest(12)
    active = {walk.kind: walk for walk in walks if walk.active}
    return page(
        request,
        "walks.html",
        visitor=visitor,
        status=400 if message else 200,
        message=message,
        room=room,
        active=active,
        ended=[walk for walk in walks if not walk.active],
        addresses=await room.walks.addresses(),
        words=words,
        Kind=Kind,
        Mode=Mode,
    )


async def _walk(request: Request) -> Walk:
    """The walk of the address, as long as it is under way: an old page must not stop the next one."""
    walk = await _any_walk(request)
    if not walk.active:
        raise WalkRefused("Ce parcours est déjà fini", "walk-none")
    return walk


async def _any_walk(request: Request) -> Walk:
    walk_id = number(request.path_params["walk"])
    walk = await _room(request).walks.one(walk_id) if walk_id is not None else None
    if walk is None:
        raise NotHere("Ce parcours n'existe pas")
    return walk


def _room(request: Request) -> WalkRoom:
    room = desk_of(request).walks
    if room is None:
        raise NotHere("Cette DRIMbox n'est pas une source : elle n'a pas d'archive à parcourir")
    return room
