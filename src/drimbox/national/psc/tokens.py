"""What a login gives."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from drimbox.foundation.errors import Unavailable
from drimbox.national.psc.answers import Document, seconds, text

# What PSC gives by default (standards.md F.2), for an answer that does not say.
ACCESS_LIFE = dt.timedelta(minutes=2)


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """The tokens of one login, and what they say of it.

    ``refresh_token`` is empty when PSC gave none, ``refresh_expires_at`` None when it did not say. ``subject`` is
    PSC's technical id (``sub``), ``session_id`` PSC's session (``sid``), by which a back-channel logout names it.
    """

    access_token: str
    refresh_token: str
    id_token: str
    expires_at: dt.datetime
    refresh_expires_at: dt.datetime | None
    subject: str
    session_id: str
    authenticated_at: dt.datetime

    def __repr__(self) -> str:
        return f"Tokens(…, expires_at={self.expires_at:%H:%M:%S})"


@dataclass(frozen=True, slots=True, repr=False)
class TokenAnswer:
    """The answer of the token endpoint before its id_token is verified."""

    access_token: str
    refresh_token: str
    id_token: str
    expires_at: dt.datetime
    refresh_expires_at: dt.datetime | None
    session_state: str

    def __repr__(self) -> str:
        return "TokenAnswer(…)"


def token_answer(content: Document, asked_at: dt.datetime) -> TokenAnswer:
    """Read the token endpoint's answer (RFC 6749 5.1). Raises ``Unavailable`` when it is not one.

    Lifetimes count from ``asked_at``, before the request left, so that we never believe in a token longer than PSC.
    """
    access = text(content, "access_token")
    if not access or text(content, "token_type").lower() != "bearer":
        raise Unavailable("Réponse illisible de Pro Santé Connect", code="psc-unavailable")
    life = seconds(content, "expires_in")
    refresh_life = seconds(content, "refresh_expires_in")
    return TokenAnswer(
        access_token=access,
        refresh_token=text(content, "refresh_token"),
        id_token=text(content, "id_token"),
        expires_at=asked_at + (ACCESS_LIFE if life is None else _bounded(life)),
        refresh_expires_at=None if refresh_life is None else asked_at + _bounded(refresh_life),
        session_state=text(content, "session_state"),
    )


def tokens(answer: TokenAnswer, id_token: str, claims: Document, asked_at: dt.datetime) -> Tokens:
    """The tokens of a login whose id_token was verified."""
    authenticated = seconds(claims, "auth_time") or seconds(claims, "iat") or asked_at.timestamp()
    return Tokens(
        access_token=answer.access_token,
        refresh_token=answer.refresh_token,
        id_token=id_token,
        expires_at=answer.expires_at,
        refresh_expires_at=answer.refresh_expires_at,
        subject=text(claims, "sub"),
        session_id=text(claims, "sid") or answer.session_state,
        authenticated_at=dt.datetime.fromtimestamp(authenticated, dt.UTC),
    )


def _bounded(life: float) -> dt.timedelta:
    return dt.timedelta(seconds=min(life, 86_400.0))
