"""What the pages behind the door need from the other rooms, as they need it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from starlette.requests import Request

from drimbox.identity.ins import Ins
from drimbox.images.workers import Made
from drimbox.link.visit import Visit
from drimbox.manifest.manifest import Manifest
from drimbox.record.audit import Event
from drimbox.reports.report import Visibility
from drimbox.store.database import Connection


class ArchivedKos(Protocol):
    """One version of one KOS (``publication.archive.ArchivedKos``)."""

    @property
    def structure(self) -> str: ...
    @property
    def study_uid(self) -> str: ...
    @property
    def kos_uid(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def ins(self) -> Ins: ...
    @property
    def pacs(self) -> str: ...
    @property
    def kos(self) -> bytes: ...
    @property
    def visibility(self) -> Visibility: ...


class Archive(Protocol):
    """The local archive of publications (``publication.archive.Archive``)."""

    async def by_kos_uid(self, kos_uid: str) -> ArchivedKos | None:
        """The KOS of this SOP Instance UID, whatever its state."""

    async def current(self, study_uid: str, structure: str | None = None) -> ArchivedKos | None:
        """The KOS in force for a study."""


class AuditJournal(Protocol):
    """Where each access is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


class Transcoder(Protocol):
    """Decodes images elsewhere than in this process (``images.workers.WorkerPool``). Raises ``Refused``."""

    async def image(self, source: Path, target: Path, syntax: str, ins: Ins, *, in_memory: bool) -> Made: ...

    async def frames(
        self, source: Path, target: Path, syntax: str, numbers: Sequence[int], *, in_memory: bool
    ) -> Made: ...

    async def metadata(self, source: Path, target: Path, ins: Ins) -> None: ...


#: Lets a request in as the visit that its address names, or raises: what it raises is the door's to answer.
Opened = Callable[[Request], Awaitable[Visit]]
ReadManifest = Callable[[bytes], Manifest]
