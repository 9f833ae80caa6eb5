"""What serving images needs from the other rooms, as it needs it."""

from __future__ import annotations

import datetime as dt
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from drimbox.identity.ins import Ins
from drimbox.pacs.study import Instance, Study


class StoredInstance(Protocol):
    """One instance that the PACS sent: a whole Part 10 file (``pacs.retrieve.StoredInstance``)."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Indexed:
    """What was found out of an image when it landed: that it can leave as it is stored, and how.

    ``head_size`` bytes of beginning with the INS in it, then its file of ``size`` bytes from ``rest`` on.
    """

    series_uid: str
    transfer_syntax: str
    head_size: int
    rest: int
    size: int


class KeptInstance(ABC):
    """One instance in the cache (``cache.instances.CachedInstance``). Its methods block but where they say, and raise
    ``Unavailable``."""

    __slots__ = ("at_hand",)

    at_hand: bool
    """The next one need not be waited for."""

    @property
    @abstractmethod
    def sop_instance_uid(self) -> str: ...

    @property
    @abstractmethod
    def path(self) -> Path:
        """Its file; of an encrypted one, between ``acquire`` and ``release`` only."""

    @property
    @abstractmethod
    def size(self) -> int: ...

    @property
    @abstractmethod
    def indexed(self) -> Indexed | None:
        """None when it cannot leave as it is stored; it was checked to be what was asked for otherwise."""

    @abstractmethod
    def head(self, *, wait: bool) -> bytes | None:
        """Its beginning, with the INS. Without ``wait`` it does not block: None where it would."""

    @abstractmethod
    def read_into(self, offset: int, target: memoryview, *, wait: bool) -> bool:
        """Fill ``target`` with bytes of its file. Without ``wait`` it does not block: False where it would."""

    @property
    def in_clear(self) -> bool:
        """Does ``acquire`` cost nothing, because the file lies as it is?"""
        return True

    @abstractmethod
    def acquire(self) -> Path:
        """Its whole file in clear, until ``release``."""

    @abstractmethod
    def release(self) -> None:
        """``path`` is not needed any more."""


class SeriesSource(Protocol):
    """Where instances come from (``pacs.retrieve.SeriesSource``, ``cache.source.CachedSource``)."""

    def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredInstance]]:
        """Each instance as it lands; the files stay until the block is left, which also cancels the retrieve.

        Raises ``Unavailable`` or ``Rejected`` when the PACS fails or anything ``expected`` is missing at the end.
        """


@runtime_checkable
class DescribingSource(Protocol):
    """A source that knows the headers of its instances too (``cache.source.CachedSource``)."""

    def described(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AbstractAsyncContextManager[Sequence[bytes] | None]:
        """Pieces of one array of DICOM JSON, without its brackets, each of whole objects joined by commas.

        None where this source cannot tell without the files. Raises as ``retrieve``.
        """


class StudyFinder(Protocol):
    """What the PACS holds of a study (``pacs.query.StudyFinder``)."""

    async def find(self, study_uid: str) -> Study | None:
        """None only after a successful query without a match; else raises ``Unavailable`` or ``Rejected``."""


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


class Archive(Protocol):
    """The local archive of publications (``publication.archive.Archive``)."""

    async def by_kos_uid(self, kos_uid: str) -> ArchivedKos | None:
        """The KOS of this SOP Instance UID, whatever its state."""


class ManifestSeries(Protocol):
    """One series that a KOS names."""

    @property
    def series_uid(self) -> str: ...
    @property
    def instances(self) -> Sequence[Instance]: ...


class Manifest(Protocol):
    """What a KOS says (``manifest.read.Manifest``)."""

    @property
    def study_uid(self) -> str: ...
    @property
    def series(self) -> Sequence[ManifestSeries]: ...


class Introspection(Protocol):
    """What PSC says of a token (``national.psc.introspection.Introspection``)."""

    @property
    def active(self) -> bool: ...
    @property
    def national_id(self) -> str: ...
    @property
    def profession(self) -> str | None: ...

    def allows(self, certificate_der: bytes | None) -> bool:
        """May the peer of this TLS certificate present the token (RFC 8705)?"""


class Domain(Protocol):
    """One DRIMbox of the whitelist."""

    @property
    def identifier(self) -> str: ...
    @property
    def name(self) -> str: ...


class Whitelist(Protocol):
    """The signed list of DRIMboxes (``national.whitelist.Whitelist``)."""

    def domain_of(self, certificate_der: bytes) -> Domain | None:
        """The DRIMbox whose operator's DN is the subject of this certificate."""


@dataclass(frozen=True, slots=True)
class Access:
    """One request for images and how it ended: what the audit journal is told (standards.md I.2). No patient identity.

    ``status`` is the HTTP status, 0 when the caller left before there was one; ``code`` is empty for success, else that
    of the refusal or of what cut the body short (``status`` is then 200). ``instances`` and ``bytes_sent`` count what
    left; ``seconds`` runs from the request to the last byte, ``first_seconds`` to the first image.
    """

    at: dt.datetime
    status: int
    code: str
    reason: str
    caller: str
    certificate: bytes | None = field(repr=False)
    address: str
    national_id: str
    profession: str
    structure: str
    study_uid: str
    series_uid: str
    instance_uid: str
    kos_uid: str
    ins: Ins | None
    instances: int
    bytes_sent: int
    seconds: float
    first_seconds: float | None
    syntaxes: tuple[str, ...]


Introspect = Callable[[str], Awaitable[Introspection]]
Professions = Callable[[str], Awaitable[Collection[str]]]
CurrentWhitelist = Callable[[], Awaitable[Whitelist]]
ReadManifest = Callable[[bytes], Manifest]
ChooseSource = Callable[[ArchivedKos], SeriesSource]
ChooseFinder = Callable[[ArchivedKos], StudyFinder]
Journal = Callable[[Access], Awaitable[None]]
Health = Callable[[], Awaitable[Mapping[str, bool]]]
