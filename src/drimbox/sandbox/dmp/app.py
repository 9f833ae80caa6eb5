"""The DMP as a web application: the services, and apart from them a view of what it holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.http_server import client_certificate
from drimbox.sandbox.dmp.answers import HttpAnswer
from drimbox.sandbox.dmp.bench import KnownPatient, KnownStructure, Policy
from drimbox.sandbox.dmp.bodies import bounded_body
from drimbox.sandbox.dmp.faults import FaultKind, OrderedFault
from drimbox.sandbox.dmp.packaging import HTTP_SIZE, HttpRequest
from drimbox.sandbox.dmp.service import SERVICES, Dmp
from drimbox.sandbox.dmp.view import view_routes
from drimbox.sandbox.dmp.vocabulary import SERVICES_PATH

_ORDERED_ANSWERS = (FaultKind.FAULT, FaultKind.BUSY, FaultKind.PARTIAL)


def dmp_app(
    *,
    state: Path,
    trust_roots: Sequence[Path],
    revocation_lists: Sequence[Path] = (),
    schema_dir: Path | None = None,
    structures: Sequence[KnownStructure],
    patients: Sequence[KnownPatient] = (),
    clock: Clock | None = None,
    policy: Policy | None = None,
    open_view: bool = False,
) -> Starlette:
    """The services of a DMP that keeps its store in ``state``; serve it with client certificates required.

    ``trust_roots`` are PEM files of the CAs of structures' certificates; ``schema_dir`` the folder that holds ``xds/``
    and ``saml/``, None to judge without schemas. The ``Dmp`` itself is ``app.state.dmp``. The view under ``/sandbox``
    asks for a client certificate unless ``open_view``. Raises ``OSError`` or ``ValueError`` for unreadable files.
    """
    dmp = Dmp(
        state=state,
        trust_roots=trust_roots,
        revocation_lists=revocation_lists,
        schema_dir=schema_dir,
        structures=structures,
        patients=patients,
        clock=clock or SystemClock(),
        policy=policy or Policy(),
    )
    return application(dmp, open_view=open_view)


def application(dmp: Dmp, *, open_view: bool = False) -> Starlette:
    """The same around a DMP that is there already."""
    routes: list[BaseRoute] = [
        Route(f"{SERVICES_PATH}/{service}", _Service(dmp, service), methods=["POST"]) for service in SERVICES
    ]
    app = Starlette(routes=[*routes, *view_routes(dmp, certificate_required=not open_view)])
    app.state.dmp = dmp
    return app


def view_app(dmp: Dmp) -> Starlette:
    """The view and the faults on demand alone, for a listener of its own without client certificates."""
    return Starlette(routes=view_routes(dmp, certificate_required=False))


class _Service:
    """One service, as an ASGI application: it may cut the connection, which an endpoint function cannot."""

    def __init__(self, dmp: Dmp, service: str) -> None:
        self._dmp = dmp
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        fault = self._dmp.faults.take(self._service)
        body = await bounded_body(request, self._dmp.policy.max_request)
        call = HttpRequest(
            service=self._service,
            path=request.url.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body or b"",
            certificate=client_certificate(request),
        )
        if body is None:
            breach = HTTP_SIZE.broken("requête trop volumineuse")
            await _sent(await run_in_threadpool(self._dmp.refuse, call, breach), scope, receive, send)
        elif fault is None:
            await _sent(await run_in_threadpool(self._dmp.judge, call), scope, receive, send)
        else:
            await self._faulty(fault, call, scope, receive, send)

    async def _faulty(self, fault: OrderedFault, call: HttpRequest, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.kind is FaultKind.UNAVAILABLE:
            seconds = str(int(fault.seconds))
            await Response(status_code=503, headers={"retry-after": seconds})(scope, receive, send)
            return
        if fault.kind is FaultKind.DROP:
            await _cut(HttpAnswer(200, "application/soap+xml; charset=UTF-8", b""), send)
            return
        if fault.kind is FaultKind.SLOW:
            await asyncio.sleep(fault.seconds)
        ordered = fault.kind if fault.kind in _ORDERED_ANSWERS else None
        answer = await run_in_threadpool(self._dmp.judge, call, ordered=ordered)
        if fault.kind is FaultKind.CUT:
            await _cut(answer, send)
            return
        if fault.kind is FaultKind.TIMEOUT and not await _still_there(receive, fault.seconds):
            return
        await _sent(answer, scope, receive, send)


async def _sent(answer: HttpAnswer, scope: Scope, receive: Receive, send: Send) -> None:
    response: ASGIApp = Response(answer.body, answer.status, headers={"content-type": answer.media_type})
    await response(scope, receive, send)


async def _cut(answer: HttpAnswer, send: Send) -> None:
    """Begin an answer and never end it: the server then closes the connection."""
    half = answer.body[: len(answer.body) // 2]
    headers = [
        (b"content-type", answer.media_type.encode()),
        (b"content-length", str(max(len(answer.body), 1)).encode()),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": half, "more_body": True})


async def _still_there(receive: Receive, seconds: float) -> bool:
    """Wait; False as soon as the client has gone."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            return False
    return True
