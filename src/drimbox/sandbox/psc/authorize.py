"""The authorization endpoint: the strict reading of a request, the login page, the code (standards.md F.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.sandbox.forms import once_each, read_form
from drimbox.sandbox.psc import pages
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.ledger import SESSION_LIFE, Asked, Session
from drimbox.sandbox.psc.provider import NO_STORE, SCOPE, Provider
from drimbox.sandbox.psc.tokens import ACR

SESSION_COOKIE = "psc_sandbox_session"
BROWSER_COOKIE = "psc_sandbox_browser"
LOGIN_PATH = "/auth/connexion"

#: 128 random bits fill at least 22 characters of base64url.
MIN_RANDOM = 22
MAX_VALUE = 2048
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_NOT_SUPPORTED = {
    "request": "request_not_supported",
    "request_uri": "request_uri_not_supported",
    "registration": "registration_not_supported",
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request with what it says on how fresh the login must be."""

    asked: Asked
    prompt: str
    max_age: int | None


async def authorize(provider: Provider, request: Request) -> Response:
    """``GET /auth``: the login page, or the code at once when the browser has a session."""
    try:
        parameters = once_each(request.query_params.multi_items())
        client, redirect_uri = _destination(parameters, provider.clients)
    except Refused as error:
        return pages.problem("Demande de connexion refusée", error.reason)
    try:
        wanted = _read(parameters, client, redirect_uri)
    except Refused as error:
        return _sent_back(provider, redirect_uri, parameters.get("state"), error)
    if provider.faults.of("authorization") == "denied":
        return _sent_back(provider, redirect_uri, wanted.asked.state, _denied())
    session = _session(provider, request, wanted)
    if session is not None:
        return _with_code(provider, session, wanted.asked)
    if wanted.prompt == "none":
        refusal = Refused("Aucune session Pro Santé Connect", code="login_required")
        return _sent_back(provider, redirect_uri, wanted.asked.state, refusal)
    browser = request.cookies.get(BROWSER_COOKIE) or new_secret()
    secret = provider.ledger.begin_login(wanted.asked, browser)
    page = pages.login(client, tuple(provider.users.values()), secret, _origin(redirect_uri))
    _set_cookie(page, BROWSER_COOKIE, browser)
    return page


async def log_in(provider: Provider, request: Request) -> Response:
    """``POST /auth/connexion``: the choice made on the page."""
    try:
        form = await read_form(request)
    except Refused as error:
        return pages.problem("Connexion refusée", error.reason)
    asked = provider.ledger.take_login(form.get("csrf_token", ""), request.cookies.get(BROWSER_COOKIE, ""))
    if asked is None:
        return pages.problem(
            "Page de connexion expirée", "Cette page a déjà servi ou a expiré. Reprenez depuis votre logiciel."
        )
    if "cancel" in form:
        return _sent_back(provider, asked.redirect_uri, asked.state, _denied())
    user = provider.users.get(form.get("user", ""))
    if user is None:
        return pages.problem("Connexion refusée", "Cette carte e-CPS n'existe pas dans le bac à sable.")
    session, cookie = provider.ledger.open_session(user)
    answer = _with_code(provider, session, asked)
    _set_cookie(answer, SESSION_COOKIE, cookie)
    return answer


def _destination(parameters: Mapping[str, str], clients: Mapping[str, Client]) -> tuple[Client, str]:
    """Who asks, and where the answer goes: as long as these are not right, nothing is sent anywhere."""
    client = clients.get(parameters.get("client_id", ""))
    if client is None:
        raise Refused("Le service demandeur (client_id) n'est pas enregistré.", code="invalid_request")
    redirect_uri = parameters.get("redirect_uri", "")
    if redirect_uri not in client.redirect_uris:
        raise Refused(
            "L'adresse de retour (redirect_uri) n'est pas enregistrée pour ce service.", code="invalid_request"
        )
    return client, redirect_uri


def _read(parameters: Mapping[str, str], client: Client, redirect_uri: str) -> _Wanted:
    for name, code in _NOT_SUPPORTED.items():
        if name in parameters:
            raise Refused(f"{name} n'est pas pris en charge", code=code)
    if any(len(value) > MAX_VALUE for value in parameters.values()):
        raise Refused("Paramètre trop long", code="invalid_request")
    if parameters.get("response_type") != "code":
        raise Refused("response_type=code est exigé", code="unsupported_response_type")
    if parameters.get("response_mode", "query") != "query":
        raise Refused("response_mode=query seulement", code="invalid_request")
    scope = parameters.get("scope", "").split(" ")
    if sorted(scope) != sorted(SCOPE):
        raise Refused("scope=openid scope_all est exigé", code="invalid_scope")
    if parameters.get("acr_values") != ACR:
        raise Refused("acr_values=eidas1 est exigé", code="invalid_request")
    state, nonce = parameters.get("state", ""), parameters.get("nonce", "")
    if len(state) < MIN_RANDOM or len(nonce) < MIN_RANDOM or state == nonce:
        raise Refused("state et nonce : 128 bits aléatoires chacun, différents", code="invalid_request")
    if parameters.get("code_challenge_method") != "S256":
        raise Refused("PKCE est exigé : code_challenge_method=S256", code="invalid_request")
    challenge = parameters.get("code_challenge", "")
    if not _CHALLENGE.fullmatch(challenge):
        raise Refused("code_challenge : SHA-256 en base64url", code="invalid_request")
    prompt = parameters.get("prompt", "")
    if prompt not in ("", "none", "login"):
        raise Refused("prompt : none ou login", code="invalid_request")
    asked = Asked(client.client_id, redirect_uri, " ".join(SCOPE), state, nonce, challenge)
    return _Wanted(asked, prompt, _max_age(parameters.get("max_age")))


def _max_age(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or int(value) > SESSION_LIFE.total_seconds():
        raise Refused("max_age : secondes, 4 heures au plus", code="invalid_request")
    return int(value)


def _session(provider: Provider, request: Request, wanted: _Wanted) -> Session | None:
    session = provider.ledger.session_of_cookie(request.cookies.get(SESSION_COOKIE, ""))
    if session is None or wanted.prompt == "login":
        return None
    age = (provider.clock.now() - session.authenticated_at).total_seconds()
    return None if wanted.max_age is not None and age > wanted.max_age else session


def _with_code(provider: Provider, session: Session, asked: Asked) -> Response:
    code = provider.ledger.open_grant(session, asked)
    fault = provider.faults.of("authorization")
    return _redirect(
        asked.redirect_uri,
        {
            "state": new_secret() if fault == "wrong-state" else asked.state,
            "session_state": session.sid,
            "iss": provider.issuer + ("-autre" if fault == "wrong-issuer" else ""),
            "code": code,
        },
    )


def _sent_back(provider: Provider, redirect_uri: str, state: str | None, error: Refused) -> Response:
    parameters = {"error": error.code, "error_description": error.reason, "iss": provider.issuer}
    return _redirect(redirect_uri, parameters | ({"state": state} if state else {}))


def _denied() -> Refused:
    return Refused("Connexion refusée par l'utilisateur", code="access_denied")


def _redirect(redirect_uri: str, parameters: Mapping[str, str]) -> Response:
    joint = "&" if urlsplit(redirect_uri).query else "?"
    # 303: the browser fetches the answer by GET, also after the form's POST.
    return RedirectResponse(f"{redirect_uri}{joint}{urlencode(parameters)}", status_code=303, headers=NO_STORE)


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _set_cookie(answer: Response, name: str, value: str) -> None:
    answer.set_cookie(name, value, path="/", secure=True, httponly=True, samesite="lax")
