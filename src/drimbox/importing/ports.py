"""What imports need from the rest of the box, as they need it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drimbox.identity.ins import Ins
from drimbox.record.audit import Event
from drimbox.store.database import Connection

Token = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who is logged in: their token as long as they are, and the certificate of their structure."""

    token: Token
    tls: ssl.SSLContext

    def __repr__(self) -> str:
        return "Login(…)"


class Logins(Protocol):
    """Who is logged in now."""

    def find(self, person: str, structure: str) -> Login | None:
        """The login of a person for a structure of this box; None while they have none."""


class FetchedImage(Protocol):
    """One image on our disk, whole and checked: right study, right series, expected, right INS."""

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
        token: Token,
        kos_uid: str,
        accept: Sequence[str],
        expected: Collection[str],
        ins: Ins,
        folder: Path,
    ) -> AbstractAsyncContextManager[AsyncIterator[FetchedImage]]: ...


class HostList(Protocol):
    """The signed list of DRIMboxes."""

    def allows_host(self, host: str) -> bool: ...


class HostLists(Protocol):
    """Gives the list in force, or raises when none can be believed."""

    async def current(self) -> HostList: ...


class AuditJournal(Protocol):
    """Where each access is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


class LosslessTranscoder(Protocol):
    """Turns an image into another syntax, elsewhere than in this process (``images.workers.WorkerPool``)."""

    async def transcode(self, source: Path, target: Path, syntax: str) -> None: ...
