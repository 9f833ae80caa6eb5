"""Logging in by password, and changing it: without telling strangers which accounts exist (IE.36, IAM.91, IAM.92)."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass

from drimbox.console.account import Account, LockRules, Role, normal_login
from drimbox.console.accounts import Accounts, AuditJournal
from drimbox.console.passwords import MAX_LENGTH, Hasher, PasswordRules, outdated, weaknesses
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.record.audit import Actor, Event, Kind, Object, Outcome, Thing

_log = logging.getLogger(__name__)

# One sentence for every failure: it tells neither whether the account exists nor whether it is locked.
NOT_IN = (
    "Identifiant ou mot de passe refusé. Après un échec, attendez quelques secondes avant de recommencer ; "
    "après plusieurs, le compte se verrouille pour un temps."
)


class LoginRefused(Refused):
    """The person is not let in."""

    def __init__(self, reason: str = NOT_IN) -> None:
        super().__init__(reason, code="login-refused")


class PasswordRefused(Refused):
    """The new password may not be taken, or the old one is wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, code="password-refused")


@dataclass(frozen=True, slots=True)
class PasswordDesk:
    """Checks and changes passwords."""

    accounts: Accounts
    hasher: Hasher
    journal: AuditJournal
    clock: Clock
    rules: PasswordRules
    locking: LockRules

    async def enter(self, login: str, password: str, address: str) -> Account:
        """The account that this login and password open. Raises ``LoginRefused``, ``Busy``.

        The way is the same, and as long, whether the account exists, is locked, or must wait.
        """
        login = normal_login(login)
        claim = await self.accounts.claim(login, self.locking)
        right = await self.hasher.matches(password[: MAX_LENGTH + 1], claim.kept if claim else None)
        if claim is None or not right:
            await self._refused(login, claim.account if claim else None, address)
            raise LoginRefused
        account = claim.account
        better = await self.hasher.hashed(password) if outdated(claim.kept, self.hasher.cost) else None
        await self.accounts.succeeded(account.id, better_hash=better)
        if self._first_is_too_old(account):
            await self._tell(account.actor(address), account, "mot de passe provisoire périmé")
            raise LoginRefused("Ce mot de passe provisoire n'est plus valable : demandez-en un autre")
        return account

    def must_change(self, account: Account) -> bool:
        """Is another password due: a first one, or one that is too old?"""
        age = self.rules.max_age_days
        return account.must_change or bool(age and self._age(account) > dt.timedelta(days=age))

    async def change(self, account: Account, old: str, new: str, again: str, address: str) -> Account:
        """Another password, by the person. Raises ``PasswordRefused``, ``Busy``; both ends are in the journal."""
        try:
            if new != again:
                raise PasswordRefused("Les deux saisies du nouveau mot de passe diffèrent.")
            claim = await self.accounts.claim(account.login, self.locking)
            if not await self.hasher.matches(old[: MAX_LENGTH + 1], claim.kept if claim else None):
                raise PasswordRefused("Mot de passe actuel refusé : attendez quelques secondes avant de recommencer.")
            await self.accounts.succeeded(account.id)
            fresh = await self.acceptable(account, new)
        except PasswordRefused as error:
            await self._tell(account.actor(address), account, f"mot de passe : {error.reason}", Kind.ACCOUNT_CHANGED)
            raise
        return await self.accounts.set_password(
            account.id, fresh, account.actor(address), former=self.rules.former, must_change=False
        )

    async def acceptable(self, account: Account, new: str) -> str:
        """The hash of a new password for this account. Raises ``PasswordRefused`` with all that is wrong."""
        wrong = weaknesses(new, self.rules, login=account.login, administrator=Role.ADMINISTRATOR in account.roles)
        if wrong:
            raise PasswordRefused(f"Nouveau mot de passe refusé : {' ; '.join(wrong)}.")
        current, former = await self.accounts.password_of(account.id)
        known = [*([current] if current else []), *former[: self.rules.former]]
        if await self.hasher.among(new, known):
            raise PasswordRefused("Nouveau mot de passe refusé : il a déjà servi.")
        return await self.hasher.hashed(new)

    def _age(self, account: Account) -> dt.timedelta:
        return self.clock.now() - account.password_at if account.password_at else dt.timedelta.max

    def _first_is_too_old(self, account: Account) -> bool:
        days = self.rules.first_days
        return account.must_change and bool(days and self._age(account) > dt.timedelta(days=days))

    async def _refused(self, login: str, claimed: Account | None, address: str) -> None:
        """What strangers are not told is for the journal; a login that is nobody's may be a password typed too soon."""
        account = claimed or await self.accounts.by_login(login)
        if account is None:
            await self.journal.write(None, _failure(Kind.LOGIN, Actor(address=address), (), "compte inconnu"))
            return
        why = "mot de passe faux" if claimed else "compte verrouillé, ou essai trop proche du précédent"
        if not account.has_password:
            why = "compte sans mot de passe"
        await self._tell(account.actor(address), account, why)
        if claimed and claimed.failures == self.locking.failures:
            _log.warning("console account locked after %d failures: %s", claimed.failures, claimed.login)
            text = f"verrouillage après {claimed.failures} échecs"
            event = Event(
                Kind.ACCOUNT_CHANGED, Actor(system="console"), (Object(Thing.ACCOUNT, account.identifier, text),)
            )
            await self.journal.write(None, event)

    async def _tell(self, actor: Actor, account: Account, why: str, kind: Kind = Kind.LOGIN) -> None:
        await self.journal.write(None, _failure(kind, actor, (Object(Thing.ACCOUNT, account.identifier),), why))


def _failure(kind: Kind, actor: Actor, objects: tuple[Object, ...], why: str) -> Event:
    return Event(kind, actor, objects, outcome=Outcome.SERIOUS_FAILURE, outcome_text=why)
