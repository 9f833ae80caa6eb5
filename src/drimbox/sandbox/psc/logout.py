"""The end of a session: asked for by the service through the browser, told to every service that took part (F.6)."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from drimbox.foundation.errors import Refused
from drimbox.sandbox.forms import once_each, read_form
from drimbox.sandbox.psc import pages
from drimbox.sandbox.psc.authorize import SESSION_COOKIE
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.ledger import Session
from drimbox.sandbox.psc.provider import NO_STORE, Provider


async def logout(provider: Provider, request: Request) -> Response:
    """``GET`` or ``POST logout``: ends the session that ``id_token_hint`` names (RP-Initiated Logout 2)."""
    try:
        form = await read_form(request) if request.method == "POST" else once_each(request.query_params.multi_items())
        client, sid = _hinted(provider, form)
        destination = _destination(client, form)
    except Refused as error:
        return pages.problem("Déconnexion refusée", error.reason)
    session = provider.ledger.end_session(sid)
    frames: list[str] = []
    if session is not None:
        await _tell(provider, session)
        frames = _frames(provider, session, client)
    if frames or destination is None:
        answer: Response = pages.goodbye(frames, destination)
    else:
        answer = RedirectResponse(destination, status_code=303, headers=NO_STORE)
    answer.delete_cookie(SESSION_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return answer


def _hinted(provider: Provider, form: dict[str, str]) -> tuple[Client, str]:
    """The client and the session of the id_token, which may well have expired."""
    claims = provider.mint.read(form.get("id_token_hint", ""), "ID")
    if claims is None:
        raise Refused("La demande ne porte pas d'id_token valable (id_token_hint).", code="invalid_request")
    client = provider.clients.get(claims["azp"])
    if client is None or form.get("client_id", client.client_id) != client.client_id:
        raise Refused("L'id_token est celui d'un autre service.", code="invalid_request")
    return client, claims["sid"]


def _destination(client: Client, form: dict[str, str]) -> str | None:
    address = form.get("post_logout_redirect_uri")
    if address is None:
        return None
    if address not in client.post_logout_redirect_uris:
        raise Refused(
            "L'adresse de retour (post_logout_redirect_uri) n'est pas enregistrée pour ce service.",
            code="invalid_request",
        )
    if "state" not in form:
        return address
    return address + ("&" if urlsplit(address).query else "?") + urlencode({"state": form["state"]})


async def _tell(provider: Provider, session: Session) -> None:
    """Call the back-channel address of every service of the session; it is told before the browser goes on."""
    if provider.notify is None:
        return
    calls = [
        provider.notify(client.backchannel_logout, provider.mint.logout(client_id, session.user.subject, session.sid))
        for client_id in sorted(session.clients)
        if (client := provider.clients.get(client_id)) is not None and client.backchannel_logout
    ]
    await asyncio.gather(*calls)


def _frames(provider: Provider, session: Session, asking: Client) -> list[str]:
    query = urlencode({"iss": provider.issuer, "sid": session.sid})
    addresses = [
        client.frontchannel_logout
        for client_id in sorted(session.clients)
        if (client := provider.clients.get(client_id)) is not None
        and client.frontchannel_logout
        and client.client_id != asking.client_id
    ]
    return [address + ("&" if urlsplit(address).query else "?") + query for address in addresses]
