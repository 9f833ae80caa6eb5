"""A proxy e-Sante, played strictly: it logs professionals in by CIBA and keeps their tokens (standards.md F.5).

Its callers are the services of one operator, known by certificate. ``/connect`` waits for the professional, ``/send``
adds the bearer of the caller's session and relays, ``/disconnect`` ends the session here and at PSC, ``/traces`` tells
what was done. ``/send/psc/token`` gives the access token to the service: public text does not say how a real one does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.foundation.http_server import client_certificate
from drimbox.foundation.uids import new_secret
from drimbox.sandbox.forms import read_body, read_json
from drimbox.sandbox.psc.clients import same_subject
from drimbox.sandbox.psc.devices import GRANT
from drimbox.sandbox.psc.provider import NO_STORE, PROTOCOL
from drimbox.sandbox.psc.tokens import ACR

COOKIE = "proxy_session_id"
SESSION_LIFE = dt.timedelta(hours=4)
_FORM = "application/x-www-form-urlencoded"
_RELAYED = ("content-type", "soapaction", "accept")


@dataclass(slots=True)
class _Session:
    national_id: str
    client_id: str
    tokens: dict[str, Any]
    fresh_until: dt.datetime
    ends_at: dt.datetime
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """``psc``: base address of PSC; ``clients``: the Client_ID of each caller by the subject of its certificate.

    ``backends`` are the other services that ``/send/<name>/...`` leads to, by their base address.
    """

    psc: str
    clients: Mapping[str, str]
    backends: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.2


class _Proxy:
    def __init__(self, http: HttpClient, tls: ssl.SSLContext, config: ProxyConfig, clock: Clock) -> None:
        self.http = http
        self.tls = tls
        self.config = config
        self.clock = clock
        self.sessions: dict[str, _Session] = {}
        self.traces: list[dict[str, Any]] = []

    def session(self, request: Request) -> tuple[str, _Session] | None:
        """The live session of the cookie, when it is the caller's own."""
        secret = request.cookies.get(COOKIE, "")
        found = self.sessions.get(secret)
        if found is None or self.clock.now() >= found.ends_at or self.caller(request) != found.client_id:
            return None
        return secret, found

    def caller(self, request: Request) -> str | None:
        """The Client_ID of the certificate that was proved."""
        certificate = client_certificate(request)
        if certificate is None:
            return None
        return next((c for subject, c in self.config.clients.items() if same_subject(certificate, subject)), None)

    def trace(self, kind: str, request: Request, client_id: str, national_id: str, session: str = "") -> None:
        self.traces.append(
            {
                "type": kind,
                "clientId": client_id,
                "IdRPPS": national_id,
                "ip": request.client.host if request.client else "",
                "proxy_id_session": session[:8],
                "timestamp": self.clock.now().isoformat(),
                "request": f"{request.method} {request.url.path}",
            }
        )

    async def post(self, name: str, fields: Mapping[str, str]) -> Reply:
        return await self.http.send(
            "POST",
            f"{self.config.psc}{PROTOCOL}/{name}",
            tls=self.tls,
            headers={"Content-Type": _FORM},
            body=urlencode(fields).encode(),
            timeout=10,
        )

    def keep(self, session: _Session, tokens: dict[str, Any]) -> None:
        session.tokens = session.tokens | tokens
        session.fresh_until = self.clock.now() + dt.timedelta(seconds=int(tokens["expires_in"]))


def proxy_app(http: HttpClient, tls: ssl.SSLContext, config: ProxyConfig, *, clock: Clock) -> Starlette:
    """A proxy e-Sante; ``tls`` shows the operator's certificate to PSC. Its listener demands a client certificate."""
    proxy = _Proxy(http, tls, config, clock)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return Starlette(
        routes=[
            Route("/connect", partial(_connect, proxy), methods=["POST"]),
            Route("/disconnect", partial(_disconnect, proxy), methods=["DELETE"]),
            Route("/send/{service}/{endpoint:path}", partial(_send, proxy), methods=methods),
            Route("/traces", partial(_traces, proxy), methods=["GET"]),
        ],
        exception_handlers={DrimboxError: _unavailable},
    )


async def _connect(proxy: _Proxy, request: Request) -> Response:
    if proxy.session(request) is not None:
        return Response(status_code=304)
    try:
        wanted = _wanted(await read_json(request))
    except Refused as error:
        return _error(400, error.reason)
    if proxy.caller(request) != wanted["clientId"]:
        return _error(404, "clientId inconnu")
    reply = await _confirmed(proxy, wanted)
    if isinstance(reply, Response):
        proxy.trace("CONNECT_FAILURE", request, wanted["clientId"], wanted["nationalId"])
        return reply
    now, secret = proxy.clock.now(), new_secret()
    session = _Session(wanted["nationalId"], wanted["clientId"], {}, now, now + SESSION_LIFE)
    proxy.keep(session, reply)
    proxy.sessions[secret] = session
    proxy.trace("CONNECT_SUCCESS", request, session.client_id, session.national_id, secret)
    answer = JSONResponse(
        {"proxy_session_id": secret, "session_state": reply.get("session_state", "")}, headers=NO_STORE
    )
    answer.set_cookie(COOKIE, secret, path="/", secure=True, httponly=True, samesite="strict")
    return answer


