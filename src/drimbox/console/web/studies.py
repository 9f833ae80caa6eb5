"""The archived studies: search, the versions of one, and bringing it in accordance."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from drimbox.console.studies import MAX_FOUND, MAX_QUERY
from drimbox.console.web.desk import NotHere, Visitor, desk_of, page, see_other
from drimbox.foundation.uids import is_uid

STATES = {
    "prepared": "en cours d'envoi",
    "current": "en vigueur au DMP",
    "replaced": "remplacée",
    "depublished": "retirée du DMP",
    "abandoned": "refusée par le DMP",
    "": "jamais publié",
}


async def ask(request: Request, visitor: Visitor) -> Response:
    return page(request, "studies.html", visitor=visitor, text="", found=None, states=STATES, limit=MAX_FOUND)


async def search(request: Request, visitor: Visitor) -> Response:
    """What was typed stays out of addresses and histories: people type names and patient numbers in such fields."""
    text = visitor.field("recherche").strip()[:MAX_QUERY]
    found = await desk_of(request).studies.search(text)
    if len(found) == 1:
        return see_other(f"/examens/{found[0].study_uid}")
    return page(request, "studies.html", visitor=visitor, text=text, found=found, states=STATES, limit=MAX_FOUND)


async def shown(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    study_uid = _study(request)
    structures = await desk.studies.structures(study_uid)
    versions = await desk.studies.versions(study_uid)
    incidents = await desk.incidents.list(open_only=False, study_uid=study_uid, limit=100)
    if not structures and not incidents:
        raise NotHere("Cet examen n'est pas connu ici")
    return page(
        request,
        "study.html",
        visitor=visitor,
        study_uid=study_uid,
        structures=structures,
        versions=versions,
        numbers={version.id: version.kos_uid for version in versions},
        incidents=incidents,
        jobs=await desk.backlog.of_study(study_uid),
        states=STATES,
    )


async def resync(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    study_uid = _study(request)
    structure = visitor.field("structure")
    if structure not in await desk.studies.structures(study_uid):
        raise NotHere("Cette structure n'a pas cet examen")
    visitor.session.tell(await desk.acts.resync_of(structure, study_uid, visitor.actor))
    return see_other(f"/examens/{study_uid}")


def _study(request: Request) -> str:
    study_uid: str = request.path_params["study"]
    if not is_uid(study_uid):
        raise NotHere("Cet examen n'est pas connu ici")
    return study_uid
