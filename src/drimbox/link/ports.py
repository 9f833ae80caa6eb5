"""The neighbours of the door, in the shapes that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.routing import BaseRoute

from drimbox.identity.ins import Ins
from drimbox.link.visit import Visit
from drimbox.national.oidc.client import Vouched
from drimbox.national.psc.client import LogoutNotice
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo
from drimbox.pacs.study import Study
from drimbox.publication.kos import ArchivedKos, History
from drimbox.record.audit import Event
from drimbox.store.database import Connection

Opened = Callable[[Request], Awaitable[Visit]]
"""Gives the visit of a request, or raises ``visits.Closed``, which becomes the page that says so."""

Images = Callable[[Opened], Sequence[BaseRoute]]
"""Makes the routes of what is shown once the door is open; their paths are below ``/visite/{key}``."""


class Archive(Protocol):
    """What is published (``publication.archive.Archive``)."""

    async def publishers(self, study_uid: str) -> tuple[str, ...]: ...
    async def current(self, study_uid: str, structure: str | None = None) -> ArchivedKos | None: ...
    async def history(self, structure: str, study_uid: str, taken_away: str | None = None) -> History: ...


class StudyFinder(Protocol):
    """Asks one PACS (``pacs.query.PacsStudyFinder``)."""

    async def find(self, study_uid: str) -> Study | None: ...


class AuditJournal(Protocol):
    """Where each act is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


class Psc(Protocol):
    """What is used of ``national.psc.client.PscClient``."""

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str: ...
    async def check_issuer(self, told: str | None) -> None: ...
    async def exchange(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Tokens: ...
    async def userinfo(self, access_token: str, *, subject: str = "") -> UserInfo: ...
    async def logout_url(self, id_token: str, redirect: str, state: str = "") -> str: ...
    async def logout_notice(self, logout_token: str) -> LogoutNotice: ...
    async def issuer(self) -> str: ...
    async def page_origins(self) -> tuple[str, ...]: ...


class IdentityProvider(Protocol):
    """What vouches for patients (``national.oidc.client.IdentityProvider``)."""

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str: ...
    async def check_issuer(self, told: str | None) -> None: ...
    async def identify(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Vouched: ...
    async def logout_url(self, id_token: str, redirect: str, state: str) -> str: ...
    def public_keys(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, repr=False)
class Contact:
    """How the site reaches a patient, as the report says; empty where it does not. ``birth_city`` is a name."""

    email: str = ""
    mobile: str = ""
    birth_city: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Code:
    """A code on its way to a patient."""

    digits: str
    minutes: int
    ins: Ins
    contact: Contact


class Contacts(Protocol):
    """Reads what a report says of its patient (``contact.StoredContacts``)."""

    async def of(self, archived: ArchivedKos, document_id: str) -> Contact: ...


class Sender(Protocol):
    """One way to send a code (``senders``). ``send`` raises ``DrimboxError`` when it did not go out."""

    @property
    def name(self) -> str: ...

    async def send(self, code: Code) -> None: ...
