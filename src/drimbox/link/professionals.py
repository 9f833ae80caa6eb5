"""The professional's way in: Pro Santé Connect, then the link (VI_SO.09).

Between the way out and the way back, what was sent is kept here under the ``state``, and bound to the browser.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.link.address import Link
from drimbox.link.entrance import SYSTEM, Entrance, refusal
from drimbox.link.logins import Login, Logins
from drimbox.link.ports import AuditJournal, Psc
from drimbox.link.visit import Visitor, Who
from drimbox.link.visits import Door, Elsewhere
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo
from drimbox.record.audit import Actor, Kind

CALLBACK_PATH = "/connexion/retour"
GOODBYE_PATH = "/au-revoir"


@dataclass(slots=True)
class ProfessionalDesk:
    """Sends browsers to PSC, and takes them back. ``professions``: codes that are let in; none: any."""

    psc: Psc
    entrance: Entrance
    journal: AuditJournal
    clock: Clock
    public_url: str
    professions: frozenset[str] = frozenset()
    _logins: Logins = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._logins = Logins(self.clock)

    @property
    def redirect_uri(self) -> str:
        return f"{self.public_url}{CALLBACK_PATH}"

    async def begin(self, link: Link, browser: str) -> str:
        """The address of PSC's login page. Raises ``Unavailable`` when PSC does not answer."""
        state, login = self._logins.made(browser, link)
        address = await self.psc.authorization_url(self.redirect_uri, state, login.nonce, login.verifier)
        self._logins.expect(state, login)
        return address

    async def finish(
        self, browser: str, *, state: str, code: str, error: str, issuer: str | None, address: str
    ) -> Door:
        """PSC's answer, then the link: the door, open.

        Raises ``Refused`` (``link-state``) for an answer that this browser does not wait for, ``Rejected`` when PSC or
        the person said no or the profession is not let in, ``Unavailable``, and as ``Entrance.enter``.
        """
        pending = self._logins.take(state, browser)
        actor = Actor(system=SYSTEM, address=address)
        try:
            await self.psc.check_issuer(issuer)
            tokens, info = await self._identified(code, error, pending)
            actor = _actor(info, address)
            self._let_in(info)
        except DrimboxError as problem:
            await self.journal.write(None, refusal(Kind.LOGIN, pending.link, actor, problem))
            raise
        who = Who(Visitor.PROFESSIONAL, self.clock.now(), actor.name, info.national_id)
        elsewhere = Elsewhere(tokens.id_token, tokens.session_id, tokens.subject)
        return await self.entrance.enter(pending.link, who, actor, elsewhere)

    async def logout_url(self, id_token: str) -> str:
        """PSC's own logout page; empty when PSC cannot tell it: the visit here is over in any case."""
        try:
            return await self.psc.logout_url(id_token, f"{self.public_url}{GOODBYE_PATH}")
        except DrimboxError:
            return ""

    async def _identified(self, code: str, error: str, pending: Login) -> tuple[Tokens, UserInfo]:
        if error or not code:
            raise Rejected("Pro Santé Connect n'a pas abouti : ouvrez de nouveau le lien", code="psc-refused")
        tokens = await self.psc.exchange(code, self.redirect_uri, pending.verifier, pending.nonce)
        info = await self.psc.userinfo(tokens.access_token, subject=tokens.subject)
        if not info.national_id:
            raise Rejected("Pro Santé Connect n'a pas donné votre identifiant national", code="no-national-id")
        return tokens, info

    def _let_in(self, info: UserInfo) -> None:
        found = {practice.profession.code for practice in info.practices}
        if self.professions and not found & self.professions:
            raise Rejected("Votre profession n'ouvre pas les images de cet établissement", code="profession")


def _actor(info: UserInfo, address: str) -> Actor:
    profession = info.practices[0].profession.code if info.practices else ""
    name = f"{info.given} {info.family}".strip()
    return Actor(person=info.national_id, name=name, profession=profession, system=SYSTEM, address=address)
