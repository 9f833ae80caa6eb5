"""The endpoints that services call: token, userinfo, introspection, revocation (standards.md F.2 to F.4, F.6)."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drimbox.foundation.errors import Refused
from drimbox.foundation.http_server import client_certificate
from drimbox.sandbox.forms import read_form
from drimbox.sandbox.psc import devices
from drimbox.sandbox.psc.clients import Caller, authenticate
from drimbox.sandbox.psc.ledger import Grant, Kind, Token
from drimbox.sandbox.psc.provider import NO_STORE, SCOPE, Provider
from drimbox.sandbox.psc.tokens import challenge_of, thumbprint
from drimbox.sandbox.psc.userinfo import userinfo

logger = logging.getLogger(__name__)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


async def token(provider: Provider, request: Request) -> Response:
    """``POST token``: a code or a refresh token becomes tokens."""
    form = await read_form(request)
    caller = authenticate(request, form, provider.clients)
    match form.get("grant_type"):
        case "authorization_code":
            grant = _redeemed(provider, caller, form)
            nonce: str | None = grant.asked.nonce
        case "refresh_token":
            grant = _rotated(provider, caller, form)
            # OpenID Connect Core 12.2: the id_token of a refresh should carry no nonce.
            nonce = None
        case devices.GRANT:
            grant = devices.redeemed(provider, caller, form)
            nonce = None
        case _:
            raise Refused("grant_type : authorization_code, refresh_token ou ciba", code="unsupported_grant_type")
    logger.info("tokens given to %s", caller.client.client_id)
    return JSONResponse(_tokens(provider, grant, caller, nonce), headers=NO_STORE)


async def user_information(provider: Provider, request: Request) -> Response:
    """``GET`` or ``POST userinfo`` with a bearer; JSON, or a JWT when asked for."""
    held, claims = _bearer(provider, request)
    about = userinfo(held.grant.session.user)
    match provider.faults.of("userinfo"):
        case "other-subject":
            about |= {"sub": about["sub"] + "0"}
        case "no-practices":
            del about["SubjectRefPro"]
        case "empty":
            about = {"sub": about["sub"]}
    if "application/jwt" in request.headers.get("accept", ""):
        signed = provider.mint.signed_userinfo(about, claims["azp"])
        return Response(signed, media_type="application/jwt", headers=NO_STORE)
    return JSONResponse(about, headers=NO_STORE)


async def introspect(provider: Provider, request: Request) -> Response:
    """``POST token/introspect``: any registered service may ask about any token (RFC 7662)."""
    form = await read_form(request)
    authenticate(request, form, provider.clients)
    presented = form.get("token")
    if not presented:
        raise Refused("token est exigé", code="invalid_request")
    claims = provider.mint.read(presented, Kind.ACCESS.value, Kind.REFRESH.value)
    held = provider.ledger.live_token(claims["jti"]) if claims else None
    if claims is None or held is None or provider.faults.of("introspect") == "inactive":
        return JSONResponse({"active": False}, headers=NO_STORE)
    user = held.grant.session.user
    answer = claims | {"client_id": claims["azp"], "username": user.national_id, "active": True}
    if held.kind is Kind.ACCESS:
        # standards.md F.3: the national id is told for an access token only. The profession, which a source needs for
        # DB.SO.34, is told beside it in the form of userinfo; public text does not say where the real one tells it.
        answer |= {"SubjectNameID": user.national_id, "SubjectRole": [user.role]}
        if provider.faults.of("introspect") == "other-certificate":
            answer |= {"cnf": {"x5t#S256": thumbprint(b"another certificate")}}
    return JSONResponse(answer, headers=NO_STORE)


async def revoke(provider: Provider, request: Request) -> Response:
    """``POST revoke`` (RFC 7009): 200 whatever the token was, so that nothing is learnt."""
    form = await read_form(request)
    caller = authenticate(request, form, provider.clients)
    if not form.get("token"):
        raise Refused("token est exigé", code="invalid_request")
    claims = provider.mint.read(form["token"], Kind.ACCESS.value, Kind.REFRESH.value)
    if claims is not None:
        provider.ledger.revoke(claims["jti"], caller.client.client_id)
    return Response(headers=NO_STORE)


def _redeemed(provider: Provider, caller: Caller, form: Mapping[str, str]) -> Grant:
    grant = provider.ledger.redeem(form.get("code", ""), caller.client.client_id)
    if form.get("redirect_uri") != grant.asked.redirect_uri:
        raise Refused("redirect_uri n'est pas celle de la demande", code="invalid_grant")
    verifier = form.get("code_verifier", "")
    if not _VERIFIER.fullmatch(verifier):
        raise Refused("code_verifier : 43 à 128 caractères non réservés", code="invalid_request")
    if not hmac.compare_digest(challenge_of(verifier), grant.asked.challenge):
        raise Refused("code_verifier ne répond pas au code_challenge", code="invalid_grant")
    return grant


def _rotated(provider: Provider, caller: Caller, form: Mapping[str, str]) -> Grant:
    if sorted(form.get("scope", " ".join(SCOPE)).split()) != sorted(SCOPE):
        raise Refused("scope : celle de la demande, ou rien", code="invalid_scope")
    claims = provider.mint.read(form.get("refresh_token", ""), Kind.REFRESH.value)
    if claims is None:
        raise Refused("refresh_token inconnu", code="invalid_grant")
    return provider.ledger.rotate(claims["jti"], caller.client.client_id)


def _tokens(provider: Provider, grant: Grant, caller: Caller, nonce: str | None) -> dict[str, Any]:
    fault = provider.faults.of("token")
    access = provider.ledger.record(grant, Kind.ACCESS)
    access_token = provider.mint.access(access, caller.certificate)
    answer: dict[str, Any] = {
        "access_token": access_token,
        "expires_in": _left(provider, access),
        "token_type": "Bearer",
        "id_token": provider.mint.identity(access, access_token, nonce=nonce, fault=fault),
        "not-before-policy": 0,
        "session_state": grant.session.sid,
        "scope": grant.asked.scope,
    }
    if fault != "no-refresh-token":
        refresh = provider.ledger.record(grant, Kind.REFRESH)
        answer |= {"refresh_token": provider.mint.refresh(refresh), "refresh_expires_in": _left(provider, refresh)}
    return answer


def _left(provider: Provider, held: Token) -> int:
    return int((held.ends_at - provider.clock.now()).total_seconds())


def _bearer(provider: Provider, request: Request) -> tuple[Token, dict[str, Any]]:
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    claims = provider.mint.read(presented.strip(), Kind.ACCESS.value) if scheme.lower() == "bearer" else None
    held = provider.ledger.live_token(claims["jti"]) if claims else None
    if claims is None or held is None:
        raise Refused("Jeton d'accès absent, expiré ou révoqué", code="invalid_token")
    bound = claims.get("cnf", {}).get("x5t#S256")
    if bound is not None:
        certificate = client_certificate(request)
        if certificate is None or thumbprint(certificate) != bound:
            raise Refused("Jeton d'accès lié à un autre certificat", code="invalid_token")
    return held, claims
