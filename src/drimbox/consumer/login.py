"""Logging in and out with Pro Santé Connect: authorization code with PKCE, bound to one browser and one login."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from drimbox.consumer.ports import AuditJournal, Psc
from drimbox.consumer.professional import Professional
from drimbox.consumer.sessions import Session, Sessions
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed

CALLBACK_PATH = "/connexion/retour"
GOODBYE_PATH = "/au-revoir"


@dataclass(frozen=True, slots=True)
class LoginDesk:
    """Sends browsers to PSC, and takes them back."""

    psc: Psc
    sessions: Sessions
    journal: AuditJournal
    clock: Clock
    public_url: str

    @property
    def redirect_uri(self) -> str:
        return f"{self.public_url}{CALLBACK_PATH}"

    async def begin(self, session: Session, call_id: str) -> str:
        """The address of PSC's login page for this browser. Raises ``Unavailable`` when PSC does not answer."""
        login = self.sessions.expect_login(session, call_id)
        return await self.psc.authorization_url(self.redirect_uri, login.state, login.nonce, login.verifier)

    async def finish(self, session: Session, *, state: str, code: str, error: str, address: str) -> str:
        """Take PSC's answer and put the person in the session; gives the call to come back to.

        Raises ``Gone`` for an answer that this browser does not wait for, ``Rejected`` when PSC or the user said no or
        when the person has nowhere to act, ``Unavailable`` when PSC does not answer. Failures are in the journal too.
        """
        login = self.sessions.take_login(session, state)
        try:
            professional = await self._identified(code, error, login.verifier, login.nonce)
        except DrimboxError as problem:
            await self.journal.write(None, failed(self._event(Kind.LOGIN, session, Actor(address=address)), problem))
            raise
        await self.journal.write(None, self._event(Kind.LOGIN, session, _actor(professional, address)))
        await self.sessions.log_in(session, professional, login.call_id)
        return login.call_id

    async def logout(self, session: Session, address: str) -> str:
        """End the session here; gives PSC's own logout page, to be visited next (empty when PSC cannot tell it)."""
        professional = session.professional
        await self.sessions.end(session)
        if professional is None:
            return ""
        await self.journal.write(None, self._event(Kind.LOGOUT, session, _actor(professional, address)))
        await self._revoke(professional)
        try:
            return await self.psc.logout_url(professional.id_token, f"{self.public_url}{GOODBYE_PATH}")
        except DrimboxError:
            # The local session is over in any case; the page tells that PSC's could not be ended.
            return ""

    async def notified(self, logout_token: str) -> int:
        """PSC says that a session is over (OpenID Connect Back-Channel Logout): how many ended here.

        Raises ``Refused`` for a token that is not PSC's word, ``Unavailable`` when that cannot be checked now.
        """
        notice = await self.psc.logout_notice(logout_token)
        return await self.sessions.end_of(notice.session_id, notice.subject)

    async def ended(self, session: Session, why: str) -> None:
        """A session ended by itself: write it down, and let its tokens be worth nothing."""
        professional = session.professional
        if professional is None or why == "logout":
            return
        event = Event(Kind.LOGOUT, _actor(professional, ""), (Object(Thing.SESSION, session.id, why),))
        await self.journal.write(None, event)
        await self._revoke(professional)

    async def _revoke(self, professional: Professional) -> None:
        """As far as PSC can be reached: the tokens are dropped here in any case, and soon die by themselves."""
        if professional.refresh_token:
            with suppress(DrimboxError):
                await self.psc.revoke(professional.refresh_token)

    async def _identified(self, code: str, error: str, verifier: str, nonce: str) -> Professional:
        if error or not code:
            refused = error == "access_denied"
            text = "Vous avez refusé la connexion" if refused else "Pro Santé Connect n'a pas abouti"
            raise Rejected(f"{text} : vous pouvez recommencer", code="login-refused", peer_code=_word(error))
        tokens = await self.psc.exchange(code, self.redirect_uri, verifier, nonce)
        info = await self.psc.userinfo(tokens.access_token, subject=tokens.subject)
        if not info.national_id:
            raise Rejected("Pro Santé Connect n'a pas donné votre identifiant national", code="no-national-id")
        if not info.practices:
            raise Rejected(
                "Pro Santé Connect ne vous connaît aucune situation d'exercice : l'accès au DMP en demande une",
                code="no-practice",
            )
        return Professional(info, tokens, psc=self.psc, clock=self.clock)

    def _event(self, kind: Kind, session: Session, actor: Actor) -> Event:
        return Event(kind, actor, (Object(Thing.SESSION, session.id),))


def _actor(professional: Professional, address: str) -> Actor:
    return Actor(person=professional.info.national_id, name=professional.name, address=address)


def _word(error: str) -> str | None:
    """An OAuth error code as it may be written down; anything else is not one (RFC 6749 4.1.2.1)."""
    return error if error.isascii() and error.replace("_", "").isalpha() and len(error) <= 40 else None
