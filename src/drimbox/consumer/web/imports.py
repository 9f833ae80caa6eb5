"""Pages of imports: what to import and where to, how imports go, stopping them, having the rest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drimbox.consumer.consultant import Consultant
from drimbox.consumer.identity_check import require_agreement
from drimbox.consumer.kos import KosContent
from drimbox.consumer.professional import LoginEnded
from drimbox.consumer.sessions import Gone, OpenCall, Session
from drimbox.consumer.web.desk import call_of, desk_of, first, form_of, here, page, ready, see_other, session_of
from drimbox.consumer.web.documents import found_document, search, surroundings_of
from drimbox.foundation.errors import Refused
from drimbox.importing.desk import ImportDesk
from drimbox.importing.means import TRAITS_DIFFER
from drimbox.importing.orders import (
    Import,
    ImportedPatient,
    NewImport,
    State,
    WantedInstance,
    WantedSeries,
    grouped,
    reasons,
    told,
)
from drimbox.manifest.manifest import ManifestSeries
from drimbox.record.audit import Kind, Object, Thing


def routes() -> list[Route]:
    """The addresses of these pages."""
    return [
        Route("/appel/{call}/import/{document}", choose, methods=["GET"]),
        Route("/appel/{call}/import/{document}", ask, methods=["POST"]),
        Route("/appel/{call}/imports", listing, methods=["GET"]),
        Route("/appel/{call}/imports/etat", progress, methods=["GET"]),
        Route("/appel/{call}/imports/{number:int}", detail, methods=["GET"]),
        Route("/appel/{call}/imports/{number:int}/annuler", cancel, methods=["POST"]),
        Route("/appel/{call}/imports/{number:int}/reprendre", again, methods=["POST"]),
    ]


async def choose(request: Request) -> Response:
    """What is to be imported, series by series, and where to."""
    session = session_of(request)
    call = call_of(request, session)
    desk = _desk(request)
    who, content = await content_of(request, session, call)
    if isinstance(content, Response):
        return content
    manifest = content.manifest
    brought = await desk.brought(who.structure.id, [manifest.study_uid])
    return page(
        request,
        "import.html",
        session=session,
        call=call,
        key=request.path_params["document"],
        manifest=manifest,
        refused=content.refused,
        choices=desk.choices,
        brought=brought.get(manifest.study_uid),
        local=call.call.local_id,
        grouped=grouped,
    )


async def ask(request: Request) -> Response:
    """Put the chosen series in the queue."""
    session = session_of(request)
    call = call_of(request, session)
    desk = _desk(request)
    fields = await form_of(request, session)
    who, content = await content_of(request, session, call)
    if isinstance(content, Response):
        return content
    target = first(fields, "destination") or desk.choices[0].id
    if target not in {choice.id for choice in desk.choices}:
        raise Refused("Destination d'import inconnue", code="form")
    series = wanted_series(content, fields)
    if not series:
        raise Refused("Choisissez au moins une série à importer", code="form")
    await desk.ask(_new(desk, who, call, content, series, target))
    return see_other(f"/appel/{call.id}/imports")


async def listing(request: Request) -> Response:
    """All imports of this person, those of this patient first."""
    session = session_of(request)
    call = call_of(request, session)
    imports = await _desk(request).of_person(_person(session))
    here = [one for one in imports if one.patient.ins == call.call.ins]
    others = [one for one in imports if one.patient.ins != call.call.ins]
    return page(
        request,
        "imports.html",
        session=session,
        call=call,
        here=here,
        others=others,
        titles=_titles(request),
        told=told,
        waiting=any(one.open for one in imports),
        differ=TRAITS_DIFFER,
    )


async def progress(request: Request) -> Response:
    """How far each import has come, for the page's own script; nothing of any patient."""
    session = session_of(request, active=False)
    call_of(request, session)
    imports = await _desk(request).of_person(_person(session))
    return JSONResponse(
        [
            {
                "id": one.id,
                "state": one.state.value,
                "open": one.open,
                "percent": one.percent,
                "told": told(one),
                "reason": one.reason,
            }
            for one in imports
        ]
    )


async def detail(request: Request) -> Response:
    """Each instance of an import, with the answer of the PACS as it gave it."""
    session = session_of(request)
    call = call_of(request, session)
    desk = _desk(request)
    found = await _found(request, session)
    instances = await desk.instances(found.id)
    return page(
        request,
        "import_detail.html",
        session=session,
        call=call,
        found=found,
        instances=instances,
        why=reasons(instances),
        titles=_titles(request),
        told=told,
    )


async def cancel(request: Request) -> Response:
    """No more of it."""
    session = session_of(request)
    call = call_of(request, session)
    await form_of(request, session)
    found = await _found(request, session)
    await _desk(request).cancel(found.id, found.person)
    return see_other(f"/appel/{call.id}/imports")


