"""Who may use the console: the table ``account``. Each change is in the audit journal, in the same transaction.

An account opens by a password, by Pro Santé Connect when the national id is on it, or by both. The traces and the lock
are those that IAM.91 and IAM.92 ask for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, LiteralString, Protocol

import psycopg

from drimbox.console.account import (
    Account,
    LockRules,
    Role,
    check_login,
    checked_name,
    checked_national_id,
    checked_roles,
)
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.record.audit import Actor, Event, Kind, Object, Thing
from drimbox.store.database import Connection, Pool


class AuditJournal(Protocol):
    """Where changes are written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


@dataclass(frozen=True, slots=True, repr=False)
class Claim:
    """One try at a password, counted beforehand as a failure. ``kept`` is the hash to compare to."""

    account: Account
    kept: str


class Accounts:
    """Reads and changes accounts. ``by`` is who does it; changes raise ``Refused`` with a reason."""

    def __init__(self, pool: Pool, clock: Clock, journal: AuditJournal) -> None:
        self._pool = pool
        self._clock = clock
        self._journal = journal

    # --- reading ---

    async def all(self) -> tuple[Account, ...]:
        """By login."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute("SELECT * FROM account ORDER BY login")).fetchall()
        return tuple(map(_account, rows))

    async def by_id(self, account_id: int) -> Account | None:
        return await self._one("SELECT * FROM account WHERE id = %s", account_id)

    async def by_login(self, login: str) -> Account | None:
        return await self._one("SELECT * FROM account WHERE login = %s", login)

    async def by_national_id(self, national_id: str) -> Account | None:
        return await self._one("SELECT * FROM account WHERE national_id = %s", national_id)

    # --- changing ---

    async def add(
        self,
        *,
        login: str,
        name: str,
        roles: Collection[str],
        by: Actor,
        national_id: str = "",
        password: str | None = None,
    ) -> Account:
        """A new account; ``password`` is the hash of a first password, which its owner must change."""
        name = checked_name(name)
        chosen = checked_roles(roles)
        check_login(login)
        if password is None and not national_id:
            raise Refused("Il faut un mot de passe ou un identifiant national", code="account-means")
        async with self._pool.connection() as connection, connection.transaction():
            row = await self._written(
                connection,
                "INSERT INTO account (login, name, national_id, roles, password, password_at, must_change, created_at) "
                "VALUES (%(login)s, %(name)s, %(national)s, %(roles)s, %(password)s, %(password_at)s, true, %(now)s) "
                "RETURNING *",
                {
                    "login": login,
                    "name": name,
                    "national": checked_national_id(national_id),
                    "roles": chosen,
                    "password": password,
                    "password_at": self._clock.now() if password else None,
                    "now": self._clock.now(),
                },
            )
            account = _account(row)
            await self._tell(connection, Kind.ACCOUNT_CHANGED, by, account, "création")
            await self._tell(connection, Kind.ROLES_CHANGED, by, account, " ".join(chosen) or "aucun")
        return account

    async def set_roles(self, account_id: int, roles: Collection[str], by: Actor) -> Account:
        """Give these roles and no others; open sessions end."""
        chosen = checked_roles(roles)
        query: LiteralString = "UPDATE account SET roles = %(roles)s, stamp = stamp + 1 WHERE id = %(id)s RETURNING *"
        told = " ".join(chosen) or "aucun"
        return await self._change(account_id, query, {"roles": chosen}, Kind.ROLES_CHANGED, told, by)

    async def set_identity(self, account_id: int, name: str, national_id: str, by: Actor) -> Account:
        """Another name or national id; open sessions end."""
        values = {"name": checked_name(name), "national": checked_national_id(national_id)}
        query: LiteralString = (
            "UPDATE account SET name = %(name)s, national_id = %(national)s, stamp = stamp + 1 "
            "WHERE id = %(id)s RETURNING *"
        )
        return await self._change(account_id, query, values, Kind.ACCOUNT_CHANGED, "identité", by)

    async def lock(self, account_id: int, by: Actor) -> Account:
        """Nobody comes in by it any more, until it is unlocked; open sessions end."""
        values = {"now": self._clock.now()}
        query: LiteralString = (
            "UPDATE account SET locked_at = coalesce(locked_at, %(now)s), stamp = stamp + 1 "
            "WHERE id = %(id)s RETURNING *"
        )
        return await self._change(account_id, query, values, Kind.ACCOUNT_CHANGED, "verrouillage", by)

    async def unlock(self, account_id: int, by: Actor) -> Account:
        """Open it again, its failures forgotten."""
        query: LiteralString = (
            "UPDATE account SET locked_at = NULL, failures = 0, blocked_until = NULL, stamp = stamp + 1 "
            "WHERE id = %(id)s RETURNING *"
        )
        return await self._change(account_id, query, {}, Kind.ACCOUNT_CHANGED, "déverrouillage", by)

    async def set_password(
        self, account_id: int, password: str, by: Actor, *, former: int, must_change: bool
    ) -> Account:
        """Put the hash of a new password in the place of the one there is; open sessions end.

        ``former`` is how many earlier ones are remembered; ``must_change`` when it was chosen by somebody else.
        """
        values = {"password": password, "former": former, "must": must_change, "now": self._clock.now()}
        query: LiteralString = (
            "UPDATE account SET former = (array_remove(password || former, NULL))[1:%(former)s], "
            "password = %(password)s, password_at = %(now)s, must_change = %(must)s, failures = 0, "
            "blocked_until = NULL, stamp = stamp + 1 WHERE id = %(id)s RETURNING *"
        )
        what = "mot de passe provisoire" if must_change else "mot de passe"
        return await self._change(account_id, query, values, Kind.ACCOUNT_CHANGED, what, by)

    async def password_of(self, account_id: int) -> tuple[str | None, tuple[str, ...]]:
        """The hash of the password, and those of earlier ones, newest first."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute("SELECT password, former FROM account WHERE id = %s", (account_id,))
            ).fetchone()
        return (row["password"], tuple(row["former"])) if row else (None, ())

    # --- logging in ---

    async def claim(self, login: str, rules: LockRules) -> Claim | None:
        """Begin a try, counted as a failure until ``succeeded``; None when none is allowed now.

        Each failure makes the next try wait: 1, 2, 4 seconds..., then as long as a lock lasts, twice as long each time
        (a day at the most). Counting first means that tries made at once are not free.
        """
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "UPDATE account SET failures = failures + 1, blocked_until = %(now)s + make_interval(secs => least("
                    "86400, CASE WHEN failures + 1 < %(limit)s THEN 2 ^ failures "
                    "ELSE %(lock)s * 2 ^ least(failures + 1 - %(limit)s, 20) END)) "
                    "WHERE login = %(login)s AND password IS NOT NULL AND locked_at IS NULL "
                    "AND (blocked_until IS NULL OR blocked_until <= %(now)s) RETURNING *",
                    {
                        "login": login,
                        "now": self._clock.now(),
                        "limit": rules.failures,
                        "lock": rules.minutes * 60.0,
                    },
                )
            ).fetchone()
        return Claim(_account(row), row["password"]) if row else None

    async def succeeded(self, account_id: int, *, better_hash: str | None = None) -> None:
        """The person is in: failures are forgotten. ``better_hash`` is of the same password, with other parameters."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE account SET failures = 0, blocked_until = NULL, last_login_at = %s, "
                "password = coalesce(%s, password) WHERE id = %s",
                (self._clock.now(), better_hash, account_id),
            )

    async def came(self, account_id: int) -> None:
        """The person is in by another way than the password: its failures stay counted."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE account SET last_login_at = %s WHERE id = %s", (self._clock.now(), account_id)
            )

    # --- rows ---

    async def _one(self, query: LiteralString, value: object) -> Account | None:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(query, (value,))).fetchone()
        return _account(row) if row else None

    async def _change(
        self, account_id: int, query: LiteralString, values: dict[str, Any], kind: Kind, what: str, by: Actor
    ) -> Account:
        async with self._pool.connection() as connection, connection.transaction():
            account = _account(await self._written(connection, query, {**values, "id": account_id}))
            await self._tell(connection, kind, by, account, what)
        return account

    async def _written(self, connection: Connection, query: LiteralString, values: dict[str, Any]) -> dict[str, Any]:
        try:
            row = await (await connection.execute(query, values)).fetchone()
        except psycopg.errors.UniqueViolation as error:
            raise Refused(
                "Un compte a déjà cet identifiant, ou cet identifiant national", code="account-exists"
            ) from error
        if row is None:
            raise Refused("Ce compte n'existe pas", code="account-unknown")
        return row

    async def _tell(self, connection: Connection, kind: Kind, by: Actor, account: Account, what: str) -> None:
        await self._journal.write(connection, Event(kind, by, (Object(Thing.ACCOUNT, account.identifier, what),)))


def _account(row: dict[str, Any]) -> Account:
    return Account(
        id=row["id"],
        login=row["login"],
        name=row["name"],
        national_id=row["national_id"],
        roles=frozenset(Role(role) for role in row["roles"]),
        has_password=row["password"] is not None,
        must_change=row["must_change"],
        password_at=row["password_at"],
        failures=row["failures"],
        blocked_until=row["blocked_until"],
        locked_at=row["locked_at"],
        stamp=row["stamp"],
        created_at=row["created_at"],
        last_login_at=row["last_login_at"],
    )
