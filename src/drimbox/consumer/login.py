"""Logging in and out with Pro Santé Connect: by authorization code with PKCE, or on the professional's own device."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass

from drimbox.consumer.memory import PracticeMemory
from drimbox.consumer.ports import AuditJournal, Psc, RemotePsc
from drimbox.consumer.professional import Professional
from drimbox.consumer.remote_login import Channel, RemoteLogin
from drimbox.consumer.sessions import Gone, Session, Sessions
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Refused, Rejected
from drimbox.national.psc.userinfo import UserInfo
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed

CALLBACK_PATH = "/connexion/retour"
GOODBYE_PATH = "/au-revoir"


@dataclass(frozen=True, slots=True)
class LoginDesk:
    """Sends browsers to PSC, and takes them back. ``redirects`` and ``remote``: the ways that this box offers."""

    psc: Psc
    sessions: Sessions
    journal: AuditJournal
    clock: Clock
    public_url: str
    memory: PracticeMemory
    redirects: bool = True
    remote: RemotePsc | None = None

    @property
    def redirect_uri(self) -> str:
        return f"{self.public_url}{CALLBACK_PATH}"

    async def begin(self, session: Session, call_id: str) -> str:
        """The address of PSC's login page for this browser. Raises ``Unavailable`` when PSC does not answer."""
        login = self.sessions.expect_login(session, call_id)
        return await self.psc.authorization_url(self.redirect_uri, login.state, login.nonce, login.verifier)

    async def finish(
        self, session: Session, *, state: str, code: str, error: str, address: str, issuer: str | None = None
    ) -> str:
        """Take PSC's answer and put the person in the session; gives the call to come back to.

        ``issuer`` is the ``iss`` of the answer (RFC 9207), None when it has none. Raises ``Gone`` for an answer that
        this browser does not wait for, ``Rejected`` when PSC or the user said no or when the person has nowhere to act,
        ``Unavailable`` when PSC does not answer. Failures are in the journal too.
        """
        login = self.sessions.take_login(session, state)
        try:
            await self.psc.check_issuer(issuer)
            professional = await self._identified(code, error, login.verifier, login.nonce)
        except DrimboxError as problem:
            await self._failed(session, address, problem)
            raise
        await self._enter(session, professional, login.call_id, address)
        return login.call_id

    async def ask_remotely(self, session: Session, call_id: str, national_id: str, channel: Channel) -> RemoteLogin:
        """Ask for the professional's confirmation on their own device; one request at a time for a browser.

        Raises ``Gone`` where this way is not offered, ``Busy`` when too many were asked for.
        """
        remote = self.remote
        if remote is None:
            raise Gone
        # Each one rings a professional's phone, whoever asked for it: nobody may do so for ever.
        self.sessions.count_remote_login(session, national_id)
        if session.remote is not None:
            await session.remote.close()
        binding = f"{secrets.randbelow(100):02d}"
        session.remote = RemoteLogin(
            call_id, binding, channel, lambda: self._confirmed(remote, national_id, binding, channel)
        )
        return session.remote

    async def finish_remotely(self, session: Session, address: str) -> str:
        """Take what the professional's device said, and put them in the session; gives the call to come back to.

        Raises ``Gone`` when nothing is there to take, else as ``finish``.
        """
        login, session.remote = session.remote, None
        if login is None or not login.over:
            session.remote = login
            raise Gone("Cette connexion n'a pas été demandée par ce navigateur, ou a expiré : recommencez")
        try:
            professional = login.result()
        except DrimboxError as problem:
            await self._failed(session, address, problem)
            raise
        await self._enter(session, professional, login.call_id, address)
        return login.call_id

    async def logout(self, session: Session, address: str) -> tuple[str, bool]:
        """End the session here, then at PSC.

        Gives PSC's own logout page, to be visited next, and whether its session is over already: neither when PSC
        cannot be reached.
        """
        professional = session.professional
        await self.sessions.end(session)
        if professional is None:
            return "", True
        await self.journal.write(None, self._event(Kind.LOGOUT, session, _actor(professional, address)))
        await self._revoke(professional)
        try:
            if professional.remote:
                await professional.leave()
                return "", True
            return await self.psc.logout_url(professional.id_token, f"{self.public_url}{GOODBYE_PATH}"), False
        except DrimboxError:
            # The local session is over in any case; the page tells that PSC's could not be ended.
            return "", False

    async def notified(self, logout_token: str) -> int:
        """PSC says that a session is over (OpenID Connect Back-Channel Logout): how many ended here.

        Raises ``Refused`` for a token that is not PSC's word, ``Unavailable`` when that cannot be checked now.
        """
        notice = await self.psc.logout_notice(logout_token)
        return await self.sessions.end_of(notice.session_id, notice.subject)

    async def shown(self, issuer: str, psc_session: str) -> int:
        """PSC's logout page shows our address in a frame (OpenID Connect Front-Channel Logout 3): how many ended here.

        The frame carries no cookie of ours; the session id, which only PSC and this box know, tells which session it
        is. Raises ``Refused`` for another issuer or without a session id.
        """
        if not psc_session or len(psc_session) > 256 or issuer != await self.psc.issuer():
            raise Refused("Annonce de déconnexion sans session, ou d'un autre émetteur", code="psc-logout")
        return await self.sessions.end_of(psc_session, "", why="front-channel")

    async def ended(self, session: Session, why: str) -> None:
        """A session ended by itself: write it down, and let its tokens be worth nothing."""
        professional = session.professional
        if professional is None or why == "logout":
            return
        event = Event(Kind.LOGOUT, _actor(professional, ""), (Object(Thing.SESSION, session.id, why),))
        await self.journal.write(None, event)
        await self._revoke(professional)
        with suppress(DrimboxError):
            await professional.leave()

    async def _enter(self, session: Session, professional: Professional, call_id: str, address: str) -> None:
        if professional.practice is None:
            professional.practice = await self.memory.recall(professional.info)
        await self.journal.write(None, self._event(Kind.LOGIN, session, _actor(professional, address)))
        await self.sessions.log_in(session, professional, call_id)

    async def _failed(self, session: Session, address: str, problem: DrimboxError) -> None:
        await self.journal.write(None, failed(self._event(Kind.LOGIN, session, Actor(address=address)), problem))

    async def _revoke(self, professional: Professional) -> None:
        """As far as PSC can be reached: the tokens are dropped here in any case, and soon die by themselves."""
        if professional.refresh_token and not professional.remote:
            with suppress(DrimboxError):
                await self.psc.revoke(professional.refresh_token)

    async def _identified(self, code: str, error: str, verifier: str, nonce: str) -> Professional:
        if error or not code:
            refused = error == "access_denied"
            text = "Vous avez refusé la connexion" if refused else "Pro Santé Connect n'a pas abouti"
            raise Rejected(f"{text} : vous pouvez recommencer", code="login-refused", peer_code=_word(error))
        tokens = await self.psc.exchange(code, self.redirect_uri, verifier, nonce)
        info = _usable(await self.psc.userinfo(tokens.access_token, subject=tokens.subject))
        return Professional(info, tokens, psc=self.psc, clock=self.clock)

    async def _confirmed(self, remote: RemotePsc, national_id: str, binding: str, channel: Channel) -> Professional:
        """Wait for the confirmation; it must be that of the person it was asked of."""
        tokens = await remote.connect(national_id, binding, channel)
        try:
            info = _usable(await remote.identity(tokens))
            if info.national_id != national_id:
                raise Refused("La connexion a été confirmée par quelqu'un d'autre", code="psc-other-person")
        except BaseException:
            with suppress(DrimboxError):
                await remote.leave(tokens)
            raise
        return Professional(info, tokens, psc=remote, clock=self.clock, leave=remote.leave)

    def _event(self, kind: Kind, session: Session, actor: Actor) -> Event:
        return Event(kind, actor, (Object(Thing.SESSION, session.id),))


def _usable(info: UserInfo) -> UserInfo:
    """Who can act. Raises ``Rejected`` (``no-national-id``, ``no-practice``)."""
    if not info.national_id:
        raise Rejected("Pro Santé Connect n'a pas donné votre identifiant national", code="no-national-id")
    if not info.practices:
        raise Rejected(
            "Pro Santé Connect ne vous connaît aucune situation d'exercice : l'accès au DMP en demande une",
            code="no-practice",
        )
    return info


def _actor(professional: Professional, address: str) -> Actor:
    return Actor(person=professional.info.national_id, name=professional.name, address=address)


def _word(error: str) -> str | None:
    """An OAuth error code as it may be written down; anything else is not one (RFC 6749 4.1.2.1)."""
    return error if error.isascii() and error.replace("_", "").isalpha() and len(error) <= 40 else None
