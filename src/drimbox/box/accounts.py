"""The accounts of the console from the command line: how the first administrator comes to be."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from drimbox.box.console import password_rules
from drimbox.box.operator import on_database, shell_user
from drimbox.box.settings import Settings
from drimbox.console.account import Account, LockRules, normal_login
from drimbox.console.accounts import Accounts
from drimbox.console.login import PasswordDesk
from drimbox.console.passwords import Hasher, weaknesses
from drimbox.foundation.clock import PARIS, SystemClock, iso_utc
from drimbox.foundation.errors import Refused
from drimbox.record.audit import Journal
from drimbox.store.database import Pool


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What is said of a new account; ``password`` None for one that opens with Pro Santé Connect alone."""

    login: str
    name: str
    roles: Collection[str]
    national_id: str = ""
    password: str | None = None


def added(settings: Settings, new: NewAccount) -> str:
    """Open an account; its owner must change the password at the first login. Raises ``Refused``."""
    rules = password_rules(settings.console)
    login = normal_login(new.login)
    if new.password is not None:
        wrong = weaknesses(new.password, rules, login=login, administrator="administrateur" in new.roles)
        if wrong:
            raise Refused(f"Mot de passe refusé : {' ; '.join(wrong)}", code="password-refused")

    async def work(pool: Pool) -> Account:
        accounts, hasher = _accounts(pool), Hasher()
        return await accounts.add(
            login=login,
            name=new.name,
            roles=new.roles,
            national_id=new.national_id,
            password=await hasher.hashed(new.password) if new.password is not None else None,
            by=shell_user(),
        )

    account = on_database(settings, work)
    return f"Compte {account.login} ouvert pour {account.name}."


def listed(settings: Settings, *, as_json: bool) -> str:
    """Every account with its rights, for people or for programs (IAM.94)."""
    accounts = on_database(settings, lambda pool: _accounts(pool).all())
    if as_json:
        return json.dumps([_told(account) for account in accounts], ensure_ascii=False, indent=2)
    return "\n".join(map(_line, accounts)) or "Aucun compte : « drimbox account add » ouvre le premier."


def with_roles(settings: Settings, login: str, roles: Collection[str]) -> str:
    """Give these rights and no others. Raises ``Refused``."""
    account = _change(settings, login, lambda accounts, one: accounts.set_roles(one.id, roles, shell_user()))
    return f"Compte {account.login} : {', '.join(sorted(account.roles)) or 'aucun droit'}."


def locked(settings: Settings, login: str) -> str:
    """Nobody comes in by it any more; sessions that are open end. Raises ``Refused``."""
    account = _change(settings, login, lambda accounts, one: accounts.lock(one.id, shell_user()))
    return f"Compte {account.login} verrouillé."


def unlocked(settings: Settings, login: str) -> str:
    """Open it again, its failures forgotten. Raises ``Refused``."""
    account = _change(settings, login, lambda accounts, one: accounts.unlock(one.id, shell_user()))
    return f"Compte {account.login} déverrouillé."


def with_password(settings: Settings, login: str, password: str) -> str:
    """A provisional password, to be changed at the next login. Raises ``Refused``."""
    rules = password_rules(settings.console)

    async def work(pool: Pool) -> Account:
        accounts = _accounts(pool)
        account = await _named(accounts, login)
        desk = PasswordDesk(accounts, Hasher(), Journal(pool), SystemClock(), rules, LockRules())
        hash_of_it = await desk.acceptable(account, password)
        return await accounts.set_password(account.id, hash_of_it, shell_user(), former=rules.former, must_change=True)

    account = on_database(settings, work)
    return f"Mot de passe provisoire du compte {account.login} enregistré."


def _change(settings: Settings, login: str, change: Callable[[Accounts, Account], Awaitable[Account]]) -> Account:
    async def work(pool: Pool) -> Account:
        accounts = _accounts(pool)
        return await change(accounts, await _named(accounts, login))

    return on_database(settings, work)


async def _named(accounts: Accounts, login: str) -> Account:
    account = await accounts.by_login(normal_login(login))
    if account is None:
        raise Refused("Ce compte n'existe pas", code="account-unknown")
    return account


def _accounts(pool: Pool) -> Accounts:
    return Accounts(pool, SystemClock(), Journal(pool))


def _line(account: Account) -> str:
    state = "verrouillé" if account.locked_at else "ouvert"
    means = " + ".join(m for m in ("mot de passe" * account.has_password, account.national_id or "") if m)
    last = f"{account.last_login_at.astimezone(PARIS):%d/%m/%Y %H:%M}" if account.last_login_at else "jamais"
    roles = ", ".join(sorted(account.roles)) or "aucun droit"
    return f"{account.login:<24} {state:<11} {account.name} ; {roles} ; {means} ; dernière connexion : {last}"


def _told(account: Account) -> dict[str, object]:
    def at(instant: dt.datetime | None) -> str | None:
        return iso_utc(instant) if instant else None

    return {
        "login": account.login,
        "name": account.name,
        "national_id": account.national_id,
        "roles": sorted(account.roles),
        "password": account.has_password,
        "locked_at": at(account.locked_at),
        "created_at": at(account.created_at),
        "last_login_at": at(account.last_login_at),
    }
