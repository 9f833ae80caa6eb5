"""What no real PSC has: test logins told, a token without a browser, faults on demand. All under ``/sandbox``."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drimbox.foundation.errors import Refused
from drimbox.foundation.http_server import client_certificate
from drimbox.sandbox.forms import read_json
from drimbox.sandbox.psc.ledger import ACCESS_LIFE, Asked, Kind
from drimbox.sandbox.psc.provider import NO_STORE, SCOPE, Provider
from drimbox.sandbox.psc.userinfo import userinfo


async def users(provider: Provider, _request: Request) -> Response:
    """``GET /sandbox/users``: the test logins, with the userinfo each leads to."""
    return JSONResponse([{"login": user.login, "userinfo": userinfo(user)} for user in provider.users.values()])


async def give_token(provider: Provider, request: Request) -> Response:
    """``POST /sandbox/token`` ``{"user": login, "client_id": ...}``: a genuine access token of two minutes.

    It is bound to the caller's TLS client certificate when one is presented, like a token got by ``tls_client_auth``.
    """
    wanted = await read_json(request)
    user = provider.users.get(str(wanted.get("user", "")))
    client = provider.clients.get(str(wanted.get("client_id", "")))
    if user is None or client is None:
        raise Refused("user ou client_id inconnu", code="invalid_request")
    session, _ = provider.ledger.open_session(user)
    random = (secrets.token_urlsafe(32) for _ in range(3))
    asked = Asked(client.client_id, "", " ".join(SCOPE), *random)
    grant = provider.ledger.redeem(provider.ledger.open_grant(session, asked), client.client_id)
    access = provider.ledger.record(grant, Kind.ACCESS)
    return JSONResponse(
        {
            "access_token": provider.mint.access(access, client_certificate(request)),
            "expires_in": int(ACCESS_LIFE.total_seconds()),
            "token_type": "Bearer",
        },
        headers=NO_STORE,
    )


async def devices(provider: Provider, request: Request) -> Response:
    """``GET /sandbox/devices``: what rings; ``POST {"user": login, "confirmed": true}``: that user's answer."""
    ringing = provider.ledger.ringing()
    if request.method == "POST":
        wanted = await read_json(request)
        confirmed = wanted.get("confirmed")
        if not isinstance(confirmed, bool):
            raise Refused("confirmed : true ou false", code="invalid_request")
        mine = [known for known in ringing if known.user.login == wanted.get("user")]
        if not mine:
            raise Refused("Rien n'attend cet utilisateur", code="invalid_request")
        for known in mine:
            provider.ledger.answer_device(known.auth_req_id, confirmed=confirmed)
        ringing = mine
    shown = [{"user": known.user.login, "binding": known.binding, "channel": known.channel} for known in ringing]
    return JSONResponse(shown, headers=NO_STORE)


async def control_faults(provider: Provider, request: Request) -> Response:
    """``GET``, ``POST``, ``DELETE /sandbox/faults``: see ``faults``."""
    if request.method == "POST":
        provider.faults.set(await read_json(request))
    elif request.method == "DELETE":
        provider.faults.clear()
    return JSONResponse(provider.faults.shown(), headers=NO_STORE)
