"""The operators' consoles of the two sites: where they are, and accounts that open them, made at the first start.

The owners are test professionals of the sandbox: each opens an account by a password, which is kept in the state folder
of the demonstration, or by Pro Santé Connect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drimbox.console.accounts import Accounts
from drimbox.console.passwords import Hasher, provisional
from drimbox.foundation.clock import SystemClock
from drimbox.record.audit import Actor, Journal
from drimbox.sandbox.psc.people import User
from drimbox.store import database, embedded

_FILE = "consoles.json"
_US = Actor(person="local:demonstration", system="démonstration")
_OPERATOR = ("operateur", "lecture-messages")
_ADMINISTRATOR = ("administrateur",)


@dataclass(frozen=True, slots=True)
class Opener:
    """An account of a console. ``password`` is the first one: its owner may have changed it since."""

    login: str
    name: str
    roles: tuple[str, ...]
    password: str


async def accounts(state: Path, people: Sequence[User]) -> Mapping[str, tuple[Opener, ...]]:
    """The first operator and the first administrator of each site's console; made where they are not there yet.

    ``state`` is the folder of the demonstration, whose boxes run. Raises ``Unavailable``, ``Refused``.
    """
    operator, administrator = people[:2]
    known = _kept(state)
    found = {}
    for key in ("a", "b"):
        passwords = known.get(key, {})
        async with database.opened(embedded.address(state / key / "postgres"), size=1) as pool:
            room = Accounts(pool, SystemClock(), Journal(pool))
            openers = [
                await _opener(room, operator, _OPERATOR, passwords),
                await _opener(room, administrator, _ADMINISTRATOR, passwords),
            ]
        found[key] = tuple(openers)
    _keep(state, {key: {one.login: one.password for one in openers} for key, openers in found.items()})
    return found


async def _opener(room: Accounts, owner: User, roles: Collection[str], passwords: Mapping[str, str]) -> Opener:
    name = f"{owner.given} {owner.family}"
    account = await room.by_login(owner.login)
    password = passwords.get(owner.login, "")
    if account is None or not password:
        password = provisional()
        hashed = await Hasher().hashed(password)
        if account is None:
            account = await room.add(
                login=owner.login, name=name, roles=roles, by=_US, national_id=owner.national_id, password=hashed
            )
        # Chosen for a demonstration on this machine: nobody has to change it first.
        await room.set_password(account.id, hashed, _US, former=0, must_change=False)
    return Opener(owner.login, name, tuple(roles), password)


def _kept(state: Path) -> dict[str, dict[str, str]]:
    file = state / _FILE
    kept: dict[str, dict[str, str]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return kept


def _keep(state: Path, passwords: Mapping[str, Mapping[str, str]]) -> None:
    file = state / _FILE
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        json.dump(passwords, out, indent=2)
