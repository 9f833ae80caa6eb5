"""The audit journal, for auditors: search, export, verification. What is looked for stays out of every address."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from drimbox.console.journal import PAGE_EVENTS, JournalRoom, wanted
from drimbox.console.web.desk import NotHere, Visitor, desk_of, page, see_other
from drimbox.foundation.errors import Refused
from drimbox.record import retention, verification, words
from drimbox.record.audit import Kind, Recorded

PLACE = "/journal"
FIELDS = ("matricule", "oid", "personne", "identifiant", "nature", "du", "au", "travail")
_MARKED = frozenset({"ins-oid", "ins-format", "ins-key"})


async def ask(request: Request, visitor: Visitor) -> Response:
    """The empty form: nothing is read yet, so nothing is traced."""
    return await _page(request, visitor, {})


async def search(request: Request, visitor: Visitor) -> Response:
    """One page of what matches, newest first."""
    fields = _typed(visitor)
    try:
        found = await _room(request).journal.search(wanted(fields), visitor.actor)
    except Refused as error:
        return await _page(request, visitor, fields, error=error)
    return await _page(request, visitor, fields, found=found)


async def export(request: Request, visitor: Visitor) -> Response:
    """Everything that matches, as CSV; that it was taken is in the journal first."""
    fields = _typed(visitor) | {"avant": ""}
    try:
        found = await _room(request).journal.export(wanted(fields), visitor.actor)
    except Refused as error:
        return await _page(request, visitor, fields, error=error)
    name = f"drimbox-journal-{desk_of(request).clock.now():%Y%m%d-%H%M%S}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(words.table(found), media_type="text/csv; charset=utf-8", headers=headers)


async def verify(request: Request, visitor: Visitor) -> Response:
    """Begin a verification; a large journal takes minutes, and the page shows how it ended."""
    begun = _room(request).keeper.verify_for(visitor.actor)
    visitor.session.tell("Vérification commencée." if begun else "Une vérification est déjà en cours.")
    return see_other(PLACE)


async def _page(
    request: Request,
    visitor: Visitor,
    fields: dict[str, str],
    *,
    found: tuple[Recorded, ...] | None = None,
    error: Refused | None = None,
) -> Response:
    desk, room = desk_of(request), _room(request)
    keep_days = room.keeper.conduct.keep_days
    shown = found[:PAGE_EVENTS] if found is not None else None
    return page(
        request,
        "journal.html",
        visitor=visitor,
        status=400 if error else 200,
        fields={name: fields.get(name, "") for name in FIELDS},
        continued=bool(fields.get("avant")),
        found=shown,
        older=shown[-1].id if found and shown and len(found) > PAGE_EVENTS else None,
        message=error.reason if error else "",
        wrong_patient=error is not None and error.code in _MARKED,
        room=room,
        words=words,
        kinds=sorted(Kind, key=words.kind),
        last=await verification.last(desk.acts.pool),
        keep_days=keep_days,
        removable=await retention.removable(desk.acts.pool, keep_days) if keep_days else 0,
    )


def _typed(visitor: Visitor) -> dict[str, str]:
    return {name: visitor.field(name) for name in (*FIELDS, "avant")}


def _room(request: Request) -> JournalRoom:
    room = desk_of(request).journal_room
    if room is None:
        raise NotHere
    return room
