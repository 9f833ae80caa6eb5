"""Logging in with Pro Santé Connect: whoever has an account with that national id is let in.

Between the way out and the way back, what was sent is kept here under the ``state``, and bound to the browser by a
cookie of its own: the session cookie is ``SameSite=Strict``, which no return from another site would carry.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from drimbox.console.account import Account
from drimbox.console.accounts import Accounts, AuditJournal
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, Refused, Rejected
from drimbox.foundation.uids import new_secret
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo
from drimbox.record.audit import Actor, Event, Kind, failed

CALLBACK_PATH = "/connexion/retour"
GOODBYE_PATH = "/au-revoir"
_LOGIN_SECONDS = 600
_MAX_PENDING = 500


class Psc(Protocol):
    """What is used of ``national.psc.client.PscClient``."""

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str: ...
    async def exchange(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Tokens: ...
    async def userinfo(self, access_token: str, *, subject: str = "") -> UserInfo: ...
    async def logout_url(self, id_token: str, redirect: str) -> str: ...


@dataclass(frozen=True, slots=True, repr=False)
class Pending:
    """One login on its way."""

    browser: str
    nonce: str
    verifier: str
    deadline: float


@dataclass(slots=True)
class PscDesk:
    """Sends browsers to PSC, and takes them back."""

    psc: Psc
    accounts: Accounts
    journal: AuditJournal
    clock: Clock
    public_url: str
    _pending: OrderedDict[str, Pending] = field(default_factory=OrderedDict, repr=False)

    @property
    def redirect_uri(self) -> str:
        return f"{self.public_url}{CALLBACK_PATH}"

    async def begin(self, browser: str) -> str:
        """The address of PSC's login page; ``browser`` is the secret of that cookie. Raises ``Unavailable``."""
        state, nonce, verifier = new_secret(), new_secret(), new_secret()
        self._pending[state] = Pending(browser, nonce, verifier, self.clock.monotonic() + _LOGIN_SECONDS)
        while len(self._pending) > _MAX_PENDING:
            self._pending.popitem(last=False)
        return await self.psc.authorization_url(self.redirect_uri, state, nonce, verifier)

    async def finish(self, browser: str, *, state: str, code: str, error: str, address: str) -> tuple[Account, str]:
        """PSC's answer: the account, and the id_token for the logout.

        Raises ``Refused`` (``psc-state``) for an answer that this browser does not wait for, ``Rejected`` when PSC said
        no or the person has no account here, ``Unavailable``. Failures are in the journal.
        """
        pending = self._pending.pop(state, None)
        late = pending is None or pending.deadline <= self.clock.monotonic()
        if pending is None or late or not hmac.compare_digest(pending.browser.encode(), browser.encode()):
            raise Refused("Cette connexion n'a pas été demandée par ce navigateur, ou a expiré", code="psc-state")
        actor = Actor(system="console", address=address)
        try:
            if error or not code:
                raise Rejected("Pro Santé Connect n'a pas abouti : vous pouvez recommencer", code="psc-refused")
            tokens = await self.psc.exchange(code, self.redirect_uri, pending.verifier, pending.nonce)
            info = await self.psc.userinfo(tokens.access_token, subject=tokens.subject)
            actor = Actor(
                person=info.national_id, name=f"{info.given} {info.family}".strip(), system="console", address=address
            )
            account = await self.accounts.by_national_id(info.national_id) if info.national_id else None
            if account is None or account.locked_at is not None:
                raise Rejected(
                    "Votre identité est connue, mais aucun accès à cette console ne lui est ouvert",
                    code="psc-no-account",
                )
        except DrimboxError as problem:
            await self.journal.write(None, failed(Event(Kind.LOGIN, actor), problem))
            raise
        await self.accounts.came(account.id)
        return account, tokens.id_token

    async def logout_url(self, id_token: str) -> str:
        """PSC's own logout page; empty when PSC cannot tell it: the session here is over in any case."""
        try:
            return await self.psc.logout_url(id_token, f"{self.public_url}{GOODBYE_PATH}")
        except DrimboxError:
            return ""
