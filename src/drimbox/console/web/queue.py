"""The operator's queue: the list with its filters, one line with what can be done about it, the raw message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from drimbox.console.account import Role
from drimbox.console.acts import MAX_REASON, ActRefused, NoIncident, can_retry, of_order
from drimbox.console.advice import Press, advice_for
from drimbox.console.messages import SHOWN_BYTES, StoredMessage, patient_of, readable
from drimbox.console.web.desk import Desk, NotHere, Visitor, desk_of, number, page, see_other
from drimbox.publication.incidents import Incident, Severity
from drimbox.record.audit import Event, Kind, Object, Thing

PAGE_LINES = 50
_STATES = {"ouverts": "Ouverts", "clos": "Clos", "tous": "Tous"}
_SEVERITIES: dict[str, tuple[str, Severity]] = {"erreur": ("Erreurs", "error"), "alerte": ("Alertes", "warning")}


@dataclass(frozen=True, slots=True)
class Filters:
    """What the list shows; as the address says it."""

    state: str = "ouverts"
    severity: str = ""
    code: str = ""
    structure: str = ""
    study: str = ""

    def query(self, **more: object) -> str:
        """The address of the same list; ``more`` are other parameters."""
        names = {"etat": self.state, "gravite": self.severity, "motif": self.code}
        names |= {"structure": self.structure, "examen": self.study}
        return urlencode({k: v for k, v in (names | {k: str(v) for k, v in more.items()}).items() if v})


async def listed(request: Request, visitor: Visitor) -> Response:
    """Open lines first of all, newest first; the next page goes on from the last number of this one."""
    desk = desk_of(request)
    filters = _filters(request)
    found = await desk.incidents.list(
        open_only=filters.state == "ouverts",
        closed_only=filters.state == "clos",
        severity=_SEVERITIES[filters.severity][1] if filters.severity else None,
        code=filters.code or None,
        structure=filters.structure or None,
        study_uid=filters.study or None,
        before=number(request.query_params.get("avant", "")),
        limit=PAGE_LINES + 1,
    )
    shown, more = found[:PAGE_LINES], len(found) > PAGE_LINES
    return page(
        request,
        "queue.html",
        visitor=visitor,
        incidents=[(incident, advice_for(incident), _retryable(incident)) for incident in shown],
        filters=filters,
        states=_STATES,
        severities={key: label for key, (label, _) in _SEVERITIES.items()},
        counts=await desk.backlog.open_incidents(),
        older=filters.query(avant=shown[-1].id) if more else "",
        continued="avant" in request.query_params,
        jobs=await desk.backlog.jobs(),
        hour=await desk.backlog.last_hour(),
        health=await desk.health.look(),
    )


async def shown(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    return await _incident_page(request, visitor, await _incident(desk, request))


async def retry(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    incident_id = _number(request)
    visitor.session.tell(await desk.acts.retry(incident_id, visitor.actor))
    return see_other(f"/file/{incident_id}")


async def resync(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    incident_id = _number(request)
    visitor.session.tell(await desk.acts.resync(incident_id, visitor.actor))
    return see_other(f"/file/{incident_id}")


async def discard(request: Request, visitor: Visitor) -> Response:
    desk = desk_of(request)
    incident_id = _number(request)
    reason = visitor.field("motif")
    try:
        done = await desk.acts.discard(incident_id, reason, visitor.actor)
    except ActRefused as error:
        if error.code != "reason":
            raise
        incident = await _incident(desk, request)
        return await _incident_page(request, visitor, incident, status=400, wrong_reason=error.reason, typed=reason)
    visitor.session.tell(done)
    return see_other(f"/file/{incident_id}")


async def message(request: Request, visitor: Visitor) -> Response:
    """The raw message, escaped, its encoded parts folded. That it was opened is in the journal first."""
    incident, stored, raw = await _opened_message(request, visitor, "consultation")
    lines = await asyncio.to_thread(readable, raw[:SHOWN_BYTES])
    return page(
        request,
        "message.html",
        visitor=visitor,
        incident=incident,
        message=stored,
        lines=lines,
        answer=readable(stored.answer),
        cut=stored.size > SHOWN_BYTES,
        shown_bytes=SHOWN_BYTES,
    )


async def download(request: Request, visitor: Visitor) -> Response:
    """The octets of the message as they came in, as a file."""
    _, stored, raw = await _opened_message(request, visitor, "téléchargement")
    headers = {"Content-Disposition": f'attachment; filename="message-{stored.id}.hl7"'}
    return Response(raw, media_type="application/octet-stream", headers=headers)


async def _opened_message(request: Request, visitor: Visitor, how: str) -> tuple[Incident, StoredMessage, bytes]:
    desk = desk_of(request)
    incident = await _incident(desk, request)
    message_id = await desk.messages.id_of(incident.message_id, incident.report_id)
    stored = await desk.messages.read(message_id) if message_id is not None else None
    if stored is None:
        raise NotHere("Aucun message n'est attaché à cet incident")
    event = Event(
        Kind.MESSAGE_READ,
        visitor.actor,
        (Object(Thing.MESSAGE, stored.control_id or f"n° {stored.id}", how), Object(Thing.INCIDENT, str(incident.id))),
        structure=incident.structure,
        patient=await asyncio.to_thread(patient_of, stored.raw),
    )
    await desk.journal.write(None, event)
    return incident, stored, stored.raw


async def _incident_page(
    request: Request,
    visitor: Visitor,
    incident: Incident,
    *,
    status: int = 200,
    wrong_reason: str = "",
    typed: str = "",
) -> Response:
    desk = desk_of(request)
    return page(
        request,
        "incident.html",
        visitor=visitor,
        status=status,
        incident=incident,
        advice=advice_for(incident),
        can_retry=_retryable(incident),
        of_order=of_order(incident),
        press=_press(incident),
        jobs=await desk.backlog.of_study(incident.study_uid) if incident.study_uid else (),
        message_id=await desk.messages.id_of(incident.message_id, incident.report_id),
        may_read=visitor.may(Role.MESSAGES),
        wrong_reason=wrong_reason,
        typed=typed[:MAX_REASON],
        max_reason=MAX_REASON,
    )


def _retryable(incident: Incident) -> bool:
    """Is there a button to try again?"""
    return can_retry(incident) or of_order(incident)


def _press(incident: Incident) -> Press:
    """The button that fits best among those that are there."""
    press = advice_for(incident).press
    if press == "retry" and not _retryable(incident):
        return "resync" if incident.study_uid else "discard"
    return press


async def _incident(desk: Desk, request: Request) -> Incident:
    incident = await desk.incidents.one(_number(request))
    if incident is None:
        raise NoIncident
    return incident


def _number(request: Request) -> int:
    found = number(request.path_params["incident"])
    if found is None:
        raise NoIncident
    return found


def _filters(request: Request) -> Filters:
    given = request.query_params
    state, severity = given.get("etat", "ouverts"), given.get("gravite", "")
    return Filters(
        state=state if state in _STATES else "ouverts",
        severity=severity if severity in _SEVERITIES else "",
        code=_clean(given.get("motif", "")),
        structure=_clean(given.get("structure", "")),
        study=_clean(given.get("examen", "")),
    )


def _clean(text: str) -> str:
    return text.strip().replace("\x00", "")[:128]
