"""The endpoints of the provider, at ``/api/v2`` as FranceConnect+ has them, and the pages that a browser sees."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from urllib.parse import urlencode, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_secret
from drimbox.sandbox.citizens.mint import LIFE, Mint
from drimbox.sandbox.citizens.people import TEST_CITIZEN, Citizen
from drimbox.sandbox.citizens.services import Service, authenticate
from drimbox.sandbox.forms import once_each, read_form

BASE = "/api/v2"
LEVELS = ("eidas2", "eidas3")
SCOPES = frozenset(
    ("openid", "family_name", "given_name", "gender", "birthdate", "birthplace", "birthcountry", "email")
)
_COOKIE = "citizens_browser"
_CODE_LIFE = dt.timedelta(seconds=30)
_NO_STORE = {"Cache-Control": "no-store"}
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_KNOWN = frozenset(
    (
        "response_type",
        "client_id",
        "redirect_uri",
        "acr_values",
        "scope",
        "claims",
        "state",
        "nonce",
        "prompt",
        "code_challenge",
        "code_challenge_method",
    )
)


@dataclass(frozen=True, slots=True)
class _Asked:
    service: Service
    redirect_uri: str
    scopes: frozenset[str]
    acr: str
    state: str
    nonce: str
    challenge: str
    browser: str


@dataclass(slots=True)
class _Grant:
    asked: _Asked
    citizen: Citizen
    ends_at: dt.datetime
    used: bool = False
    access_token: str = ""


@dataclass(slots=True)
class Citizens:
    """The provider. ``citizens`` may log in; ``fault`` is what is wrong with the next id_tokens (``mint.FAULTS``),
    ``userinfo_fault`` with the next userinfo (those, or ``other-sub``, ``plain``); ``strict``: parameters that are not
    known are refused; ``names_itself``: answers carry ``iss`` (RFC 9207)."""

    base_url: str
    services: Mapping[str, Service]
    clock: Clock
    citizens: Sequence[Citizen] = (TEST_CITIZEN,)
    fault: str = ""
    userinfo_fault: str = ""
    strict: bool = True
    names_itself: bool = True
    ended: list[str] = field(default_factory=list)
    mint: Mint = field(init=False)
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _codes: dict[str, _Grant] = field(default_factory=dict)
    _tokens: dict[str, tuple[_Grant, dt.datetime]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mint = Mint(self.issuer, self.clock)

    @property
    def issuer(self) -> str:
        return f"{self.base_url}{BASE}"

    @property
    def discovery_url(self) -> str:
        return f"{self.issuer}/.well-known/openid-configuration"

    async def discovery(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "end_session_endpoint": f"{self.issuer}/session/end",
                "jwks_uri": f"{self.issuer}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "acr_values_supported": list(LEVELS),
                "scopes_supported": sorted(SCOPES),
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": self.names_itself,
            }
        )

    async def jwks(self, request: Request) -> Response:
        return JSONResponse(self.mint.public_keys())

    async def authorize(self, request: Request) -> Response:
        """The page of a request that is right in every point; what is wrong before the address to go back to is known
        stays here."""
        try:
            given = once_each(request.query_params.multi_items())
            service = self.services.get(given.get("client_id", ""))
            if service is None or given.get("redirect_uri") not in service.redirect_uris:
                raise Refused("Service inconnu, ou adresse de retour qui n'est pas la sienne", code="Y000400")
            browser = request.cookies.get(_COOKIE) or new_secret()
            asked = self._read(given, service, browser)
        except Refused as error:
            return _page("Demande refusée", f"<p role=alert>{escape(error.reason)}</p>", status=400)
        ticket = new_secret()
        self._asked[ticket] = asked
        back = urlsplit(asked.redirect_uri)
        page = _choice(asked.service, self.citizens, ticket, f"{back.scheme}://{back.netloc}")
        page.set_cookie(_COOKIE, browser, secure=True, httponly=True, samesite="lax")
        return page

    async def log_in(self, request: Request) -> Response:
        """The choice made on the page."""
        try:
            form = await read_form(request)
        except Refused as error:
            return _page("Demande refusée", escape(error.reason), status=400)
        asked = self._asked.pop(form.get("ticket", ""), None)
        if asked is None or not hmac.compare_digest(asked.browser, request.cookies.get(_COOKIE, "")):
            return _page("Page périmée", "<p role=alert>Recommencez depuis votre service.</p>", status=400)
        citizen = next((one for one in self.citizens if one.login == form.get("citizen")), None)
        back = {"state": asked.state} | ({"iss": self.issuer} if self.names_itself else {})
        if citizen is None:
            return _to(asked.redirect_uri, {"error": "access_denied", "error_description": "User auth aborted", **back})
        code = new_secret()
        self._codes[code] = _Grant(asked, citizen, self.clock.now() + _CODE_LIFE)
        return _to(asked.redirect_uri, {"code": code, **back})

    async def token(self, request: Request) -> Response:
        try:
            form = await read_form(request)
            now = self.clock.now()
            service = await authenticate(request, form, self.services, f"{self.issuer}/token", now)
            grant = self._redeemed(form, service)
        except Refused as error:
            status = 401 if error.code == "invalid_client" else 400
            return JSONResponse({"error": error.code, "error_description": error.reason}, status, _NO_STORE)
        asked, client_id = grant.asked, service.client_id
        grant.access_token = new_secret()
        self._tokens[grant.access_token] = grant, self.clock.now() + dt.timedelta(seconds=LIFE)
        signed = self.mint.identity(
            grant.citizen.subject(client_id),
            client_id,
            nonce=asked.nonce,
            acr=asked.acr,
            access_token=grant.access_token,
            sid=new_secret(),
            fault=self.fault,
        )
        answer = {
            "access_token": grant.access_token,
            "token_type": "Bearer",
            "expires_in": LIFE,
            "id_token": await self._for(service, signed, self.fault),
        }
        return JSONResponse(answer, headers=_NO_STORE)

    async def userinfo(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = self._tokens.get(token) if scheme == "Bearer" else None
        if found is None or found[1] <= self.clock.now():
            return JSONResponse({"error": "invalid_token"}, 401, _NO_STORE)
        grant, fault = found[0], self.userinfo_fault
        service = grant.asked.service
        told = {name: value for name, value in grant.citizen.claims().items() if name in grant.asked.scopes}
        now = int(self.clock.now().timestamp())
        subject = grant.citizen.subject("another" if fault == "other-sub" else service.client_id)
        claims = {**told, "sub": subject, "iss": self.issuer, "aud": service.client_id, "iat": now, "exp": now + LIFE}
        if fault == "wrong-audience":
            claims["aud"] = "un-autre-service"
        if fault == "wrong-issuer":
            claims["iss"] = "https://autre.test"
        if fault == "expired":
            claims["exp"] = now - 120
        if fault == "plain":
            return JSONResponse({**told, "sub": subject}, headers=_NO_STORE)
        body = await self._for(service, self.mint.signed(claims, fault), fault)
        return Response(body, media_type="application/jwt", headers=_NO_STORE)

    async def end(self, request: Request) -> Response:
        """The end of the session: the service, its own address, and a state are exactly as they were registered."""
        given = request.query_params
        claims = self.mint.read(given.get("id_token_hint", ""))
        service = self.services.get(str(claims["aud"])) if claims else None
        to = given.get("post_logout_redirect_uri", "")
        if service is None or claims is None or to not in service.post_logout_redirect_uris or not given.get("state"):
            return _page("Déconnexion refusée", "<p role=alert>Demande de déconnexion incomplète.</p>", status=400)
        self.ended.append(str(claims["sub"]))
        return _to(to, {"state": given["state"]})

    def _read(self, given: Mapping[str, str], service: Service, browser: str) -> _Asked:
        scopes = frozenset(given.get("scope", "").split())
        state, nonce = given.get("state", ""), given.get("nonce", "")
        challenge = given.get("code_challenge", "")
        wrong = [
            given.get("response_type") != "code",
            "openid" not in scopes or not scopes <= SCOPES,
            given.get("acr_values") not in LEVELS,
            min(len(state), len(nonce)) < 32 or state == nonce,
            given.get("prompt", "") not in ("", "login", "consent", "login consent"),
            bool(challenge) != (given.get("code_challenge_method") == "S256"),
            bool(challenge) and not _CHALLENGE.fullmatch(challenge),
            self.strict and not set(given) <= _KNOWN,
        ]
        if any(wrong):
            raise Refused(f"Demande mal formée (règle {wrong.index(True) + 1})", code="Y000400")
        return _Asked(service, given["redirect_uri"], scopes, given["acr_values"], state, nonce, challenge, browser)

    def _redeemed(self, form: Mapping[str, str], service: Service) -> _Grant:
        if form.get("grant_type") != "authorization_code":
            raise Refused("grant_type=authorization_code est exigé", code="unsupported_grant_type")
        grant = self._codes.get(form.get("code", ""))
        if grant is None or grant.asked.service is not service or grant.ends_at <= self.clock.now():
            raise Refused("code inconnu ou périmé", code="invalid_grant")
        if grant.used:
            # RFC 6749 4.1.2: what a stolen code gave falls with it.
            self._tokens.pop(grant.access_token, None)
            raise Refused("code déjà utilisé", code="invalid_grant")
        grant.used = True
        if form.get("redirect_uri") != grant.asked.redirect_uri:
            raise Refused("redirect_uri n'est pas celle de la demande", code="invalid_grant")
        verifier = form.get("code_verifier", "")
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if grant.asked.challenge and not hmac.compare_digest(digest, grant.asked.challenge):
            raise Refused("code_verifier ne répond pas au code_challenge", code="invalid_grant")
        return grant

    async def _for(self, service: Service, token: str, fault: str) -> str:
        return self.mint.sealed(token, await service.keys(), fault) if service.encrypted else token


def citizens_app(provider: Citizens) -> Starlette:
    """The provider at its ``base_url``."""
    return Starlette(
        routes=[
            Route(f"{BASE}/.well-known/openid-configuration", provider.discovery, methods=["GET"]),
            Route(f"{BASE}/jwks", provider.jwks, methods=["GET"]),
            Route(f"{BASE}/authorize", provider.authorize, methods=["GET"]),
            Route(f"{BASE}/connexion", provider.log_in, methods=["POST"]),
            Route(f"{BASE}/token", provider.token, methods=["POST"]),
            Route(f"{BASE}/userinfo", provider.userinfo, methods=["GET"]),
            Route(f"{BASE}/session/end", provider.end, methods=["GET"]),
        ]
    )


def _to(address: str, fields: Mapping[str, str]) -> Response:
    return RedirectResponse(f"{address}?{urlencode(fields)}", 303, _NO_STORE)


def _choice(service: Service, citizens: Sequence[Citizen], ticket: str, origin: str) -> Response:
    buttons = "".join(
        f"<p><button name=citizen value='{escape(one.login)}'>{escape(one.given)} {escape(one.family)}</button></p>"
        for one in citizens
    )
    form = (
        f"<p>Service : <strong>{escape(service.name)}</strong></p>"
        f"<form method=post action='{BASE}/connexion'><input type=hidden name=ticket value='{ticket}'>{buttons}"
        "<p><button name=citizen value=''>Refuser</button></p></form>"
    )
    return _page("Choisissez votre identité d’essai", form, action=f"'self' {origin}")


def _page(title: str, body: str, *, status: int = 200, action: str = "'self'") -> Response:
    text = (
        '<!doctype html><html lang="fr"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · Identité des citoyens, bac à sable</title></head><body><main><h1>{title}</h1>{body}"
        "<p>Service d’essai, sans lien avec un service national.</p></main></body></html>"
    )
    policy = f"default-src 'none'; form-action {action}; frame-ancestors 'none'; base-uri 'none'"
    return HTMLResponse(text, status, {**_NO_STORE, "Content-Security-Policy": policy})
