"""The link in a report, for administrators: the template for the RIS, one link with its QR code, the partial URL."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from drimbox.console.web.desk import NotHere, Visitor, desk_of, page
from drimbox.link import address
from drimbox.link.address import BadLink
from drimbox.link.drawing import qr_code

PLACE = "/lien"
_FIELDS = ("examen", "numero", "compte_rendu", "serie")
_MAX = 200


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of the identifiers of one exam. ``picture`` is the QR code of ``link``, an SVG in base64; both are
    empty where the report is not known yet."""

    link: str
    picture: str
    partial: str
    segment: str


async def shown(request: Request, visitor: Visitor) -> Response:
    return _page(request, visitor)


async def made(request: Request, visitor: Visitor) -> Response:
    """The link of one exam. Its identifiers come by a form, and stay out of addresses and logs."""
    said = {name: visitor.field(name).strip()[:_MAX] for name in _FIELDS}
    try:
        found = _made(_origin(request), said)
    except BadLink:
        message = "Ces identifiants n'ont pas la forme attendue : vérifiez l'UID de l'examen et le numéro d'examen"
        return _page(request, visitor, said=said, message=message, status=422)
    return _page(request, visitor, said=said, made=found)


def _made(origin: str, said: dict[str, str]) -> Made:
    study, accession = said["examen"], said["numero"]
    partial = address.partial(origin, study, accession)
    segment = address.partial_observation(1, partial)
    if not said["compte_rendu"]:
        return Made("", "", partial, segment)
    report = address.ReportId.of(said["compte_rendu"])
    link = address.whole(origin, address.Link(study, accession, report, said["serie"] or None))
    return Made(link, base64.b64encode(qr_code(link, ".svg")).decode("ascii"), partial, segment)


def _page(
    request: Request,
    visitor: Visitor,
    *,
    said: dict[str, str] | None = None,
    made: Made | None = None,
    message: str = "",
    status: int = 200,
) -> Response:
    origin = _origin(request)
    return page(
        request,
        "link.html",
        visitor=visitor,
        status=status,
        origin=origin,
        pattern=address.template(origin),
        said=said or dict.fromkeys(_FIELDS, ""),
        made=made,
        message=message,
    )


def _origin(request: Request) -> str:
    origin = desk_of(request).link_origin
    if not origin:
        raise NotHere("Cette passerelle n'ouvre pas de lien dans les comptes rendus")
    return origin
