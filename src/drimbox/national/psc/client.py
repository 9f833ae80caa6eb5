"""Every exchange with Pro Sante Connect: login, refresh, identity, logout (consumer), introspection (source)."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus, urlencode, urlsplit

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.national.psc import ciba, jwt
from drimbox.national.psc.answers import Document, check, document, parsed, text
from drimbox.national.psc.ciba import DeviceRequest
from drimbox.national.psc.introspection import INACTIVE, Introspection, is_token, read_introspection
from drimbox.national.psc.provider import Provider, offered
from drimbox.national.psc.tokens import TokenAnswer, Tokens, token_answer, tokens
from drimbox.national.psc.userinfo import Practice, UserInfo, read_userinfo

MAX_ANSWER = 512 * 1024


@dataclass(frozen=True, slots=True)
class LogoutNotice:
    """A back-channel logout: PSC says that a session, or every session of a subject, is over. One may be empty."""

    subject: str
    session_id: str


class PscClient:
    """A service of PSC. ``tls`` presents the ORG AUTH_CLI when there is no ``client_secret`` (RFC 8705).

    Everything may raise ``Unavailable`` (PSC does not answer: nothing is known of the token), ``Misconfigured``
    (``psc-client``, ``psc-discovery``), ``Rejected`` (``psc-token``: PSC refuses the code or token presented) and,
    where a signed token is read, ``Refused`` (``psc-jwt``).
    """

    def __init__(
        self,
        http: HttpClient,
        tls: ssl.SSLContext,
        discovery_url: str,
        client_id: str,
        client_secret: str | None,
        clock: Clock,
        timeout: float = 10.0,
        acr: str = "eidas1",
        scope: str = "openid scope_all",
    ) -> None:
        self._http = http
        self._tls = tls
        self._client_id = client_id
        self._client_secret = client_secret
        self._clock = clock
        self._timeout = timeout
        self._acr = acr
        self._scope = scope
        self._provider = Provider(self._fetch, discovery_url, clock, mutual_tls=client_secret is None)

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Where the browser goes to log in; ``state``, ``nonce`` and the PKCE ``verifier`` are fresh secrets."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()
        return _with_query(
            (await self._provider.metadata()).authorization,
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": redirect_uri,
                "scope": self._scope,
                "acr_values": self._acr,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            },
        )

    async def exchange(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Tokens:
        """The tokens of a login, its id_token verified. A code works once: after any error, log in again."""
        asked_at = self._clock.now()
        answer = await self._token(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": verifier,
            },
            asked_at,
        )
        claims = await self._id_claims(answer, nonce)
        return tokens(answer, answer.id_token, claims, asked_at)

    async def refresh(self, former: Tokens) -> Tokens:
        """New tokens for the same person and session.

        ``Rejected`` means that PSC's session is over: the user must log in again.
        """
        if not former.refresh_token:
            raise Rejected("La connexion à Pro Santé Connect ne peut pas être prolongée", code="psc-token")
        asked_at = self._clock.now()
        fields = {"grant_type": "refresh_token", "refresh_token": former.refresh_token}
        answer = await self._token(fields, asked_at)
        return await self._refreshed(former, answer, asked_at)

    async def userinfo(self, access_token: str, *, subject: str = "") -> UserInfo:
        """Who the user is. With the ``subject`` of their id_token, refuses the answer if it is of somebody else."""
        address = offered((await self._provider.metadata()).userinfo, "userinfo_endpoint")
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json, application/jwt"}
        reply = await self._send("GET", address, headers)
        check(reply)
        info = read_userinfo(await self._userinfo_content(reply))
        if subject and info.subject != subject:
            raise jwt.refused("l'identité reçue est celle de quelqu'un d'autre")
        return info

    async def ask_device(self, national_id: str, binding: str, channel: str) -> DeviceRequest:
        """Ask PSC to have a professional confirm on their own device (CIBA 7.1); poll with ``device_tokens``.

        ``binding`` is the two-digit number that both screens show, ``channel`` ``MOBILE`` or ``CARD``. Raises
        ``Rejected`` (``psc-device``) when PSC knows nobody of that id, or no device of theirs.
        """
        asked_at = self._clock.now()
        address = offered((await self._provider.metadata()).backchannel, "backchannel_authentication_endpoint")
        fields = {
            "scope": self._scope,
            "acr_values": self._acr,
            "login_hint": national_id,
            "binding_message": binding,
            "channel": channel,
        }
        return ciba.device_request(await self._post(address, fields), asked_at)

    async def device_tokens(self, request: DeviceRequest) -> Tokens | ciba.Waiting:
        """The tokens of a login on a device once it is confirmed; until then, whether to ask less often.

        Raises ``Rejected`` (``login-refused``, ``login-late``) when it will never be.
        """
        asked_at = self._clock.now()
        fields = {"grant_type": ciba.GRANT, "auth_req_id": request.auth_req_id}
        reply = await self._post((await self._provider.metadata()).token, fields)
        waiting = ciba.still_waiting(reply)
        if waiting is not None:
            return waiting
        answer = token_answer(document(reply), asked_at)
        return tokens(answer, answer.id_token, await self._id_claims(answer, None), asked_at)

    async def end_session(self, id_token: str) -> None:
        """End PSC's session from here, where no browser holds it (a login on a device)."""
        address = offered((await self._provider.metadata()).logout, "end_session_endpoint")
        reply = await self._post(address, {"id_token_hint": id_token})
        if reply.status not in (302, 303):
            check(reply)

    async def issuer(self) -> str:
        """PSC's issuer identifier."""
        return (await self._provider.metadata()).issuer

    async def check_issuer(self, told: str | None) -> None:
        """Is the answer that a browser brought back PSC's? ``told`` is its ``iss``, None when it has none (RFC 9207).

        Raises ``Refused`` (``psc-issuer``).
        """
        metadata = await self._provider.metadata()
        if told != metadata.issuer and (told is not None or metadata.names_itself):
            raise Refused("Réponse d'un autre fournisseur d'identité", code="psc-issuer")

    async def page_origins(self) -> tuple[str, ...]:
        """The origins of PSC's own pages: only they may show our front-channel logout address in a frame."""
        metadata = await self._provider.metadata()
        pages = [urlsplit(address) for address in (metadata.logout, metadata.authorization) if address]
        return tuple(dict.fromkeys(f"{page.scheme}://{page.netloc}" for page in pages))

    async def logout_url(self, id_token: str, redirect: str, state: str = "") -> str:
        """Where the browser goes to end PSC's own session, and then comes back to ``redirect``."""
        fields = {"id_token_hint": id_token, "post_logout_redirect_uri": redirect, "client_id": self._client_id}
        address = offered((await self._provider.metadata()).logout, "end_session_endpoint")
        return _with_query(address, fields | ({"state": state} if state else {}))

    async def logout_notice(self, logout_token: str) -> LogoutNotice:
        """Read the token of a back-channel logout. Raises ``Refused`` (``psc-jwt``): then nobody is logged out."""
        claims = await self._signed_claims(logout_token)
        issuer = (await self._provider.metadata()).issuer
        jwt.check_logout_token(claims, issuer, self._client_id, self._clock.now())
        return LogoutNotice(subject=text(claims, "sub"), session_id=text(claims, "sid"))

    async def introspect(self, token: str) -> Introspection:
        """What PSC says of a token presented to us. A token that PSC refuses is an inactive one, not an error."""
        if not is_token(token):
            return INACTIVE
        address = offered((await self._provider.metadata()).introspection, "introspection_endpoint")
        return read_introspection(document(await self._post(address, {"token": token})))

    async def revoke(self, token: str) -> None:
        """Make a (refresh) token worthless at PSC (RFC 7009)."""
        address = offered((await self._provider.metadata()).revocation, "revocation_endpoint")
        check(await self._post(address, {"token": token}))

    async def _token(self, fields: Mapping[str, str], asked_at: dt.datetime) -> TokenAnswer:
        reply = await self._post((await self._provider.metadata()).token, fields)
        return token_answer(document(reply), asked_at)

    async def _refreshed(self, former: Tokens, answer: TokenAnswer, asked_at: dt.datetime) -> Tokens:
        """PSC may keep the former refresh and identity tokens; a new identity must be the same person's."""
        if answer.id_token:
            claims = await self._id_claims(answer, None)
            fresh = tokens(answer, answer.id_token, claims, asked_at)
            if fresh.subject != former.subject or former.session_id not in ("", fresh.session_id):
                raise jwt.refused("l'identité a changé pendant la session")
        else:
            claims = {"sub": former.subject, "sid": former.session_id}
            fresh = tokens(answer, former.id_token, claims, asked_at)
        return Tokens(
            access_token=fresh.access_token,
            refresh_token=fresh.refresh_token or former.refresh_token,
            id_token=fresh.id_token,
            expires_at=fresh.expires_at,
            refresh_expires_at=fresh.refresh_expires_at if answer.refresh_token else former.refresh_expires_at,
            subject=former.subject,
            session_id=fresh.session_id or former.session_id,
            authenticated_at=former.authenticated_at,
        )

    async def _id_claims(self, answer: TokenAnswer, nonce: str | None) -> Document:
        claims = await self._signed_claims(answer.id_token)
        issuer = (await self._provider.metadata()).issuer
        expected = jwt.Expected(issuer, self._client_id, self._acr, nonce, answer.access_token)
        jwt.check_id_token(claims, expected, self._clock.now())
        return claims

    async def _userinfo_content(self, reply: Reply) -> Document:
        if reply.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/jwt":
            return parsed(reply.body)
        claims = await self._signed_claims(reply.body.decode("ascii", "replace").strip())
        jwt.check_userinfo(claims, (await self._provider.metadata()).issuer, self._client_id)
        return claims

    async def _signed_claims(self, token: str) -> Document:
        key = await self._provider.key(text(jwt.header(token), "kid"))
        return jwt.claims(token, key)

    async def _fetch(self, address: str) -> Document:
        return document(await self._send("GET", address, {"Accept": "application/json"}))

    async def _post(self, address: str, fields: Mapping[str, str]) -> Reply:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self._client_secret is None:
            fields = {**fields, "client_id": self._client_id}
        else:
            # RFC 6749 2.3.1: both halves are form-encoded before they are joined.
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return await self._send("POST", address, headers, urlencode(fields).encode())

    async def _send(self, method: str, address: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        try:
            return await self._http.send(
                method,
                address,
                tls=self._tls,
                headers=headers,
                body=body,
                timeout=self._timeout,
                max_bytes=MAX_ANSWER,
            )
        except OutcomeUnknown as error:
            # Whatever PSC did with the request gives us nothing: the token or code is as good as unknown to it.
            raise Unavailable(
                "Pro Santé Connect n'a pas fini de répondre", code="psc-unavailable", peer_code=error.peer_code
            ) from error


def _with_query(address: str, fields: Mapping[str, str]) -> str:
    return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(fields)}"


__all__ = ["Introspection", "LogoutNotice", "Practice", "PscClient", "Tokens", "UserInfo"]
