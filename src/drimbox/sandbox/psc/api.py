"""The API PSC of a national service, in its transition form: a token beside what the service was sent before.

``POST /api/token`` exchanges a PSC token for one of the API (RFC 8693), bound to the caller's certificate. Every other
request must carry such a token, from the same certificate, and speak for the same professional as its VIHF
(standards.md F.5, E); then it goes on to the service itself.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drimbox.foundation.errors import Refused
from drimbox.foundation.http_server import client_certificate
from drimbox.foundation.uids import new_secret
from drimbox.sandbox.forms import read_form
from drimbox.sandbox.psc.ledger import Kind
from drimbox.sandbox.psc.provider import NO_STORE, Provider, oauth_error
from drimbox.sandbox.psc.tokens import thumbprint

TOKEN_PATH = "/api/token"
LIFE = dt.timedelta(hours=4)
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPES = ("urn:ietf:params:oauth:token-type:access_token", "urn:ietf:params:oauth:token-type:jwt")
_NAME_ID = re.compile(rb"<(?:[A-Za-z0-9_]+:)?NameID\b[^>]*>\s*([^<\s]+)\s*<")
_MAX_BODY = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Given:
    national_id: str
    certificate: str
    ends_at: dt.datetime


class ApiGateway:
    """Stands before a service. ``scope`` is what the API asks callers to ask for."""

    def __init__(self, provider: Provider, service: ASGIApp, *, scope: str) -> None:
        self._provider = provider
        self._service = service
        self._scope = scope
        self._given: dict[str, _Given] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._service(scope, receive, send)
            return
        request = Request(scope, receive)
        if request.url.path == TOKEN_PATH:
            await (await self._token(request))(scope, receive, send)
            return
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                await Response(status_code=413)(scope, receive, send)
                return
        refusal = self._refusal(request, bytes(body))
        if refusal is not None:
            await JSONResponse({"error": refusal}, status_code=401, headers=NO_STORE)(scope, receive, send)
            return
        await self._service(scope, _again(bytes(body), receive), send)

    async def _token(self, request: Request) -> Response:
        try:
            form = await read_form(request)
            return JSONResponse(self._exchanged(request, form), headers=NO_STORE)
        except Refused as error:
            return await oauth_error(request, error)

    def _exchanged(self, request: Request, form: dict[str, str]) -> dict[str, object]:
        certificate = client_certificate(request)
        if request.method != "POST" or form.get("grant_type") != GRANT:
            raise Refused("grant_type : token-exchange", code="unsupported_grant_type")
        if certificate is None or form.get("client_id", "") not in self._provider.clients:
            raise Refused("Client inconnu, ou sans certificat", code="invalid_client")
        if form.get("subject_token_type") not in _TYPES or form.get("subject_issuer", "psc") != "psc":
            raise Refused("subject_token_type ou subject_issuer inattendu", code="invalid_request")
        if form.get("scope") != self._scope:
            raise Refused("scope de l'API exigé", code="invalid_scope")
        claims = self._provider.mint.read(form.get("subject_token", ""), Kind.ACCESS.value)
        held = self._provider.ledger.live_token(claims["jti"]) if claims else None
        if claims is None or held is None or claims["azp"] != form["client_id"]:
            raise Refused("subject_token expiré, révoqué, ou d'un autre client", code="invalid_grant")
        now, token = self._provider.clock.now(), new_secret()
        self._given = {key: given for key, given in self._given.items() if now < given.ends_at}
        self._given[token] = _Given(held.grant.session.user.national_id, thumbprint(certificate), now + LIFE)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "issued_token_type": _TYPES[0],
            "expires_in": int(LIFE.total_seconds()),
        }

    def _refusal(self, request: Request, body: bytes) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = self._given.get(token.strip()) if scheme.lower() == "bearer" else None
        if given is None or self._provider.clock.now() >= given.ends_at:
            return "invalid_token"
        certificate = client_certificate(request)
        if certificate is None or thumbprint(certificate) != given.certificate:
            return "token_of_another_certificate"
        named = {name.decode("ascii", "replace") for name in _NAME_ID.findall(body)}
        return None if named == {given.national_id} else "token_of_another_professional"


def _again(body: bytes, receive: Receive) -> Receive:
    """The request's body once more, for who comes after."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
