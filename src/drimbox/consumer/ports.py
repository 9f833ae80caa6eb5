"""What the consumer needs from the rest of the box, as it needs it: the other rooms fit these shapes."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drimbox.consumer.professional import ApiTokens
from drimbox.identity.ins import Ins
from drimbox.images.client import SourceState
from drimbox.national.dmp.actor import Actor as DmpActor
from drimbox.national.dmp.actor import VihfIdentity
from drimbox.national.dmp.existence import Existence
from drimbox.national.dmp.metadata.model import DocumentEntry
from drimbox.national.dmp.query import Criteria
from drimbox.national.dmp.retrieve import RetrievedDocument
from drimbox.national.psc.client import LogoutNotice
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo
from drimbox.pacs.patient import HeldStudy
from drimbox.pacs.study import Study
from drimbox.record.audit import Event
from drimbox.reports.report import normal_structure_id
from drimbox.store.database import Connection


class Psc(Protocol):
    """What logging in asks of Pro Santé Connect (``national.psc.client.PscClient``)."""

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str: ...
    async def exchange(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Tokens: ...
    async def refresh(self, former: Tokens) -> Tokens: ...
    async def userinfo(self, access_token: str, *, subject: str = "") -> UserInfo: ...
    async def logout_url(self, id_token: str, redirect: str) -> str: ...
    async def logout_notice(self, logout_token: str) -> LogoutNotice: ...
    async def revoke(self, token: str) -> None: ...
    async def issuer(self) -> str: ...
    async def check_issuer(self, told: str | None) -> None: ...
    async def page_origins(self) -> tuple[str, ...]: ...


class RemotePsc(Protocol):
    """A login on the professional's own device (``national.psc.ciba``, or ``national.psc.proxy`` through a proxy)."""

    async def connect(self, national_id: str, binding: str, channel: str) -> Tokens: ...
    async def identity(self, tokens: Tokens) -> UserInfo: ...
    async def refresh(self, former: Tokens) -> Tokens: ...
    async def leave(self, tokens: Tokens) -> None: ...


class Dmp(Protocol):
    """What a consultation asks of the DMP (``national.dmp.client.DmpClient``)."""

    async def existence(self, actor: DmpActor, patient: Ins) -> Existence: ...
    async def authorise(self, actor: DmpActor, patient: Ins) -> None: ...
    async def withdraw(self, actor: DmpActor, patient: Ins) -> None: ...
    async def registered_since(self, actor: DmpActor, patient: Ins, since: dt.datetime) -> frozenset[str]: ...
    async def find_documents(self, actor: DmpActor, patient: Ins, criteria: Criteria) -> tuple[DocumentEntry, ...]: ...
    async def retrieve(
        self, actor: DmpActor, patient: Ins, wanted: Sequence[DocumentEntry]
    ) -> tuple[RetrievedDocument, ...]: ...


class ReceivedImage(Protocol):
    """One image written to disk, whole and checked: right study, right series, expected, right INS."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...


class SeriesFetcher(Protocol):
    """Fetches a series from another DRIMbox (``images.client.WadoClient``)."""

    def fetch_series(
        self,
        retrieve_url: str,
        *,
        tls: ssl.SSLContext,
        token: Callable[[], Awaitable[str]],
        kos_uid: str,
        accept: Sequence[str],
        expected: Collection[str],
        ins: Ins,
        folder: Path,
    ) -> AbstractAsyncContextManager[AsyncIterator[ReceivedImage]]: ...

    async def probe(self, retrieve_url: str, *, tls: ssl.SSLContext) -> SourceState: ...


class LocalPacs(Protocol):
    """A PACS of the site, as far as it is asked what it holds (``pacs.presence.Holdings``)."""

    @property
    def id(self) -> str: ...

    async def held(self, study_uids: Sequence[str]) -> Mapping[str, int | None]: ...


class LocalArchive(Protocol):
    """A PACS of the site whose studies are shown beside those of other sites (``pacs.patient.PatientArchive``)."""

    @property
    def id(self) -> str: ...

    async def studies(self, patient_id: str) -> Sequence[HeldStudy]: ...
    async def study(self, study_uid: str) -> Study | None: ...
    def fetch_series(
        self, study: Study, series_uid: str, folder: Path
    ) -> AbstractAsyncContextManager[AsyncIterator[ReceivedImage]]: ...


class HostList(Protocol):
    """The signed list of DRIMboxes, as far as a caller needs it (``national.whitelist.Whitelist``)."""

    def allows_host(self, host: str) -> bool: ...


class HostLists(Protocol):
    """Gives the list in force, or raises when none can be believed (``national.whitelist.WhitelistKeeper``)."""

    async def current(self) -> HostList: ...


class AuditJournal(Protocol):
    """Where each access is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class ConsumerStructure:
    """One structure of the box with the certificates that speak for it (DB.CO.91, DB.CO.98).

    ``id`` is its short name in the configuration; ``identifiers`` the Struct_IdNat by which a practice may name it;
    ``wado_tls`` presents its ORG AUTH_CLI to the other DRIMboxes; ``actor`` makes the one who acts at the DMP; ``pacs``
    are those in which its studies are looked for; ``archives`` those whose studies of the patient can be shown too;
    ``api`` gives the bearer that goes beside the VIHF (API PSC).
    """

    id: str
    name: str
    identifiers: tuple[str, ...]
    wado_tls: ssl.SSLContext
    actor: Callable[[VihfIdentity], DmpActor]
    pacs: tuple[LocalPacs, ...] = ()
    archives: tuple[LocalArchive, ...] = ()
    api: ApiTokens | None = None


class Structures:
    """The structures that this box serves, found by the practice of a professional."""

    def __init__(self, structures: Sequence[ConsumerStructure]) -> None:
        self._by_identifier = {normal_structure_id(i): s for s in structures for i in s.identifiers if i}

    def of(self, structure_id: str) -> ConsumerStructure | None:
        """The structure of a Struct_IdNat, with or without its type digit; None when it is none of ours."""
        return self._by_identifier.get(normal_structure_id(structure_id)) if structure_id else None
