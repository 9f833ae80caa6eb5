"""Logins on the professional's own device (CIBA, poll mode), and that device: a page in place of a telephone.

The rules are those of ``standards.md`` F.5 and of the protocol (CIBA Core 7.1, 10.1, 11): mutual TLS only, one hint, a
binding message of two digits, polls no closer to each other than the interval.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from drimbox.foundation.errors import Refused
from drimbox.sandbox.forms import read_form
from drimbox.sandbox.psc import pages
from drimbox.sandbox.psc.clients import Caller, authenticate
from drimbox.sandbox.psc.ledger import Grant
from drimbox.sandbox.psc.provider import NO_STORE, SCOPE, Provider
from drimbox.sandbox.psc.tokens import ACR

GRANT = "urn:openid:params:grant-type:ciba"
PAGE = "/auth/ecps"
LIFE = dt.timedelta(seconds=120)
_BINDING = re.compile(r"[0-9]{2}")
_NOT_IN_POLL_MODE = ("client_notification_token", "id_token_hint", "login_hint_token", "user_code", "request")


async def ask(provider: Provider, request: Request) -> Response:
    """``POST ext/ciba/auth``: ring a professional's device."""
    form = await read_form(request)
    caller = authenticate(request, form, provider.clients)
    if caller.certificate is None:
        raise Refused("CIBA : authentification par certificat (tls_client_auth) exigée", code="invalid_client")
    if not caller.client.ciba:
        raise Refused("CIBA n'est pas activé pour ce service", code="unauthorized_client")
    _check(form)
    user = next((u for u in provider.users.values() if u.national_id == form["login_hint"]), None)
    if user is None:
        raise Refused("Aucun utilisateur de cet identifiant national", code="unknown_user_id")
    asked = provider.ledger.ask_device(
        caller.client.client_id,
        user,
        form["binding_message"],
        form["channel"],
        " ".join(SCOPE),
        LIFE,
        provider.poll_seconds,
    )
    answer = {
        "auth_req_id": asked.auth_req_id,
        "expires_in": int(LIFE.total_seconds()),
        "interval": provider.poll_seconds,
    }
    return JSONResponse(answer, headers=NO_STORE)


def redeemed(provider: Provider, caller: Caller, form: Mapping[str, str]) -> Grant:
    """The grant of a request that its user has confirmed."""
    if caller.certificate is None:
        raise Refused("CIBA : authentification par certificat (tls_client_auth) exigée", code="invalid_client")
    return provider.ledger.poll_device(form.get("auth_req_id", ""), caller.client.client_id)


async def page(provider: Provider, _request: Request) -> Response:
    """The device: what rings, with the number to compare."""
    return pages.device(provider.ledger.ringing(), provider.clients, PAGE)


async def answer(provider: Provider, request: Request) -> Response:
    """The button that was pressed on the device."""
    try:
        form = await read_form(request)
    except Refused as error:
        return pages.problem("Réponse refusée", error.reason)
    if not provider.ledger.answer_device(form.get("demande", ""), confirmed="confirmer" in form):
        return pages.problem("Demande expirée", "Cette demande n'attend plus de réponse.")
    return RedirectResponse(PAGE, status_code=303, headers=NO_STORE)


def _check(form: Mapping[str, str]) -> None:
    for name in _NOT_IN_POLL_MODE:
        if name in form:
            raise Refused(f"{name} n'est pas accepté en mode poll", code="invalid_request")
    if sorted(form.get("scope", "").split(" ")) != sorted(SCOPE):
        raise Refused("scope=openid scope_all est exigé", code="invalid_scope")
    if form.get("acr_values") != ACR:
        raise Refused("acr_values=eidas1 est exigé", code="invalid_request")
    if not form.get("login_hint"):
        raise Refused("login_hint : identifiant national", code="invalid_request")
    if not _BINDING.fullmatch(form.get("binding_message", "")):
        raise Refused("binding_message : deux chiffres, de 00 à 99", code="invalid_binding_message")
    if form.get("channel") not in ("CARD", "MOBILE"):
        raise Refused("channel : CARD ou MOBILE", code="invalid_request")
