"""A PACS in small for the tests of the cache: real files, made anew for each retrieve, and failures as told."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from drimbox.cache.flight import Flights
from drimbox.cache.limits import Limits
from drimbox.cache.source import Cache, CachedSource, sharing
from drimbox.cache.store import Store, opened
from drimbox.dicom.elements import write
from drimbox.dicom.syntaxes import EXPLICIT_LE, encoding_of
from drimbox.foundation.clock import Clock, SystemClock
from drimbox.foundation.errors import DrimboxError, Unavailable
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.images.header import with_ins
from drimbox.images.ports import KeptInstance, StoredInstance
from drimbox.pacs.dimse.part10 import file_head
from drimbox.pacs.study import Instance, Series, Study

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
CT = "1.2.840.10008.5.1.4.1.1.2"
MASTER = b"m" * 32
_ENCODING = encoding_of(EXPLICIT_LE)
_numbers = itertools.count(1)


def image(study_uid: str, series_uid: str, sop_uid: str, size: int = 4000) -> bytes:
    """A CT of about ``size`` bytes; no two have the same pixels."""

    def element(tag: int, vr: str, text: str) -> bytes:
        return write(tag, vr, text.encode(), _ENCODING)

    seed = hashlib.sha256(sop_uid.encode()).digest()
    pixels = seed * (size // 64) * 2
    return b"".join(
        (
            file_head(CT, sop_uid, EXPLICIT_LE, "PACS"),
            element(0x00080016, "UI", CT),
            element(0x00080018, "UI", sop_uid),
            element(0x00100010, "PN", "PAT-TROIS^DOMINIQUE"),
            element(0x00100020, "LO", "IPP"),
            element(0x0020000D, "UI", study_uid),
            element(0x0020000E, "UI", series_uid),
            element(0x00200013, "IS", str(int.from_bytes(seed[:2], "big"))),
            write(0x7FE00010, "OW", pixels, _ENCODING),
        )
    )


@dataclass(frozen=True)
class Stored:
    sop_instance_uid: str
    path: Path
    size: int


@dataclass(frozen=True)
class Kos:
    structure: str
    study_uid: str
    kos_uid: str
    state: str
    ins: Ins
    pacs: str
    kos: bytes = b""


@dataclass
class Exam:
    """One study with one series, and its KOS."""

    images: int = 8
    size: int = 4000
    ins: Ins = INS
    study_uid: str = field(default_factory=new_uid)
    series_uid: str = field(default_factory=new_uid)
    kos_uid: str = field(default_factory=new_uid)
    patient: str = "IPP"

    def __post_init__(self) -> None:
        self.uids = [new_uid() for _ in range(self.images)]

    @property
    def expected(self) -> frozenset[str]:
        return frozenset(self.uids)

    @property
    def kos(self) -> Kos:
        return Kos("site-a", self.study_uid, self.kos_uid, "current", self.ins, "pacs")

    def content(self, uid: str) -> bytes:
        return image(self.study_uid, self.series_uid, uid, self.size)

    def served(self, uid: str) -> bytes:
        """What a caller must get: the image with the INS in it."""
        content = self.content(uid)
        change = with_ins(content, self.ins)
        return change.head + content[change.rest :]

    def study(self, without: Collection[str] = ()) -> Study:
        instances = tuple(Instance(CT, uid) for uid in self.uids if uid not in without)
        series = (Series(self.series_uid, "CT", 1, "", "", instances),)
        return Study(self.study_uid, self.patient, "", "", "", "", "", "", "", "", "", "", "", series)


@dataclass
class Pacs:
    """``SeriesSource`` and ``StudyFinder``. ``gate`` is waited for before each image after the first."""

    spool: Path
    exams: dict[str, Exam] = field(default_factory=dict)
    fail_at: int | None = None
    failure: DrimboxError = field(default_factory=lambda: Unavailable("Le PACS ne répond pas", code="pacs-cut"))
    find_failure: DrimboxError | None = None
    lost: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None
    pause: float = 0.0
    twice: bool = False
    retrieves: list[tuple[str, str | None, frozenset[str]]] = field(default_factory=list)
    finds: int = 0
    given: int = 0
    running: int = 0
    cancelled: int = 0

    def add(self, exam: Exam) -> Exam:
        self.exams[exam.study_uid] = exam
        return exam

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[AsyncIterator[Stored]]:
        self.retrieves.append((study_uid, series_uid, frozenset(expected)))
        self.running += 1
        folder = self.spool / f"retrieve-{next(_numbers)}"
        folder.mkdir(parents=True)
        whole = asyncio.Event()
        try:
            yield self._images(folder, self.exams[study_uid], expected, whole)
        finally:
            self.running -= 1
            self.cancelled += not whole.is_set()
            shutil.rmtree(folder)

    async def _images(
        self, folder: Path, exam: Exam, expected: Collection[str], whole: asyncio.Event
    ) -> AsyncIterator[Stored]:
        for index, uid in enumerate(exam.uids):
            if self.fail_at is not None and index >= self.fail_at:
                raise self.failure
            if self.gate is not None and index:
                await self.gate.wait()
            await asyncio.sleep(self.pause)
            if uid not in expected or uid in self.lost:
                continue
            path = folder / f"{index}.dcm"
            path.write_bytes(exam.content(uid))
            self.given += 1
            stored = Stored(uid, path, path.stat().st_size)
            yield stored
            if self.twice:
                yield stored
        if self.lost & set(expected):
            raise Unavailable("Le PACS n'a pas tout envoyé", code="pacs-instances-missing")
        whole.set()

    async def find(self, study_uid: str) -> Study | None:
        self.finds += 1
        await asyncio.sleep(0)
        if self.find_failure is not None:
            raise self.find_failure
        exam = self.exams.get(study_uid)
        return exam.study(self.lost) if exam is not None else None


@dataclass
class World:
    """A cache on a folder, and the PACS behind it."""

    folder: Path
    pacs: Pacs
    limits: Limits
    clock: Clock
    sealed: bool = False
    master: bytes = MASTER
    rejected: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    cache: Cache = field(init=False)

    @property
    def store(self) -> Store:
        return self.cache.store

    @property
    def flights(self) -> Flights:
        return self.cache.flights

    def source(self, exam: Exam) -> CachedSource:
        return self.cache.source(exam.kos, self.pacs, self.pacs)

    async def fetch(self, exam: Exam, uids: Collection[str] | None = None) -> dict[str, bytes]:
        """Everything of an exam, as it is served."""
        got: dict[str, bytes] = {}
        async with self.source(exam).retrieve(exam.study_uid, exam.series_uid, uids or exam.expected) as images:
            async for one in images:
                got[one.sop_instance_uid] = content(one, exam)
        return got

    async def quiet(self) -> None:
        """Until no retrieve is under way and nothing is being removed."""
        async with asyncio.timeout(60):
            while self.flights.count or self.flights.tasks:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)
            await self.store.settle()

    def files(self) -> list[Path]:
        return sorted(p for p in self.folder.rglob("*") if p.is_file() and p.name != ".lock")


def content(one: StoredInstance, exam: Exam) -> bytes:
    """An image as a caller gets it: with its INS."""
    if isinstance(one, KeptInstance):
        indexed = one.indexed
        assert indexed is not None
        head, rest = one.head(wait=True), bytearray(indexed.size - indexed.rest)
        assert head is not None
        assert indexed.head_size == len(head)
        assert one.read_into(indexed.rest, memoryview(rest), wait=True)
        return head + rest
    data = one.path.read_bytes()
    change = with_ins(data, exam.ins)
    return change.head + data[change.rest :]


def right(exam: Exam) -> dict[str, bytes]:
    return {uid: exam.served(uid) for uid in exam.uids}


@asynccontextmanager
async def world(
    folder: Path,
    *,
    limits: Limits | None = None,
    clock: Clock | None = None,
    sealed: bool = False,
    master: bytes = MASTER,
    pacs: Pacs | None = None,
) -> AsyncIterator[World]:
    chosen = limits or Limits(min_free=0)
    here = World(folder / "cache", pacs or Pacs(folder / "spool"), chosen, clock or SystemClock(), sealed, master)

    async def tell(code: str, reason: str) -> None:
        here.told.append(code)

    async def rejected(study_uid: str) -> Collection[str]:
        return here.rejected

    async with (
        opened(here.folder, master, chosen, here.clock, sealed=sealed, tell=tell) as store,
        sharing(store, chosen, here.clock, rejected) as here.cache,
    ):
        yield here
