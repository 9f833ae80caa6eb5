"""Visits in small: a real cache, real files, a PACS that does what a test says, a guard as the door's, real TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount

from drimbox.cache import store
from drimbox.cache.limits import Limits as CacheLimits
from drimbox.cache.source import Cache, sharing
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError, Refused, Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.foundation.http_guard import Guard
from drimbox.foundation.http_server import serving
from drimbox.foundation.uids import new_secret, new_uid
from drimbox.identity.ins import Ins, key
from drimbox.images.workers import WorkerPool
from drimbox.link.visit import Visit, Visitor, Who
from drimbox.link_images.app import Limits, LinkImages, link_images
from drimbox.link_images.desk import Form
from drimbox.manifest.build import encode
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.manifest.read import read_manifest
from drimbox.pacs.study import Instance, Series, Study
from drimbox.record.audit import Event, Kind
from drimbox.record.logs import correlated
from drimbox.reports.report import Visibility
from drimbox.store.database import Connection

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
NOW = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
NAME = "PAT-TROIS^DOMINIQUE"
CT = Path(str(get_testdata_file("CT_small.dcm")))
FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


def another_ins(number: int) -> Ins:
    thirteen = f"2790351215{number:03d}"
    return Ins.of(thirteen + key(thirteen), INS.oid)


@dataclass(frozen=True)
class Stored:
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
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
    kos: bytes
    visibility: Visibility = field(default_factory=Visibility)


@dataclass
class Exam:
    """One study: its files by series, in the order in which the PACS sends them."""

    study_uid: str
    series: dict[str, list[Path]]
    ins: Ins = INS
    birth_date: str = "19790328"
    kos_uid: str = field(default_factory=new_uid)
    modality: str = "CT"
    description: str = "SCANNER DU THORAX"

    _listed: dict[str, list[Stored]] = field(default_factory=dict, init=False)

    def listed(self) -> dict[str, list[Stored]]:
        if not self._listed:
            self._listed = {uid: [_stored(path) for path in paths] for uid, paths in self.series.items()}
        return self._listed

    @property
    def first_series(self) -> str:
        return next(iter(self.series))

    def uids(self, series_uid: str) -> list[str]:
        return [each.sop_instance_uid for each in self.listed()[series_uid]]

    def manifest(self) -> Manifest:
        base = f"https://db.example/studies/{self.study_uid}/series"
        series = tuple(
            ManifestSeries(
                uid,
                f"{base}/{uid}",
                self.modality,
                number,
                f"Série n° {number}",
                tuple(Instance(i.sop_class_uid, i.sop_instance_uid, n) for n, i in enumerate(images, 1)),
            )
            for number, (uid, images) in enumerate(self.listed().items(), 1)
        )
        return Manifest(
            kos_uid=self.kos_uid,
            study_uid=self.study_uid,
            study_date="20260504",
            description=self.description,
            ins=self.ins,
            patient_name=NAME,
            birth_date=self.birth_date,
            sex="F",
            birth_place="63220",
            requests=(),
            series=series,
            series_uid=new_uid(),
            created=NOW,
        )

    def kos(self, state: str = "current", visibility: Visibility | None = None) -> Kos:
        content = encode(self.manifest())
        return Kos("site-a", self.study_uid, self.kos_uid, state, self.ins, "pacs", content, visibility or Visibility())

    def study(self, without: Collection[str] = ()) -> Study:
        series = tuple(
            Series(
                uid,
                self.modality,
                number,
                "",
                "",
                tuple(
                    Instance(i.sop_class_uid, i.sop_instance_uid) for i in images if i.sop_instance_uid not in without
                ),
            )
            for number, (uid, images) in enumerate(self.listed().items(), 1)
        )
        return Study(self.study_uid, "IPP", "", "", "", "", "", "", "", "", "", "", "", series)


def _stored(path: Path) -> Stored:
    with pydicom.dcmread(path, stop_before_pixels=True) as ds:
        syntax = str(ds.file_meta.TransferSyntaxUID)
        return Stored(str(ds.SOPClassUID), str(ds.SOPInstanceUID), syntax, path, path.stat().st_size)


Change = Callable[[pydicom.Dataset, int], None]


def make_exam(
    folder: Path,
    *,
    series: int = 1,
    images: int = 6,
    source: Path = CT,
    ins: Ins = INS,
    change: Change | None = None,
    mark: int = 0,
) -> Exam:
    """A study of slices of which no two look alike; ``mark`` sets those of one exam apart from those of another."""
    study_uid, made = new_uid(), {}
    folder = folder / study_uid
    folder.mkdir(parents=True)
    for place in range(series):
        series_uid = new_uid()
        made[series_uid] = []
        for number in range(images):
            ds = pydicom.dcmread(source)
            ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study_uid, series_uid, new_uid()
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = NAME, "IPP", "19790328", "F"
            ds.SeriesNumber, ds.InstanceNumber = place + 1, number + 1
            for tag in ("OtherPatientIDs", "OtherPatientIDsSequence"):
                if tag in ds:
                    del ds[tag]
            if (
                "PixelData" in ds
                and not ds.file_meta.TransferSyntaxUID.is_compressed
                and ds.get("SamplesPerPixel", 1) == 1
            ):
                ds.PixelData = np.roll(ds.pixel_array, (40 * place + 3 * number, mark), axis=(0, 1)).tobytes()
                ds.ImagePositionPatient = [0, 0, 5 * number]
            if change is not None:
                change(ds, number)
            path = folder / f"{ds.SOPInstanceUID}.dcm"
            ds.save_as(path)
            made[series_uid].append(path)
    return Exam(study_uid, made, ins)


@dataclass
class Pacs:
    """``SeriesSource`` and ``StudyFinder``: sends copies of the files, and fails as told."""

    spool: Path
    exams: dict[str, Exam] = field(default_factory=dict)
    fail_at: int | None = None
    failure: DrimboxError = field(default_factory=lambda: Unavailable("Le PACS ne répond pas", code="pacs-cut"))
    find_failure: DrimboxError | None = None
    lost: set[str] = field(default_factory=set)
    gate: asyncio.Semaphore | None = None
    swapped: dict[str, Path] = field(default_factory=dict)
    retrieves: list[tuple[str, str | None, frozenset[str]]] = field(default_factory=list)
    running: int = 0

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[AsyncIterator[Stored]]:
        self.retrieves.append((study_uid, series_uid, frozenset(expected)))
        self.running += 1
        folder = self.spool / f"retrieve-{next(_numbers)}"
        folder.mkdir(parents=True)
        try:
            yield self._images(folder, self.exams[study_uid], series_uid, expected)
        finally:
            self.running -= 1
            shutil.rmtree(folder)

    async def _images(
        self, folder: Path, exam: Exam, series_uid: str | None, expected: Collection[str]
    ) -> AsyncIterator[Stored]:
        left = set(expected)
        for uid, images in exam.listed().items():
            if series_uid not in (None, uid):
                continue
            for index, image in enumerate(images):
                if self.fail_at is not None and index >= self.fail_at and left:
                    raise self.failure
                if image.sop_instance_uid not in expected or image.sop_instance_uid in self.lost:
                    continue
                if self.gate is not None:
                    await self.gate.acquire()
                await asyncio.sleep(0)
                left.discard(image.sop_instance_uid)
                path = folder / image.path.name
                shutil.copyfile(self.swapped.get(image.sop_instance_uid, image.path), path)
                yield replace(image, path=path, size=path.stat().st_size)
        if self.lost & set(expected):
            raise Unavailable("Le PACS n'a pas tout envoyé", code="pacs-instances-missing")

    async def find(self, study_uid: str) -> Study | None:
        if self.find_failure is not None:
            raise self.find_failure
        exam = self.exams.get(study_uid)
        return exam.study(self.lost) if exam is not None else None


@dataclass
class Archive:
    """``publication.archive.Archive``, as far as it is asked."""

    held: dict[str, Kos] = field(default_factory=dict)

    async def by_kos_uid(self, kos_uid: str) -> Kos | None:
        return self.held.get(kos_uid)

    async def current(self, study_uid: str, structure: str | None = None) -> Kos | None:
        found = (k for k in self.held.values() if k.study_uid == study_uid and k.state == "current")
        return next((k for k in found if structure in (None, k.structure)), None)


@dataclass
class Journal:
    events: list[Event] = field(default_factory=list)

    async def write(self, connection: Connection | None, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]


class Closed(Refused):
    """What a door says where none is open."""


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for what happens on the other side of a connection."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@dataclass
class Site:
    """A listener with the room behind a guard. ``doors``: the visits that are open, with the secret of each."""

    pacs: Pacs
    cache: Cache
    archive: Archive
    journal: Journal
    scratch: Path
    trust: ssl.SSLContext
    http: HttpClient
    doors: dict[str, tuple[Visit, str]] = field(default_factory=dict)
    asked: int = 0
    room: LinkImages | None = None
    port: int = 0

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    async def opened(self, request: Request) -> Visit:
        """The guard: the visit of the address, for the browser that holds its secret."""
        self.asked += 1
        door = self.doors.get(request.path_params["key"])
        if door is None or request.cookies.get(f"visite-{door[0].key}") != door[1]:
            raise Closed("Cette page n'est plus ouverte", code="link-closed")
        return door[0]

    def publish(self, exam: Exam, visibility: Visibility | None = None) -> Exam:
        self.pacs.exams[exam.study_uid] = exam
        self.archive.held[exam.kos_uid] = exam.kos(visibility=visibility)
        return exam

    def state(self, exam: Exam, state: str) -> None:
        self.archive.held[exam.kos_uid] = replace(self.archive.held[exam.kos_uid], state=state)

    def enter(self, exam: Exam, visitor: Visitor = Visitor.PATIENT, series_uid: str | None = None) -> Visit:
        professional = visitor is Visitor.PROFESSIONAL
        who = Who(visitor, NOW, "Dr DOC0018889 KIT", "899700218896") if professional else Who(visitor, NOW)
        visit = Visit(new_secret()[:22], who, exam.ins, exam.study_uid, exam.kos_uid, series_uid)
        self.doors[visit.key] = (visit, new_secret())
        return visit

    def cookie(self, visit: Visit) -> dict[str, str]:
        return {"name": f"visite-{visit.key}", "value": self.doors[visit.key][1], "url": self.origin}

    def url(self, visit: Visit, path: str = "/") -> str:
        return f"{self.origin}/visite/{visit.key}{path}"

    async def get(
        self,
        visit: Visit,
        path: str = "/",
        *,
        key: str = "",
        accept: str = "*/*",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """As the browser of ``visit`` asks, at the address of its own visit or of another one (``key``)."""
        secret = self.doors[visit.key][1] if visit.key in self.doors else "over"
        own = {"Cookie": f"visite-{visit.key}={secret}", "Accept": accept, **(headers or {})}
        address = f"{self.origin}/visite/{key or visit.key}{path}"
        return await self.http.send(method, address, tls=self.trust, headers=own, timeout=30, max_bytes=2**28)

    def image_path(self, exam: Exam, number: int = 0, more: str = "", series: int = 0) -> str:
        uid = list(exam.series)[series]
        return f"/dicomweb/studies/{exam.study_uid}/series/{uid}/instances/{exam.uids(uid)[number]}{more}"

    def series_path(self, exam: Exam, more: str = "", series: int = 0) -> str:
        return f"/dicomweb/studies/{exam.study_uid}/series/{list(exam.series)[series]}{more}"


@asynccontextmanager
async def running(
    folder: Path,
    *,
    workers: WorkerPool,
    viewer_dir: Path,
    server: ssl.SSLContext,
    trust: ssl.SSLContext,
    forms: tuple[Form, ...] = (Form.DICOM, Form.JPEG),
    sealed: bool = False,
    max_gb: float = 1,
    whole: bool = True,
    limits: Limits | None = None,
) -> AsyncIterator[Site]:
    clock, chosen = SystemClock(), CacheLimits(max_bytes=int(max_gb * 2**30), min_free=0, whole=whole)
    scratch = folder / "scratch"
    scratch.mkdir()

    async def tell(code: str, reason: str) -> None:
        raise AssertionError(code)

    async def rejected(study_uid: str) -> Collection[str]:
        return ()

    async with (
        store.opened(folder / "cache", b"m" * 32, chosen, clock, sealed=sealed, tell=tell) as kept,
        sharing(kept, chosen, clock, rejected) as cache,
        HttpClient() as http,
    ):
        site = Site(Pacs(folder / "spool"), cache, Archive(), Journal(), scratch, trust, http)
        async with link_images(
            box_name="Clinique des Essais",
            archive=site.archive,
            read_manifest=read_manifest,
            choose_source=lambda kos: cache.source(kos, site.pacs, site.pacs),
            choose_finder=lambda kos: site.pacs,
            transcoder=workers,
            scratch=scratch,
            journal=site.journal,
            clock=clock,
            viewer_dir=viewer_dir,
            forms=forms,
            leaving="/fin",
            limits=limits,
        ) as site.room:
            app = Guard(
                Starlette(
                    routes=[
                        Mount("/visite/{key}", routes=site.room.routes(site.opened)),
                        *site.room.public_routes(),
                    ],
                    exception_handlers={DrimboxError: _refused},
                ),
                clock=clock,
                public_url="https://localhost",
                doors=frozenset(),
                per_minute=60,
                complete=_complete,
                correlated=correlated,
            )
            async with serving(app, host="localhost", port=0, tls=server) as site.port:
                yield site


Open = Callable[..., AbstractAsyncContextManager[Site]]
"""``running`` with all that is the same for every test."""


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, DrimboxError)
    return PlainTextResponse(error.reason, 404)


def _complete(headers: MutableHeaders) -> None:
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    headers.setdefault("Referrer-Policy", "no-referrer")
