"""A login on the professional's own device: Client-Initiated Backchannel Authentication, by polling (standards.md F.5).

PSC offers the poll mode to servers (``ans-faq.md`` 10.2): ask once, then ask for the tokens no more often than PSC
wants, until the professional has confirmed, has refused, or is late.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Rejected, Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.national.psc.answers import document, seconds, text
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo

GRANT = "urn:openid:params:grant-type:ciba"

# CIBA 7.3 and 11: the interval when none is said, and by how much "slow_down" lengthens it.
_INTERVAL = 5.0
_SLOWER = 5.0
_LONGEST = dt.timedelta(minutes=10)


class Waiting(Enum):
    """The professional has not answered yet."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A request that PSC has taken. ``interval``: seconds to leave between two questions."""

    auth_req_id: str = field(repr=False)
    expires_at: dt.datetime
    interval: float


def device_request(reply: Reply, asked_at: dt.datetime) -> DeviceRequest:
    """Read the acknowledgement (CIBA 7.3). Raises ``Rejected`` (``psc-device``), or as ``answers.document``."""
    try:
        content = document(reply)
    except Rejected as error:
        raise _refusal(error) from error
    request_id, life = text(content, "auth_req_id"), seconds(content, "expires_in")
    if not request_id or life is None:
        raise Unavailable("Réponse illisible de Pro Santé Connect", code="psc-unavailable")
    interval = seconds(content, "interval")
    return DeviceRequest(
        request_id,
        asked_at + min(dt.timedelta(seconds=min(life, 86_400.0)), _LONGEST),
        _INTERVAL if interval is None else max(1.0, min(interval, 60.0)),
    )


def still_waiting(reply: Reply) -> Waiting | None:
    """What the token endpoint says when there are no tokens yet; None when it says anything else.

    Raises ``Rejected`` (``login-refused``, ``login-late``) when there will never be any.
    """
    try:
        document(reply)
    except Rejected as error:
        if error.peer_code in (Waiting.PENDING.value, Waiting.SLOW_DOWN.value):
            return Waiting(error.peer_code)
        raise _refusal(error) from error
    return None


class DeviceClient(Protocol):
    """What polling asks of PSC (``client.PscClient``)."""

    async def ask_device(self, national_id: str, binding: str, channel: str) -> DeviceRequest: ...
    async def device_tokens(self, request: DeviceRequest) -> Tokens | Waiting: ...
    async def userinfo(self, access_token: str, *, subject: str = "") -> UserInfo: ...
    async def refresh(self, former: Tokens) -> Tokens: ...
    async def revoke(self, token: str) -> None: ...
    async def end_session(self, id_token: str) -> None: ...


class DeviceLogin:
    """Logins on a device, this box being its own proxy e-Sante: keys and tokens stay in it."""

    def __init__(
        self, psc: DeviceClient, clock: Clock, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._psc = psc
        self._clock = clock
        self._pause = pause

    async def connect(self, national_id: str, binding: str, channel: str) -> Tokens:
        """Ask, and wait for the confirmation. Raises as ``ask_device`` and ``device_tokens``."""
        request = await self._psc.ask_device(national_id, binding, channel)
        interval = request.interval
        while True:
            await self._pause(interval)
            if self._clock.now() >= request.expires_at:
                raise _late()
            try:
                answer = await self._psc.device_tokens(request)
            except Unavailable:
                # The professional may have confirmed meanwhile: asked again, less often, for as long as PSC keeps it.
                interval = min(2 * interval, 30.0)
                continue
            if isinstance(answer, Tokens):
                return answer
            if answer is Waiting.SLOW_DOWN:
                interval += _SLOWER

    async def identity(self, tokens: Tokens) -> UserInfo:
        """Who confirmed. Raises as ``PscClient.userinfo``."""
        return await self._psc.userinfo(tokens.access_token, subject=tokens.subject)

    async def refresh(self, former: Tokens) -> Tokens:
        """As ``PscClient.refresh``."""
        return await self._psc.refresh(former)

    async def leave(self, tokens: Tokens) -> None:
        """End PSC's session, and the tokens with it. Raises ``Unavailable`` when PSC does not answer."""
        try:
            if tokens.refresh_token:
                await self._psc.revoke(tokens.refresh_token)
        finally:
            await self._psc.end_session(tokens.id_token)


def _refusal(error: DrimboxError) -> Rejected:
    match error.peer_code:
        case "access_denied":
            text = "Vous avez refusé la connexion : vous pouvez recommencer"
            return Rejected(text, code="login-refused", peer_code=error.peer_code)
        case "expired_token" | "invalid_grant" | "transaction_failed":
            return _late()
        case word:
            return Rejected(
                "Pro Santé Connect ne connaît aucun appareil à ce numéro : vérifiez-le, ou choisissez un autre moyen",
                code="psc-device",
                peer_code=word,
            )


def _late() -> Rejected:
    return Rejected("La connexion n'a pas été confirmée à temps : recommencez", code="login-late")
