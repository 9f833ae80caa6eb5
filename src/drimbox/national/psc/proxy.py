"""A login on the professional's own device through a proxy e-Sante (standards.md F.5).

The proxy speaks with PSC (CIBA, polled, its own certificate) and keeps the tokens; this box holds the proxy's session,
whose id is as secret as a token. What it asks in the professional's name goes to ``/send/<service>/<endpoint>``.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import ssl
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Misconfigured, OutcomeUnknown, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.national.psc.answers import Document, parsed, seconds, text
from drimbox.national.psc.introspection import is_token
from drimbox.national.psc.tokens import ACCESS_LIFE, Tokens
from drimbox.national.psc.userinfo import UserInfo, read_userinfo

COOKIE = "proxy_session_id"
_MAX_ANSWER = 512 * 1024
_SESSION_ID = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")
# A session without a token of its own still ends with PSC's.
_SESSION_LIFE = dt.timedelta(hours=4)


@dataclass(frozen=True, slots=True)
class ProxyAddresses:
    """The proxy, and what it relays: ``userinfo`` and ``token`` are paths under ``/send/``, ``token`` maybe empty."""

    base: str
    userinfo: str
    token: str


class ProxyLogin:
    """A proxy e-Sante. ``tls`` presents this box's certificate; ``patience``: seconds it may wait for the person.

    Everything may raise ``Unavailable`` (``psc-proxy``): the proxy, or PSC behind it, does not answer.
    """

    def __init__(
        self,
        http: HttpClient,
        tls: ssl.SSLContext,
        addresses: ProxyAddresses,
        client_id: str,
        clock: Clock,
        *,
        timeout: float = 10.0,
        patience: float = 180.0,
    ) -> None:
        self._http = http
        self._tls = tls
        self._at = addresses
        self._client_id = client_id
        self._clock = clock
        self._timeout = timeout
        self._patience = patience

    async def connect(self, national_id: str, binding: str, channel: str) -> Tokens:
        """Have the proxy ask for the confirmation, and wait for it.

        Raises ``Rejected`` (``psc-device``: nobody of that id, ``login-refused``), ``Misconfigured`` (``psc-client``).
        """
        wanted = {
            "nationalId": national_id,
            "bindingMessage": binding,
            "clientId": self._client_id,
            "channel": channel,
        }
        reply = await self._send("POST", "/connect", body=json.dumps(wanted).encode(), timeout=self._patience)
        if reply.status != 200:
            raise _not_connected(reply)
        content = parsed(reply.body)
        session = _cookie(reply) or text(content, "proxy_session_id")
        if not _SESSION_ID.fullmatch(session):
            raise _unreadable()
        return await self._tokens(session, text(content, "session_state"), self._clock.now())

    async def identity(self, tokens: Tokens) -> UserInfo:
        """Who confirmed."""
        return read_userinfo(await self._relayed(self._at.userinfo, tokens.refresh_token))

    async def refresh(self, former: Tokens) -> Tokens:
        """The token that the proxy holds now. ``Rejected``: its session is over, the user must log in again."""
        return await self._tokens(former.refresh_token, former.session_id, former.authenticated_at)

    async def leave(self, tokens: Tokens) -> None:
        """End the proxy's session, and PSC's with it."""
        reply = await self._send("DELETE", "/disconnect", session=tokens.refresh_token)
        if reply.status not in (200, 204, 401):
            raise _down(reply)

    async def _tokens(self, session: str, session_state: str, authenticated_at: dt.datetime) -> Tokens:
        access, life = "", _SESSION_LIFE
        asked_at = self._clock.now()
        if self._at.token:
            content = await self._relayed(self._at.token, session)
            access, left = text(content, "access_token"), seconds(content, "expires_in")
            if not is_token(access):
                raise _unreadable()
            life = ACCESS_LIFE if left is None else dt.timedelta(seconds=min(left, 86_400.0))
        return Tokens(
            access_token=access,
            refresh_token=session,
            id_token="",
            expires_at=asked_at + life,
            refresh_expires_at=None,
            subject="",
            session_id=session_state,
            authenticated_at=authenticated_at,
        )

    async def _relayed(self, path: str, session: str) -> Document:
        reply = await self._send("GET", f"/send/{path}", session=session)
        if reply.status in (400, 401, 403):
            raise Rejected("La session du proxy e-Santé est terminée", code="psc-token", peer_code=f"{reply.status}")
        if reply.status != 200:
            raise _down(reply)
        return parsed(reply.body)

    async def _send(
        self, method: str, path: str, *, body: bytes | None = None, session: str = "", timeout: float | None = None
    ) -> Reply:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if session:
            headers["Cookie"] = f"{COOKIE}={session}"
        try:
            return await self._http.send(
                method,
                self._at.base + path,
                tls=self._tls,
                headers=headers,
                body=body,
                timeout=timeout or self._timeout,
                max_bytes=_MAX_ANSWER,
            )
        except OutcomeUnknown as error:
            raise Unavailable(
                "Le proxy e-Santé n'a pas fini de répondre", code="psc-proxy", peer_code=error.peer_code
            ) from error


def _not_connected(reply: Reply) -> DrimboxError:
    code = f"http-{reply.status}"
    match reply.status:
        case 404:
            return Rejected(
                "Pro Santé Connect ne connaît aucun appareil à ce numéro : vérifiez-le, ou choisissez un autre moyen",
                code="psc-device",
                peer_code=code,
            )
        case 401 | 403:
            return Rejected(
                "La connexion a été refusée, ou n'a pas été confirmée à temps : vous pouvez recommencer",
                code="login-refused",
                peer_code=code,
            )
        case 400:
            return Misconfigured(
                "Le proxy e-Santé refuse cette DRIMbox : vérifiez client_id et proxy (section psc)",
                code="psc-client",
                peer_code=code,
            )
        case _:
            return _down(reply)


def _cookie(reply: Reply) -> str:
    for line in reply.headers.getall("Set-Cookie", []):
        try:
            found = SimpleCookie(line).get(COOKIE)
        except CookieError:
            continue
        if found is not None:
            return found.value
    return ""


def _down(reply: Reply) -> Unavailable:
    return Unavailable(
        "Le proxy e-Santé ne répond pas correctement", code="psc-proxy", peer_code=f"http-{reply.status}"
    )


def _unreadable() -> Unavailable:
    return Unavailable("Réponse illisible du proxy e-Santé", code="psc-proxy")
