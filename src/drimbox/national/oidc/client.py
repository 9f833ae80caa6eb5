"""Every exchange with an identity provider: out to its page, a code made a person, out of its session.

OpenID Connect Core 3.1 (authorization code), RFC 7636 (PKCE), RFC 9207 (whose answer it is), RP-Initiated Logout 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.national.oidc.errors import of_provider
from drimbox.national.oidc.person import Person, read_person
from drimbox.national.oidc.sealed import opened
from drimbox.national.oidc.service import Proof, Registration
from drimbox.national.psc import jwt
from drimbox.national.psc.answers import Document, check, document, parsed, text
from drimbox.national.psc.provider import Provider, offered
from drimbox.national.psc.tokens import token_answer

MAX_ANSWER = 256 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class Vouched:
    """Somebody whom the provider vouches for; ``id_token`` ends its session, decrypted where it came encrypted."""

    person: Person
    id_token: str


class IdentityProvider:
    """One provider. ``tls`` presents the certificate of a registration with ``tls_client_auth``.

    Everything may raise what ``errors.of_provider`` lists.
    """

    def __init__(
        self,
        http: HttpClient,
        tls: ssl.SSLContext,
        registration: Registration,
        clock: Clock,
        *,
        timeout: float = 10.0,
    ) -> None:
        self._http = http
        self._tls = tls
        self._as = registration
        self._clock = clock
        self._timeout = timeout
        mutual = registration.proof is Proof.MUTUAL_TLS
        self._provider = Provider(self._fetch, registration.discovery_url, clock, mutual_tls=mutual)

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Where the browser goes to log in; ``state``, ``nonce`` and the PKCE ``verifier`` are fresh secrets."""
        with of_provider():
            address = (await self._provider.metadata()).authorization
        fields = {
            "response_type": "code",
            "client_id": self._as.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._as.scopes),
            "acr_values": self._as.acr,
            "prompt": self._as.prompt,
            "state": state,
            "nonce": nonce,
        }
        if self._as.pkce:
            fields |= {"code_challenge": _challenge(verifier), "code_challenge_method": "S256"}
        return _with_query(address, fields)

    async def check_issuer(self, told: str | None) -> None:
        """Is the answer that a browser brought back this provider's? ``told`` is its ``iss`` (RFC 9207).

        Raises ``Refused`` (``oidc-issuer``).
        """
        with of_provider():
            metadata = await self._provider.metadata()
        if told != metadata.issuer and (told is not None or metadata.names_itself):
            raise Refused("Réponse d'un autre fournisseur d'identité", code="oidc-issuer")

    async def identify(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Vouched:
        """Who logged in. A code works once: after any error, log in again."""
        with of_provider():
            fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
            if self._as.pkce:
                fields |= {"code_verifier": verifier}
            answer = token_answer(document(await self._ask_token(fields)), self._clock.now())
            id_token = opened(answer.id_token, self._as.decryption)
            claims = await self._signed_claims(id_token)
            issuer = (await self._provider.metadata()).issuer
            expected = jwt.Expected(issuer, self._as.client_id, self._as.acr, nonce, answer.access_token)
            jwt.check_id_token(claims, expected, self._clock.now())
            told = await self._userinfo(answer.access_token, issuer)
            if text(told, "sub") != text(claims, "sub"):
                raise jwt.refused("l'identité reçue est celle de quelqu'un d'autre")
        return Vouched(read_person(told, self._as.claims), id_token)

    async def logout_url(self, id_token: str, redirect: str, state: str) -> str:
        """Where the browser goes to end the provider's session, and then comes back to ``redirect``."""
        with of_provider():
            address = offered((await self._provider.metadata()).logout, "end_session_endpoint")
        return _with_query(address, {"id_token_hint": id_token, "post_logout_redirect_uri": redirect, "state": state})

    def public_keys(self) -> dict[str, Any]:
        """The JWK set of this box."""
        return self._as.public_keys()

    async def _userinfo(self, access_token: str, issuer: str) -> Document:
        address = offered((await self._provider.metadata()).userinfo, "userinfo_endpoint")
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json, application/jwt"}
        reply = await self._send("GET", address, headers)
        check(reply)
        signed = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "application/jwt"
        if not signed and self._as.decryption is None:
            return parsed(reply.body)
        claims = await self._signed_claims(opened(reply.body.decode("ascii", "replace").strip(), self._as.decryption))
        jwt.check_userinfo(claims, issuer, self._as.client_id)
        jwt.check_not_over(claims, self._clock.now())
        return claims

    async def _signed_claims(self, token: str) -> Document:
        key = await self._provider.key(text(jwt.header(token), "kid"))
        return jwt.claims(token, key)

    async def _ask_token(self, fields: Mapping[str, str]) -> Reply:
        address = (await self._provider.metadata()).token
        proof, headers = self._as.proven(address, self._clock.now())
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", **headers}
        return await self._send("POST", address, headers, urlencode({**fields, **proof}).encode())

    async def _fetch(self, address: str) -> Document:
        return document(await self._send("GET", address, {"Accept": "application/json"}))

    async def _send(self, method: str, address: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        return await self._http.send(
            method,
            address,
            tls=self._tls,
            headers=headers,
            body=body,
            timeout=self._timeout,
            max_bytes=MAX_ANSWER,
        )


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def _with_query(address: str, fields: Mapping[str, str]) -> str:
    given = urlencode({name: value for name, value in fields.items() if value})
    return f"{address}{'&' if urlsplit(address).query else '?'}{given}"
