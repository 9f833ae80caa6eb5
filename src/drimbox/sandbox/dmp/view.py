"""What the DMP holds and has judged, as JSON, and the order book of faults: for tests and outside clients."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from drimbox.foundation.http_server import client_certificate
from drimbox.foundation.xml import parse
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bodies import bounded_body
from drimbox.sandbox.dmp.ebrim import read_object
from drimbox.sandbox.dmp.faults import FaultKind, OrderedFault
from drimbox.sandbox.dmp.orders import MAX_ORDERS_BYTES, order_authorisation, order_documents, order_patient
from drimbox.sandbox.dmp.service import SERVICES, Dmp
from drimbox.sandbox.dmp.store import StoredEntry, StoredSubmission

_MAX_ORDER = 10_000
_MAX_ORDER_BYTES = 10_000

Endpoint = Callable[[Request], Awaitable[Response]]


def view_routes(dmp: Dmp, *, certificate_required: bool) -> list[BaseRoute]:
    """``/sandbox/dmp/{documents,submissions,log}`` to read, ``/sandbox/faults`` to read, add (POST), clear (DELETE).

    ``documents?study=UID`` gives those that name that study alone.

    ``/sandbox/dmp/{patients,authorisations,preload}`` take the state of a DMP, what a professional may do in it, and
    documents that others have published (POST, see ``orders``).
    """

    descriptions = _Descriptions()

    async def documents(request: Request) -> Response:
        study = request.query_params.get("study", "")

        def asked_for() -> list[dict[str, Any]]:
            if not study:
                return [descriptions.of(entry) for entry in dmp.store.entries()]
            near = [descriptions.of(entry) for entry in dmp.store.entries_that_say(study)]
            return [one for one in near if any(r.split("^")[0] == study for r in one["references"])]

        return JSONResponse(await run_in_threadpool(asked_for))

    async def document(request: Request) -> Response:
        unique_id = request.path_params["unique_id"]
        entry = await run_in_threadpool(lambda: dmp.store.entry(unique_id=unique_id))
        content = await run_in_threadpool(dmp.store.content, unique_id)
        if entry is None or content is None:
            return JSONResponse({"error": "document inconnu"}, 404)
        return Response(content, headers={"content-type": entry.mime})

    async def submissions(_: Request) -> Response:
        found = await run_in_threadpool(dmp.store.submissions)
        return JSONResponse([_submission(s) for s in found])

    async def log(_: Request) -> Response:
        return JSONResponse([asdict(line) for line in await run_in_threadpool(dmp.store.verdicts)])

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            dmp.faults.clear()
        elif request.method == "POST":
            try:
                body = await bounded_body(request, _MAX_ORDER_BYTES)
                dmp.faults.order(_ordered(json.loads(body or b"")))
            except (ValueError, TypeError, AttributeError) as error:
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse([asdict(f) for f in dmp.faults.pending()])

    def taking(order: Callable[[Dmp, Any], object]) -> Endpoint:
        async def take(request: Request) -> Response:
            try:
                told = json.loads(await bounded_body(request, MAX_ORDERS_BYTES) or b"")
                return JSONResponse(await run_in_threadpool(order, dmp, told))
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                return JSONResponse({"error": str(error)}, 400)

        return take

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def guard(request: Request) -> Response:
            if certificate_required and client_certificate(request) is None:
                return JSONResponse({"error": "certificat client attendu"}, 403)
            return await endpoint(request)

        return guard

    return [
        Route("/sandbox/dmp/documents", guarded(documents)),
        Route("/sandbox/dmp/documents/{unique_id}", guarded(document)),
        Route("/sandbox/dmp/submissions", guarded(submissions)),
        Route("/sandbox/dmp/log", guarded(log)),
        Route("/sandbox/dmp/patients", guarded(taking(order_patient)), methods=["POST"]),
        Route("/sandbox/dmp/authorisations", guarded(taking(order_authorisation)), methods=["POST"]),
        Route("/sandbox/dmp/preload", guarded(taking(order_documents)), methods=["POST"]),
        Route("/sandbox/faults", guarded(faults), methods=["GET", "POST", "DELETE"]),
    ]


class _Descriptions:
    """What was described once is described again only when it changed: the view is asked many times a second."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[StoredEntry, dict[str, Any]]] = {}

    def of(self, entry: StoredEntry) -> dict[str, Any]:
        known = self._known.get(entry.uuid)
        if known is None or known[0] != entry:
            known = self._known[entry.uuid] = (entry, described(entry))
        return known[1]


def described(entry: StoredEntry) -> dict[str, Any]:
    """A document entry as the view shows it."""
    told = read_object(parse(entry.metadata), v.ENTRY_AUTHOR)

    def codes(axis: str) -> list[dict[str, str]]:
        return [asdict(c) for c in told.codes.get(axis, ())]

    return {
        "entry_uuid": entry.uuid,
        "logical_id": entry.logical_id,
        "version": entry.version,
        "status": entry.status,
        "unique_id": entry.unique_id,
        "patient": entry.patient,
        "mime": entry.mime,
        "hash": entry.hash,
        "size": int(told.slot("size") or 0),
        "title": told.title,
        "class": codes(v.ENTRY_CLASS),
        "type": codes(v.ENTRY_TYPE),
        "format": codes(v.ENTRY_FORMAT),
        "confidentiality": [c.code for c in told.codes.get(v.ENTRY_CONFIDENTIALITY, ())],
        "events": codes(v.ENTRY_EVENT),
        "references": list(told.slots.get(v.REFERENCES_SLOT, ())),
        "authors": [list(a.persons) for a in told.authors],
        "structures": list(entry.structures),
        "creation_time": told.slot("creationTime"),
        "service_start": told.slot("serviceStartTime"),
        "submission": entry.submission,
        "registered": entry.registered,
    }


def _submission(submission: StoredSubmission) -> dict[str, Any]:
    told = read_object(parse(submission.metadata), v.SET_AUTHOR)
    return {
        "uuid": submission.uuid,
        "unique_id": submission.unique_id,
        "patient": submission.patient,
        "kind": submission.kind,
        "time": told.slot("submissionTime"),
        "title": told.title,
        "structures": list(told.institutions),
        "registered": submission.registered,
    }


def _ordered(told: Any) -> OrderedFault:
    """Read an order of faults. Raises ``ValueError``, ``TypeError`` or ``AttributeError``."""
    service = str(told.get("service", ""))
    count, seconds = int(told.get("count", 1)), float(told.get("seconds", 2.0))
    if service not in ("", *SERVICES):
        raise ValueError("unknown service")
    if not 0 < count <= _MAX_ORDER or not 0 <= seconds <= 3600:
        raise ValueError("count or seconds out of range")
    return OrderedFault(FaultKind(told.get("kind")), count, service, seconds)
