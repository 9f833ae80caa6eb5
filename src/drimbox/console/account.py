"""An account of the console: one person, what they may do, the rules of names and rights (GEN.16, GEN.17)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from drimbox.foundation.errors import Refused
from drimbox.record.audit import Actor

_LOGIN = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_NATIONAL_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z/.-]{4,63}")
# Names of functions, not of people: nobody answers for what is done under them (GEN.17).
_GENERIC = frozenset(
    (
        *("admin", "administrateur", "administrator", "root", "superuser", "superviseur", "support", "service"),
        *("operateur", "operator", "console", "drimbox", "pacs", "ris", "radio", "radiologie", "secretariat"),
        *("accueil", "astreinte", "utilisateur", "user", "invite", "guest", "test", "demo"),
    )
)


class Role(StrEnum):
    """What an account may do. Technical administration and health data are never in the same hands (GEN.16)."""

    OPERATOR = "operateur"  # the queue, the archived studies
    ADMINISTRATOR = "administrateur"  # the accounts, the settings
    MESSAGES = "lecture-messages"  # the raw messages, which hold health data
    AUDITOR = "auditeur"  # the audit journal


@dataclass(frozen=True, slots=True)
class LockRules:
    """Failures that lock an account (10 at the most, IAM.92), and for how long the first time; then twice as long."""

    failures: int = 5
    minutes: float = 30


@dataclass(frozen=True, slots=True)
class Account:
    """One account, without its password. ``stamp`` grows with each change that ends its open sessions."""

    id: int
    login: str
    name: str
    national_id: str | None
    roles: frozenset[Role]
    has_password: bool
    must_change: bool
    password_at: dt.datetime | None
    failures: int
    blocked_until: dt.datetime | None
    locked_at: dt.datetime | None
    stamp: int
    created_at: dt.datetime
    last_login_at: dt.datetime | None

    @property
    def identifier(self) -> str:
        """How the journal names the person: by the national id, else as an account of this box."""
        return self.national_id or f"local:{self.login}"

    def actor(self, address: str) -> Actor:
        return Actor(person=self.identifier, name=self.name, system="console", address=address)


def checked_roles(roles: Collection[str]) -> list[str]:
    """Roles that go together. Raises ``Refused`` (``account-roles``)."""
    unknown = set(roles) - set(Role)
    if unknown:
        raise Refused(f"Rôle inconnu : {', '.join(sorted(unknown))}", code="account-roles")
    chosen = {Role(role) for role in roles}
    if Role.MESSAGES in chosen and Role.ADMINISTRATOR in chosen:
        raise Refused(
            "L'administration technique et la lecture des messages ne vont pas dans les mêmes mains",
            code="account-roles",
        )
    if Role.AUDITOR in chosen and Role.ADMINISTRATOR in chosen:
        raise Refused(
            "L'administration technique et la lecture du journal ne vont pas dans les mêmes mains",
            code="account-roles",
        )
    if Role.MESSAGES in chosen and Role.OPERATOR not in chosen:
        raise Refused("La lecture des messages s'ajoute au rôle d'opérateur", code="account-roles")
    return sorted(role.value for role in chosen)


def normal_login(text: str) -> str:
    """As people type it: without blanks around, in any case."""
    return "".join(c for c in text.strip().lower()[:64] if c.isprintable())


def check_login(login: str) -> None:
    if not _LOGIN.fullmatch(login):
        raise Refused(
            "Identifiant de 2 à 63 caractères attendu : minuscules, chiffres, point, tiret ou souligné",
            code="account-login",
        )
    if login in _GENERIC or login.rstrip("0123456789") in _GENERIC:
        raise Refused("Un compte est celui d'une personne : donnez un identifiant nominatif", code="account-generic")


def checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not 2 <= len(name) <= 100 or not name.isprintable():
        raise Refused("Donnez le prénom et le nom de la personne (100 caractères au plus)", code="account-name")
    return name


def checked_national_id(national_id: str) -> str | None:
    national_id = national_id.strip()
    if national_id and not _NATIONAL_ID.fullmatch(national_id):
        raise Refused(
            "Identifiant national inattendu : donnez celui que Pro Santé Connect transmet (8 suivi du RPPS)",
            code="account-national-id",
        )
    return national_id or None