def _wanted(content: dict[str, Any]) -> dict[str, str]:
    names = ("nationalId", "bindingMessage", "clientId", "channel")
    if sorted(content) != sorted(names) or not all(isinstance(content[name], str) for name in names):
        raise Refused("nationalId, bindingMessage, clientId et channel sont exigés", code="invalid_request")
    if not re.fullmatch(r"[0-9]{2}", content["bindingMessage"]):
        raise Refused("bindingMessage : de 00 à 99", code="invalid_request")
    if content["channel"] not in ("CARD", "MOBILE"):
        raise Refused("channel : CARD ou MOBILE", code="invalid_request")
    return {name: content[name] for name in names}


async def _confirmed(proxy: _Proxy, wanted: dict[str, str]) -> dict[str, Any] | Response:
    """The tokens of a confirmed login, or the answer that says why there are none."""
    asked = await proxy.post(
        "ext/ciba/auth",
        {
            "client_id": wanted["clientId"],
            "scope": "openid scope_all",
            "acr_values": ACR,
            "login_hint": wanted["nationalId"],
            "binding_message": wanted["bindingMessage"],
            "channel": wanted["channel"],
        },
    )
    told = _json(asked)
    if asked.status != 200:
        return _error(404 if told.get("error") == "unknown_user_id" else 503, "Demande refusée par Pro Santé Connect")
    interval, fields = int(told["interval"]), {"client_id": wanted["clientId"], "grant_type": GRANT}
    while True:
        await asyncio.sleep(interval + proxy.config.pause)
        answer = await proxy.post("token", fields | {"auth_req_id": told["auth_req_id"]})
        content = _json(answer)
        if answer.status == 200:
            return content
        match content.get("error"):
            case "authorization_pending":
                continue
            case "slow_down":
                interval += 5
            case _:
                return _error(401, "Connexion refusée, ou non confirmée à temps")


async def _disconnect(proxy: _Proxy, request: Request) -> Response:
    found = proxy.session(request)
    if found is None:
        return _error(401, "Session ID not found")
    secret, session = found
    del proxy.sessions[secret]
    proxy.trace("DISCONNECT", request, session.client_id, session.national_id, secret)
    await proxy.post("revoke", {"client_id": session.client_id, "token": session.tokens["refresh_token"]})
    await proxy.post("logout", {"client_id": session.client_id, "id_token_hint": session.tokens["id_token"]})
    answer = Response(headers=NO_STORE)
    answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return answer


async def _send(proxy: _Proxy, request: Request) -> Response:
    found = proxy.session(request)
    if found is None:
        return _error(401, "No session found.")
    secret, session = found
    service, endpoint = request.path_params["service"], request.path_params["endpoint"]
    proxy.trace("SEND", request, session.client_id, session.national_id, secret)
    token = await _access_token(proxy, session)
    if token is None:
        del proxy.sessions[secret]
        return _error(401, "La session Pro Santé Connect est terminée")
    if (service, endpoint) == ("psc", "token"):
        left = int((session.fresh_until - proxy.clock.now()).total_seconds())
        return JSONResponse({"access_token": token, "expires_in": left}, headers=NO_STORE)
    backends = {"psc": f"{proxy.config.psc}{PROTOCOL}", **proxy.config.backends}
    if service not in backends:
        return _error(502, "Service inconnu")
    headers = {name: value for name, value in request.headers.items() if name.lower() in _RELAYED}
    reply = await proxy.http.send(
        request.method,
        f"{backends[service]}/{endpoint}",
        tls=proxy.tls,
        headers=headers | {"Authorization": f"Bearer {token}"},
        body=await read_body(request) or None,
        timeout=30,
    )
    return Response(reply.body, reply.status, media_type=reply.headers.get("Content-Type"), headers=NO_STORE)


async def _traces(proxy: _Proxy, request: Request) -> Response:
    if proxy.caller(request) is None:
        return _error(401, "Appelant inconnu")
    start, end = (request.query_params.get(name, "") for name in ("start", "end"))
    return JSONResponse(
        [t for t in proxy.traces if (not start or t["timestamp"] >= start) and (not end or t["timestamp"] <= end)]
    )


async def _access_token(proxy: _Proxy, session: _Session) -> str | None:
    """The session's access token, refreshed when it has less than half a minute to live; None when PSC says no."""
    async with session.lock:
        if session.fresh_until - proxy.clock.now() < dt.timedelta(seconds=30):
            fields = {"grant_type": "refresh_token", "refresh_token": session.tokens["refresh_token"]}
            reply = await proxy.post("token", {"client_id": session.client_id, **fields})
            if reply.status != 200:
                return None
            proxy.keep(session, _json(reply))
        token: str = session.tokens["access_token"]
        return token


def _json(reply: Reply) -> dict[str, Any]:
    try:
        content = json.loads(reply.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _error(status: int, reason: str) -> Response:
    return JSONResponse({"status": str(status), "message": reason}, status_code=status, headers=NO_STORE)


async def _unavailable(_request: Request, _error_: Exception) -> Response:
    return _error(503, "Pro Santé Connect ne répond pas")
