"""A PSC token exchanged for the token of a national service (API PSC, RFC 8693; standards.md F.5).

In the transition form, a service that speaks SOAP keeps its messages, VIHF included, and takes the token beside them in
``Authorization: Bearer``. The token is bound to the certificate that it was asked with, as long as it lives.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import OutcomeUnknown, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.national.psc.answers import document, seconds, text
from drimbox.national.psc.introspection import is_token

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind
# A token must live through the request it is taken for.
_MARGIN = dt.timedelta(seconds=20)
_LIFE = dt.timedelta(minutes=2)
_MAX_ANSWER = 64 * 1024

AccessToken = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The authorization server of a national service. ``endpoint`` empty: it takes the PSC token itself.

    ``scope`` and ``subject_issuer`` are sent unless they are empty.
    """

    endpoint: str
    client_id: str
    scope: str = ""
    subject_issuer: str = ""


class ApiAccess:
    """Access to a national service with the certificate that ``tls`` presents."""

    def __init__(
        self, http: HttpClient, tls: ssl.SSLContext, server: ApiServer, clock: Clock, *, timeout: float = 10.0
    ) -> None:
        self._http = http
        self._tls = tls
        self._server = server
        self._clock = clock
        self._timeout = timeout

    def bearer(self, access_token: AccessToken) -> AccessToken:
        """Gives the token to present, for one person, kept as long as it is good."""
        return _Bearer(self, access_token, self._clock) if self._server.endpoint else access_token

    async def exchange(self, subject_token: str) -> tuple[str, dt.datetime]:
        """A token of the service and when it ends.

        Raises ``Rejected`` (``api-token``) when the service refuses the professional, ``Misconfigured``
        (``psc-client``) when it refuses this box, ``Unavailable`` when it does not answer.
        """
        fields = {
            "grant_type": GRANT,
            "client_id": self._server.client_id,
            "subject_token": subject_token,
            "subject_token_type": TOKEN_TYPE,
            "scope": self._server.scope,
            "subject_issuer": self._server.subject_issuer,
        }
        asked_at = self._clock.now()
        try:
            reply = await self._http.send(
                "POST",
                self._server.endpoint,
                tls=self._tls,
                headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
                body=urlencode({name: value for name, value in fields.items() if value}).encode(),
                timeout=self._timeout,
                max_bytes=_MAX_ANSWER,
            )
            content = document(reply)
        except OutcomeUnknown as error:
            raise Unavailable(
                "Le service d'autorisation de l'API n'a pas fini de répondre", code="api-token", peer_code=error.code
            ) from error
        except Rejected as error:
            raise Rejected(
                "L'API du service national refuse votre connexion : reconnectez-vous",
                code="api-token",
                peer_code=error.peer_code,
            ) from error
        token, life = text(content, "access_token"), seconds(content, "expires_in")
        if not is_token(token) or text(content, "token_type").lower() not in ("bearer", ""):
            raise Unavailable("Réponse illisible du service d'autorisation de l'API", code="api-token")
        return token, asked_at + (_LIFE if life is None else dt.timedelta(seconds=min(life, 14_400.0)))


class _Bearer:
    """One person's token of the service: asked for once, however many requests want it."""

    def __init__(self, access: ApiAccess, access_token: AccessToken, clock: Clock) -> None:
        self._access = access
        self._access_token = access_token
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._ends_at: dt.datetime | None = None

    async def __call__(self) -> str:
        async with self._lock:
            # PSC vouches for the person each time, also while the service's own token still lives (4 hours).
            subject = await self._access_token()
            if self._ends_at is None or self._clock.now() + _MARGIN >= self._ends_at:
                self._token, self._ends_at = await self._access.exchange(subject)
            return self._token
