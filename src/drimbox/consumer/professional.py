"""The professional who is logged in: who they are, where they act, and their tokens, which never leave the memory."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Protocol

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused, Rejected
from drimbox.identity.traits import normal
from drimbox.national.dmp.actor import REINFORCED, VihfIdentity
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import Practice, UserInfo
from drimbox.reports.report import normal_structure_id

# A token must live through the request it is taken for; PSC gives it two minutes (standards.md F.2).
_MARGIN = dt.timedelta(seconds=20)


class LoginEnded(Rejected):
    """Pro Santé Connect no longer vouches for the user: they must log in again."""

    def __init__(self) -> None:
        super().__init__(
            "Votre session Pro Santé Connect est terminée : reconnectez-vous pour continuer", code="login-ended"
        )


class TokenRefresher(Protocol):
    """What keeps tokens fresh (``national.psc.client.PscClient``)."""

    async def refresh(self, former: Tokens) -> Tokens: ...


class ApiTokens(Protocol):
    """Makes the tokens of a national service (``national.psc.exchange.ApiAccess``)."""

    def bearer(self, access_token: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[str]]: ...


Leave = Callable[[Tokens], Awaitable[None]]


class Professional:
    """One login. ``notice_accepted`` is the box ticked once per user (DMP/AIRS.07).

    ``leave`` ends a login that was made on the professional's own device: no browser can end it at PSC.
    """

    def __init__(
        self, info: UserInfo, tokens: Tokens, *, psc: TokenRefresher, clock: Clock, leave: Leave | None = None
    ) -> None:
        self.info = info
        self.logged_in_at = clock.now()
        self.notice_accepted = False
        # The optional traits that this user wants on the screen; None until they were asked for (INS/va1.36).
        self.shown_traits: frozenset[str] | None = None
        self.practice: Practice | None = info.practices[0] if len(info.practices) == 1 else None
        self._tokens = tokens
        self._psc = psc
        self._clock = clock
        self._refreshing = asyncio.Lock()
        self._ended = False
        self._successor: Professional | None = None
        self._leave = leave
        self._bearers: dict[str, Callable[[], Awaitable[str]]] = {}

    @property
    def name(self) -> str:
        return f"{self.info.given} {self.info.family}".strip()

    @property
    def id_token(self) -> str:
        return self._tokens.id_token

    @property
    def refresh_token(self) -> str:
        return self._tokens.refresh_token

    @property
    def psc_session(self) -> str:
        return self._tokens.session_id

    @property
    def subject(self) -> str:
        return self._tokens.subject

    @property
    def authenticated_at(self) -> dt.datetime:
        return self._tokens.authenticated_at

    @property
    def ended(self) -> bool:
        """PSC no longer vouches for them, or they have left: nothing more may be done in their name."""
        return self._ended

    def end(self) -> None:
        """No token is given out any more."""
        self._ended = True

    def go_on_as(self, successor: Professional) -> None:
        """The same person logged in again: what they had begun goes on with the tokens of the new login.

        Raises ``ValueError`` for anybody else.
        """
        if successor.info.national_id != self.info.national_id:
            raise ValueError("another person is no successor")
        self.end()
        self._successor = successor

    @property
    def remote(self) -> bool:
        """Was the login made on their own device?"""
        return self._leave is not None

    async def leave(self) -> None:
        """End a login of their own device at PSC. Raises ``Unavailable`` when PSC, or the proxy, does not answer."""
        self._ended = True
        if self._leave is not None:
            await self._leave(self._tokens)

    def bearer(self, structure: str, api: ApiTokens) -> Callable[[], Awaitable[str]]:
        """Gives their token of a national service, with the certificate of this structure; one for the whole login."""
        if structure not in self._bearers:
            self._bearers[structure] = api.bearer(self.access_token)
        return self._bearers[structure]

    async def access_token(self) -> str:
        """A token that is good for the next seconds, refreshed if need be.

        Raises ``LoginEnded`` when PSC refuses to refresh it, ``Unavailable`` when PSC does not answer.
        """
        if self._successor is not None:
            return await self._successor.access_token()
        async with self._refreshing:
            if self._ended:
                raise LoginEnded
            if self._clock.now() + _MARGIN >= self._tokens.expires_at:
                await self._refresh()
            if not self._tokens.access_token:
                raise Rejected(
                    "Cette connexion ne donne pas accès aux images des autres sites : reconnectez-vous par la page de "
                    "Pro Santé Connect",
                    code="no-token",
                )
            return self._tokens.access_token

    async def keep_alive(self) -> None:
        """Refresh while the user works, before the refresh token itself dies (DB.CO.65). Raises as ``access_token``."""
        if self._successor is not None:
            await self._successor.keep_alive()
            return
        async with self._refreshing:
            if self._ended:
                raise LoginEnded
            if self._clock.now() >= self._tokens.expires_at:
                await self._refresh()

    async def _refresh(self) -> None:
        try:
            self._tokens = await self._psc.refresh(self._tokens)
        except (Rejected, Refused) as error:
            self._ended = True
            raise LoginEnded from error


def practice_named(info: UserInfo, situation: str) -> Practice | None:
    """The one practice that the caller's ``Situation`` means; None when it means none, or several.

    The text may be the structure's identifier, its name, or the label under which the practice is offered.
    """
    if not situation:
        return None
    wanted = normal(situation)
    identifier = normal_structure_id(situation)
    tests: tuple[Callable[[Practice], bool], ...] = (
        lambda p: normal_structure_id(p.structure_id) == identifier,
        lambda p: normal(p.label) == wanted,
        lambda p: normal(p.structure_name) == wanted,
    )
    for test in tests:
        found = [practice for practice in info.practices if test(practice)]
        if len(found) == 1:
            return found[0]
    return None


def vihf_identity(professional: Professional, practice: Practice, *, authn_context: str) -> VihfIdentity:
    """Who consults the DMP: the person PSC vouches for, in the practice they chose, in reinforced mode (AIR)."""
    return VihfIdentity(
        subject_id=professional.info.national_id,
        subject_name=professional.name,
        profession=practice.profession,
        speciality=practice.speciality,
        structure_id=normal_structure_id(practice.structure_id),
        structure_name=practice.structure_name,
        sector=practice.sector,
        mode=REINFORCED,
        authenticated_at=professional.authenticated_at,
        authn_context=authn_context,
    )