async def again(request: Request) -> Response:
    """The rest of it, or at once what waits; where images name the patient otherwise, only by an explicit decision."""
    session = session_of(request)
    call = call_of(request, session)
    fields = await form_of(request, session)
    found = await _found(request, session)
    decided = first(fields, "decision") == "oui"
    if found.code == TRAITS_DIFFER and found.state in (State.PARTIAL, State.FAILED) and not decided:
        raise Refused("Cochez la case qui atteste que ces images sont bien celles de ce patient", code="form")
    if decided:
        await _log_decision(request, session, call, found)
    await _desk(request).again(found.id, found.person, decided=decided)
    return see_other(f"/appel/{call.id}/imports")


async def _log_decision(request: Request, session: Session, call: OpenCall, found: Import) -> None:
    """Written down before anything is imported."""
    desk = desk_of(request)
    who = ready(request, session, call)
    if found.patient.ins != call.call.ins:
        raise Refused("Cet import est celui d'un autre patient : ouvrez-le depuis son propre appel", code="form")
    if desk.opener.rules.traits == "refuse":
        raise Refused("Le réglage de cette DRIMbox n'admet aucune différence d'identité", code="form")
    await desk.journal.write(None, who.event(Kind.IDENTITY_DECIDED, call.call.ins, (Object(Thing.KOS, found.kos_uid),)))


def _desk(request: Request) -> ImportDesk:
    """Raises ``Gone`` where nothing can be imported."""
    imports = desk_of(request).imports
    if imports is None or not imports.choices:
        raise Gone("Aucun PACS de destination n'est configuré sur cette DRIMbox")
    return imports


def _person(session: Session) -> str:
    """Raises ``LoginEnded``."""
    professional = session.professional
    if professional is None or professional.ended:
        raise LoginEnded
    return professional.info.national_id


async def _found(request: Request, session: Session) -> Import:
    found = await _desk(request).find(request.path_params["number"], _person(session))
    if found is None:
        raise Gone("Cet import n'existe pas")
    return found


def _titles(request: Request) -> dict[str, str]:
    return {choice.id: choice.title for choice in _desk(request).choices}


async def content_of(request: Request, session: Session, call: OpenCall) -> tuple[Consultant, KosContent | Response]:
    """The KOS of the exam that the address names, its patient compared with the call's; or the warning before it."""
    search(request, session, call)
    who = ready(request, session, call)
    key = request.path_params["document"]
    exam, document = await found_document(call, key)
    if exam.images is None or document is not exam.images:
        raise Gone("Cet examen n'a pas d'images partagées")
    if document.warning and key not in call.warned:
        return who, page(request, "warning.html", session=session, call=call, document=document, target=here(request))
    content = await surroundings_of(request, call).content(who, document)
    rules = desk_of(request).opener.rules
    require_agreement("KOS", content.differences, rules, decided=key in call.decided, key=key)
    return who, content


def _new(
    desk: ImportDesk,
    who: Consultant,
    call: OpenCall,
    content: KosContent,
    series: tuple[WantedSeries, ...],
    target: str,
) -> NewImport:
    manifest, asked = content.manifest, call.call
    traits = asked.traits
    return NewImport(
        person=who.person,
        actor=who.event(Kind.IMAGES_IMPORTED, asked.ins).actor,
        structure=who.structure.id,
        target=target,
        study_uid=manifest.study_uid,
        stored_as=desk.rules.stored_as(manifest.study_uid, asked.filters.study_uid),
        kos_uid=manifest.kos_uid,
        title=manifest.description,
        study_date=manifest.study_date,
        patient=ImportedPatient(
            ins=asked.ins,
            local_id=asked.local_id.value,
            issuer=asked.local_id.issuer or desk.issuer_of(target),
            issuer_name=asked.issuer_name,
            label=f"{traits.birth_family} {traits.first_given}",
            accession=desk.rules.accession_number(asked.filters.accession),
            accession_issuer=asked.filters.accession_issuer,
            traits={
                "family": traits.birth_family,
                "given": traits.first_given,
                "birth_date": traits.birth_date.isoformat(),
                "sex": traits.sex.value,
                "used_family": call.details.used_family if call.details else "",
                "used_given": call.details.used_given if call.details else "",
            },
            decided=content.key in call.decided,
        ),
        series=series,
    )


def wanted_series(content: KosContent, fields: Mapping[str, Sequence[str]]) -> tuple[WantedSeries, ...]:
    """The series that a form names, but for those that must not be asked for; all of them where it says so."""
    wanted = set(fields.get("serie", []))
    everything = "tout" in fields.get("etendue", [])
    series = [s for s in content.manifest.series if everything or s.series_uid in wanted]
    return tuple(_wanted(s) for s in series if s.series_uid not in content.refused)


def _wanted(series: ManifestSeries) -> WantedSeries:
    return WantedSeries(
        series.series_uid,
        series.retrieve_url,
        series.number,
        series.modality,
        series.description,
        tuple(WantedInstance(i.sop_instance_uid, i.sop_class_uid) for i in series.instances),
    )
